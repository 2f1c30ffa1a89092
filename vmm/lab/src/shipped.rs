//! Files that are shipped with refault. The first line of each is the question that it answers.

/// Reads the file at a path; injected, because this crate does not access files.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

/// A [`ReadFile`] without files: only shipped names can be opened.
///
/// # Errors
/// Always [`NotFound`](std::io::ErrorKind::NotFound).
pub fn no_files(_: &str) -> std::io::Result<String> {
    Err(std::io::ErrorKind::NotFound.into())
}

/// Named files, in the order of the list.
pub struct Shipped(pub(super) &'static [(&'static str, &'static str)]);

impl Shipped {
    /// All names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    /// The text of a file.
    pub fn text(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Each name with its title, the first line of the comment.
    pub fn titles(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let title =
            |text: &'static str| text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        self.0.iter().map(move |(name, text)| (*name, title(text)))
    }
}

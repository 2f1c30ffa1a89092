//! Files that come with refault, each an answer to a question that its first lines ask.

/// How files are read: from a disk, or not at all. Takes a path, and gives the text.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> std::io::Result<String>;

/// Reads no file: only what is shipped can be opened.
///
/// # Errors
/// Always.
pub fn no_files(_: &str) -> std::io::Result<String> {
    Err(std::io::ErrorKind::NotFound.into())
}

/// Names and texts, in the order in which they are listed.
pub struct Shipped(pub(super) &'static [(&'static str, &'static str)]);

impl Shipped {
    /// Names of all.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    /// The file of that name.
    pub fn text(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Names, and what each shows: the first line of its comment.
    pub fn titles(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let title =
            |text: &'static str| text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
        self.0.iter().map(move |(name, text)| (*name, title(text)))
    }
}

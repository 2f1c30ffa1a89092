//! Finds the Debian archive that this machine already uses; refault has no default.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Variable that overrides the archive: a URI as in sources.list.
pub const MIRROR_VARIABLE: &str = "REFAULT_MIRROR";

/// Archive URIs in apt's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// URI of the main archive.
    pub main: String,
    /// The security archive, if the machine uses one.
    pub security: Option<String>,
}

impl Mirror {
    /// Finds the archive: from the environment, otherwise from apt's own view of its sources, otherwise from its
    /// configuration files.
    ///
    /// # Errors
    /// None of them names a Debian archive; the message says what to set.
    pub fn find() -> Result<Self> {
        let targets = Command::new("apt-get")
            .args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
            .output();
        let targets =
            targets.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let configured =
            || from_targets(&targets).or_else(|| from_files(&source_files(Path::new("/etc/apt"))));
        let wanted = std::env::var(MIRROR_VARIABLE).ok().filter(|uri| !uri.is_empty());
        choose(wanted, configured)
    }

    /// Lines of a sources.list for `suites` of the main archive, with updates and security of `release`.
    pub fn source_lines(&self, kinds: &[&str], suites: &[&str], keyring: &str) -> String {
        let main = suites.iter().map(|suite| (self.main.as_str(), (*suite).to_string()));
        let security = self.security.iter().flat_map(|uri| {
            let releases = suites.iter().filter(|suite| !suite.contains('-'));
            releases.map(move |suite| (uri.as_str(), format!("{suite}-security")))
        });
        let mut lines = String::new();
        for (uri, suite) in main.chain(security) {
            for kind in kinds {
                lines += &format!("{kind} [signed-by={keyring}] {uri} {suite} main\n");
            }
        }
        lines
    }
}

fn choose(wanted: Option<String>, configured: impl FnOnce() -> Option<Mirror>) -> Result<Mirror> {
    match wanted.map(|main| Mirror { main, security: None }).or_else(configured) {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "no Debian archive found in this machine's apt configuration: set {MIRROR_VARIABLE} to the URI of one"
        ),
    }
}

/// From lines of `origin|label|uri`, which apt knows once it has fetched its lists.
fn from_targets(lines: &str) -> Option<Mirror> {
    let uri = |wanted: &str| {
        let of = |line: &str| {
            let mut fields = line.split('|');
            let (origin, label, uri) = (fields.next()?, fields.next()?, fields.next()?);
            (origin == "Debian" && label == wanted).then(|| uri.trim_end_matches('/').to_string())
        };
        lines.lines().find_map(of)
    };
    Some(Mirror { main: uri("Debian")?, security: uri("Debian-Security") })
}

/// From sources in either format. An archive is recognised by the last component of its path, as on Debian's
/// mirrors.
fn from_files(files: &[String]) -> Option<Mirror> {
    let uris: Vec<_> = files.iter().flat_map(|text| uris_of(text)).collect();
    let ending = |name: &str| {
        let of =
            |uri: &&String| uri.rsplit('/').next() == Some(name) || uri.ends_with(&format!("/{name}.list"));
        uris.iter().find(of).cloned()
    };
    Some(Mirror { main: ending("debian")?, security: ending("debian-security") })
}

/// URIs of binary packages in one file: one-line format, or the `URIs:` fields of the stanza format.
fn uris_of(text: &str) -> Vec<String> {
    let mut uris = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("URIs:") {
            uris.extend(list.split_whitespace().map(ToString::to_string));
        } else if let Some(rest) = line.strip_prefix("deb ") {
            let rest = rest.trim_start();
            let rest = if rest.starts_with('[') {
                rest.split_once(']').map_or("", |(_, after)| after)
            } else {
                rest
            };
            uris.extend(rest.split_whitespace().next().map(ToString::to_string));
        }
    }
    uris.iter().map(|uri| uri.trim_end_matches('/').to_string()).collect()
}

/// Contents of sources.list and of the files in sources.list.d, in apt's order.
fn source_files(apt: &Path) -> Vec<String> {
    let mut paths = vec![apt.join("sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|kind| kind == "list" || kind == "sources"))
        .collect();
    parts.sort();
    paths.append(&mut parts);
    paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_found_by_apts_origins() {
        let lines = "Other|Debian|http://other.example/debian/\n\
                     Debian|Debian-Security|http://mirror.example/debian-security/\n\
                     Debian|Debian|http://mirror.example/debian/\n";
        let mirror = from_targets(lines).expect("the third line");
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://mirror.example/debian-security"));
        assert_eq!(from_targets("||http://mirror.example/debian/\n"), None);
    }

    #[test]
    fn both_formats_of_sources_are_read() {
        let one_line = "# deb http://old.example/debian x main\n\
                        deb [arch=amd64 signed-by=/k] http://apt.example/chrome/deb/ stable main\n\
                        deb [arch=amd64] http://mirror.example/debian/ trixie main\n"
            .to_string();
        let stanza =
            "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: trixie-security\n".to_string();
        let mirror = from_files(&[one_line, stanza]).expect("both are there");
        assert_eq!(mirror.main, "http://mirror.example/debian");
        assert_eq!(mirror.security.as_deref(), Some("http://mirror.example/debian-security"));
    }

    #[test]
    fn mirror_lists_of_cloud_images_are_taken_as_they_are() {
        let text = "URIs: mirror+file:///etc/apt/mirrors/debian.list\n".to_string();
        let mirror = from_files(&[text]).expect("a list of mirrors");
        assert_eq!(mirror.main, "mirror+file:///etc/apt/mirrors/debian.list");
    }

    #[test]
    fn without_an_archive_the_variable_is_named() {
        let error = choose(None, || from_files(&["deb http://x.example/ubuntu noble main\n".into()]));
        assert!(error.expect_err("no Debian").to_string().contains(MIRROR_VARIABLE));
        let wanted = choose(Some("http://mine.example/debian".into()), || None).expect("given");
        assert_eq!(wanted, Mirror { main: "http://mine.example/debian".into(), security: None });
    }

    #[test]
    fn security_follows_the_release_only() {
        let mirror = Mirror { main: "M".into(), security: Some("S".into()) };
        let lines = mirror.source_lines(&["deb"], &["trixie", "trixie-updates"], "K");
        assert_eq!(
            lines,
            "deb [signed-by=K] M trixie main\ndeb [signed-by=K] M trixie-updates main\n\
             deb [signed-by=K] S trixie-security main\n"
        );
    }
}

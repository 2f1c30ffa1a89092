//! Which variables of the user's environment a program in the nested machine gets: those that are about its output and its
//! place in the file system. A token of some other service is not among them.

use std::ffi::{OsStr, OsString};

const NAMES: [&str; 15] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TERM",
    "LANG",
    "LANGUAGE",
    "TZ",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "CLICOLOR_FORCE",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "XDG_CACHE_HOME",
];
const PREFIXES: [&str; 2] = ["LC_", "REFAULT_"];

/// The variables among `all` that are passed on.
pub(super) fn passed_on(all: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    all.into_iter().filter(|(name, _)| is_passed_on(name)).collect()
}

fn is_passed_on(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_agents_stay_outside() {
        let given = [
            "PATH",
            "LC_ALL",
            "REFAULT_HOST",
            "RUST_LOG",
            "AWS_SECRET_ACCESS_KEY",
            "SSH_AUTH_SOCK",
            "GITHUB_TOKEN",
        ];
        let passed = passed_on(given.map(|name| (name.into(), "x".into())));
        let names: Vec<_> = passed.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names, given[..4]);
    }
}

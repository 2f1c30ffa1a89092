//! Texts of users' files.

use refault_timing::TextError;

use crate::fuzz::feed::Feed;

/// Pieces of values, valid and not.
const VALUES: &[&str] = &[
    "0",
    "1",
    "64",
    "4096",
    "-1",
    "18446744073709551615",
    "99999999999999999999",
    "0.0",
    "0.5",
    "1.0",
    "1e300",
    "nan",
    "-inf",
    "true",
    "false",
    "\"4 KiB\"",
    "\"64 MiB\"",
    "\"0 B\"",
    "\"16777216 TiB\"",
    "\"220 us\"",
    "\"0 ns\"",
    "\"1 h\"",
    "\"9e99 s\"",
    "\"random\"",
    "\"sequential\"",
    "\"strided\"",
    "\"zipf\"",
    "\"closed\"",
    "\"poisson\"",
    "\"pasid\"",
    "\"odp\"",
    "\"pinned\"",
    "\"evict\"",
    "\"none\"",
    "\"example\"",
    "\"npf-2017\"",
    "[\"none\", \"uffd\"]",
    "[]",
    "[0, 1]",
    "{ uniform = [\"1 us\", \"3 us\"] }",
    "{ exponential = \"50 us\" }",
    "{ log_normal = \"215 us\", sigma = 0.2 }",
    "{ table = [[0, \"1 us\"], [1, \"9 us\"]] }",
    "{ table = [[0, \"1 us\"], [0, \"2 us\"], [1, \"2 us\"]] }",
    "1979-05-27",
];

/// A text: the input itself, or lines made of its sections, keys and values.
pub(super) fn text(bytes: &[u8], sections: &[&str], keys: &[&str]) -> String {
    let mut feed = Feed::new(bytes);
    if feed.byte() != 0xff {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("requests = 10\npreset = \"example\"\n");
    while !feed.is_empty() {
        match feed.below(8) {
            0 => text += &format!("[{}]\n", feed.pick(sections)),
            1 => text += &String::from_utf8_lossy(feed.bytes(16)),
            _ => text += &format!("{} = {}\n", feed.pick(keys), feed.pick(VALUES)),
        }
    }
    text
}

/// An error names a place in the text, or directly behind it, and what to do.
pub(super) fn check_error(error: &TextError, text: &str) {
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&error.line), "line {} of {lines}: {error}", error.line);
    let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
    assert!((1..=line.chars().count() + 2).contains(&error.column), "{error}");
    assert!(!error.what.is_empty() && !error.remedy.is_empty(), "{error}");
}

//! The pages: each a pure function of a run's files.

pub(super) mod comparison;
pub(super) mod demo;
pub(super) mod experiment;
mod latency;
mod notes;
mod policies;
mod sampled;
mod scenarios;
pub(super) mod sweep;

use super::experiment::TimeBase;

const SKELETON: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// A self-contained page.
fn page(title: &str, body: &str) -> String {
    fill(SKELETON, &[("title", title), ("style", STYLE), ("body", body), ("script", SCRIPT)])
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

/// Tiles with the key figures: values and labels.
fn tiles(tiles: &[(String, &str)]) -> String {
    let tile = |(value, name): &(String, &str)| format!("<li><b>{value}</b><span>{name}</span></li>\n");
    format!("<ul class=\"tiles\">\n{}</ul>\n", tiles.iter().map(tile).collect::<String>())
}

/// States the clock of the page's times.
fn time_label(time: TimeBase) -> String {
    format!("<p class=\"time\"><b>Times: {}.</b> {}</p>\n", time.label(), time.about())
}

/// Replaces `{{name}}` placeholders in one pass, so values may contain placeholders.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        let Some((name, tail)) = after.split_once("}}") else { break };
        out += values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
        rest = tail;
    }
    out + rest
}

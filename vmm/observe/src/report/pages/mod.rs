//! The pages: each a pure function of what a run's files hold.

pub(super) mod comparison;
pub(super) mod demo;
pub(super) mod experiment;
mod latency;
mod notes;
mod scenarios;
pub(super) mod sweep;
mod watched;

use super::experiment::TimeBase;

const SKELETON: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/page.js");

/// A whole page, which needs nothing but itself.
fn page(title: &str, body: &str) -> String {
    fill(SKELETON, &[("title", title), ("style", STYLE), ("body", body), ("script", SCRIPT)])
}

fn section(id: &str, title: &str, content: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{content}</section>\n")
}

/// The figures that matter most: values and what they are.
fn tiles(tiles: &[(String, &str)]) -> String {
    let tile = |(value, name): &(String, &str)| format!("<li><b>{value}</b><span>{name}</span></li>\n");
    format!("<ul class=\"tiles\">\n{}</ul>\n", tiles.iter().map(tile).collect::<String>())
}

/// Whose time the page is about: nobody should have to guess.
fn time_label(time: TimeBase) -> String {
    format!("<p class=\"time\"><b>Times: {}.</b> {}</p>\n", time.label(), time.about())
}

/// Puts values into `{{name}}` places, once: values may hold such places without harm.
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

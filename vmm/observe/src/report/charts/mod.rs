//! The charts: each a function from statistics to an SVG element.

pub(super) mod bars;
pub(super) mod cumulative;
pub(super) mod heat;
pub(super) mod lines;
pub(super) mod overview;
pub(super) mod path_picture;
pub(super) mod ridges;
pub(super) mod stack;
pub(super) mod svg;
pub(super) mod timeline;

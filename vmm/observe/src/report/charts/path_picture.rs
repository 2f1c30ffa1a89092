//! The path of one DMA as a picture: four lanes, sixteen steps, and the measured times beside them. The steps are those of
//! "One DMA, from doorbell to completion" in `docs/architecture.md`.

use super::svg::{Drawing, Frame};
use crate::report::digest::Group;
use crate::report::units::duration;
use crate::trace::SEGMENTS;

/// The lanes: title, subtitle for a real guest and for the model, and CSS class of the steps.
const LANES: [(&str, [&str; 2], &str); 4] = [
    ("process", ["in the guest, a verbs program", "the model's load"], "process"),
    ("NIC", ["refault's device", "refault's device"], "device"),
    ("IOMMU", ["refault's VT-d", "refault's VT-d"], "iommu"),
    ("guest", ["unmodified kernel", "the model's fault handlers"], "guest"),
];

/// The steps: lane, two lines of text, and the next lane with the message to it, if there is one.
type Step = (usize, [&'static str; 2], Option<(usize, &'static str)>);

const STEPS: [Step; 16] = [
    (0, ["writes a work request,", "rings the doorbell"], Some((1, "MMIO write"))),
    (1, ["the write has left the guest", "and reaches the device"], None),
    (1, ["the doorbell puts the queue", "pair on its worker's list"], None),
    (1, ["the worker fetches and", "decodes the request"], None),
    (1, ["hands it to the peer, a queue", "pair of the same device"], None),
    (1, ["checks key and bounds; the", "region says: by PASID"], None),
    (1, ["device TLB: a miss", ""], Some((2, "ATS request"))),
    (2, ["context entry, PASID entry,", "walk of the page table"], None),
    (2, ["not present: answers", "without rights"], Some((1, "ATS completion"))),
    (1, ["sends the page request, the", "queue pair is parked"], Some((2, "PRI request"))),
    (2, ["entry in the page request", "queue, interrupt"], Some((3, "MSI"))),
    (3, ["handles the fault: maps the", "page, or allocates its block"], Some((2, "descriptor"))),
    (2, ["reads the response from the", "invalidation queue"], Some((1, "PRI response"))),
    (1, ["matches the group, the", "queue pair runs again"], None),
    (1, ["translates again and copies:", "one guarded step"], None),
    (1, ["completion entry, interrupt", "if the queue is armed"], Some((0, "completion"))),
];

/// The measured segments: first and last step (counted from 1), component, and names.
const BRACKETS: [(usize, usize, &str, &[&str]); 5] = [
    (7, 10, "device", &["send page request"]),
    (10, 11, "iommu", &["queue page request", "raise interrupt"]),
    (
        11,
        13,
        "guest",
        &["guest handles fault", "guest wakes", "wait for a handler", "map the page", "guest responds"],
    ),
    (13, 14, "iommu", &["deliver response"]),
    (14, 15, "device", &["translate and copy"]),
];

/// Short names of segments that are not the first of their bracket.
const SHORT: [(&str, &str); 5] = [
    ("raise interrupt", "interrupt"),
    ("guest wakes", "wake"),
    ("wait for a handler", "wait"),
    ("map the page", "map"),
    ("guest responds", "answer"),
];

const TOP: f64 = 58.0;
const ROW: f64 = 44.0;
const LANE: f64 = 212.0;
const BOX: f64 = 190.0;
const LEFT: f64 = 34.0;

/// Renders the picture, with the medians of `group`.
pub(in crate::report) fn picture(group: &Group, model: bool) -> String {
    let height = TOP + ROW * STEPS.len() as f64 + 8.0;
    let frame = Frame { width: 1060.0, height, left: 0.0, right: 0.0, top: 0.0, bottom: 0.0 };
    let mut out = Drawing::default();
    lanes(&mut out, height, model);
    for (index, step) in STEPS.iter().enumerate() {
        draw(&mut out, index, step);
    }
    for bracket in &BRACKETS {
        measured(&mut out, group, bracket);
    }
    frame.finish("path", "The path of one DMA through process, NIC, IOMMU and guest kernel", &out)
}

fn lane_x(lane: usize) -> f64 {
    LEFT + LANE * lane as f64
}

fn row_y(index: usize) -> f64 {
    TOP + ROW * index as f64
}

fn lanes(out: &mut Drawing, height: f64, model: bool) {
    for (lane, (title, about, class)) in LANES.iter().enumerate() {
        let x = lane_x(lane);
        out.rect("lane", (x, 4.0), (x + LANE - 6.0, height - 4.0));
        out.rect(&format!("cap {class}"), (x, 4.0), (x + LANE - 6.0, 8.0));
        out.text("lane-title", x + 12.0, 28.0, title);
        out.text("tick", x + 12.0, 44.0, about[usize::from(model)]);
    }
    let x = lane_x(LANES.len()) + 6.0;
    out.text("lane-title", x, 28.0, "measured here");
    out.text("tick", x, 44.0, "medians of this run");
}

fn draw(out: &mut Drawing, index: usize, &(lane, [first, second], hand_over): &Step) {
    let (x, y) = (lane_x(lane) + 8.0, row_y(index));
    out.text("tick end", LEFT - 8.0, y + 21.0, &(index + 1).to_string());
    out.rect(&format!("step {}", LANES[lane].2), (x, y), (x + BOX, y + ROW - 10.0));
    out.rect(&format!("edge {}", LANES[lane].2), (x, y), (x + 3.0, y + ROW - 10.0));
    let lines = if second.is_empty() { vec![(first, 21.0)] } else { vec![(first, 14.0), (second, 28.0)] };
    for (line, down) in lines {
        out.text("step-text", x + 10.0, y + down, line);
    }
    if let Some((to, message)) = hand_over {
        arrow(out, index, (lane, to), message);
    }
}

/// Draws the arrow from a step to the next lane, one row below.
fn arrow(out: &mut Drawing, index: usize, (from, to): (usize, usize), message: &str) {
    let y = row_y(index) + (ROW - 10.0) / 2.0;
    let rightwards = to > from;
    let start = lane_x(from) + 8.0 + if rightwards { BOX } else { 0.0 };
    let end = lane_x(to) + 8.0 + BOX / 2.0;
    let down = row_y(index + 1) - 2.0;
    if index + 1 == STEPS.len() {
        // The last arrow returns to the process.
        let end = lane_x(to) + 8.0 + BOX;
        out.line("arrow", (start, y), (end - 50.0, y));
        head(out, (end - 50.0, y), (-7.0, 0.0));
        out.text("message mid", end - 104.0, y + 4.0, message);
        return;
    }
    out.path("arrow", [(start, y), (end, y), (end, down - 4.0)].into_iter());
    head(out, (end, down), (0.0, 7.0));
    let x = if rightwards { end + 8.0 } else { end - 8.0 };
    out.text(if rightwards { "message" } else { "message end" }, x, y + 4.0, message);
}

/// Draws an arrow head at `tip` in the direction `along`.
fn head(out: &mut Drawing, (x, y): (f64, f64), (dx, dy): (f64, f64)) {
    let (side_x, side_y) = (dy * 0.6, dx * 0.6);
    let base = (x - dx, y - dy);
    out.path(
        "head",
        [(x, y), (base.0 + side_x, base.1 + side_y), (base.0 - side_x, base.1 - side_y), (x, y)].into_iter(),
    );
}

fn measured(out: &mut Drawing, group: &Group, &(from, to, class, names): &(usize, usize, &str, &[&str])) {
    let x = lane_x(LANES.len()) + 6.0;
    let middle = |step: usize| row_y(step - 1) + (ROW - 10.0) / 2.0;
    let (top, bottom) = (middle(from) + 2.0, middle(to) - 2.0);
    out.rect(class, (x, top), (x + 6.0, bottom));
    let who = LANES.iter().find(|lane| lane.2 == class).map_or("", |lane| lane.0);
    let mut lines: Vec<String> = names.iter().filter_map(|name| median(group, name)).collect();
    match lines.first_mut() {
        Some(first) => *first = format!("{who} {}", first.trim_start_matches("+ ")),
        None => lines.push(format!("{who} –")),
    }
    let first = (top + bottom) / 2.0 + 4.0 - 7.0 * (lines.len() as f64 - 1.0);
    for (index, line) in lines.iter().enumerate() {
        out.text("measured", x + 14.0, first + 15.0 * index as f64, line);
    }
}

fn median(group: &Group, name: &str) -> Option<String> {
    let place = SEGMENTS.iter().position(|&known| known == name)?;
    let durations = &group.segments[place];
    if durations.count() == 0 {
        return None;
    }
    let median = duration(durations.at(0.5));
    Some(match SHORT.iter().find(|(known, _)| *known == name) {
        Some((_, short)) => format!("+ {median} {short}"),
        None => median,
    })
}

//! Where the time of a fault goes: per scenario a histogram split by component, the distribution of each
//! component, and a table of the stages.

use super::markup::{Table, Text};
use super::quantities::{LogBins, PARTS, Sample, quantile};
use super::svg::{CountAxis, Drawing, Frame, TimeAxis};
use super::units::{count, duration, percent, plural};
use crate::trace::{Component, SEGMENTS};

/// The axes that all panels share, so that scenarios can be compared by switching between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axes {
    totals: LogBins,
    parts: LogBins,
}

impl Axes {
    /// Axes that hold all faults of a run.
    pub(super) fn of(all: &Sample) -> Self {
        let totals = || all.faults.iter().map(|fault| fault[0]);
        let parts = || all.faults.iter().flat_map(|fault| fault[1..4].iter().copied()).filter(|&ns| ns > 0);
        let longest = totals().max().unwrap_or(1_000_000);
        Self {
            totals: LogBins::around(totals().min().unwrap_or(1_000), longest, 12),
            parts: LogBins::around(parts().min().unwrap_or(100), longest, 12),
        }
    }
}

/// Everything about one selection of faults.
pub(super) fn panel(title: &str, sample: &Sample, axes: &Axes) -> String {
    let outcome = outcomes(sample);
    if sample.faults.is_empty() {
        return format!("<h3>{}</h3>\n<p>No fault was resolved here. {outcome}</p>\n", Text(title));
    }
    let totals = sample.sorted(0);
    let (p50, p99) = (quantile(&totals, 0.5), quantile(&totals, 0.99));
    let max = totals.last().copied().unwrap_or(0);
    format!(
        "<h3>{}</h3>\n<p>{} resolved; median <b>{}</b>, 99th percentile <b>{}</b>, longest <b>{}</b>. {outcome}</p>\n{}<h4>How many faults took how long</h4>\n{}<h4>Share of faults no longer than …</h4>\n{}<h4>Stages of a fault</h4>\n{}",
        Text(title),
        plural(totals.len() as u64, "fault", "faults"),
        duration(p50),
        duration(p99),
        duration(max),
        legend(sample),
        histogram(sample, &axes.totals),
        distribution(sample, &axes.parts),
        stages(sample),
    )
}

/// What became of the other faults.
fn outcomes(sample: &Sample) -> String {
    let [failed, coalesced, abandoned] = sample.others;
    let mut text = String::new();
    if failed > 0 {
        text += &format!("{} failed: the guest refused the page, or the device gave up. ", count(failed));
    }
    if coalesced > 0 {
        text += &format!("{} waited on another queue pair's request for the same page. ", count(coalesced));
    }
    if abandoned > 0 {
        text += &format!(
            "Of {} no end was seen: the queue pair was destroyed first, or events were lost. ",
            count(abandoned)
        );
    }
    text
}

/// The colours; "earlier rounds" only where there were any.
fn legend(sample: &Sample) -> String {
    let again = sample.sum(4) > 0;
    let shown = PARTS.iter().take(if again { 4 } else { 3 });
    let keys: String = shown
        .map(|part| format!("<li><span class=\"key {}\"></span>{}</li>", part.class, part.name))
        .collect();
    format!("<ul class=\"legend\">{keys}<li><span class=\"key whole\"></span>whole fault</li></ul>\n")
}

/// Bars over the latency of whole faults; each bar is divided as the time of its faults was.
fn histogram(sample: &Sample, bins: &LogBins) -> String {
    let frame = Frame::new(300.0);
    let mut counts = vec![0u64; bins.len];
    let mut sums = vec![[0u64; 5]; bins.len];
    for fault in &sample.faults {
        let bin = bins.bin(fault[0]);
        counts[bin] += 1;
        for (sum, part) in sums[bin].iter_mut().zip(fault) {
            *sum += part;
        }
    }
    let mut out = Drawing::default();
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    let y = CountAxis::new(frame.top, frame.y_end(), counts.iter().copied().max().unwrap_or(0));
    x.draw(&mut out, "fault latency, from miss to copy (logarithmic)");
    y.draw(&frame, &mut out, "faults");
    for bin in (0..bins.len).filter(|&bin| counts[bin] > 0) {
        let (from, to) = (bins.edge(bin), bins.edge(bin + 1));
        let tip = bar_tip((from, to), counts[bin], &sums[bin]);
        out.group("bar", &tip, |out| {
            let (left, right) = (x.x(from) + 0.75, x.x(to) - 0.75);
            out.rect("hit", (left, frame.top), (right, frame.y_end()));
            bar(out, &y, (left, right), counts[bin], &sums[bin]);
        });
    }
    frame.finish("chart", "Histogram of fault latency, each bar divided by component", &out)
}

fn bar(out: &mut Drawing, y: &CountAxis, (left, right): (f64, f64), faults: u64, sums: &[u64; 5]) {
    // A single fault must be seen beside thousands.
    let height = (y.y(0.0) - y.y(faults as f64)).max(2.0);
    let mut low = y.y(0.0);
    for (part, &sum) in PARTS.iter().zip(&sums[1..]) {
        let high = low - height * sum as f64 / sums[0].max(1) as f64;
        if low - high > 0.05 {
            out.rect(part.class, (left, high), (right, low));
        }
        low = high;
    }
}

fn bar_tip((from, to): (f64, f64), faults: u64, sums: &[u64; 5]) -> String {
    let (from, to) = (duration(from as u64), duration(to as u64));
    let mut tip = format!("{} of {from} to {to}", plural(faults, "fault", "faults"));
    for (part, &sum) in PARTS.iter().zip(&sums[1..]) {
        if sum > 0 {
            let mean = duration(sum / faults.max(1));
            tip += &format!("\n{}: {} (mean {mean})", part.name, percent(sum, sums[0]));
        }
    }
    tip
}

/// Where the axis of shares ends: one fault in so many stands beyond it.
const NINES: [(f64, &str); 7] = [
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
];

/// The distribution of the whole and of each component. The axis of shares is stretched towards the end:
/// every nine has the same height, because tails are what one waits for.
fn distribution(sample: &Sample, bins: &LogBins) -> String {
    let frame = Frame { left: 78.0, ..Frame::new(300.0) };
    let nines = (sample.faults.len() as f64).log10().ceil().clamp(2.0, 5.0);
    let height = |share: f64| -> f64 {
        let nine = -(1.0 - share).max(1e-9).log10();
        frame.y_end() - nine.min(nines) / nines * frame.inner_height()
    };
    let mut out = Drawing::default();
    let x = TimeAxis::new(frame, bins.edge(0), bins.edge(bins.len));
    x.draw(&mut out, "duration (logarithmic)");
    for (share, label) in NINES.into_iter().filter(|(share, _)| -(1.0 - share).log10() <= nines + 0.01) {
        out.line("grid", (frame.left, height(share)), (frame.x_end(), height(share)));
        out.text("tick end", frame.left - 8.0, height(share) + 4.0, label);
    }
    out.turned("label mid", (14.0, frame.top + frame.inner_height() / 2.0), -90, "share of faults");
    for (name, class, field) in
        [("device", "device", 1), ("IOMMU", "iommu", 2), ("guest", "guest", 3), ("whole fault", "whole", 0)]
    {
        let sorted = sample.sorted(field);
        let steps = (0..=160).map(|step| 1.0 - 10f64.powf(-nines * f64::from(step) / 160.0));
        let points: Vec<_> =
            steps.map(|share| (x.x(quantile(&sorted, share) as f64), height(share))).collect();
        let tip = format!(
            "{name}\nmedian {}\n90 % up to {}\n99 % up to {}\nlongest {}",
            duration(quantile(&sorted, 0.5)),
            duration(quantile(&sorted, 0.9)),
            duration(quantile(&sorted, 0.99)),
            duration(quantile(&sorted, 1.0)),
        );
        out.group("curve", &tip, |out| {
            out.path("hit", points.iter().copied());
            out.path(class, points.iter().copied());
        });
    }
    frame.finish("chart", "Distribution of fault latency and of its parts", &out)
}

/// The table of stages, in the order of the path.
fn stages(sample: &Sample) -> String {
    let mut table = Table::new(&[
        ("stage", ""),
        ("in whose hands", ""),
        ("faults", "faults in which both ends of the stage were seen"),
        ("median", ""),
        ("90\u{a0}%", "nine of ten are no longer"),
        ("99\u{a0}%", ""),
        ("99.9\u{a0}%", ""),
        ("longest", ""),
        ("share of all time", ""),
    ]);
    let whole = sample.sum(0);
    for name in SEGMENTS {
        if let Some((_, component, durations)) = sample.segments.iter().find(|(known, ..)| *known == name) {
            let part = match component {
                Component::Device => 0,
                Component::Iommu => 1,
                Component::Guest => 2,
            };
            table.row(name, &stage_cells(PARTS[part].name, PARTS[part].class, durations, whole));
        }
    }
    let again: Vec<u64> = sample.sorted(4).into_iter().filter(|&ns| ns > 0).collect();
    if !again.is_empty() {
        table.row("page gone again: earlier rounds", &stage_cells("all", "again", &again, whole));
    }
    table.row("<b>whole fault</b>", &stage_cells("", "whole", &sample.sorted(0), whole));
    table.finish("numbers stages")
}

fn stage_cells(who: &str, class: &str, sorted: &[u64], whole: u64) -> Vec<String> {
    let who =
        if who.is_empty() { String::new() } else { format!("<span class=\"key {class}\"></span>{who}") };
    let sum: u64 = sorted.iter().sum();
    let width = 100.0 * sum as f64 / whole.max(1) as f64;
    let share = format!(
        "<span class=\"share\"><span class=\"{class}\" style=\"width:{width:.1}%\"></span></span><span class=\"percent\">{}</span>",
        percent(sum, whole)
    );
    let at = |share| duration(quantile(sorted, share));
    vec![who, count(sorted.len() as u64), at(0.5), at(0.9), at(0.99), at(0.999), at(1.0), share]
}

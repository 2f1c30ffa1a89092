//! An experiment's setup and results, for its report.

use refault_nic::RemoteFaults;
use refault_observe::numbers::whole;
use refault_observe::report::units::{bytes, count, duration, percent_of, plural, short};
use refault_observe::report::{
    ExperimentReport, FactGroup, HandlerFigures, Published, RequestFigures, TimeBase,
};
use refault_timing::{Delay, Preset, Timing, UNLIMITED_BYTES_PER_US};

use crate::figures::Figures;
use crate::outcome::ExperimentOutcome;
use crate::published::applies;
use crate::scenario::{
    Arrival, Churn, ChurnOperation, Device, Guest, Load, NO_PAUSE, Pattern, Scenario, TranslationMode, Wire,
};

/// The report of an experiment on the virtual clock.
pub fn experiment(scenario: &Scenario, outcome: &ExperimentOutcome) -> ExperimentReport {
    let load = &outcome.load;
    let handlers = &outcome.handlers;
    ExperimentReport {
        version: env!("CARGO_PKG_VERSION").into(),
        title: scenario.name.clone(),
        command: String::new(),
        time: TimeBase::Virtual,
        facts: facts(scenario),
        requests: Some(RequestFigures {
            completed: load.completed,
            failed: load.failed,
            bytes: load.bytes,
            duration_ns: load.duration_ns,
            latency_ns: RequestFigures::recorded(&load.latency_ns),
        }),
        handlers: Some(HandlerFigures {
            handlers: u64::from(scenario.guest.handlers),
            faults: handlers.faults,
            prefetched: handlers.prefetched,
            mean_wait_ns: u64::try_from(handlers.wait_ns / u128::from(handlers.faults.max(1)))
                .unwrap_or(u64::MAX),
            busy_ns: u64::try_from(handlers.busy_ns).unwrap_or(u64::MAX),
            most_outstanding: handlers.most_outstanding,
        }),
        paper: Vec::new(),
        observed: outcome.records.observed.clone(),
    }
}

/// Published figures that apply to such an experiment, each with the measured one.
pub fn paper(scenario: &Scenario, figures: &Figures) -> Vec<Published> {
    let presets = scenario.presets.iter().filter_map(|name| Preset::find(name));
    let fitting = presets.flat_map(|preset| {
        let published = preset.published.iter().filter(|figure| applies(figure, preset, scenario));
        published.map(move |figure| (preset, figure))
    });
    let compared = fitting.map(|(preset, figure)| Published {
        what: figure.what(),
        published_ns: figure.ns,
        source: format!("{} ({})", preset.source, preset.certainty()),
        measured_ns: whole(figures.real(&figure.figure).round()),
    });
    compared.collect()
}

/// Describes a scenario in groups: load, device, guest, churn, timing.
pub fn facts(scenario: &Scenario) -> Vec<FactGroup> {
    let mut groups = vec![
        group("Load", load(&scenario.load, scenario)),
        group("Device", device(&scenario.device)),
        group("Guest", guest(&scenario.guest)),
    ];
    if let Some(changes) = &scenario.churn {
        groups.push(group("Changes to the memory", churn(changes)));
    }
    if let Some(of) = &scenario.wire {
        groups.push(group("Wire", wire(of)));
    }
    groups.push(group("Timing: distribution of every step, and its mean", timing(scenario)));
    groups
}

fn group(title: &str, facts: Vec<(&str, String)>) -> FactGroup {
    FactGroup {
        title: title.into(),
        facts: facts.into_iter().map(|(name, value)| (name.into(), value)).collect(),
    }
}

fn load(load: &Load, scenario: &Scenario) -> Vec<(&'static str, String)> {
    let pattern = match load.pattern {
        Pattern::Sequential => "sequential".into(),
        Pattern::Strided { stride_bytes } => format!("every {}", bytes(stride_bytes)),
        Pattern::Random => "random".into(),
        Pattern::Zipf { theta } => format!("zipf, theta {theta}"),
    };
    let arrival = match load.arrival {
        Arrival::Closed => "when a slot is free (closed loop)".into(),
        Arrival::Poisson { per_second } => format!("Poisson, {} per second (open loop)", short(per_second)),
    };
    let others = load.queue_pairs - load.bystanders;
    let evicted = match load.bystanders {
        0 => format!("{} of the requests", percent_of(load.cold_share)),
        _ => format!("{} of the requests of {others} queue pairs", percent_of(load.cold_share)),
    };
    let large = if load.large_pages { ", mapped with pages of 2 MiB" } else { "" };
    let warm = if load.warm { ", warm" } else { ", cold" };
    vec![
        ("requests", format!("{} of {}", count(scenario.requests), bytes(u64::from(load.message_bytes)))),
        ("mix", format!("{} RDMA WRITE, the others RDMA READ", percent_of(load.write_share))),
        ("target", format!("{}, {pattern}{warm}{large}", bytes(load.region_bytes))),
        ("evicted first", evicted),
        (
            "queue pairs",
            format!(
                "{}, {} each",
                count(load.queue_pairs.into()),
                plural(load.depth.into(), "request", "requests")
            ),
        ),
        ("arrival", arrival),
        ("seed", scenario.seed.to_string()),
    ]
}

fn device(device: &Device) -> Vec<(&'static str, String)> {
    let mode = match device.mode {
        TranslationMode::Pasid => "pasid: by the IOMMU, with the process's page table",
        TranslationMode::Odp => "odp: by the NIC, with the region's own table",
    };
    let remote = match device.remote_faults {
        RemoteFaults::Stall => "holds the request".into(),
        RemoteFaults::Rnr => format!("sends an RNR NAK, timer code {}", device.min_rnr_timer),
        RemoteFaults::Drop => "drops the packet".into(),
        RemoteFaults::ResumeNak => "sends an RNR NAK, and another NAK when the page is there".into(),
    };
    let timeout = match device.fault_timeout_ns {
        Some(ns) => duration(ns),
        None => "none".into(),
    };
    // A descriptor of the page request queue has 32 bytes.
    let entries = (4096u64 << device.page_request_order) / 32;
    vec![
        ("translation", mode.into()),
        ("credits", plural(device.credits.into(), "page request", "page requests")),
        ("page request queue", plural(entries, "entry", "entries")),
        ("device TLB", plural(device.atc_entries as u64, "translation", "translations")),
        ("IOTLB", plural(device.iotlb_entries as u64, "translation", "translations")),
        ("workers", count(device.workers as u64)),
        ("requested on a miss", plural(device.fault_window.into(), "page", "pages")),
        ("responder whose page is missing", remote),
        ("page request timeout", timeout),
    ]
}

fn guest(guest: &Guest) -> Vec<(&'static str, String)> {
    vec![
        ("fault handlers", count(guest.handlers.into())),
        ("under the lock", format!("{} of the handling", percent_of(guest.locked_share))),
        ("batch", plural(guest.batch.into(), "fault", "faults")),
        ("prefetch", plural(guest.prefetch.into(), "page", "pages")),
        ("major faults", percent_of(guest.major_share)),
    ]
}

fn wire(wire: &Wire) -> Vec<(&'static str, String)> {
    let rate = match wire.bytes_per_us {
        UNLIMITED_BYTES_PER_US => "unlimited".into(),
        rate => format!("{}/s", bytes(rate.saturating_mul(1_000_000))),
    };
    let pause = match wire.pause_bytes {
        NO_PAUSE => "never".into(),
        most => format!("{} kept", bytes(most)),
    };
    let yes = |is| if is { "yes" } else { "no" }.to_owned();
    let timeout = match wire.ack_timeout {
        0 => "none".into(),
        code => duration(4096 << code),
    };
    vec![
        ("lost", percent_of(wire.loss_share)),
        ("one way", duration(wire.delay_ns)),
        ("rate", rate),
        ("other impairments", wire.others().unwrap_or_else(|| "none".into())),
        ("window", plural(wire.window.into(), "packet", "packets")),
        ("kept for a page", plural(wire.buffer.into(), "packet", "packets")),
        ("stops above", pause),
        ("all pages with the first packet", yes(wire.prefault)),
        ("damming", yes(wire.damming)),
        ("ACK timeout", timeout),
        ("retries", wire.retries.to_string()),
    ]
}

fn churn(churn: &Churn) -> Vec<(&'static str, String)> {
    let what = match churn.operation {
        ChurnOperation::Evict => "pages are evicted",
        ChurnOperation::Move => "pages are moved",
        ChurnOperation::WriteProtect => "pages are write-protected",
    };
    let pages = plural(churn.pages.into(), "page", "pages");
    vec![(what, format!("{pages} at a time, {} times per second, at random", short(churn.per_second)))]
}

fn timing(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let timing = &scenario.timing;
    let steps = Timing::STEPS.iter().filter_map(|&name| Some((name, timing.step(name)?)));
    let (none, some): (Vec<_>, Vec<_>) = steps.partition(|(_, delay)| **delay == Delay::NONE);
    let mut facts: Vec<_> = some.into_iter().map(|(name, delay)| (name, in_words(delay))).collect();
    if !none.is_empty() {
        facts.push(("no time", none.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")));
    }
    if !scenario.presets.is_empty() {
        facts.insert(0, ("presets", scenario.presets.join(", ")));
    }
    facts.push((
        "bytes_per_us",
        format!("copying at {}/s", bytes(timing.bytes_per_us.saturating_mul(1_000_000))),
    ));
    facts
}

fn in_words(delay: &Delay) -> String {
    let ns = |ns: f64| duration(whole(ns.round()));
    let mean = ns(delay.mean());
    match delay {
        Delay::Constant(always) => format!("{}, always", duration(*always)),
        Delay::Uniform { low, high } => {
            format!("{} to {}, uniform: mean {mean}", duration(*low), duration(*high))
        }
        Delay::Exponential { .. } => format!("exponential: mean {mean}"),
        Delay::LogNormal { median, sigma } => {
            format!("log-normal, median {}, sigma {sigma}: mean {mean}", ns(*median))
        }
        Delay::Table(points) => match (points.first(), points.last()) {
            (Some((_, low)), Some((_, high))) => {
                format!("measured, {} to {}: mean {mean}", duration(*low), duration(*high))
            }
            _ => "none".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::defaults;

    #[test]
    fn a_delay_is_described_with_its_mean() {
        let words = |delay| in_words(&delay).replace('\u{a0}', " ");
        assert_eq!(words(Delay::Constant(740)), "740 ns, always");
        assert_eq!(words(Delay::Uniform { low: 100, high: 300 }), "100 ns to 300 ns, uniform: mean 200 ns");
        let normal = Delay::LogNormal { median: 1000.0, sigma: 1.0 };
        assert_eq!(words(normal), "log-normal, median 1.00 µs, sigma 1: mean 1.65 µs");
        let table = Delay::Table(vec![(0.0, 100), (0.5, 200), (1.0, 1000)]);
        assert_eq!(words(table), "measured, 100 ns to 1.00 µs: mean 375 ns");
    }

    /// A made-up scenario.
    fn scenario() -> Scenario {
        Scenario {
            name: "cold <4k>".into(),
            seed: 7,
            load: Load {
                pattern: Pattern::Zipf { theta: 0.99 },
                message_bytes: 4096,
                region_bytes: 64 << 20,
                queue_pairs: 8,
                depth: 16,
                arrival: Arrival::Poisson { per_second: 12_500.0 },
                write_share: 0.5,
                cold_share: 0.01,
                bystanders: 0,
                warm: true,
                large_pages: false,
            },
            device: Device { iotlb_entries: 4096, workers: 2, ..defaults().device },
            guest: Guest { handlers: 4, locked_share: 0.25, batch: 1, prefetch: 0, major_share: 0.0 },
            wire: None,
            churn: Some(Churn { operation: ChurnOperation::Evict, per_second: 100.0, pages: 4 }),
            presets: vec!["npf-2017".into()],
            timing: Timing {
                minor: Delay::LogNormal { median: 38_000.0, sigma: 0.4 },
                wake: Delay::Exponential { mean: 5_000.0 },
                ..Timing::instant(12_500)
            },
            requests: 10_000,
        }
    }

    #[test]
    fn a_scenario_is_described_in_full() {
        let facts = facts(&scenario());
        let values: Vec<_> = facts.iter().flat_map(|group| &group.facts).collect();
        for (name, expected) in [
            ("target", "64.0 MiB, zipf, theta 0.99, warm"),
            ("arrival", "Poisson, 12.5 k per second (open loop)"),
            ("minor", "log-normal, median 38.0 µs, sigma 0.4: mean 41.2 µs"),
            ("pages are evicted", "4 pages at a time, 100 times per second, at random"),
            ("presets", "npf-2017"),
        ] {
            let found =
                values.iter().find(|(known, _)| known == name).map(|(_, value)| value.replace('\u{a0}', " "));
            assert_eq!(found.as_deref(), Some(expected), "{name}");
        }
    }
}

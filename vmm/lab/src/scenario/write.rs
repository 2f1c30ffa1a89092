//! Writes a [`Scenario`] as TOML with every key, so that a run can be repeated from its folder.

use std::fmt::Write;

use refault_nic::RemoteFaults;

use refault_timing::units::{show_duration, show_size};
use refault_timing::{Timing, UNLIMITED_BYTES_PER_US, delay};

use super::read::policy_name;
use super::{Arrival, Churn, Device, Guest, Load, Pattern, Scenario, Wire};

impl Scenario {
    /// Formats the scenario as a file. All steps are written, so reading it gives the same scenario even if its presets
    /// change. Two scenarios are equal if and only if their files are.
    pub fn to_toml(&self) -> String {
        let mut lines = Lines::default();
        lines.text("name", &self.name);
        lines.put("seed", self.seed);
        lines.put("requests", self.requests);
        let presets: Vec<_> = self.presets.iter().map(|name| format!("{name:?}")).collect();
        lines.put("preset", format!("[{}]", presets.join(", ")));
        load(&mut lines, &self.load);
        device(&mut lines, &self.device, self.wire.is_some());
        guest(&mut lines, &self.guest);
        if let Some(churn) = &self.churn {
            write_churn(&mut lines, churn);
        }
        if let Some(wire) = &self.wire {
            write_wire(&mut lines, wire);
        }
        timing(&mut lines, &self.timing);
        lines.0
    }
}

/// Builds the file line by line.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn section(&mut self, name: &str) {
        let _ = writeln!(self.0, "\n[{name}]");
    }

    fn put(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    /// Only for names and units, which need no escapes.
    fn text(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.0, "{key} = \"{value}\"");
    }
}

fn load(lines: &mut Lines, load: &Load) {
    lines.section("load");
    match load.pattern {
        Pattern::Sequential => lines.text("pattern", "sequential"),
        Pattern::Random => lines.text("pattern", "random"),
        Pattern::Strided { stride_bytes } => {
            lines.text("pattern", "strided");
            lines.text("stride", &show_size(stride_bytes));
        }
        Pattern::Zipf { theta } => {
            lines.text("pattern", "zipf");
            lines.put("theta", theta);
        }
    }
    lines.text("message", &show_size(u64::from(load.message_bytes)));
    lines.text("region", &show_size(load.region_bytes));
    lines.put("queue_pairs", load.queue_pairs);
    lines.put("depth", load.depth);
    match load.arrival {
        Arrival::Closed => lines.text("arrival", "closed"),
        Arrival::Poisson { per_second } => {
            lines.text("arrival", "poisson");
            lines.put("rate", per_second);
        }
    }
    lines.put("write_share", load.write_share);
    lines.put("cold_share", load.cold_share);
    lines.put("bystanders", load.bystanders);
    lines.put("warm", load.warm);
    lines.put("large_pages", load.large_pages);
}

fn device(lines: &mut Lines, device: &Device, has_wire: bool) {
    lines.section("device");
    lines.text("mode", device.mode.name());
    lines.put("credits", device.credits);
    lines.put("page_request_order", device.page_request_order);
    lines.put("atc_entries", device.atc_entries);
    lines.put("iotlb_entries", device.iotlb_entries);
    lines.put("workers", device.workers);
    lines.put("fault_window", device.fault_window);
    lines.text("remote_faults", policy_name(device.remote_faults));
    if has_wire || device.remote_faults == RemoteFaults::Rnr {
        lines.put("min_rnr_timer", device.min_rnr_timer);
    }
    if let Some(timeout) = device.fault_timeout_ns {
        lines.text("fault_timeout", &show_duration(timeout));
    }
}

fn guest(lines: &mut Lines, guest: &Guest) {
    lines.section("guest");
    lines.put("handlers", guest.handlers);
    lines.put("locked_share", guest.locked_share);
    lines.put("batch", guest.batch);
    lines.put("prefetch", guest.prefetch);
    lines.put("major_share", guest.major_share);
}

fn write_churn(lines: &mut Lines, churn: &Churn) {
    lines.section("churn");
    lines.text("operation", churn.operation.name());
    lines.put("rate", churn.per_second);
    lines.put("pages", churn.pages);
}

fn write_wire(lines: &mut Lines, wire: &Wire) {
    lines.section("wire");
    lines.put("loss", wire.loss_share);
    lines.text("delay", &show_duration(wire.delay_ns));
    rate(lines, "rate", wire.bytes_per_us);
    if let Some(others) = wire.others() {
        lines.text("impairments", &others);
    }
    lines.put("window", wire.window);
    lines.put("buffer", wire.buffer);
    lines.text("pause", &show_size(wire.pause_bytes));
    lines.put("prefault", wire.prefault);
    lines.put("damming", wire.damming);
    lines.put("ack_timeout", wire.ack_timeout);
    lines.put("retries", wire.retries);
}

fn rate(lines: &mut Lines, key: &str, bytes_per_us: u64) {
    match bytes_per_us {
        UNLIMITED_BYTES_PER_US => lines.text(key, "unlimited"),
        rate => lines.put(key, rate),
    }
}

fn timing(lines: &mut Lines, timing: &Timing) {
    lines.section("timing");
    for step in Timing::STEPS {
        if let Some(value) = timing.step(step) {
            lines.put(step, delay::write(value));
        }
    }
    rate(lines, "bytes_per_us", timing.bytes_per_us);
}

//! Validates TOML into a [`Scenario`]: ranges, defaults, and constraints between keys.

use std::str::FromStr;

use refault_bus::bits::{low_u8, low_u32};
use refault_link::Impairments;
use refault_nic::RemoteFaults;
use refault_timing::fields::Fields;
use refault_timing::tree::{Node, TomlTable, Value};
use refault_timing::units::show_size;
use refault_timing::{FILE_KEYS, LONGEST_NS, TextError, UNLIMITED_BYTES_PER_US, presets, rate, timing};

use super::{
    Arrival, Churn, ChurnOperation, Device, Guest, Load, NO_PAUSE, Pattern, Scenario, TranslationMode, Wire,
};

/// Highest rate of arrivals and churn, per second.
const MAX_RATE: f64 = 1e9;
/// Lowest rate: once in a thousand seconds.
const MIN_RATE: f64 = 0.001;
/// Most pages of a prefetch or of a change.
const MAX_PAGES: u32 = 1 << 20;
/// Most requests in flight.
const MAX_IN_FLIGHT: u32 = 1 << 15;
/// Largest target, in bytes.
const MAX_REGION: u64 = 16 << 30;
/// Most messages of a zipf pattern: each has a rank of 12 bytes.
const MAX_RANKS: u64 = 1 << 24;
/// Largest message, in bytes: a work request has 31 bits for its length.
const MAX_MESSAGE: u64 = 1 << 30;

/// What a responder does when its page is missing.
const POLICIES: [(&str, RemoteFaults); 4] = [
    ("stall", RemoteFaults::Stall),
    ("rnr", RemoteFaults::Rnr),
    ("drop", RemoteFaults::Drop),
    ("resume-nak", RemoteFaults::ResumeNak),
];

/// Reads a file's root. `name` is the default name of the scenario.
pub(crate) fn scenario(root: &Node, name: &str) -> Result<Scenario, TextError> {
    let top = Fields::top(root, FILE_KEYS)?;
    let Value::Table(table) = &root.value else { return Err(top.missing("requests", "write a scenario")) };
    let requests = requests(&top)?;
    let load = load(table, root)?;
    let wire = wire(table, root)?;
    let device = device(table, root, wire.is_some())?;
    let guest = guest(table, root)?;
    let churn = churn(table, root, &load)?;
    let presets = presets(&top)?;
    let timing = timing(table, root, &presets, |step| needed(step, &guest, churn.as_ref()))?;
    Ok(Scenario {
        name: scenario_name(&top, name)?,
        seed: top.integer("seed", 0..=u64::MAX, 1)?,
        load,
        device,
        guest,
        churn,
        wire,
        presets: presets.iter().map(|preset| preset.name.to_owned()).collect(),
        timing,
        requests,
    })
}

fn requests(top: &Fields<'_>) -> Result<u64, TextError> {
    if top.entry("requests").is_none() {
        return Err(top.missing("requests", "write their number, such as requests = 10000"));
    }
    top.integer("requests", 1..=100_000_000, 1)
}

fn scenario_name(top: &Fields<'_>, default: &str) -> Result<String, TextError> {
    let name = top.text("name")?.unwrap_or(default);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+ ".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(plain) && name.trim() == name {
        return Ok(name.to_owned());
    }
    let what = format!("is {name:?}, which is not a portable file name");
    Err(top.error("name", &what, "write name = \"...\" with up to 64 letters, digits and - _ . +"))
}

fn load(root: &TomlTable, node: &Node) -> Result<Load, TextError> {
    const KEYS: &[&str] = &[
        "pattern",
        "stride",
        "theta",
        "message",
        "region",
        "queue_pairs",
        "depth",
        "arrival",
        "rate",
        "write_share",
        "cold_share",
        "bystanders",
        "warm",
        "large_pages",
    ];
    let fields = Fields::section(root, "load", KEYS, &node.location)?;
    let large_pages = fields.flag("large_pages", false)?;
    let region_bytes = region(&fields, if large_pages { 2 << 20 } else { 4096 })?;
    let message_bytes = message(&fields, region_bytes)?;
    let queue_pairs = fields.count("queue_pairs", 1..=4096, 1)?;
    Ok(Load {
        pattern: pattern(&fields, message_bytes, region_bytes)?,
        message_bytes,
        region_bytes,
        queue_pairs,
        depth: depth(&fields, queue_pairs)?,
        arrival: arrival(&fields)?,
        write_share: fields.share("write_share", 1.0)?,
        cold_share: fields.share("cold_share", 0.0)?,
        bystanders: fields.count("bystanders", 0..=queue_pairs, 0)?,
        warm: fields.flag("warm", false)?,
        large_pages,
    })
}

/// Limits the depth so that all requests in flight fit into one completion queue.
fn depth(fields: &Fields<'_>, queue_pairs: u32) -> Result<u32, TextError> {
    let depth = fields.count("depth", 1..=1024, 1)?;
    let most = MAX_IN_FLIGHT / queue_pairs;
    if depth <= most {
        return Ok(depth);
    }
    let what = format!("is {depth} for each of {queue_pairs} queue pairs, more than {MAX_IN_FLIGHT} in all");
    Err(fields.error("depth", &what, format!("write at most {most}, or fewer queue pairs")))
}

fn region(fields: &Fields<'_>, page: u64) -> Result<u64, TextError> {
    let bytes = fields.size("region", page..=MAX_REGION, 64 << 20)?;
    if bytes.is_multiple_of(page) {
        return Ok(bytes);
    }
    let what = format!("is {}, not a multiple of the page size of {}", show_size(bytes), show_size(page));
    let rounded = show_size(bytes.next_multiple_of(page));
    Err(fields.error("region", &what, format!("write whole pages, such as \"{rounded}\"")))
}

fn message(fields: &Fields<'_>, region: u64) -> Result<u32, TextError> {
    let bytes = fields.size("message", 1..=MAX_MESSAGE, 4096)?;
    if bytes <= region {
        return Ok(low_u32(bytes));
    }
    let what = format!("is {}, larger than the region of {}", show_size(bytes), show_size(region));
    Err(fields.error("message", &what, "write a smaller message, or a larger load.region"))
}

fn pattern(fields: &Fields<'_>, message: u32, region: u64) -> Result<Pattern, TextError> {
    let stride_bytes = stride(fields, u64::from(message), region)?;
    let theta = fields.number("theta", 0.0..=5.0, 0.99)?;
    let words = [
        ("sequential", Pattern::Sequential),
        ("strided", Pattern::Strided { stride_bytes }),
        ("random", Pattern::Random),
        ("zipf", Pattern::Zipf { theta }),
    ];
    let pattern = fields.choice("pattern", &words, Pattern::Sequential)?;
    let messages = region / u64::from(message);
    if matches!(pattern, Pattern::Zipf { .. }) && messages > MAX_RANKS {
        let what = format!("is \"zipf\" over {messages} messages, each of which needs a rank in memory");
        let remedy =
            format!("use at most {MAX_RANKS} messages: a smaller load.region, or a larger load.message");
        return Err(fields.error("pattern", &what, remedy));
    }
    only_with(fields, "stride", matches!(pattern, Pattern::Strided { .. }), "pattern = \"strided\"")?;
    only_with(fields, "theta", matches!(pattern, Pattern::Zipf { .. }), "pattern = \"zipf\"")?;
    Ok(pattern)
}

/// The stride in bytes. The default is two messages, the smallest that is not sequential.
fn stride(fields: &Fields<'_>, message: u64, region: u64) -> Result<u64, TextError> {
    if fields.entry("stride").is_none() {
        return Ok((2 * message).min(region - region % message));
    }
    let bytes = fields.size("stride", 1..=MAX_REGION, 2 * message)?;
    if !bytes.is_multiple_of(message) {
        let what =
            format!("is {}, not a multiple of the message size of {}", show_size(bytes), show_size(message));
        let rounded = show_size(bytes.next_multiple_of(message));
        return Err(fields.error("stride", &what, format!("write whole messages, such as \"{rounded}\"")));
    }
    if bytes > region {
        let what = format!("is {}, larger than the region of {}", show_size(bytes), show_size(region));
        return Err(fields.error("stride", &what, "write a smaller stride, or a larger load.region"));
    }
    Ok(bytes)
}

fn arrival(fields: &Fields<'_>) -> Result<Arrival, TextError> {
    let per_second = fields.number("rate", MIN_RATE..=MAX_RATE, 1000.0)?;
    let words = [("closed", Arrival::Closed), ("poisson", Arrival::Poisson { per_second })];
    let arrival = fields.choice("arrival", &words, Arrival::Closed)?;
    only_with(fields, "rate", arrival != Arrival::Closed, "arrival = \"poisson\"")?;
    Ok(arrival)
}

/// Rejects a key that has no effect because of another one.
fn only_with(fields: &Fields<'_>, key: &str, meaningful: bool, other: &str) -> Result<(), TextError> {
    match fields.entry(key) {
        Some(entry) if !meaningful => {
            let what = format!("`{}` has no effect without {other}", fields.name(key));
            Err(entry.key.error(what, format!("remove it, or write {other}")))
        }
        _ => Ok(()),
    }
}

fn device(root: &TomlTable, node: &Node, has_wire: bool) -> Result<Device, TextError> {
    const KEYS: &[&str] = &[
        "mode",
        "credits",
        "page_request_order",
        "atc_entries",
        "iotlb_entries",
        "workers",
        "fault_window",
        "remote_faults",
        "min_rnr_timer",
        "fault_timeout",
    ];
    const MODES: [(&str, TranslationMode); 2] = [
        (TranslationMode::Pasid.name(), TranslationMode::Pasid),
        (TranslationMode::Odp.name(), TranslationMode::Odp),
    ];
    let fields = Fields::section(root, "device", KEYS, &node.location)?;
    let remote_faults = fields.choice("remote_faults", &POLICIES, RemoteFaults::Stall)?;
    if !has_wire && !matches!(remote_faults, RemoteFaults::Stall | RemoteFaults::Rnr) {
        let what = format!("is {:?}, which is about packets, and there are none", policy_name(remote_faults));
        return Err(fields.error(
            "remote_faults",
            &what,
            "add a section [wire], or write \"stall\" or \"rnr\"",
        ));
    }
    let retries = has_wire || remote_faults == RemoteFaults::Rnr;
    only_with(&fields, "min_rnr_timer", retries, "remote_faults = \"rnr\"")?;
    Ok(Device {
        mode: fields.choice("mode", &MODES, TranslationMode::Pasid)?,
        credits: fields.count("credits", 1..=512, 256)?,
        page_request_order: low_u8(fields.count("page_request_order", 0..=7, 4)?.into()),
        atc_entries: fields.count("atc_entries", 1..=1 << 20, 8192)? as usize,
        iotlb_entries: fields.count("iotlb_entries", 1..=1 << 20, 8192)? as usize,
        workers: fields.count("workers", 1..=64, 1)? as usize,
        fault_window: fields.count("fault_window", 1..=64, 8)?,
        remote_faults,
        min_rnr_timer: low_u8(fields.count("min_rnr_timer", 0..=31, 1)?.into()),
        fault_timeout_ns: fields.duration("fault_timeout", 1000..=LONGEST_NS)?,
    })
}

fn wire(root: &TomlTable, node: &Node) -> Result<Option<Wire>, TextError> {
    const KEYS: &[&str] = &[
        "loss",
        "delay",
        "rate",
        "impairments",
        "window",
        "buffer",
        "pause",
        "prefault",
        "damming",
        "ack_timeout",
        "retries",
    ];
    if root.get("wire").is_none() {
        return Ok(None);
    }
    let fields = Fields::section(root, "wire", KEYS, &node.location)?;
    Ok(Some(Wire {
        loss_share: fields.share("loss", 0.0)?,
        delay_ns: fields.duration("delay", 0..=LONGEST_NS)?.unwrap_or(0),
        bytes_per_us: rate(&fields, "rate", UNLIMITED_BYTES_PER_US)?,
        impairments: impairments(&fields)?,
        window: fields.count("window", 1..=256, 128)?,
        buffer: fields.count("buffer", 1..=256, 256)?,
        pause_bytes: fields.size("pause", 0..=NO_PAUSE, NO_PAUSE)?,
        prefault: fields.flag("prefault", false)?,
        damming: fields.flag("damming", false)?,
        ack_timeout: low_u8(fields.count("ack_timeout", 0..=31, 14)?.into()),
        retries: low_u8(fields.count("retries", 0..=7, 7)?.into()),
    }))
}

/// Bytes that may wait for the rate, if a file does not say: the windows of the connections are the limit then.
pub(super) const QUEUE: u64 = 1 << 40;

fn impairments(fields: &Fields<'_>) -> Result<Impairments, TextError> {
    const KEY: &str = "impairments";
    let usual = Impairments { queue_bytes: QUEUE, ..Impairments::default() };
    let Some(entry) = fields.entry(KEY) else { return Ok(usual) };
    let Value::Text(text) = &entry.node.value else {
        let what = format!("is {}, not a text", entry.node.value.kind());
        return Err(fields.error(KEY, &what, "write a list such as \"reorder=1%,drop=ack#3\""));
    };
    let read = Impairments::from_str(text).map_err(|error| {
        fields.error(KEY, &format!("is wrong: {error}"), "`refault run --help` has the syntax, under --wire")
    })?;
    let Impairments { loss, delay_ns, bits_per_second, .. } = &read;
    if (*loss, *delay_ns, *bits_per_second) != (usual.loss, usual.delay_ns, usual.bits_per_second) {
        let remedy = "write the keys `loss`, `delay` and `rate` of this section";
        return Err(fields.error(KEY, "has an item that is a key", remedy));
    }
    let names_queue = text.split(',').any(|item| item.starts_with("queue="));
    Ok(if names_queue { read } else { Impairments { queue_bytes: QUEUE, ..read } })
}

/// The name of a policy in files.
pub(super) fn policy_name(policy: RemoteFaults) -> &'static str {
    POLICIES.iter().find(|(_, known)| *known == policy).map_or("stall", |(name, _)| name)
}

fn guest(root: &TomlTable, node: &Node) -> Result<Guest, TextError> {
    const KEYS: &[&str] = &["handlers", "locked_share", "batch", "prefetch", "major_share"];
    let fields = Fields::section(root, "guest", KEYS, &node.location)?;
    Ok(Guest {
        handlers: fields.count("handlers", 1..=1024, 1)?,
        locked_share: fields.share("locked_share", 0.0)?,
        batch: fields.count("batch", 1..=512, 1)?,
        prefetch: fields.count("prefetch", 0..=MAX_PAGES, 0)?,
        major_share: fields.share("major_share", 0.0)?,
    })
}

fn churn(root: &TomlTable, node: &Node, load: &Load) -> Result<Option<Churn>, TextError> {
    const KEYS: &[&str] = &["operation", "rate", "pages"];
    if root.get("churn").is_none() {
        return Ok(None);
    }
    let fields = Fields::section(root, "churn", KEYS, &node.location)?;
    let words = ChurnOperation::ALL.map(|operation| (operation.name(), operation));
    for (key, remedy) in [
        ("operation", "write operation = \"evict\", \"move\" or \"write-protect\""),
        ("rate", "write a rate per second, such as rate = 1000.0, or remove [churn]"),
    ] {
        if fields.entry(key).is_none() {
            return Err(fields.missing(key, remedy));
        }
    }
    let pages = fields.count("pages", 1..=MAX_PAGES, 1)?;
    let page_bytes = if load.large_pages { 2 << 20 } else { 4096 };
    let most = load.region_bytes / page_bytes;
    if u64::from(pages) > most {
        let what = format!("is {pages}, but the region has {most}");
        return Err(fields.error("pages", &what, "write fewer, or a larger load.region"));
    }
    Ok(Some(Churn {
        operation: fields.choice("operation", &words, ChurnOperation::Evict)?,
        per_second: fields.number("rate", MIN_RATE..=MAX_RATE, MIN_RATE).map_err(|error| TextError {
            remedy: format!("{}; to disable churn, remove [churn]", error.remedy),
            ..error
        })?,
        pages,
    }))
}

/// Whether such an experiment needs the duration of `step` at all.
fn needed(step: &str, guest: &Guest, churn: Option<&Churn>) -> bool {
    match step {
        "minor" => guest.major_share < 1.0,
        "major" => guest.major_share > 0.0,
        "next_page" => guest.prefetch > 0,
        "invalidation" => churn.is_some(),
        _ => true,
    }
}

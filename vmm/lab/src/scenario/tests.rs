//! Valid files, invalid files, and their error messages.

use proptest::prelude::*;

use super::shipped::SCENARIOS;
use super::*;
use crate::shipped::no_files;
use refault_timing::{Preset, TextError, UNLIMITED_BYTES_PER_US};

/// Every key written, none at its default.
const FULL: &str = r#"name = "all of it"
seed = 18446744073709551615
requests = 12_345
preset = ["pcie-rtt", "npf-2017"]
[load]
pattern = "strided"
stride = "64 KiB"
message = "16K"
region = "128 MiB"
queue_pairs = 7
depth = 3
arrival = "poisson"
rate = 2500.5
write_share = 0.25
cold_share = 0.125
bystanders = 4
warm = true
large_pages = true
[device]
mode = "odp"
credits = 17
page_request_order = 2
atc_entries = 99
iotlb_entries = 98
workers = 5
fault_window = 6
remote_faults = "rnr"
min_rnr_timer = 25
fault_timeout = "1.5 ms"
[guest]
handlers = 11
locked_share = 0.5
batch = 12
prefetch = 13
major_share = 0.75
[churn]
operation = "write-protect"
rate = 0.5
pages = 9
[wire]
loss = 0.25
delay = "2 us"
rate = 12500
impairments = "reorder=1%,drop=ack#3,queue=64K"
window = 77
buffer = 55
pause = "96 KiB"
prefault = true
damming = true
ack_timeout = 9
retries = 3
[timing]
major = { exponential = "1 ms" }
invalidation = { uniform = ["1 us", "2 us"] }
bytes_per_us = 12500
"#;

fn full() -> Scenario {
    Scenario::from_toml("full.toml", FULL).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_key_reaches_its_field() {
    let scenario = full();
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.requests), ("all of it", u64::MAX, 12_345));
    let load = Load {
        pattern: Pattern::Strided { stride_bytes: 65_536 },
        message_bytes: 16_384,
        region_bytes: 128 << 20,
        queue_pairs: 7,
        depth: 3,
        arrival: Arrival::Poisson { per_second: 2500.5 },
        write_share: 0.25,
        cold_share: 0.125,
        bystanders: 4,
        warm: true,
        large_pages: true,
    };
    assert_eq!(scenario.load, load);
    let device = Device {
        mode: TranslationMode::Odp,
        credits: 17,
        page_request_order: 2,
        atc_entries: 99,
        iotlb_entries: 98,
        workers: 5,
        fault_window: 6,
        remote_faults: RemoteFaults::Rnr,
        min_rnr_timer: 25,
        fault_timeout_ns: Some(1_500_000),
    };
    assert_eq!(scenario.device, device);
    let guest = Guest { handlers: 11, locked_share: 0.5, batch: 12, prefetch: 13, major_share: 0.75 };
    assert_eq!(scenario.guest, guest);
    let churn = Churn { operation: ChurnOperation::WriteProtect, per_second: 0.5, pages: 9 };
    assert_eq!(scenario.churn, Some(churn));
    let wire = Wire {
        loss_share: 0.25,
        delay_ns: 2000,
        bytes_per_us: 12_500,
        impairments: "reorder=1%,drop=ack#3,queue=64K".parse().expect("impairments"),
        window: 77,
        buffer: 55,
        pause_bytes: 96 << 10,
        prefault: true,
        damming: true,
        ack_timeout: 9,
        retries: 3,
    };
    assert_eq!(scenario.wire, Some(wire));
    let nic = scenario.nic();
    assert!(matches!(nic.link, LinkLayer::Ethernet { roce: true, .. }), "{:?}", nic.link);
    let sends = scenario.wire.expect("a wire").impairments(scenario.seed);
    assert_eq!(sends.to_string(), "loss=25%,reorder=1%,delay=2us,rate=100G,queue=64K,drop=ack#3,seed=0");
}

#[test]
fn steps_come_from_the_file_then_from_the_first_preset_that_has_them() {
    let timing = full().timing;
    assert_eq!(timing.major, Delay::Exponential { mean: 1e6 });
    assert_eq!(timing.translation, Delay::Constant(330));
    assert_eq!((timing.minor, timing.doorbell), (Delay::Constant(220_000), Delay::NONE));
    assert_eq!((timing.invalidation.mean(), timing.bytes_per_us), (1500.0, 12_500));
}

#[test]
fn a_short_file_is_a_whole_scenario() {
    let scenario = defaults();
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.load.message_bytes), ("defaults", 1, 4096));
    assert_eq!((scenario.churn, scenario.load.pattern), (None, Pattern::Sequential));
    assert_eq!(scenario.timing, Timing::instant(UNLIMITED_BYTES_PER_US));
}

#[test]
fn what_is_written_reads_back() {
    let shipped =
        SCENARIOS.names().into_iter().map(|name| Scenario::open(name, &no_files).expect("it is shipped"));
    for scenario in shipped.chain([full(), defaults().clone()]) {
        let text = scenario.to_toml();
        let again =
            Scenario::from_toml("scenario.toml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again, scenario);
        assert_eq!(again.to_toml(), text);
    }
}

/// A file of one line that is always valid, and more lines.
fn with(lines: &str) -> String {
    format!("requests = 100\npreset = \"example\"\n{lines}\n")
}

/// The error of a file: its line, what is wrong, what to write.
fn wrong(text: &str) -> TextError {
    let error = Scenario::from_toml("bad.toml", text).expect_err(text);
    assert_eq!(error.file, "bad.toml");
    assert!(error.column > 0 && error.remedy.len() > 5, "{error}");
    error
}

#[test]
fn each_mistake_is_named_with_its_line_and_its_remedy() {
    // Lines 1 and 2 are valid.
    let cases: &[(&str, usize, &str, &str)] = &[
        ("speed = 3", 3, "there is no key `speed`", "did you mean `seed`?"),
        ("[load]\nmesage = \"4K\"", 4, "no key `load.mesage`", "did you mean `message`?"),
        ("[lod]", 3, "no key `lod`", "did you mean `load`?"),
        ("load = 3", 3, "`load` is an integer, not a section", "write [load]"),
        ("seed = -1", 3, "`seed` is -1, out of range", "integer from 0"),
        ("seed = 18446744073709551616", 3, "out of range", "18446744073709551615"),
        ("name = \"../x\"", 3, "not a portable file name", "letters, digits"),
        ("[load]\nwarm = 1", 4, "`load.warm` is an integer, not true or false", "true or false"),
        ("[load]\nmessage = 4096", 4, "not a size with a unit", "\"4K\""),
        ("[load]\nmessage = \"-4K\"", 4, "\"-4K\", not a size", "\"64 MiB\""),
        ("[load]\nmessage = \"0 B\"", 4, "is 0 B, out of range", "from \"1 B\""),
        (
            "[load]\n\nmessage = \"128 MiB\"",
            5,
            "is 128 MiB, larger than the region of 64 MiB",
            "smaller message",
        ),
        (
            "[load]\nregion = \"1 MiB\"\nmessage = \"2 MiB\"",
            5,
            "larger than the region of 1 MiB",
            "load.region",
        ),
        (
            "[load]\npattern = \"zipf\"\nmessage = \"1 B\"\nregion = \"1 GiB\"",
            4,
            "needs a rank in memory",
            "at most 16777216 messages",
        ),
        ("[load]\nregion = \"5000 B\"", 4, "not a multiple of the page size of 4 KiB", "such as \"8 KiB\""),
        ("[load]\nlarge_pages = true\nregion = \"3 MiB\"", 5, "page size of 2 MiB", "such as \"4 MiB\""),
        ("[load]\nregion = \"999999 GiB\"", 4, "out of range", "to \"16 GiB\""),
        ("[load]\npattern = \"randm\"", 4, "cannot be \"randm\"", "\"random\""),
        (
            "[load]\npattern = \"strided\"\nstride = \"5 KiB\"",
            5,
            "not a multiple of the message size of 4 KiB",
            "\"8 KiB\"",
        ),
        (
            "[load]\npattern = \"strided\"\nstride = \"128 MiB\"",
            5,
            "larger than the region",
            "smaller stride",
        ),
        ("[load]\nstride = \"8 KiB\"", 4, "no effect without pattern = \"strided\"", "remove it"),
        ("[load]\ntheta = 1", 4, "no effect without pattern = \"zipf\"", "remove it"),
        ("[load]\nrate = 10", 4, "no effect without arrival = \"poisson\"", "remove it"),
        ("[load]\narrival = \"poisson\"\nrate = 0", 5, "`load.rate` is 0, out of range", "from 0.001"),
        ("[load]\nwrite_share = 1.5", 4, "`load.write_share` is 1.5, out of range", "from 0 to 1"),
        ("[load]\ncold_share = -0.1", 4, "`load.cold_share` is -0.1, out of range", "from 0 to 1"),
        ("[load]\ncold_share = nan", 4, "`load.cold_share` is NaN, out of range", "from 0 to 1"),
        ("[load]\ncold_share = \"half\"", 4, "is the string \"half\", not a number", "from 0 to 1"),
        ("[load]\nqueue_pairs = 0", 4, "`load.queue_pairs` is 0, out of range", "from 1 to 4096"),
        ("[load]\ndepth = 1.5", 4, "`load.depth` is 1.5, not an integer", "from 1 to 1024"),
        ("[load]\nqueue_pairs = 4096\ndepth = 9", 5, "more than 32768 in all", "at most 8"),
        ("[device]\ncredits = 513", 4, "`device.credits` is 513, out of range", "from 1 to 512"),
        ("[device]\npage_request_order = 8", 4, "is 8, out of range", "from 0 to 7"),
        ("[device]\nmode = \"pri\"", 4, "cannot be \"pri\"", "\"pasid\", \"odp\""),
        ("[device]\nfault_timeout = \"0 us\"", 4, "is 0 ns, out of range", "from \"1 us\""),
        ("[device]\nmin_rnr_timer = 12", 4, "no effect without remote_faults = \"rnr\"", "remove it"),
        (
            "[device]\nremote_faults = \"drop\"",
            4,
            "about packets, and there are none",
            "add a section [wire]",
        ),
        ("[wire]\nloss = 2", 4, "`wire.loss` is 2, out of range", "from 0 to 1"),
        ("[wire]\nwindow = 0", 4, "`wire.window` is 0, out of range", "from 1 to 256"),
        ("[load]\nbystanders = 2", 4, "`load.bystanders` is 2, out of range", "from 0 to 1"),
        ("[device]\nremote_faults = \"rnr\"\nmin_rnr_timer = 32", 5, "is 32, out of range", "from 0 to 31"),
        ("[guest]\nlocked_share = 2", 4, "`guest.locked_share` is 2, out of range", "from 0 to 1"),
        ("[guest]\nhandlers = 0", 4, "`guest.handlers` is 0, out of range", "from 1"),
        ("[churn]\noperation = \"evict\"\nrate = 0", 5, "`churn.rate` is 0, out of range", "remove [churn]"),
        ("[churn]\nrate = 5.0", 3, "`churn.operation` is missing", "operation = \"evict\""),
        ("[churn]\noperation = \"evict\"", 3, "`churn.rate` is missing", "rate = 1000.0"),
        ("[churn]\noperation = \"evict\"\nrate = 1\npages = 0", 6, "is 0, out of range", "from 1"),
        ("[churn]\noperation = \"evict\"\nrate = 1\npages = 99999", 6, "but the region has 16384", "fewer"),
        ("[timing]\nminr = \"1 us\"", 4, "no key `timing.minr`", "did you mean `minor`?"),
        ("[timing]\nminor = \"-5 us\"", 4, "which is negative", "at least zero"),
        ("[timing]\nminor = \"2000000 s\"", 4, "longer than an hour", "at most"),
        ("[timing]\nminor = 220", 4, "an integer, not a duration with a unit", "\"220 us\""),
        ("[timing]\nbytes_per_us = 0", 4, "is 0, out of range", "\"unlimited\""),
        ("[timing]\nminor = { gauss = \"1 us\" }", 4, "no distribution called `gauss`", "log_normal"),
        ("requests = 3", 3, "not valid TOML: duplicate key", "correct the line"),
        ("[load", 3, "not valid TOML", "correct the line"),
        ("seed = 2026-01-01", 3, "is a date, not an integer", "integer from"),
    ];
    for &(lines, line, what, remedy) in cases {
        let error = wrong(&with(lines));
        assert_eq!(error.line, line, "{lines}\n{error}");
        assert!(error.what.contains(what), "{lines}\n{error}");
        assert!(error.remedy.contains(remedy), "{lines}\n{error}");
    }
}

#[test]
fn requests_and_timing_are_mandatory() {
    let error = wrong("preset = \"none\"\n");
    assert!(error.what.contains("`requests` is missing"), "{error}");
    let error = wrong("preset = \"none\"\nrequests = 0\n");
    assert_eq!((error.line, error.column), (2, 12));
    let error = wrong("requests = 1\n");
    assert!(error.what.contains("without a preset") && error.remedy.contains("npf-2017"), "{error}");
}

#[test]
fn a_preset_that_is_missing_or_lacks_a_step_is_named() {
    let error = wrong("requests = 1\npreset = \"dsa\"\n");
    assert_eq!((error.line, error.column), (2, 10));
    assert!(error.what.contains("no preset \"dsa\"") && error.remedy.contains("uffd"), "{error}");

    let lacking = "requests = 1\n\npreset = [\"npf-2017\"]\n[guest]\nmajor_share = 0.5\n";
    let error = wrong(lacking);
    assert_eq!(error.line, 3);
    assert!(error.what.contains("preset `npf-2017` does not say how long major takes"), "{error}");
    assert!(error.remedy.contains("write major = \"...\" under [timing]"), "{error}");
    // Each of the two remedies helps.
    for remedy in ["[timing]\nmajor = \"1 ms\"\n", ""] {
        let text = lacking.replace("[\"npf-2017\"]", "[\"npf-2017\", \"np-rdma\"]");
        let text = if remedy.is_empty() { text } else { lacking.to_owned() + remedy };
        assert!(Scenario::from_toml("good.toml", &text).is_ok(), "{text}");
    }
}

#[test]
fn a_step_that_is_never_taken_needs_no_duration() {
    let text = "requests = 1\npreset = \"npf-2017\"\n";
    assert!(Scenario::from_toml("a", text).is_ok());
    for (more, step) in [
        ("[guest]\nmajor_share = 0.1", "major"),
        ("[churn]\noperation = \"evict\"\nrate = 1", "invalidation"),
    ] {
        assert!(wrong(&format!("{text}{more}\n")).what.contains(step));
    }
    let no_prefetch = "requests = 1\npreset = \"uffd\"\n[guest]\nprefetch = 1\n";
    assert!(wrong(no_prefetch).what.contains("next_page"));
}

#[test]
fn settings_from_the_command_line_override_the_file() {
    let mut draft = Draft::parse("a.toml", &with("[device]\ncredits = 4")).expect("it is right");
    for setting in ["device.credits=8", "load.message = \"8K\"", "load.pattern=random", "timing.minor=1.5 ms"]
    {
        draft.set(setting).expect(setting);
    }
    let scenario = draft.check().expect("it still is");
    assert_eq!((scenario.device.credits, scenario.load.message_bytes), (8, 8192));
    assert_eq!((scenario.load.pattern, scenario.timing.minor), (Pattern::Random, Delay::Constant(1_500_000)));
}

#[test]
fn an_invalid_setting_is_quoted_as_typed() {
    let set = |setting: &str| {
        let mut draft = Draft::parse("a.toml", &with("")).expect("it is right");
        draft.set(setting).and_then(|()| draft.check().map(|_| ())).expect_err(setting)
    };
    let error = set("device.credits=0");
    assert_eq!((error.file.as_str(), error.line, error.column), ("--set device.credits=0", 1, 16));
    assert!(set("device.credit=3").remedy.contains("`credits`"));
    assert!(set("device").remedy.contains("KEY=VALUE"));
    assert!(set("requests.more=3").what.contains("`requests` is not a section"));
    assert!(set(".=3").what.contains("is not a key"));
}

#[test]
fn an_unknown_scenario_is_an_error_that_lists_the_shipped_ones() {
    let error = Scenario::open("no-such-scenario", &no_files).expect_err("there is none").to_string();
    assert!(error.contains("no-such-scenario") && error.contains("cold-4k"), "{error}");
}

proptest! {
    /// Whatever the bytes are: a scenario or an error, no panic.
    #[test]
    fn no_text_stops_the_reader(cut in 0..FULL.len(), junk in "\\PC{0,12}", keep in 0usize..40) {
        prop_assume!(FULL.is_char_boundary(cut));
        let rest = FULL.get(cut + keep..).unwrap_or_default();
        let text = format!("{}{junk}{rest}", &FULL[..cut]);
        if let Err(error) = Scenario::from_toml("x", &text) {
            prop_assert!(error.line <= text.matches('\n').count() + 1, "{}", error);
        }
    }
}

/// Every key, step, preset and figure is in the guide.
#[test]
fn the_guide_names_everything_that_can_be_written() {
    let guide = include_str!("../../../../docs/guide-lab.md");
    let has = |word: &str| guide.contains(&format!("`{word}`"));
    let text = full().to_toml()
        + &Scenario::from_toml("zipf.toml", &with("[load]\npattern = \"zipf\"")).unwrap().to_toml();
    let keys = text.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let presets = Preset::names();
    let missing: Vec<_> = keys.chain(presets).filter(|word| !has(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let figures = crate::figures::FIGURES.map(|(name, ..)| name);
    assert!(figures.iter().all(|name| has(name)));
}

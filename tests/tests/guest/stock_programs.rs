//! Programs of the distribution that use verbs or look at the device: ping-pongs, perftest, rdma, lspci.

use crate::stock::{Outcome, Suite, Verdict, explained, judge};
use crate::support::script;

/// Every program here listens on this port, 18515, before it talks to its client.
const BOTH_SIDES: &str = r#"
listening() {
    for try in $(seq 300); do
        if grep -q ':4853 .* 0A ' /proc/net/tcp /proc/net/tcp6; then return; fi
        sleep 0.1
    done
}
both() {
    "$@" >/tmp/server 2>&1 &
    server=$!
    listening
    client=0
    timeout 600 "$@" localhost >/tmp/client 2>&1 || client=$?
    wait $server || client="$client, server $?"
    echo "program $client: $*"
    cat /tmp/client
    if [ "$client" != 0 ]; then cat /tmp/server; fi
}
"#;

/// A ping-pong that runs until it is killed, for programs that inspect it.
const UNDER_WAY: &str = r#"
pair() {
    "$@" >/dev/null 2>&1 &
    one=$!
    listening
    "$@" localhost >/dev/null 2>&1 &
    two=$!
    for try in $(seq 300); do
        if [ $(rdma resource show qp | grep -c RTS) = 2 ]; then return; fi
        sleep 0.1
    done
}
end_pair() {
    kill -9 $one $two
    wait || true
}
"#;

/// Commands of libibverbs' ping-pongs; each must print its number of rounds.
const PINGPONGS: &[&str] = &[
    "ibv_rc_pingpong -g 0 -n 100",
    "ibv_rc_pingpong -g 0 -n 100 -e",
    "ibv_rc_pingpong -g 0 -n 100 -N",
    "ibv_rc_pingpong -g 0 -n 100 -e -N",
    "ibv_rc_pingpong -g 0 -n 100 -t",
    "ibv_ud_pingpong -g 0 -n 100",
    "ibv_ud_pingpong -n 100 -e",
    "ibv_srq_pingpong -g 0 -n 100",
    "ibv_srq_pingpong -n 100 -e",
    "ibv_srq_pingpong -g 0 -n 100 -o",
    "env REFAULT_ODP_MODE=odp ibv_srq_pingpong -g 0 -n 100 -o",
    "ibv_rc_pingpong -g 0 -n 100 -o",
    "ibv_rc_pingpong -g 0 -n 100 -o -P",
    "ibv_rc_pingpong -g 0 -n 100 -O",
    "ibv_rc_pingpong -g 0 -n 100 -O -P",
    "env REFAULT_ODP_MODE=odp ibv_rc_pingpong -g 0 -n 100 -o",
    "env REFAULT_ODP_MODE=odp ibv_rc_pingpong -g 0 -n 100 -o -P",
    "env REFAULT_ODP_MODE=odp ibv_rc_pingpong -g 0 -n 100 -O",
];

/// Commands of perftest; each must print a measurement.
const PERFTESTS: &[&str] = &["ib_write_bw", "ib_read_lat", "ib_send_bw", "ib_atomic_lat"];
const PERFTEST_OPTIONS: &str = "-d refault_0 -x 0 -n 200 -F";

/// The suites of the table, as docs/stock-suites.md names them.
const SUITES: &[&str] = &["ping-pong", "perftest", "rdma", "lspci"];

#[test]
fn stock_programs_run_and_tell_the_truth() {
    let perftests = PERFTESTS.iter().flat_map(|program| {
        ["", " --odp"]
            .map(|odp| format!("{program} {PERFTEST_OPTIONS}{odp}"))
            .into_iter()
            .chain([format!("env REFAULT_ODP_MODE=odp {program} {PERFTEST_OPTIONS} --odp")])
    });
    let programs: String = PINGPONGS
        .iter()
        .map(ToString::to_string)
        .chain(perftests)
        .map(|line| format!("both {line}\n"))
        .collect();
    let text = format!(
        "{BOTH_SIDES}{UNDER_WAY}{programs}
        pair env REFAULT_ODP_MODE=pasid ibv_rc_pingpong -g 0 -n 100000000 -o
        echo 'program 0: rdma resource'
        rdma resource show
        rdma resource show qp
        rdma resource show cq
        echo 'program 0: rdma resource mr'
        rdma -dd resource show mr
        end_pair
        for way in -o '-o -P'; do
            pair env REFAULT_ODP_MODE=odp ibv_rc_pingpong -g 0 -n 100000000 $way
            echo \"program 0: rdma stat, $way\"
            rdma -dd resource show mr | grep -o 'mode odp'
            rdma stat show mr
            end_pair
        done
        echo 'program 0: rdma resource, no program'
        rdma resource show
        echo 'program 0: rdma dev'
        rdma dev show
        rdma link show
        echo 'program 0: lspci'
        lspci -vv"
    );
    let (said, _) = script(2, &[], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    let of = |suite: &str, start: &str, check: fn(&str) -> bool| {
        let ran = said.stdout.split("program ").skip(1).filter_map(|part| run(part, start, check));
        Suite::new(suite, ran.collect())
    };
    let pingpong = |text: &str| text.contains("iters in") && !text.contains("Continue anyway");
    let suites = [
        of("ping-pong", "ibv_", pingpong),
        of("perftest", "ib_", measured),
        of("rdma", "rdma", truthful),
        of("lspci", "lspci", complete),
    ];
    let counts = suites.each_ref().map(Suite::len);
    assert_eq!(counts, [PINGPONGS.len(), 3 * PERFTESTS.len(), 6, 1], "{said:#?}");
    judge(&suites, &[]);
}

#[test]
fn the_suites_of_programs_are_described() {
    explained(&[], SUITES);
}

/// The outcome of `STATUS: NAME\nOUTPUT` if the program's name starts so.
fn run(part: &str, start: &str, check: fn(&str) -> bool) -> Option<Outcome> {
    let (head, output) = part.split_once('\n')?;
    let (status, name) = head.split_once(": ")?;
    let program = name.trim_start_matches("env ").split(' ').find(|word| !word.contains('='))?;
    let good = status == "0" && check(&format!("{name}\n{output}"));
    let verdict = if good { Verdict::Passed } else { Verdict::Failed(part.to_string()) };
    program.starts_with(start).then(|| Outcome { test: name.to_string(), verdict })
}

/// perftest's table has one line of figures; the average is the fourth column of bandwidths and the sixth of
/// latencies.
fn measured(output: &str) -> bool {
    let column = if output.lines().next().is_some_and(|name| name.contains("_bw")) { 3 } else { 5 };
    let figures = output.lines().skip_while(|line| !line.trim_start().starts_with("#bytes")).nth(1);
    let average = figures.and_then(|line| line.split_whitespace().nth(column)?.parse::<f64>().ok());
    average.is_some_and(|average| average > 0.0)
}

/// Whether `rdma` prints the objects of two running ping-pongs, none without them, and the device.
fn truthful(output: &str) -> bool {
    let (name, text) = output.split_once('\n').unwrap_or((output, ""));
    let all = |wanted: &[&str]| wanted.iter().all(|part| text.contains(part));
    let twice = |wanted: &str| text.matches(wanted).count() == 2;
    match name {
        "rdma resource" => {
            all(&["pd 2 cq 2 qp 2 cm_id 0 mr 2 ctx 2"])
                && twice("type RC state RTS")
                && text.matches("comm ibv_rc_pingpong").count() == 4
        }
        "rdma resource mr" => twice("mrlen 4096") && twice("comm ibv_rc_pingpong") && twice("mode pasid"),
        "rdma stat, -o" => {
            twice("mode odp")
                && both_count(text, "page_faults")
                && both_count(text, "page_faults_handled")
                && twice("page_prefetch 0")
        }
        "rdma stat, -o -P" => twice("mode odp") && both_count(text, "page_prefetch"),
        "rdma resource, no program" => all(&["pd 0 cq 0 qp 0 cm_id 0 mr 0 ctx 0"]),
        "rdma dev" => all(&["refault_0: node_type ca protocol ib", "state ACTIVE physical_state LINK_UP"]),
        _ => false,
    }
}

/// Whether `rdma stat show mr` lists two regions, with this counter not zero in both.
fn both_count(text: &str, counter: &str) -> bool {
    let words: Vec<_> = text.split_whitespace().collect();
    let values = words.windows(2).filter(|pair| pair[0] == counter).map(|pair| pair[1]);
    values.clone().count() == 2 && values.filter_map(|value| value.parse::<u64>().ok()).all(|value| value > 0)
}

/// Whether `lspci -vv` shows the function as its driver and the IOMMU's driver set it up.
fn complete(output: &str) -> bool {
    const LINES: &[&str] = &[
        "Infiniband controller: Device 1fef:0001",
        "Express (v2) Root Complex Integrated Endpoint",
        "ExtTag- RBE+ FLReset+",
        "MSI-X: Enable+",
        "ATSCtl:\tEnable+",
        "PRICtl: Enable+",
        "PRISta: RF- UPRGI- Stopped- PASID+",
        "PASIDCtl: Enable+",
        "Kernel driver in use: refault_rdma",
    ];
    LINES.iter().all(|line| output.contains(line))
}

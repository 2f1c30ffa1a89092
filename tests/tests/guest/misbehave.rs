//! A driver that makes mistakes with page faults: only the requests that need the pages fail.

use serde_json::Value;

use crate::support::script;

#[test]
fn mistakes_in_answering_page_faults_fail_only_their_own_requests() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().join("trace").display().to_string();
    let text = "
        ip link set lo up
        break=/sys/module/refault_rdma/parameters/odp_break
        echo 15000 >${break}_ms
        export REFAULT_ODP_MODE=odp
        pingpong() {
            timeout 600 ibv_rc_pingpong -g 0 -n 20 \"$@\" >/tmp/server 2>&1 &
            sleep 1
            status=0
            timeout 600 ibv_rc_pingpong -g 0 -n 20 \"$@\" localhost >/tmp/client 2>&1 || status=$?
            test $status -eq 0 || kill $! 2>/dev/null || true
            wait $! || true
            return $status
        }
        hurts() {
            echo $1 >$break
            if pingpong -o; then echo \"$1 was not noticed\"; exit 1; fi
            grep -h 'Failed status' /tmp/client /tmp/server
            pingpong
            echo none >$break
            pingpong -o
            echo \"$1: over\"
        }
        hurts never
        hurts late
        hurts refuse
        echo twice >$break
        pingpong -o
        echo none >$break
        pingpong -O
        if echo sometimes >$break; then exit 1; fi
        echo all done";
    let arguments = ["--fault-timeout", "10", "--page-faults", "2", "--trace", &trace];
    let (said, log) = script(2, &arguments, text);
    assert_eq!(said.status, 0, "{said:#?}");
    for line in ["never: over", "late: over", "refuse: over", "all done"] {
        assert!(said.stdout.contains(line), "no {line:?} in {said:#?}");
    }
    assert!(log.contains("odp_break=sometimes"), "an unknown mistake is named: {log}");
    let counters = std::fs::read(folder.path().join("trace/counters.json")).expect("counters");
    let counters: Value = serde_json::from_slice(&counters).expect("JSON");
    let count = |name: &str| counters["nic"][name].as_u64().expect("a count");
    assert!(count("page_faults") > 0 && count("page_fault_timeouts") >= 2, "{counters:#}");
    assert!(
        count("page_fault_answers_unexpected") > 0,
        "second answers are ignored and counted: {counters:#}"
    );
}

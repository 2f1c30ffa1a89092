//! The kernel module and the provider under stock verbs programs, and whether they leave anything behind.

use crate::support::script;

/// Shell functions: a ping-pong over loopback that ends by itself, and one that runs until it is killed.
const PINGPONG: &str = r#"
ip link set lo up
pingpong() {
    ibv_rc_pingpong "$@" >/tmp/server 2>&1 &
    sleep 1
    ibv_rc_pingpong "$@" localhost || { cat /tmp/server; return 1; }
    wait $!
}
traffic() {
    ibv_rc_pingpong -g 0 -n 100000000 -O >/dev/null 2>&1 &
    server=$!
    sleep 1
    ibv_rc_pingpong -g 0 -n 100000000 -O localhost >/dev/null 2>&1 &
    client=$!
    for tries in $(seq 600); do
        test "$(rdma resource show qp | grep -c 'state RTS')" -eq 2 && return
        sleep 0.1
    done
    echo "no traffic"
    return 1
}
kill_traffic() {
    kill -9 $client $server 2>/dev/null || true
    wait || true
}
"#;

#[test]
fn stock_pingpong_runs_pinned_and_on_demand() {
    let text = format!(
        "{PINGPONG}
        pingpong -g 0 -n 100
        pingpong -g 0 -n 100 -e
        pingpong -g 0 -n 100 -O
        pingpong -g 0 -n 100 -o
        pingpong -g 0 -n 20 -s 100000 -O"
    );
    let (said, _) = script(2, &[], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout.matches("iters in").count(), 5, "{said:#?}");
}

#[test]
fn the_driver_can_be_unbound_unloaded_and_killed_and_leaves_nothing_behind() {
    unbind_unload_and_kill("pasid");
}

#[test]
fn the_same_with_regions_that_the_nic_translates() {
    unbind_unload_and_kill("odp");
}

fn unbind_unload_and_kill(mode: &str) {
    let text = format!(
        "{PINGPONG}
        device=$(basename $(dirname $(ls -d /sys/bus/pci/devices/*/infiniband)))
        pingpong -g 0 -n 50 -O
        for round in 1 2 3; do
            traffic
            kill_traffic
        done
        test -z \"$(rdma resource show qp | grep -v kernel)\"
        test -z \"$(rdma resource show mr)\"
        traffic
        echo $device >/sys/bus/pci/drivers/refault_rdma/unbind
        test ! -e /sys/class/infiniband/refault_0
        kill_traffic
        echo $device >/sys/bus/pci/drivers/refault_rdma/bind
        pingpong -g 0 -n 50 -O
        traffic
        echo 1 >/sys/bus/pci/devices/$device/remove
        test ! -e /sys/class/infiniband/refault_0
        kill_traffic
        echo 1 >/sys/bus/pci/rescan
        pingpong -g 0 -n 50 -O
        traffic
        rmmod refault_rdma
        kill_traffic
        depmod
        modprobe refault_rdma
        pingpong -g 0 -n 50 -O
        rmmod refault_rdma
        echo all done"
    );
    let (said, _) = script(2, &["--env", &format!("REFAULT_ODP_MODE={mode}")], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
}

#[test]
fn resets_sleep_and_switches_in_configuration_space_under_traffic_do_no_lasting_harm() {
    let text = format!(
        "{PINGPONG}
        device=$(basename $(dirname $(ls -d /sys/bus/pci/devices/*/infiniband)))
        rebind() {{
            echo $device >/sys/bus/pci/drivers/refault_rdma/unbind
            echo $device >/sys/bus/pci/drivers/refault_rdma/bind
        }}
        works() {{
            kill_traffic
            pingpong -g 0 -n 50 -O
            REFAULT_ODP_MODE=odp pingpong -g 0 -n 50 -O
        }}
        traffic
        echo 1 >/sys/bus/pci/devices/$device/reset
        works
        traffic
        echo devices >/sys/power/pm_test
        echo freeze >/sys/power/state
        works
        traffic
        setpci -s $device COMMAND=0:4
        kill_traffic
        echo 1 >/sys/bus/pci/devices/$device/reset
        works
        traffic
        setpci -s $device COMMAND=0:4
        kill_traffic
        rebind
        works
        traffic
        setpci -s $device COMMAND=0:2
        kill_traffic
        setpci -s $device COMMAND=2:2
        rebind
        works
        echo all done"
    );
    let (said, log) = script(2, &[], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(log.matches("out of service until it is reset or bound again").count(), 3, "{log}");
}

#[test]
fn without_an_iommu_regions_are_pinned_or_translated_by_the_nic_and_pasid_mode_is_refused() {
    let text = format!(
        "{PINGPONG}
        pingpong -g 0 -n 50
        pingpong -g 0 -n 50 -O
        pingpong -g 0 -n 50 -o
        export REFAULT_ODP_MODE=pasid
        for attempt in 1 2 3; do
            if ibv_rc_pingpong -g 0 -n 50 -O; then exit 1; fi
        done
        unset REFAULT_ODP_MODE
        ibv_devinfo -v | grep ODP_SUPPORT_IMPLICIT
        rmmod refault_rdma
        depmod
        modprobe refault_rdma odp_mode=pasid
        if ibv_devinfo -v | grep ODP_SUPPORT; then exit 1; fi
        if ibv_rc_pingpong -g 0 -n 50 -O; then exit 1; fi
        REFAULT_ODP_MODE=odp refault-faults
        pingpong -g 0 -n 50
        echo all done"
    );
    let (said, log) = script(1, &["--append", "intel_iommu=off"], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(log.matches("on-demand regions use the NIC's table: no IOMMU serves the NIC").count(), 1);
    assert_eq!(log.matches("on-demand regions in PASID mode are refused").count(), 1, "{log}");
}

#[test]
fn on_demand_regions_of_the_nic_keep_their_promises() {
    let text = "
        echo 4 >/proc/sys/vm/nr_hugepages
        mkdir /tmp/groups
        mount -t cgroup2 none /tmp/groups
        echo +memory >/tmp/groups/cgroup.subtree_control
        mkdir /tmp/groups/check
        sh -c 'echo $$ >/tmp/groups/check/cgroup.procs; exec refault-odp-check /tmp/groups/check'
        refault-unmap-cost
        test -z \"$(rdma resource show mr)\"
        ip link set lo up
        ibv_rc_pingpong -g 0 -n 1000000 -o >/dev/null 2>&1 &
        server=$!
        sleep 1
        ibv_rc_pingpong -g 0 -n 1000000 -o localhost >/dev/null 2>&1 &
        client=$!
        sleep 3
        rdma -dd resource show mr
        rdma statistic show mr
        kill -9 $client $server
        echo all done";
    let (said, _) = script(2, &["--env", "REFAULT_ODP_MODE=odp"], text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done") && !said.stdout.contains("NOT OK"), "{said:#?}");
    assert_eq!(
        said.stdout.matches("drv_mode odp drv_pages 1 drv_table_levels 1 drv_table_pages 1").count(),
        2
    );
    assert_eq!(said.stdout.matches("page_invalidations 0").count(), 2, "{said:#?}");
}

/// SVA is compiled out of that kernel, whatever the IOMMU offers.
#[test]
fn on_a_kernel_without_sva_the_nic_translates_and_pasid_mode_is_refused_in_one_line() {
    let text = format!(
        "{PINGPONG}
        case $(uname -r) in 6.12.*) ;; *) exit 1 ;; esac
        ibv_devinfo -v | grep ODP_SUPPORT_IMPLICIT
        pingpong -g 0 -n 50
        pingpong -g 0 -n 50 -o
        pingpong -g 0 -n 50 -o -P
        pingpong -g 0 -n 50 -O
        echo 4 >/proc/sys/vm/nr_hugepages
        refault-odp-check
        rmmod refault_rdma
        depmod
        modprobe refault_rdma odp_mode=pasid
        if ibv_devinfo -v | grep ODP_SUPPORT; then exit 1; fi
        # The log has its name, and must not have the word.
        cp /usr/bin/refault-faults /tmp/register
        for attempt in 1 2 3; do
            if /tmp/register; then exit 1; fi
        done
        pingpong -g 0 -n 50
        REFAULT_ODP_MODE=odp refault-odp-check
        rmmod refault_rdma
        echo all done"
    );
    let (said, log) = script(2, &["--kernel-series", "6.12"], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done") && !said.stdout.contains("NOT OK"), "{said:#?}");
    let count = |line: &str| log.matches(line).count();
    assert_eq!(count("use the NIC's table: this kernel has no shared virtual addressing"), 1, "{log}");
    assert_eq!(count("are refused: this kernel has no shared virtual addressing"), 1, "{log}");
    assert_eq!(count("on-demand regions in PASID mode are refused"), 1, "{log}");
}

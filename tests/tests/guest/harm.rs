//! What one process does, or what happens to it, harms no other process that uses the NIC.

use crate::support::script;

/// The file system is thawed only after everybody has got on, so a wait for the page would end in no pass.
const FROZEN: &str = r#"
device=$(basename $(dirname $(ls -d /sys/bus/pci/devices/*/infiniband)))
driver=/sys/bus/pci/drivers/refault_rdma
# While the page is missing the driver must not go, but afterwards it must.
leave() {
    rm -f /tmp/gone
    refault-frozen "($1; echo gone >/tmp/gone) & sleep 2; test ! -e /tmp/gone"
    for tries in $(seq 600); do test -e /tmp/gone && return; sleep 0.1; done
    return 1
}
for mode in pasid odp; do
    export REFAULT_ODP_MODE=$mode
    refault-frozen
    leave "echo $device >$driver/unbind"
    echo $device >$driver/bind
    refault-frozen
    leave "rmmod refault_rdma"
    depmod
    modprobe refault_rdma
done
echo all done
"#;

#[test]
fn a_page_on_a_frozen_file_system_holds_up_only_its_own_requests() {
    let (said, _) = script(2, &[], FROZEN);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done") && !said.stdout.contains("NOT OK"), "{said:#?}");
}

#[test]
fn a_page_that_is_never_answered_and_a_stopped_process_hold_up_no_other_process() {
    let text = "
        for mode in pasid odp; do
            REFAULT_ODP_MODE=$mode refault-unanswered
        done";
    let (said, _) = script(2, &[], text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout.matches("ok - all is well afterwards").count(), 2, "{said:#?}");
}

/// Their number depends on the time that the first five take. They are meant to die, so the kernel is set not to
/// log it.
const HOSTILE: &str = r#"
echo 0 >/proc/sys/debug/exception-trace
now() { cut -d. -f1 /proc/uptime; }
begin=$(now)
refault-hostile 5
took=$(($(now) - begin))
count=100
test $took -gt 2 && count=30
test $took -gt 10 && count=10
for mode in pasid odp; do
    REFAULT_ODP_MODE=$mode refault-hostile $count
done
for tries in $(seq 600); do
    test -z "$(rdma resource show mr)$(rdma resource show qp | grep -v kernel)" && break
    sleep 0.1
done
test -z "$(rdma resource show mr)"
rmmod refault_rdma
echo all done
"#;

#[test]
fn hostile_processes_harm_only_themselves() {
    let (said, _) = script(2, &[], HOSTILE);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(said.stdout.matches("rounds=").count(), 3, "{said:#?}");
}

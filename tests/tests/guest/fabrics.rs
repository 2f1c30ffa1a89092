//! Kernel storage protocols over the port: NVMe over Fabrics, whose initiator registers memory by requests.

use crate::support::script_in_trouble;

/// Initiator and target each on either port, and their NIC stops under both.
fn disks_over_the_wire(options: &[&str]) {
    let text = format!("set -x\n{}\n{}", include_str!("port.sh"), include_str!("fabrics.sh"));
    // What a disk held when its NIC stopped may fail.
    let (said, log) = script_in_trouble(2, options, &text, &["I/O error, dev nvme"]);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(log.matches("out of service until it is reset or bound again").count(), 2, "{log}");
}

#[test]
fn disks_of_our_driver_and_of_soft_roce_hold_what_is_written() {
    disks_over_the_wire(&["--nic", "roce", "--nic", "ether", "--env", "RXE=1"]);
}

#[test]
fn disks_between_two_ports_of_our_driver_hold_what_is_written() {
    disks_over_the_wire(&["--nic", "roce", "--nic", "roce"]);
}

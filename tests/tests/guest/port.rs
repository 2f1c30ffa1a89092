//! The driver of an Ethernet port: its network interface and RDMA device in use, and taken away while they are.

use crate::support::{Said, script};

const FUNCTIONS: &str = include_str!("port.sh");

/// Runs a script on two ports that are connected; returns its output and the kernel's log.
fn two_ports(series: &[&str], text: &str) -> (Said, String) {
    let options: Vec<&str> = ["--nic", "roce", "--nic", "roce"].iter().chain(series).copied().collect();
    let (said, log) = script(2, &options, &format!("set -x\n{FUNCTIONS}\n{text}"));
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    (said, log)
}

#[test]
fn a_port_is_a_network_interface_with_rdma() {
    two_ports(&[], include_str!("port_basics.sh"));
}

#[test]
fn a_port_is_that_on_the_oldest_kernel_too() {
    two_ports(&["--kernel-series", "6.12"], include_str!("port_basics.sh"));
}

#[test]
fn a_port_may_go_under_load_and_come_back() {
    let (_, log) = two_ports(&[], include_str!("port_teardown.sh"));
    assert_eq!(log.matches("out of service until it is reset or bound again").count(), 1, "{log}");
}

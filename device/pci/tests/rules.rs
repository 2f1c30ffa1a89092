//! The rules of config space and MSI-X, one test each.

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use refault_pci::caps::{ats, express, pri};
use refault_pci::{Controls, Endpoint, EndpointLayoutError, MsixLayout, PciFunction};
use support::{Function, IDENTITY, MSIX, Sent, endpoint};

const COMMAND: u16 = 4;
const MEMORY: u16 = 2;
const MASTER: u16 = 4;

/// Fills MSI-X entry `vector` and sets its mask bit.
fn entry(function: &Function, vector: u64, data: u32, masked: u32) {
    let at = vector * 16;
    function.bar_write(4, at, &0xfee0_1000_u64.to_le_bytes());
    function.bar_write(4, at + 8, &data.to_le_bytes());
    function.bar_write(4, at + 12, &masked.to_le_bytes());
}

fn pending(function: &Function) -> u64 {
    let mut data = [0; 8];
    function.bar_read(4, u64::from(MSIX.pending), &mut data);
    u64::from_le_bytes(data)
}

/// A function that may send interrupts.
fn sending() -> Function {
    let function = Function::new();
    function.write16(COMMAND, MEMORY | MASTER);
    function.write16(function.msix() + 2, 0x8000);
    function
}

#[test]
fn a_bar_reads_its_size_after_ones_are_written() {
    let function = Function::new();
    for bar in 0..6 {
        function.write32(0x10 + bar * 4, u32::MAX);
    }
    let size = |at| !(u64::from(function.read32(at + 4)) << 32 | u64::from(function.read32(at) & !0xf)) + 1;
    assert_eq!((size(0x10), size(0x18), size(0x20)), (0x1000, 1 << 33, 0x2000));
}

#[test]
fn a_bar_is_decoded_only_with_memory_space_on_and_power() {
    let function = Function::new();
    assert!(!function.write32(0x10, 0xd000_0000).bars_moved, "nothing was decoded before");
    assert_eq!(function.endpoint.bar(0), None);
    assert!(function.write16(COMMAND, MEMORY).bars_moved);
    assert_eq!(function.endpoint.bar(0), Some(0xd000_0000..0xd000_1000));
    assert!(function.write32(0x10, 0xd800_0000).bars_moved);
    assert_eq!(function.endpoint.bar(0), Some(0xd800_0000..0xd800_1000));
    assert!(function.write16(function.power() + 4, 3).bars_moved);
    assert_eq!(function.endpoint.bar(0), None);
    assert!(function.write16(function.power() + 4, 0).bars_moved);
    assert_eq!(function.endpoint.bar(1), None, "the upper register is not a BAR of its own");
}

#[test]
fn a_bar_whose_range_would_wrap_is_not_decoded() {
    let function = Function::new();
    function.write16(COMMAND, MEMORY);
    function.write32(0x10, 0xffff_f000);
    function.write32(0x14, 0xffff_ffff);
    assert_eq!(function.endpoint.bar(0), None);
}

#[test]
fn power_states_that_are_not_there_are_not_entered() {
    let function = Function::new();
    for state in [1, 2] {
        function.write16(function.power() + 4, state);
        assert_eq!(function.read16(function.power() + 4) & 3, 0);
    }
}

#[test]
fn controls_follow_the_switches() {
    let function = Function::new();
    let switch = |offset, value, is: fn(Controls) -> bool| {
        assert!(!is(function.endpoint.controls()));
        let effect = function.write16(offset, value);
        assert!(effect.turned_on(is) && is(function.endpoint.controls()));
        assert!(function.write16(offset, 0).turned_off(is));
    };
    switch(COMMAND, MASTER, Controls::bus_master);
    switch(COMMAND, MEMORY, Controls::memory_space);
    switch(function.ats() + 6, 0x8000, Controls::ats);
    switch(function.pri() + 4, 1, Controls::pri);
    switch(function.pasid() + 6, 1, Controls::pasid);
    switch(function.msix() + 2, 0x8000, Controls::msix_enabled);
    switch(function.msix() + 2, 0x4000, Controls::msix_masked);
}

#[test]
fn a_write_that_changes_nothing_is_no_event() {
    let function = Function::new();
    function.write16(0, 0x1234);
    function.write16(0x3c, 11);
    assert_eq!((function.read16(0), function.read16(0x3c)), (0x1fef, 11));
    assert!(function.events().is_empty());
    function.write16(COMMAND, MASTER);
    assert_eq!(function.events(), ["changed"]);
}

#[test]
fn a_function_level_reset_resets_everything_once() {
    let function = sending();
    function.write32(0x10, 0xd000_0000);
    function.write16(function.pri() + 4, 1);
    function.write16(function.ats() + 6, 0x8000);
    entry(&function, 0, 0x41, 0);
    function.events();
    let effect = function.write16(function.express() + 8, 0x8000);
    assert!(effect.function_reset && effect.bars_moved && effect.after == Controls::default());
    assert_eq!(function.events(), ["reset"]);
    assert_eq!(function.read16(function.express() + 8) & 0x8000, 0);
    assert_eq!(function.read32(0x10), 4);
    assert_eq!(function.read16(function.pri() + 6), 0x8100);
    function.endpoint.notify(0);
    assert!(function.sent.take().is_empty());
}

#[test]
fn a_page_request_interface_is_stopped_when_disabled_and_idle() {
    let function = Function::new();
    let status = || function.read16(function.pri() + 6);
    assert_eq!(status(), 0x8100);
    function.write16(function.pri() + 4, 1);
    function.endpoint.set_pri_busy(true);
    assert_eq!(status(), 0x8000);
    function.write16(function.pri() + 4, 0);
    assert_eq!(status(), 0x8000, "requests are outstanding");
    function.endpoint.set_pri_busy(false);
    assert_eq!(status(), 0x8100);
}

#[test]
fn a_page_request_interface_is_reset_only_while_disabled() {
    let function = Function::new();
    assert!(!function.write16(function.pri() + 4, 3).pri_reset);
    function.endpoint.set_pri_busy(true);
    assert!(function.write16(function.pri() + 4, 2).pri_reset);
    assert_eq!(function.events(), ["changed", "pri reset"]);
    assert_eq!(function.read32(function.pri() + 4), 0x8100_0000, "stopped, and no bit to read back");
}

#[test]
fn page_request_failures_stay_until_cleared_or_enabled_anew() {
    let function = Function::new();
    function.write16(function.pri() + 4, 1);
    function.endpoint.set_pri_response_failure();
    function.endpoint.set_pri_unexpected_group();
    assert_eq!(function.read16(function.pri() + 6), 0x8003);
    function.write16(function.pri() + 6, 1);
    assert_eq!(function.read16(function.pri() + 6), 0x8002);
    assert!(!function.endpoint.pri_response_failure());
    function.endpoint.set_pri_response_failure();
    function.write16(function.pri() + 4, 0);
    assert!(function.endpoint.pri_response_failure());
    function.write16(function.pri() + 4, 1);
    assert_eq!(function.read16(function.pri() + 6), 0x8000);
}

#[test]
fn the_allocation_is_what_the_guest_wrote() {
    let function = Function::new();
    function.write32(function.pri() + 12, 7);
    function.write32(function.pri() + 8, 7);
    assert_eq!(function.endpoint.pri_allocation(), 7);
    assert_eq!(function.read32(function.pri() + 8), 512, "the capacity is read-only");
}

#[test]
fn a_vector_is_sent_with_its_message() {
    let function = sending();
    entry(&function, 3, 0x41, 0);
    function.endpoint.notify(3);
    let sent = function.sent.0.lock().unwrap().clone();
    assert_eq!((sent.len(), sent[0].address, sent[0].data), (1, 0xfee0_1000, 0x41));
}

#[test]
fn a_masked_vector_is_pending_and_sent_once_on_unmask() {
    let function = sending();
    entry(&function, 64, 0x42, 1);
    function.endpoint.notify(64);
    function.endpoint.notify(64);
    let mut second = [0; 8];
    function.bar_read(4, u64::from(MSIX.pending) + 8, &mut second);
    assert_eq!((pending(&function), second[0]), (0, 1));
    assert!(function.sent.take().is_empty());
    function.bar_write(4, 64 * 16 + 12, &[0]);
    assert_eq!(function.sent.take(), [0x42]);
    function.bar_write(4, 64 * 16 + 12, &[0]);
    assert!(function.sent.take().is_empty());
}

#[test]
fn a_masked_function_keeps_its_vectors_pending() {
    let function = sending();
    entry(&function, 0, 0x40, 0);
    entry(&function, 1, 0x41, 0);
    function.write16(function.msix() + 2, 0xc000);
    function.endpoint.notify(1);
    assert_eq!((pending(&function), function.sent.take().len()), (2, 0));
    function.write16(function.msix() + 2, 0x8000);
    assert_eq!((pending(&function), function.sent.take()), (0, vec![0x41]));
}

#[test]
fn nothing_is_sent_while_bus_mastering_is_off() {
    let function = sending();
    entry(&function, 0, 0x40, 0);
    function.write16(COMMAND, MEMORY);
    function.endpoint.notify(0);
    assert!(function.sent.take().is_empty());
    function.write16(COMMAND, MEMORY | MASTER);
    assert_eq!(function.sent.take(), [0x40]);
}

#[test]
fn a_vector_that_is_not_there_is_nothing() {
    let function = sending();
    function.endpoint.notify(65);
    function.endpoint.notify(u16::MAX);
    assert!(function.sent.take().is_empty());
}

#[test]
fn the_pending_bits_cannot_be_written() {
    let function = sending();
    function.bar_write(4, u64::from(MSIX.pending), &[0xff; 8]);
    assert_eq!(pending(&function), 0);
    assert!(function.sent.take().is_empty());
}

#[test]
fn descriptions_no_function_can_have_are_refused() {
    let new = || Endpoint::builder(IDENTITY);
    let error = |builder: refault_pci::EndpointBuilder| builder.build().err();
    assert_eq!(
        error(new().bar(0, 0x1800, false)),
        Some(EndpointLayoutError::BadBar { index: 0, size: 0x1800 })
    );
    assert_eq!(
        error(new().bar(5, 0x1000, false)),
        Some(EndpointLayoutError::BadBar { index: 5, size: 0x1000 })
    );
    let overlap = new().bar(0, 0x1000, false).bar(1, 0x1000, false);
    assert_eq!(error(overlap), Some(EndpointLayoutError::OverlappingBar { index: 1 }));
    let twice = new().capability(express::integrated_endpoint()).capability(express::integrated_endpoint());
    assert_eq!(error(twice), Some(EndpointLayoutError::Twice(0x10)));
    let layout = MsixLayout { bar: 4, vectors: 300, table: 0, pending: 0x800 };
    let msix = new().bar(4, 0x4000, false).msix(layout, Arc::new(Sent::default()));
    assert_eq!(
        error(msix),
        Some(EndpointLayoutError::BadMsix(layout)),
        "the table runs into the pending bits"
    );
}

#[test]
fn a_function_without_capabilities_says_so() {
    let plain = Endpoint::builder(IDENTITY).build().unwrap();
    let mut status = [0; 2];
    plain.config_read(6, &mut status);
    assert_eq!(status, [0, 0]);
    endpoint(Arc::default()).config_read(6, &mut status);
    assert_eq!(status, [0x10, 0]);
}

#[test]
fn queue_depths_are_written_as_the_specification_has_them() {
    for (depth, bits) in [(1, 1), (31, 31), (32, 0), (200, 0), (0, 1)] {
        let endpoint =
            Endpoint::builder(IDENTITY).capability(ats::address_translation(depth)).build().unwrap();
        let mut byte = [0];
        endpoint.config_read(0x104, &mut byte);
        assert_eq!(byte[0] & 0x1f, bits);
    }
    assert_ne!(pri::page_requests(1), pri::page_requests(2));
}

proptest! {
    #[test]
    fn any_access_is_answered(
        accesses in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..64)
    ) {
        let function = Function::new();
        let before = function.read32(0);
        for (offset, data) in accesses {
            let offset = offset % 0x1100;
            function.config_write(offset, &data);
            function.config_read(offset, &mut vec![0; data.len()]);
            function.bar_write(4, u64::from(offset), &data);
            function.bar_read(4, u64::from(offset), &mut vec![0; data.len()]);
            function.endpoint.notify(offset);
        }
        prop_assert_eq!(function.read32(0), before);
    }

    #[test]
    fn bytes_and_dwords_write_the_same(offset in 0u16..1024, value in any::<u32>()) {
        let (whole, split) = (endpoint(Arc::default()), endpoint(Arc::default()));
        let at = offset * 4;
        whole.config_write(at, &value.to_le_bytes());
        for (byte, at) in value.to_le_bytes().into_iter().zip(at..) {
            split.config_write(at, &[byte]);
        }
        let (mut one, mut other) = ([0; 4], [0; 4]);
        whole.config_read(at, &mut one);
        split.config_read(at, &mut other);
        prop_assert_eq!(one, other);
        prop_assert_eq!(whole.controls(), split.controls());
    }
}

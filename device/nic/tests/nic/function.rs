//! The PCI function: registers, config space, resets.

use refault_abi::codes::WC_SUCCESS;
use refault_abi::command::{
    CAP_ATOMIC_GLOBAL, CAP_ODP, CAP_PASID, CMD_MAX_LOG_SLOTS, CMD_QUERY_DEVICE, CMD_QUERY_QP, DeviceCaps,
    ObjectId, QpSnapshot, STATUS_NO_OBJECT,
};
use refault_abi::regs::{
    ABI_VERSION, CONTROL_ENABLE, CONTROL_RESET, MAGIC_VALUE, MAX_EQS, REG_CMD0_DOORBELL, REG_CMD1_BASE,
    REG_CMD1_LOG, REG_CONTROL, REG_MAGIC, REG_STATUS, REG_TIME_NS, REG_VERSION, STATUS_FATAL,
};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::pri::ResponseCode;
use refault_nic::NicConfig;
use refault_pci::PciFunction;

use crate::support::driver::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

#[test]
fn the_registers_name_the_device_and_its_time() {
    let bench = Bench::cold(NicConfig::default());
    assert_eq!(bench.read32(REG_MAGIC), MAGIC_VALUE);
    assert_eq!(bench.read32(REG_VERSION), ABI_VERSION);
    assert_eq!((bench.read32(REG_STATUS), bench.read32(REG_CONTROL)), (0, 0));
    bench.clock.advance(0x1_2345_6789);
    let mut time = [0; 8];
    bench.nic.bar_read(0, REG_TIME_NS, &mut time);
    assert_eq!(u64::from_le_bytes(time), 0x1_2345_6789);
    let mut byte = [0; 1];
    bench.nic.bar_read(0, REG_MAGIC + 1, &mut byte);
    assert_eq!(byte, [b'F']);
}

#[test]
fn lanes_are_set_up_before_and_not_after_enabling() {
    let bench = Bench::cold(NicConfig::default());
    bench.nic.bar_write(0, REG_CMD1_BASE, &0x1_2345_6fffu64.to_le_bytes());
    bench.write32(REG_CMD1_LOG, 99);
    let mut base = [0; 8];
    bench.nic.bar_read(0, REG_CMD1_BASE, &mut base);
    assert_eq!(u64::from_le_bytes(base), 0x1_2345_6000);
    assert_eq!(bench.read32(REG_CMD1_LOG), CMD_MAX_LOG_SLOTS);
    bench.write32(REG_CONTROL, CONTROL_ENABLE);
    bench.write32(REG_CMD1_LOG, 1);
    assert_eq!(bench.read32(REG_CMD1_LOG), CMD_MAX_LOG_SLOTS);
}

#[test]
fn a_command_ring_that_cannot_be_reached_is_fatal_until_reset() {
    for bus_master in [true, false] {
        let bench = Bench::default();
        if bus_master {
            bench.iommu.block(0x1000);
        } else {
            bench.set_config_bits(4, 4, false);
        }
        bench.post_command(0, CMD_QUERY_DEVICE, &[]);
        bench.settle();
        assert_eq!(bench.read32(REG_STATUS), STATUS_FATAL);
        bench.iommu.unblock_all();
        bench.set_config_bits(4, 4, true);
        bench.post_command(0, CMD_QUERY_DEVICE, &[]);
        bench.settle();
        assert_eq!(bench.response(0, 0).token, 0);
        bench.write32(REG_CONTROL, CONTROL_RESET);
        assert_eq!((bench.read32(REG_CONTROL), bench.read32(REG_STATUS)), (0, 0));
        bench.enable();
        assert!(bench.command::<_, DeviceCaps>(CMD_QUERY_DEVICE, &[0u8; 0]).is_ok());
    }
}

#[test]
fn a_command_index_out_of_range_is_fatal() {
    let bench = Bench::default();
    bench.write32(REG_CMD0_DOORBELL, 5);
    assert_eq!(bench.read32(REG_STATUS), STATUS_FATAL);
}

#[test]
fn an_event_ring_that_cannot_be_written_is_fatal() {
    let mut pair = Pair::new();
    pair.cq_a.arm(&pair.bench, false);
    pair.bench.iommu.block(pair.eq.gpa);
    pair.bench.iommu.invalidate(None, pair.eq.gpa, 12);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    assert_eq!(pair.bench.read32(REG_STATUS), STATUS_FATAL);
}

#[test]
fn the_capabilities_follow_what_is_switched_on() {
    let bench = Bench::default();
    let caps = |bench: &Bench| bench.command::<_, DeviceCaps>(CMD_QUERY_DEVICE, &[0u8; 0]).unwrap();
    const ALWAYS: u32 = CAP_ATOMIC_GLOBAL | CAP_ODP;
    assert_eq!(caps(&bench).features, CAP_PASID | ALWAYS);
    assert_eq!((caps(&bench).lid, caps(&bench).max_eq, caps(&bench).gids), (1, MAX_EQS, 1));
    let pasid = bench.extended(0x1b);
    bench.set_config_bits(pasid + 6, 1, false);
    assert_eq!(caps(&bench).features, ALWAYS);
}

#[test]
fn every_reset_leaves_nothing_behind_whatever_is_in_flight() {
    type Reset = fn(&Bench);
    let resets: [Reset; 3] = [
        |bench| bench.write32(REG_CONTROL, CONTROL_RESET),
        |bench| bench.write32(REG_CONTROL, 0),
        |bench| {
            let express = bench.config16(0x34) & 0xff;
            let mut at = express;
            while bench.config16(at) & 0xff != 0x10 {
                at = bench.config16(at) >> 8;
            }
            bench.set_config_bits(at + 8, 0x8000, true);
        },
    ];
    for (reset, flr) in resets.into_iter().zip([false, false, true]) {
        let mut pair = Pair::new();
        pair.cq_a.arm(&pair.bench, false);
        pair.run(&pair.write(1, 8, HEAP, pair.process));
        let late = pair.bench.iommu.take_requests()[0];
        pair.a.send(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
        reset(&pair.bench);
        assert_eq!(pair.bench.read32(REG_STATUS), 0);
        pair.map_page(HEAP, true);
        pair.bench.iommu.answer(&late, ResponseCode::Success);
        assert_eq!(pair.bench.nic.stats().page_responses_unexpected, u64::from(flr));
        pair.bench.settle();
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
        assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
        if flr {
            assert!(!pair.bench.nic.endpoint().controls().bus_master());
            pair.bench.switch_on();
        }
        pair.bench.fill(0x1000, &[0; 0x2000]);
        pair.bench.enable();
        let gone = ObjectId { id: pair.a.qpn, reserved: 0 };
        assert_eq!(pair.bench.command::<_, QpSnapshot>(CMD_QUERY_QP, &gone), Err(STATUS_NO_OBJECT));
        assert_eq!(pair.bench.context(None), 0);
        assert_eq!(Eq::new(&pair.bench, 3, 0).eqn, 0);
    }
}

#[test]
fn doorbells_of_nothing_and_of_others_do_nothing() {
    let mut pair = Pair::new();
    let other = pair.bench.context(None);
    pair.a.prepare(&pair.bench, &pair.write(1, 8, pair.to, pair.rkey));
    for kind in 0..=255 {
        pair.bench.doorbell(other, kind, pair.a.qpn, 0);
        pair.bench.doorbell(other, kind, pair.cq_a.cqn, 0);
        pair.bench.doorbell(pair.context, kind, pair.a.qpn ^ 0x80_0000, 0);
        pair.bench.doorbell(1023, kind, 0xff_ffff, u32::MAX);
    }
    pair.bench.nic.bar_write(2, u64::from(pair.context) << 12, &[1]);
    pair.bench.nic.bar_write(2, (u64::from(pair.context) << 12) + 8, &[0xff; 8]);
    pair.bench.nic.bar_write(2, u64::MAX - 7, &[0xff; 8]);
    pair.bench.nic.bar_write(5, 0, &[0xff; 8]);
    pair.bench.settle();
    assert!(pair.cq_a.drain(&pair.bench).is_empty() && pair.eq.drain(&pair.bench).is_empty());
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn the_doorbell_pages_read_as_nothing() {
    let bench = Bench::default();
    let mut data = [0xff; 8];
    bench.nic.bar_read(2, 0, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn completions_bear_the_device_s_time() {
    let mut pair = Pair::new();
    pair.bench.clock.advance(12_345);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).timestamp_ns, 12_345);
    let _ = pair.bench.ram.load_u32(Gpa(0));
}

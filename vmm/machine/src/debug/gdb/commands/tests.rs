//! gdb's commands on a simulated guest.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use gdbstub::target::ext::breakpoints::{HwBreakpoint, HwWatchpoint, SwBreakpoint};

use super::*;
use crate::debug::registers::Registers;
use crate::debug::traps::StopListener;

const PAGE: u64 = 4096;
const MEMORY: usize = 64 << 10;

/// Two vCPUs, 64 KiB of memory, and page tables that a test fills.
pub(crate) struct Fake {
    memory: Mutex<Vec<u8>>,
    pages: Mutex<BTreeMap<u64, u64>>,
    halted: AtomicBool,
    killed: AtomicBool,
    resumed: Mutex<Resume>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            memory: Mutex::new(vec![0; MEMORY]),
            pages: Mutex::default(),
            halted: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            resumed: Mutex::default(),
        }
    }
}

impl Fake {
    /// Maps the page at a guest-virtual address.
    pub(crate) fn map(&self, address: u64, physical: u64) {
        self.pages.lock().expect("not poisoned").insert(address, physical);
    }

    /// Bytes of guest-physical memory.
    pub(crate) fn physical(&self, address: usize, count: usize) -> Vec<u8> {
        self.memory.lock().expect("not poisoned")[address..address + count].to_vec()
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::SeqCst)
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
}

impl DebuggedGuest for Fake {
    fn cpus(&self) -> u8 {
        2
    }

    fn registers(&self, cpu: u8) -> anyhow::Result<Registers> {
        Ok(Registers { rip: u64::from(cpu), ..Registers::default() })
    }

    fn set_registers(&self, _cpu: u8, _registers: &Registers) -> anyhow::Result<()> {
        Ok(())
    }

    fn translate(&self, _cpu: u8, address: u64) -> Option<u64> {
        let physical = *self.pages.lock().expect("not poisoned").get(&(address & !(PAGE - 1)))?;
        Some(physical + address % PAGE)
    }

    fn read(&self, physical: u64, data: &mut [u8]) -> bool {
        let memory = self.memory.lock().expect("not poisoned");
        let from = memory.get(physical as usize..physical as usize + data.len());
        from.map(|from| data.copy_from_slice(from)).is_some()
    }

    fn write(&self, physical: u64, data: &[u8]) -> bool {
        let mut memory = self.memory.lock().expect("not poisoned");
        let to = memory.get_mut(physical as usize..physical as usize + data.len());
        to.map(|to| to.copy_from_slice(data)).is_some()
    }

    fn listen(&self, _listener: Option<StopListener>) {}

    fn halt(&self) {
        self.halted.store(true, Ordering::SeqCst);
    }

    fn resume(&self, how: &Resume) -> anyhow::Result<()> {
        *self.resumed.lock().expect("not poisoned") = how.clone();
        self.halted.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }
}

fn target() -> (GdbTarget, Arc<Fake>) {
    let guest = Arc::new(Fake::default());
    guest.map(0x1000, 0x2000);
    (GdbTarget::new(guest.clone()), guest)
}

fn resumed(target: &mut GdbTarget, guest: &Fake) -> Resume {
    target.resume().expect("it continues");
    guest.resumed.lock().expect("not poisoned").clone()
}

#[test]
fn a_breakpoint_is_an_instruction_and_leaves_no_trace() {
    let (mut target, guest) = target();
    guest.write(0x2010, &[0x90]);
    assert_eq!(target.add_sw_breakpoint(0x1010, 1).ok(), Some(true));
    assert_eq!(target.add_sw_breakpoint(0x9000, 1).ok(), Some(false), "not mapped");
    assert_eq!(guest.physical(0x2010, 1), [INT3]);
    assert!(resumed(&mut target, &guest).traps.software.contains(&0x1010));
    assert_eq!(target.remove_sw_breakpoint(0x1010, 1).ok(), Some(true));
    assert_eq!(guest.physical(0x2010, 1), [0x90]);
}

#[test]
fn a_breakpoint_overwritten_by_the_guest_is_not_restored() {
    let (mut target, guest) = target();
    assert_eq!(target.add_sw_breakpoint(0x1010, 1).ok(), Some(true));
    guest.write(0x2010, &[0x55]);
    target.release();
    assert_eq!(guest.physical(0x2010, 1), [0x55]);
}

#[test]
fn there_are_four_debug_registers() {
    let (mut target, _) = target();
    for address in 0..4 {
        assert_eq!(target.add_hw_breakpoint(address, 1).ok(), Some(true));
    }
    assert_eq!(target.add_hw_breakpoint(9, 1).ok(), Some(false));
    assert_eq!(target.remove_hw_breakpoint(2, 1).ok(), Some(true));
    assert_eq!(target.add_hw_watchpoint(0x1008, 8, WatchKind::Write).ok(), Some(true));
    let watch = VcpuStop { cpu: 1, why: StopReason::Hardware(2) };
    let reason = MultiThreadStopReason::Watch { tid: thread(1), kind: WatchKind::Write, addr: 0x1008 };
    assert!(target.reason(watch) == reason && target.is_past(watch));
    assert!(!target.is_past(VcpuStop { cpu: 1, why: StopReason::Hardware(0) }));
}

#[test]
fn a_watchpoint_is_what_a_debug_register_can_hold() {
    assert!(watch(0x1000, 8, WatchKind::ReadWrite).is_some());
    for (address, length, kind) in
        [(0x1004, 8, WatchKind::Write), (0x1000, 3, WatchKind::Write), (0x1000, 8, WatchKind::Read)]
    {
        assert_eq!(watch(address, length, kind), None, "{address:#x} {length} {kind:?}");
    }
}

#[test]
fn a_single_step_may_run_one_vcpu_alone() {
    let (mut target, guest) = target();
    target.set_resume_action_step(thread(1), None).expect("set");
    assert_eq!(resumed(&mut target, &guest), Resume { step: Some(1), ..Resume::default() });
    target.set_resume_action_scheduler_lock().expect("set");
    assert_eq!(resumed(&mut target, &guest), Resume { step: Some(1), only: Some(1), ..Resume::default() });
    target.clear_resume_actions().expect("cleared");
    assert_eq!(resumed(&mut target, &guest), Resume::default());
}

//! An on-demand region and its driver: a table with holes, faults taken from the event queue, answers.

use refault_abi::codes::{CAUSE_PAGE_REFUSED, WC_REM_ACCESS_ERR, WcStatus};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_DESTROY_MR, CMD_INVALIDATE_MR, CMD_RESUME_FAULT, CommandStatus, CreateMr,
    InvalidateMr, MR_ODP, ODP_PRESENT, ODP_TABLE, ODP_WRITABLE, ObjectId, PageTable, ResumeFault,
};
use refault_abi::event::{EVENT_PAGE_FAULT, Eqe};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;

use super::driver::Eq;
use super::{ALL_RIGHTS, Bench};

/// A region of the bench with a three-level table whose tables are made as pages are put in.
pub(crate) struct OnDemand {
    pub(crate) key: u32,
    root: u64,
    start: u64,
    first_offset: u64,
    pub(crate) eq: Eq,
}

const LEVELS: u8 = 3;

impl OnDemand {
    pub(crate) fn command(bench: &Bench, pd: u32, eqn: u32, start: u64, length: u64) -> CreateMr {
        let root = bench.allocate(0x1000);
        CreateMr {
            start,
            length,
            table: PageTable { root, pages: 0, levels: LEVELS, page_shift: 12, reserved: 0 },
            first_offset: (start & 0x1f_ffff) as u32,
            pd,
            access: ALL_RIGHTS,
            mode: MR_ODP,
            fault_eqn: eqn,
            ..CreateMr::default()
        }
    }

    /// All holes.
    pub(crate) fn new(bench: &Bench, pd: u32, start: u64, length: u64) -> Self {
        let eq = Eq::new(bench, 6, 2);
        let command = Self::command(bench, pd, eq.eqn, start, length);
        Self::of(bench, &command, eq)
    }

    pub(crate) fn of(bench: &Bench, command: &CreateMr, eq: Eq) -> Self {
        let key = bench.command::<_, ObjectId>(CMD_CREATE_MR, command).unwrap().id;
        let first_offset = u64::from(command.first_offset);
        Self { key, root: command.table.root, start: command.start, first_offset, eq }
    }

    /// Where the word for `addr` is, in the table of `level`.
    fn word(&self, bench: &Bench, addr: u64, level: u32) -> Gpa {
        let index = (addr - self.start + self.first_offset) >> 12;
        let mut table = self.root;
        for above in (level..u32::from(LEVELS)).rev() {
            let at = Gpa(table + 8 * (index >> (9 * above) & 511));
            if above == level {
                return at;
            }
            let word = bench.ram.load_u64(at).unwrap();
            table = word & !0xfff;
            if word == 0 {
                table = bench.allocate(0x1000);
                bench.ram.store_u64(at, table | ODP_TABLE).unwrap();
            }
        }
        unreachable!("the level is one of the table's")
    }

    pub(crate) fn put(&self, bench: &Bench, addr: u64, word: u64) {
        bench.ram.store_u64(self.word(bench, addr, 0), word).unwrap();
    }

    pub(crate) fn put_large(&self, bench: &Bench, addr: u64, word: u64) {
        bench.ram.store_u64(self.word(bench, addr, 1), word).unwrap();
    }

    /// Puts a fresh page in.
    pub(crate) fn fill(&self, bench: &Bench, addr: u64, writable: bool) -> u64 {
        let gpa = bench.allocate(0x1000);
        let writable = if writable { ODP_WRITABLE } else { 0 };
        self.put(bench, addr, gpa | ODP_PRESENT | writable);
        gpa
    }

    pub(crate) fn invalidate(&self, bench: &Bench, start: u64, length: u64) -> Result<(), CommandStatus> {
        let command = InvalidateMr { key: self.key, reserved: 0, start, length };
        bench.command_on::<_, ObjectId>(1, CMD_INVALIDATE_MR, &command).map(|_| ())
    }

    /// The page faults reported so far.
    pub(crate) fn faults(&mut self, bench: &Bench) -> Vec<Eqe> {
        let faults: Vec<Eqe> = std::iter::from_fn(|| self.eq.poll(bench)).collect();
        assert!(faults.iter().all(|fault| fault.kind == EVENT_PAGE_FAULT && fault.token != 0), "{faults:?}");
        self.eq.doorbell(bench, true);
        faults
    }

    /// Exactly one.
    pub(crate) fn fault(&mut self, bench: &Bench) -> Eqe {
        let faults = self.faults(bench);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].number, self.key);
        faults[0]
    }

    pub(crate) fn destroy(&self, bench: &Bench) {
        bench.id_command(CMD_DESTROY_MR, self.key).unwrap();
    }
}

/// Answers a page fault.
pub(crate) fn resume(bench: &Bench, token: u32, answer: u32) -> Result<(), CommandStatus> {
    let command = ResumeFault { token, answer, reserved: 0 };
    bench.command_on::<_, ObjectId>(1, CMD_RESUME_FAULT, &command).map(|_| ())
}

/// A refusal, as a completion shows it.
pub(crate) const REFUSED: (WcStatus, u32) = (WC_REM_ACCESS_ERR, CAUSE_PAGE_REFUSED);

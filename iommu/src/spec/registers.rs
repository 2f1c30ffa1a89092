//! The register page (§11.4).

use bitfield_struct::bitfield;

/// Byte offsets in the register page, with name, width, access and section.
pub mod offset {
    /// Version, 32 bits, RO, §11.4.1.
    pub const VERSION: u64 = 0x00;
    /// Capability, 64 bits, RO, §11.4.2.
    pub const CAP: u64 = 0x08;
    /// Extended capability, 64 bits, RO, §11.4.3.
    pub const ECAP: u64 = 0x10;
    /// Global command, 32 bits, WO, §11.4.4.1.
    pub const GCMD: u64 = 0x18;
    /// Global status, 32 bits, RO, §11.4.4.2.
    pub const GSTS: u64 = 0x1c;
    /// Root table address, 64 bits, RW, §11.4.5.
    pub const RTADDR: u64 = 0x20;
    /// Context command, 64 bits, RW, §11.4.6.1.
    pub const CCMD: u64 = 0x28;
    /// Upper word of CCMD: ICC, bit 63 of the register, starts an invalidation.
    pub const CCMD_HI: u64 = CCMD + 4;
    /// Fault status, 32 bits, RW1C, §11.4.7.1.
    pub const FSTS: u64 = 0x34;
    /// Fault event control, 32 bits, RW, §11.4.7.2; data, address and upper address follow it.
    pub const FECTL: u64 = 0x38;
    /// Invalidation queue head, 64 bits, RO, §11.4.9.1.
    pub const IQH: u64 = 0x80;
    /// Invalidation queue tail, 64 bits, RW, §11.4.9.2.
    pub const IQT: u64 = 0x88;
    /// Invalidation queue address, 64 bits, RW, §11.4.9.3.
    pub const IQA: u64 = 0x90;
    /// Invalidation completion status, 32 bits, RW1C, §11.4.9.4.
    pub const ICS: u64 = 0x9c;
    /// Invalidation event control, 32 bits, RW, §11.4.9.5; data, address and upper address follow it.
    pub const IECTL: u64 = 0xa0;
    /// Invalidation queue error record, 64 bits, RO, §11.4.9.9.
    pub const IQERCD: u64 = 0xb0;
    /// Page request queue head, 64 bits, RW, §11.4.11.1.
    pub const PQH: u64 = 0xc0;
    /// Page request queue tail, 64 bits, RW, §11.4.11.2.
    pub const PQT: u64 = 0xc8;
    /// Page request queue address, 64 bits, RW, §11.4.11.3.
    pub const PQA: u64 = 0xd0;
    /// Page request status, 32 bits, RW1C, §11.4.11.4.
    pub const PRS: u64 = 0xdc;
    /// Page request event control, 32 bits, RW, §11.4.11.5; data, address and upper address follow it.
    pub const PECTL: u64 = 0xe0;
    /// Invalidate address, 64 bits, WO, §11.4.6.3; at ECAP.IRO.
    pub const IVA: u64 = 0xf0;
    /// IOTLB invalidate, 64 bits, RW, §11.4.6.2; at ECAP.IRO + 8.
    pub const IOTLB: u64 = 0xf8;
    /// Upper word of IOTLB: IVT, bit 63 of the register, starts an invalidation.
    pub const IOTLB_HI: u64 = IOTLB + 4;
    /// Fault recording registers, 128 bits each, RW1C, §11.4.7.6; at CAP.FRO.
    pub const FRCD: u64 = 0x220;
}

/// Capability register, 64 bits, RO, §11.4.2.
#[bitfield(u64)]
pub struct Cap {
    /// ND, bits 2:0: 2^(4 + 2 ND) domain ids.
    #[bits(3)]
    pub nd: u8,
    /// AFL, bit 3: advanced fault logging.
    pub afl: bool,
    /// RWBF, bit 4: software must flush write buffers.
    pub rwbf: bool,
    /// PLMR, bit 5: protected low-memory region.
    pub plmr: bool,
    /// PHMR, bit 6: protected high-memory region.
    pub phmr: bool,
    /// CM, bit 7: caching mode; set, not-present entries may be cached.
    pub cm: bool,
    /// SAGAW, bits 12:8: second-stage widths.
    #[bits(5)]
    pub sagaw: u8,
    #[bits(3)]
    __: u8,
    /// MGAW, bits 21:16: guest address width less one.
    #[bits(6)]
    pub mgaw: u8,
    /// ZLR, bit 22: zero-length reads to write-only pages.
    pub zlr: bool,
    __: bool,
    /// FRO, bits 33:24: fault recording registers, in units of 16 bytes.
    #[bits(10)]
    pub fro: u16,
    /// SSLPS, bits 37:34: second-stage large pages.
    #[bits(4)]
    pub sslps: u8,
    __: bool,
    /// PSI, bit 39: page-selective IOTLB invalidation.
    pub psi: bool,
    /// NFR, bits 47:40: number of fault recording registers less one.
    pub nfr: u8,
    /// MAMV, bits 53:48: largest address mask of a page-selective invalidation, log2 of pages.
    #[bits(6)]
    pub mamv: u8,
    /// DWD, bit 54: writes can be drained.
    pub dwd: bool,
    /// DRD, bit 55: reads can be drained.
    pub drd: bool,
    /// FS1GP, bit 56: first-stage 1 GiB pages.
    pub fs1gp: bool,
    #[bits(2)]
    __: u8,
    /// PI, bit 59: posted interrupts.
    pub pi: bool,
    /// FS5LP, bit 60: first-stage 5-level paging.
    pub fs5lp: bool,
    /// ECMDS, bit 61: enhanced command register.
    pub ecmds: bool,
    /// ESIRTPS, bit 62: setting the interrupt table pointer invalidates.
    pub esirtps: bool,
    /// ESRTPS, bit 63: setting the root table pointer invalidates all caches.
    pub esrtps: bool,
}

/// Extended capability register, 64 bits, RO, §11.4.3.
#[bitfield(u64)]
pub struct Ecap {
    /// C, bit 0: table accesses are coherent with processor caches.
    pub c: bool,
    /// QI, bit 1: queued invalidation.
    pub qi: bool,
    /// DT, bit 2: device TLBs.
    pub dt: bool,
    /// IR, bit 3: interrupt remapping.
    pub ir: bool,
    /// EIM, bit 4: extended interrupt mode.
    pub eim: bool,
    __: bool,
    /// PT, bit 6: pass-through.
    pub pt: bool,
    /// SC, bit 7: snoop control.
    pub sc: bool,
    /// IRO, bits 17:8: IOTLB registers, in units of 16 bytes.
    #[bits(10)]
    pub iro: u16,
    #[bits(2)]
    __: u8,
    /// MHMV, bits 23:20: largest handle mask of interrupt entry invalidations.
    #[bits(4)]
    pub mhmv: u8,
    #[bits(2)]
    __: u8,
    /// NEST, bit 26: nested translation.
    pub nest: bool,
    #[bits(2)]
    __: u8,
    /// PRS, bit 29: page requests.
    pub prs: bool,
    /// ERS, bit 30: execute requests.
    pub ers: bool,
    /// SRS, bit 31: supervisor requests.
    pub srs: bool,
    __: bool,
    /// NWFS, bit 33: the no-write flag of translation requests is honoured.
    pub nwfs: bool,
    /// EAFS, bit 34: extended accessed flag.
    pub eafs: bool,
    /// PSS, bits 39:35: PASID width less one.
    #[bits(5)]
    pub pss: u8,
    /// PASID, bit 40: requests with PASID.
    pub pasid: bool,
    /// DIT, bit 41: device-TLB invalidation throttle.
    pub dit: bool,
    /// PDS, bit 42: page request drain.
    pub pds: bool,
    /// SMTS, bit 43: scalable mode.
    pub smts: bool,
    /// VCS, bit 44: virtual commands.
    pub vcs: bool,
    /// SSADS, bit 45: second-stage accessed and dirty.
    pub ssads: bool,
    /// SSTS, bit 46: second-stage translation.
    pub ssts: bool,
    /// FSTS, bit 47: first-stage translation.
    pub fsts: bool,
    /// SMPWC, bit 48: scalable-mode walks are coherent.
    pub smpwc: bool,
    /// RPS, bit 49: the RID_PASID field is used.
    pub rps: bool,
    __: bool,
    /// PMS, bit 51: performance monitoring.
    pub pms: bool,
    /// ADMS, bit 52: abort-DMA mode.
    pub adms: bool,
    /// RPRIVS, bit 53: the RID_PRIV field is used.
    pub rprivs: bool,
    #[bits(10)]
    __: u16,
}

/// Global command (WO, §11.4.4.1) and status (RO, §11.4.4.2) registers, 32 bits, same bits in both.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalCommand {
    #[bits(23)]
    __: u32,
    /// CFI, bit 23: compatibility-format interrupts.
    pub cfi: bool,
    /// SIRTP / IRTPS, bit 24: interrupt table pointer, one-shot.
    pub sirtp: bool,
    /// IRE / IRES, bit 25: interrupt remapping.
    pub ire: bool,
    /// QIE / QIES, bit 26: queued invalidation.
    pub qie: bool,
    /// WBF / WBFS, bit 27: write buffer flush, one-shot.
    pub wbf: bool,
    /// EAFL, bit 28: advanced fault log.
    pub eafl: bool,
    /// SFL, bit 29: fault log pointer, one-shot.
    pub sfl: bool,
    /// SRTP / RTPS, bit 30: root table pointer, one-shot.
    pub srtp: bool,
    /// TE / TES, bit 31: translation.
    pub te: bool,
}

/// Root table address register, 64 bits, RW, §11.4.5.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTableAddress {
    #[bits(10)]
    __: u16,
    /// TTM, bits 11:10: 01 is scalable mode.
    #[bits(2)]
    pub mode: u8,
    /// RTA, bits 63:12: frame of the root table.
    #[bits(52)]
    pub frame: u64,
}

/// TTM value of legacy mode, which is not supported.
pub const MODE_LEGACY: u8 = 0b00;

/// TTM value of scalable mode.
pub const MODE_SCALABLE: u8 = 0b01;

/// Fault status register, 32 bits, RW1C, §11.4.7.1.
#[bitfield(u32)]
pub struct FaultStatus {
    /// PFO, bit 0, RW1C: overflow: the record for a fault was occupied.
    pub pfo: bool,
    /// PPF, bit 1, RO: at least one fault record is occupied.
    pub ppf: bool,
    #[bits(2)]
    __: u8,
    /// IQE, bit 4, RW1C: the invalidation queue stopped at an error.
    pub iqe: bool,
    /// ICE, bit 5, RW1C: unexpected invalidation completion.
    pub ice: bool,
    /// ITE, bit 6, RW1C: an invalidation timed out.
    pub ite: bool,
    __: bool,
    /// FRI, bits 15:8, RO: index of the record that set PPF.
    pub fri: u8,
    __: u16,
}

/// Control word of an event block (FECTL §11.4.7.2, IECTL §11.4.9.5, PECTL §11.4.11.5), 32 bits.
#[bitfield(u32)]
pub struct EventControl {
    #[bits(30)]
    __: u32,
    /// IP, bit 30, RO: an event is pending, its message not yet sent.
    pub pending: bool,
    /// IM, bit 31, RW: messages are masked.
    pub mask: bool,
}

/// Invalidation queue address register, 64 bits, RW, §11.4.9.3.
#[bitfield(u64)]
pub struct InvalidationQueueAddress {
    /// QS, bits 2:0: 2^QS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    __: u8,
    /// DW, bit 11: 256-bit descriptors.
    pub wide: bool,
    /// IQA, bits 63:12: frame of the queue.
    #[bits(52)]
    pub frame: u64,
}

/// Invalidation queue error record, 64 bits, RO, §11.4.9.9.
#[bitfield(u64)]
pub struct InvalidationQueueError {
    /// IQEI, bits 3:0: the error that stopped the queue.
    #[bits(4)]
    pub info: u8,
    #[bits(28)]
    __: u32,
    /// ITESID, bits 47:32: requester ID of the device whose invalidation timed out.
    pub timed_out: u16,
    /// ICESID, bits 63:48: requester ID of the device whose completion was unexpected.
    pub unexpected: u16,
}

/// Page request queue address register, 64 bits, RW, §11.4.11.3.
#[bitfield(u64)]
pub struct PageRequestQueueAddress {
    /// PQS, bits 2:0: 2^PQS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    #[bits(9)]
    __: u16,
    /// PQA, bits 63:12: frame of the queue.
    #[bits(52)]
    pub frame: u64,
}

/// Page request status register, 32 bits, RW1C, §11.4.11.4.
#[bitfield(u32)]
pub struct PageRequestStatus {
    /// PPR, bit 0: requests were queued.
    pub ppr: bool,
    /// PRO, bit 1: a request was dropped because the queue was full.
    pub pro: bool,
    #[bits(30)]
    __: u32,
}

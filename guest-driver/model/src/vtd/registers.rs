//! Offsets and bits of the registers that Linux uses (VT-d 11.4).

/// Capability, r64.
pub const CAP: u64 = 0x08;
/// Extended capability, r64.
pub const ECAP: u64 = 0x10;
/// Global command, w32.
pub const GCMD: u64 = 0x18;
/// Global status, r32.
pub const GSTS: u64 = 0x1c;
/// Root table address, w64.
pub const RTADDR: u64 = 0x20;
/// Fault status, r32, write 1 to clear.
pub const FSTS: u64 = 0x34;
/// Fault event control; data, address and upper address follow at 4-byte steps.
pub const FECTL: u64 = 0x38;
/// Invalidation queue head, r32.
pub const IQH: u64 = 0x80;
/// Invalidation queue tail, rw32.
pub const IQT: u64 = 0x88;
/// Invalidation queue address, rw64.
pub const IQA: u64 = 0x90;
/// Page request queue head, rw64.
pub const PQH: u64 = 0xc0;
/// Page request queue tail, rw64.
pub const PQT: u64 = 0xc8;
/// Page request queue address, rw64.
pub const PQA: u64 = 0xd0;
/// Page request status, r32, write 1 to clear.
pub const PRS: u64 = 0xdc;
/// Page request event control; data, address and upper address follow at 4-byte steps.
pub const PECTL: u64 = 0xe0;

/// GCMD.TE, GSTS.TES: translation.
pub const TRANSLATION: u32 = 1 << 31;
/// GCMD.SRTP, GSTS.RTPS: root table pointer.
pub const ROOT_TABLE: u32 = 1 << 30;
/// GCMD.QIE, GSTS.QIES: queued invalidation.
pub const QUEUED_INVALIDATION: u32 = 1 << 26;

/// FSTS.PFO: a primary fault was lost.
pub const FSTS_OVERFLOW: u32 = 1 << 0;
/// FSTS.PPF: a primary fault is pending.
pub const FSTS_PENDING: u32 = 1 << 1;
/// FSTS.IQE: invalidation queue error.
pub const FSTS_QUEUE_ERROR: u32 = 1 << 4;
/// FSTS.ICE: invalidation completion error.
pub const FSTS_COMPLETION_ERROR: u32 = 1 << 5;
/// FSTS.ITE: invalidation timeout error.
pub const FSTS_TIME_OUT: u32 = 1 << 6;
/// FSTS.PRO: page request overflow.
pub const FSTS_PAGE_REQUEST_OVERFLOW: u32 = 1 << 7;

/// PRS.PPR: a page request is pending.
pub const PRS_PENDING: u32 = 1 << 0;
/// PRS.PRO: a page request was dropped.
pub const PRS_OVERFLOW: u32 = 1 << 1;

/// A capability that Linux requires for SVA with page requests.
pub struct Needed {
    /// Bit number in ECAP.
    pub bit: u32,
    /// Name for the error message.
    pub name: &'static str,
}

/// The capabilities required by `intel_svm_check`, `pri_supported` and scalable mode.
pub const NEEDED: [Needed; 9] = [
    Needed { bit: 1, name: "queued invalidation (ECAP.QI)" },
    Needed { bit: 2, name: "device TLBs (ECAP.DT)" },
    Needed { bit: 29, name: "page requests (ECAP.PRS)" },
    Needed { bit: 40, name: "PASIDs (ECAP.PASID)" },
    Needed { bit: 42, name: "page request drain (ECAP.PDS)" },
    Needed { bit: 43, name: "scalable mode (ECAP.SMTS)" },
    Needed { bit: 47, name: "first-stage translation (ECAP.FSTS)" },
    Needed { bit: 48, name: "coherent walks (ECAP.SMPWC)" },
    Needed { bit: 0, name: "coherent tables (ECAP.C)" },
];

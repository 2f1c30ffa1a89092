//! Fault recording registers (§11.4.7.6), 128 bits each.

use bitfield_struct::bitfield;

/// Upper quadword of a fault record, RO except F, §11.4.7.6. The lower one is the page address.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultRecordInfo {
    /// SID, bits 79:64: requester ID.
    pub source: u16,
    #[bits(12)]
    __: u16,
    /// T2, bit 92: lower bit of the request type. Set with T1 clear for a page request.
    pub t2: bool,
    /// PRIV, bit 93: the request was for privileged mode.
    pub privileged: bool,
    /// EXE, bit 94: the request was for execute permission.
    pub execute: bool,
    /// PP, bit 95: the request had a PASID.
    pub pasid_present: bool,
    /// FR, bits 103:96: fault reason.
    pub reason: u8,
    /// PV, bits 123:104: the PASID, valid with PP.
    #[bits(20)]
    pub pasid: u32,
    /// AT, bits 125:124: 0 untranslated, 1 translation request.
    #[bits(2)]
    pub address_type: u8,
    /// T1, bit 126: upper bit of the request type. Set for a read.
    pub t1: bool,
    /// F, bit 127, RW1C: the record is occupied.
    pub fault: bool,
}

//! The CPUID that a guest sees.
//!
//! It is never simply what KVM supports: on an emulated host those bits are not always consistent (with all of QEMU's,
//! Linux 7.2 fails on its own extended state sizes), and a guest with five-level paging could not share its page tables
//! with an IOMMU that walks four levels.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use refault_bus::bits::low_u8;

use crate::config::CpuModel;

/// What the filter depends on.
#[derive(Clone, Copy, Debug)]
pub struct CpuidInputs {
    /// The CPU model.
    pub model: CpuModel,
    /// Number of vCPUs.
    pub cpus: u8,
    /// Whether KVM emulates the TSC deadline timer, which its CPUID does not report.
    pub tsc_deadline: bool,
}

/// Last basic leaf of the baseline: topology. Extended state (0xd) comes after it.
const BASELINE_LAST: u32 = 0xb;
const EXTENDED_LAST: u32 = 0x8000_0008;
const KVM_FEATURES: u32 = 0x4000_0001;

mod leaf1 {
    //! Feature bits of leaf 1.
    /// FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFLUSH MMX FXSR SSE SSE2.
    pub(super) const BASELINE_EDX: u32 = 0x0789_fbff & !(1 << 1);
    /// SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT, RDRAND: plain instructions without state of their own.
    pub(super) const BASELINE_ECX: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 30;
    pub(super) const X2APIC: u32 = 1 << 21;
    pub(super) const TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const HYPERVISOR: u32 = 1 << 31;
    /// In EDX: several logical processors in the package.
    pub(super) const HTT: u32 = 1 << 28;
}

/// LAHF in 64-bit mode.
const EXTENDED_BASELINE_ECX: u32 = 1;
/// SYSCALL, NX, 1 GiB pages (which the IOMMU supports too), RDTSCP, long mode.
const EXTENDED_BASELINE_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
/// AMD repeats these bits of leaf 1 in this leaf.
const EXTENDED_REPEATED_EDX: u32 = leaf1::BASELINE_EDX & 0x0183_f3ff;
/// Leaf 7, ECX: five-level paging.
const LA57: u32 = 1 << 16;
/// Timers keep running in idle states: leaf 6, EAX.
const ARAT: u32 = 1 << 2;

/// The signature of a processor of `vendor` with little more than the baseline, old enough that no kernel looks for errata
/// or features beyond it: AMD family 0x11 (earlier ones had an AGP aperture, for which Linux scans 256 buses), otherwise
/// family 15 model 6.
fn signature(vendor: u32) -> u32 {
    const AMD: u32 = u32::from_le_bytes(*b"Auth");
    if vendor == AMD { 0x0020_0f31 } else { 0x0000_0f61 }
}

/// The CPUID of the vCPU with `apic_id`, derived from what KVM supports.
pub fn for_vcpu(supported: &CpuId, shape: CpuidInputs, apic_id: u8) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = supported.as_slice().to_vec();
    if shape.model == CpuModel::Baseline {
        let vendor = entries.iter().find(|entry| entry.function == 0).map_or(0, |entry| entry.ebx);
        entries.retain(|entry| keeps(entry.function));
        entries.iter_mut().for_each(|entry| reduce(entry, signature(vendor)));
    }
    entries.retain(|entry| entry.function != 0xb && entry.function != 0x1f);
    for entry in &mut entries {
        place(entry, shape, apic_id);
    }
    entries.extend(topology(shape.cpus, apic_id));
    entries
}

/// Width of a guest-physical address in bits.
pub fn physical_bits(supported: &CpuId) -> u8 {
    let leaf = supported.as_slice().iter().find(|entry| entry.function == EXTENDED_LAST);
    leaf.map_or(36, |entry| low_u8(entry.eax.into()))
}

/// Whether the baseline contains this leaf.
fn keeps(function: u32) -> bool {
    const EMPTY: [u32; 6] = [2, 4, 5, 7, 9, 0xa];
    match function {
        0..=BASELINE_LAST => !EMPTY.contains(&function),
        0x4000_0000..=0x4000_0010 => true,
        0x8000_0000..=EXTENDED_LAST => !matches!(function, 0x8000_0005..=0x8000_0007),
        _ => false,
    }
}

/// Reduces one leaf to the baseline.
fn reduce(entry: &mut kvm_cpuid_entry2, signature: u32) {
    match entry.function {
        0 => entry.eax = BASELINE_LAST,
        1 => {
            entry.eax = signature;
            entry.ecx &= leaf1::BASELINE_ECX | leaf1::X2APIC | leaf1::TSC_DEADLINE | leaf1::HYPERVISOR;
            entry.edx &= leaf1::BASELINE_EDX;
        }
        6 => {
            entry.eax &= ARAT;
            (entry.ebx, entry.ecx, entry.edx) = (0, 0, 0);
        }
        0x8000_0000 => entry.eax = EXTENDED_LAST,
        0x8000_0001 => {
            entry.eax = signature;
            entry.ebx = 0;
            entry.ecx &= EXTENDED_BASELINE_ECX;
            entry.edx &= EXTENDED_BASELINE_EDX | EXTENDED_REPEATED_EDX;
        }
        EXTENDED_LAST => {
            // Physical bits as on the host, 48 linear ones.
            entry.eax = entry.eax & 0xff | 48 << 8;
            entry.ebx = 0;
            entry.ecx = 0;
            entry.edx = 0;
        }
        _ => {}
    }
}

/// Fills in the parts of one leaf that depend on the vCPU or the machine.
fn place(entry: &mut kvm_cpuid_entry2, shape: CpuidInputs, apic_id: u8) {
    match entry.function {
        1 => {
            entry.ebx = u32::from(apic_id) << 24 | u32::from(shape.cpus) << 16 | entry.ebx & 0xffff;
            entry.ecx |= leaf1::HYPERVISOR;
            if shape.tsc_deadline {
                entry.ecx |= leaf1::TSC_DEADLINE;
            }
            if shape.cpus > 1 {
                entry.edx |= leaf1::HTT;
            }
        }
        7 if entry.index == 0 => entry.ecx &= !LA57,
        // Asynchronous page faults of the host gain nothing here: guest memory is not swapped.
        KVM_FEATURES => entry.eax &= !(1 << 4 | 1 << 10 | 1 << 14),
        EXTENDED_LAST => {
            let id_bits = 8 - (shape.cpus - 1).leading_zeros();
            entry.ecx = entry.ecx & !0xf0ff | u32::from(shape.cpus - 1) | id_bits << 12;
        }
        0x8000_001e => {
            // Extended APIC id; one thread per core.
            entry.eax = u32::from(apic_id);
            entry.ebx = u32::from(apic_id);
            entry.ecx = 0;
        }
        _ => {}
    }
}

/// Leaf 0xb: one thread per core, all cores in one package.
fn topology(cpus: u8, apic_id: u8) -> [kvm_cpuid_entry2; 3] {
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    let core_bits = 8 - (cpus - 1).leading_zeros();
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind << 8 | index,
        edx: u32::from(apic_id),
        ..kvm_cpuid_entry2::default()
    };
    [level(0, 0, 1, THREADS), level(1, core_bits, u32::from(cpus), CORES), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that reports every feature, as an emulated one does.
    fn host() -> CpuId {
        let all = [
            (0, [0x1f, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (1, [0x0066_0f12, 0xff08_0800, u32::MAX, u32::MAX]),
            (4, [0x121, 0x1c0_003f, 0x3f, 1]),
            (6, [u32::MAX; 4]),
            (7, [2, u32::MAX, u32::MAX, u32::MAX]),
            (0xb, [9, 9, 9, 9]),
            (0xd, [0x2ff, 0x988, 0x988, 0]),
            (0x1f, [9, 9, 9, 9]),
            (0x4000_0000, [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d]),
            (KVM_FEATURES, [0x0100_ffff, 0, 0, 0]),
            (0x8000_0000, [0x8000_0028, 0, 0, 0]),
            (0x8000_0001, [0x0066_0f12, 7, u32::MAX, u32::MAX]),
            (0x8000_0008, [0x3928, u32::MAX, u32::MAX, 0]),
            (0x8000_001e, [7, 7, 7, 7]),
            (0x8000_001f, [u32::MAX; 4]),
        ];
        let entries: Vec<_> = all
            .iter()
            .map(|&(function, [eax, ebx, ecx, edx])| kvm_cpuid_entry2 {
                function,
                eax,
                ebx,
                ecx,
                edx,
                ..kvm_cpuid_entry2::default()
            })
            .collect();
        CpuId::from_entries(&entries).unwrap()
    }

    fn cpu(model: CpuModel, cpus: u8, apic_id: u8) -> Vec<kvm_cpuid_entry2> {
        for_vcpu(&host(), CpuidInputs { model, cpus, tsc_deadline: true }, apic_id)
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32) -> kvm_cpuid_entry2 {
        *entries.iter().find(|entry| entry.function == function).unwrap()
    }

    #[test]
    fn the_baseline_has_no_extended_state() {
        let entries = cpu(CpuModel::Baseline, 1, 0);
        const XSAVE: u32 = 1 << 26 | 1 << 27;
        const AVX_FAMILY: u32 = 1 << 12 | 1 << 28 | 1 << 29;
        assert_eq!(leaf(&entries, 1).ecx & (XSAVE | AVX_FAMILY), 0);
        assert!(entries.iter().all(|entry| entry.function != 0xd && entry.function != 7));
        assert!(leaf(&entries, 0).eax < 0xd);
    }

    #[test]
    fn the_baseline_has_what_a_64_bit_kernel_and_its_hypervisor_need() {
        let entries = cpu(CpuModel::Baseline, 1, 0);
        const SSE2: u32 = 1 << 26;
        const PAT: u32 = 1 << 16;
        assert_eq!(leaf(&entries, 1).edx & (SSE2 | PAT), SSE2 | PAT);
        let wanted = leaf1::X2APIC | leaf1::TSC_DEADLINE | leaf1::HYPERVISOR;
        assert_eq!(leaf(&entries, 1).ecx & wanted, wanted);
        const NX_LM_SYSCALL: u32 = 1 << 20 | 1 << 29 | 1 << 11;
        assert_eq!(leaf(&entries, 0x8000_0001).edx & NX_LM_SYSCALL, NX_LM_SYSCALL);
        assert_eq!(leaf(&entries, 6).eax, ARAT);
        assert_eq!(leaf(&entries, 0x4000_0000).ebx, 0x4b4d_564b);
        assert_eq!(leaf(&entries, 0).ebx, 0x6874_7541, "the vendor is the host's");
    }

    #[test]
    fn addresses_are_the_hosts_physical_and_48_linear_bits() {
        let entries = cpu(CpuModel::Baseline, 1, 0);
        assert_eq!(leaf(&entries, EXTENDED_LAST).eax, 40 | 48 << 8);
        assert_eq!(physical_bits(&host()), 40);
    }

    #[test]
    fn no_model_has_five_level_paging() {
        let host = cpu(CpuModel::Host, 2, 1);
        assert_eq!(leaf(&host, 7).ecx & LA57, 0);
        assert_ne!(leaf(&host, 7).ebx, 0, "the rest of the leaf stays");
        assert!(cpu(CpuModel::Baseline, 1, 0).iter().all(|entry| entry.function != 7));
    }

    #[test]
    fn the_baseline_can_neither_virtualize_nor_monitor() {
        const SVM: u32 = 1 << 2;
        let entries = cpu(CpuModel::Baseline, 1, 0);
        assert_eq!(leaf(&entries, 0x8000_0001).ecx & SVM, 0);
        const VMX_MONITOR: u32 = 1 << 5 | 1 << 3;
        assert_eq!(leaf(&entries, 1).ecx & VMX_MONITOR, 0);
    }

    #[test]
    fn every_vcpu_has_its_apic_id_in_all_leaves() {
        for model in [CpuModel::Baseline, CpuModel::Host] {
            let entries = cpu(model, 6, 5);
            assert_eq!(leaf(&entries, 1).ebx >> 16, 5 << 8 | 6);
            let levels: Vec<_> = entries.iter().filter(|entry| entry.function == 0xb).collect();
            assert!(levels.iter().all(|level| level.edx == 5));
            assert_eq!((levels[1].eax, levels[1].ebx), (3, 6), "three bits hold six cores");
            assert_eq!(leaf(&entries, EXTENDED_LAST).ecx & 0xf0ff, 3 << 12 | 5);
            assert!(entries.iter().all(|entry| entry.function != 0x1f));
        }
        assert_eq!(leaf(&cpu(CpuModel::Host, 6, 5), 0x8000_001e).eax, 5);
    }

    #[test]
    fn a_single_vcpu_needs_no_topology_bits() {
        let entries = cpu(CpuModel::Baseline, 1, 0);
        assert_eq!(leaf(&entries, EXTENDED_LAST).ecx, 0);
        assert_eq!(leaf(&entries, 1).edx & leaf1::HTT, 0);
    }
}

//! Events of the guest's kernel, decoded.

use refault_bus::bits::low_u32;
use refault_bus::{AddressSpace, Pasid, PrgIndex};

use super::format::Format;

/// One event of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestEvent {
    /// The guest's CLOCK_MONOTONIC in nanoseconds.
    pub(super) at: u64,
    /// Id of the thread.
    pub(super) thread: u32,
    /// The step that it marks.
    pub(super) step: GuestStep,
    /// The fault; `None` when the kernel's page request handler begins, which does not name it.
    pub(super) fault: Option<FaultKey>,
    /// The page, if the event names it.
    pub(super) page: Option<u64>,
}

/// Steps of the guest's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GuestStep {
    /// The entry was taken from its queue.
    Taken,
    /// A handler began work on it.
    Handling,
    /// The page is in the table.
    Handled,
    /// The response is about to be written to the invalidation queue.
    Submitted,
}

/// Identifies an outstanding fault: its address space, and the group or the token's slot.
pub(super) type FaultKey = (AddressSpace, PrgIndex);

impl GuestEvent {
    /// Decodes an event; `None` if it is not one of ours or lacks a field.
    pub(super) fn decode(format: &Format, at: u64, data: &[u8]) -> Option<Self> {
        let field = |name| format.value(data, name);
        let of_process = || Some((process(field("pasid")?), PrgIndex::truncated(field("group")?)));
        let of_region = || {
            let key = u32::try_from(field("key")?).ok()?;
            Some((AddressSpace::Region(key), PrgIndex::truncated(field("token")?)))
        };
        let (step, fault) = match format.name.as_str() {
            "taken" => (GuestStep::Taken, Some(of_process()?)),
            "handling" => (GuestStep::Handling, None),
            "handled" => (GuestStep::Handled, Some(of_process()?)),
            "qi_submit" => (GuestStep::Submitted, Some(response(field("qw0")?, field("qw1")?)?)),
            "fault_taken" => (GuestStep::Taken, Some(of_region()?)),
            "fault_handling" => (GuestStep::Handling, Some(of_region()?)),
            "fault_handled" => (GuestStep::Handled, Some(of_region()?)),
            _ => return None,
        };
        let thread = low_u32(field("common_pid")?);
        let page = field("address").map(|address| address & !0xfff);
        Some(Self { at, thread, step, fault, page })
    }
}

fn process(pasid: u64) -> AddressSpace {
    AddressSpace::Process(Pasid::truncated(pasid))
}

/// A page group response descriptor (VT-d 6.5.2.9).
fn response(low: u64, high: u64) -> Option<FaultKey> {
    const TYPE: u64 = 9;
    const HAS_PASID: u64 = 1 << 4;
    (low & 0xf == TYPE && low & HAS_PASID != 0).then(|| (process(low >> 32), PrgIndex::truncated(high >> 3)))
}

#[cfg(test)]
mod tests {
    use super::super::format::Formats;
    use super::super::format::tests::TEXT;
    use super::*;

    #[test]
    fn a_response_descriptor_names_its_fault() {
        let formats = Formats::parse(TEXT);
        let event = |low: u64, high: u64| {
            let head = [300u16, 0, 12, 0].map(u16::to_le_bytes).concat();
            let data = [&head[..], &low.to_le_bytes(), &high.to_le_bytes()].concat();
            GuestEvent::decode(formats.of(&data).expect("known"), 5, &data)
        };
        let fault = Some((process(0x1234), PrgIndex::truncated(0x1ff)));
        let wanted = GuestEvent { at: 5, thread: 12, step: GuestStep::Submitted, fault, page: None };
        assert_eq!(event(0x1234 << 32 | 1 << 4 | 9, 0x1ff << 3), Some(wanted));
        assert_eq!(event(0x1234 << 32 | 1 << 4 | 5, 0x1ff << 3), None, "a wait descriptor");
    }
}

//! What the guest's kernel said, in our terms.

use refault_bus::{AddressSpace, Pasid, PrgIndex};

use super::format::Format;

/// One event of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GuestEvent {
    /// The guest's CLOCK_MONOTONIC in nanoseconds.
    pub(super) at: u64,
    /// The thread in which it happened.
    pub(super) thread: u32,
    /// What it was.
    pub(super) step: Step,
    /// Which fault it was about; the kernel's handler of page requests does not say so when it begins.
    pub(super) fault: Option<FaultKey>,
    /// The page, where it is told.
    pub(super) page: Option<u64>,
}

/// Steps of the guest's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The entry was taken from its queue.
    Taken,
    /// A handler began with it.
    Handling,
    /// The page is in the table.
    Handled,
    /// The response is about to be written to the invalidation queue.
    Submitted,
}

/// What a fault is known by while it is under way: its address space, and the group or the token's slot.
pub(super) type FaultKey = (AddressSpace, PrgIndex);

impl GuestEvent {
    /// From an event's data.
    pub(super) fn decode(format: &Format, at: u64, data: &[u8]) -> Option<Self> {
        let field = |name| format.value(data, name);
        let of_process = || Some((process(field("pasid")?), PrgIndex::truncated(field("group")?)));
        let of_region = || {
            let key = u32::try_from(field("key")?).ok()?;
            Some((AddressSpace::Region(key), PrgIndex::truncated(field("token")?)))
        };
        let (step, fault) = match format.name.as_str() {
            "taken" => (Step::Taken, Some(of_process()?)),
            "handling" => (Step::Handling, None),
            "handled" => (Step::Handled, Some(of_process()?)),
            "qi_submit" => (Step::Submitted, Some(response(field("qw0")?, field("qw1")?)?)),
            "fault_taken" => (Step::Taken, Some(of_region()?)),
            "fault_handling" => (Step::Handling, Some(of_region()?)),
            "fault_handled" => (Step::Handled, Some(of_region()?)),
            _ => return None,
        };
        let thread = field("common_pid")? as u32;
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
        let wanted = GuestEvent { at: 5, thread: 12, step: Step::Submitted, fault, page: None };
        assert_eq!(event(0x1234 << 32 | 1 << 4 | 9, 0x1ff << 3), Some(wanted));
        assert_eq!(event(0x1234 << 32 | 1 << 4 | 5, 0x1ff << 3), None, "a wait descriptor");
    }
}

//! Where the real guest differs from a scenario.

use refault_lab::scenario::{Churn, ChurnOperation, Guest, Scenario, TranslationMode};

/// log2 of the size of Linux's page request queue in pages (`PRQ_ORDER`).
const LINUX_ORDER: u8 = 4;

/// `min_rnr_timer` of the guest's programs (guest-driver/workload/common/verbs.c).
const GUEST_RNR_TIMER: u8 = 1;

/// One line that lists what the real guest does not take from the scenario.
pub(crate) fn limits(scenario: &Scenario) -> String {
    let Guest { handlers, locked_share, batch, prefetch, major_share } = scenario.guest;
    let mut own = vec![format!(
        "its own kernel handles faults (of the scenario's guest: {handlers} handlers, {locked_share} locked, batch \
         {batch}, prefetch {prefetch}, {major_share} major)"
    )];
    own.push("every step takes its real time (--timing adds delays to the devices)".into());
    if scenario.device.page_request_order != LINUX_ORDER && scenario.device.mode == TranslationMode::Pasid {
        own.push(format!("Linux's page request queue has 2^{LINUX_ORDER} pages"));
    }
    if scenario.device.min_rnr_timer != GUEST_RNR_TIMER {
        own.push(format!("its programs have a min_rnr_timer of {GUEST_RNR_TIMER}"));
    }
    if scenario.wire.is_some() {
        own.push("its programs have an ACK timeout and a number of retries of their own".into());
    }
    if scenario.load.bystanders > 0 {
        own.push("no queue pair is a bystander".into());
    }
    if let Some(Churn { operation, .. }) = scenario.churn {
        own.push(match operation {
            ChurnOperation::Evict => "pages are evicted by MADV_DONTNEED if the guest has no swap".into(),
            ChurnOperation::Move => "pages are moved by copy-on-write".into(),
            ChurnOperation::WriteProtect => "pages are write-protected by a fork".into(),
        });
    }
    format!("in the real guest {}", own.join("; "))
}

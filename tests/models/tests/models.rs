//! Each protocol holds as it is, and its model finds each mistake: see docs/testing.md.

use refault_models::{completions, destruction, finds, holds, invalidation, page_requests};

mod translate_and_copy {
    use super::*;
    use invalidation::*;

    const LATE: &str = "a copy landed after its invalidation";

    #[test]
    fn no_copy_lands_after_its_invalidation() {
        holds(intact::scenario::copies);
    }

    #[test]
    fn an_invalidation_that_skips_busy_workers_is_found() {
        finds(skips_busy_workers::scenario::copies, LATE);
    }

    #[test]
    fn an_invalidation_that_forgets_register_accesses_is_found() {
        finds(leaves_out_the_last_guard::scenario::copies, LATE);
    }

    #[test]
    fn a_worker_that_leaves_the_guard_before_it_copies_is_found() {
        finds(leaves_before_the_copy::scenario::copies, LATE);
    }
}

mod atc_fill {
    use super::*;
    use invalidation::*;

    const STALE: &str = "a stale translation is cached after its flush";

    #[test]
    fn no_fill_outlives_a_flush() {
        holds(intact::scenario::fills);
    }

    #[test]
    fn a_flush_that_skips_busy_workers_is_found() {
        finds(skips_busy_workers::scenario::fills, STALE);
    }

    #[test]
    fn a_worker_that_asks_before_it_enters_the_guard_is_found() {
        finds(asks_before_it_enters::scenario::fills, STALE);
    }
}

mod page_request_event {
    use super::*;
    use page_requests::*;

    #[test]
    fn no_event_is_late_and_none_is_lost() {
        holds(intact::scenario::events);
    }

    #[test]
    fn an_overflow_is_announced() {
        holds(intact::scenario::overflows);
    }

    #[test]
    fn a_message_sent_without_the_lock_is_found() {
        finds(sends_after_unlocking::scenario::events, "an event went out after its mask was read back");
    }

    #[test]
    fn a_masked_event_that_is_not_latched_is_found() {
        finds(forgets_a_masked_event::scenario::events, "a request was lost, or its event");
    }

    #[test]
    fn an_event_for_an_empty_queue_only_is_found() {
        finds(announces_the_first_entry_only::scenario::events, "a request was lost, or its event");
    }

    #[test]
    fn an_overflow_without_an_event_is_found() {
        finds(overflows_in_silence::scenario::overflows, "an overflow was not announced");
    }
}

mod destroy_queue_pair {
    use super::*;
    use destruction::*;

    #[test]
    fn a_destroyed_queue_pair_is_silent_and_its_successor_is_woken() {
        holds(intact::scenario::answers);
    }

    #[test]
    fn a_destroy_that_does_not_wait_for_the_turn_is_found() {
        finds(destroys_from_outside::scenario::answers, "a completion after the destroy completed");
    }

    #[test]
    fn an_answer_to_the_predecessor_that_counts_is_found() {
        finds(takes_any_answer::scenario::answers, "a wait was ended by another one's answer");
    }

    #[test]
    fn a_late_answer_that_replaces_a_newer_one_is_found() {
        finds(lets_a_late_answer_win::scenario::answers, "a wakeup was lost");
    }

    #[test]
    fn a_mark_that_is_taken_away_behind_the_turn_is_found() {
        finds(unmarks_behind_the_turn::scenario::answers, "a wakeup was lost");
    }

    #[test]
    fn a_turn_of_an_empty_slot_is_found() {
        finds(serves_an_empty_slot::scenario::answers, "a turn of an empty slot");
    }
}

mod completion_queue {
    use super::*;
    use completions::*;

    #[test]
    fn no_notification_is_lost_between_poll_and_arm() {
        holds(intact::scenario::notifications);
    }

    #[test]
    fn an_arm_that_does_not_look_back_is_found() {
        finds(arms_without_a_look_back::scenario::notifications, "a notification was lost");
    }

    #[test]
    fn a_phase_written_before_its_entry_is_found() {
        finds(publishes_the_word_first::scenario::notifications, "an entry was seen before it was whole");
    }

    #[test]
    fn a_phase_written_without_release_is_found() {
        finds(publishes_without_release::scenario::notifications, "an entry was seen before it was whole");
    }
}

//! What is modelled: files of the devices, and for each protocol the mistakes that its model must find.

/// A protocol.
pub(crate) struct Model {
    /// Name of the scenario's file, and of the module.
    pub(crate) name: &'static str,
    /// The crate whose files take part.
    pub(crate) source: &'static str,
    /// Its modules that take part, as `folder/file` below that crate's `src`.
    pub(crate) modules: &'static [&'static str],
    /// Modules of `refault-bus` that take part.
    pub(crate) of_bus: &'static [&'static str],
    pub(crate) mistakes: &'static [Mistake],
}

/// A mistake: one change of the text of one file.
pub(crate) struct Mistake {
    /// Name of the module that has it.
    pub(crate) name: &'static str,
    /// The module that is changed: one of the model's, or its scenario.
    pub(crate) module: &'static str,
    /// Text that occurs once, and what replaces it.
    pub(crate) change: (&'static str, &'static str),
}

/// All of them.
pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "invalidation",
        source: "device/nic",
        modules: &["memory/atc", "memory/recent"],
        of_bus: &["guard"],
        mistakes: &[
            Mistake {
                name: "skips_busy_workers",
                module: "guard",
                change: (
                    "guard.interrupt(&mut work);",
                    "if let Ok(mut idle) = guard.inner.try_lock() { work(&mut idle); }",
                ),
            },
            Mistake {
                name: "leaves_out_the_last_guard",
                module: "guard",
                change: ("for guard in &self.0 {", "for guard in &self.0[..self.0.len() - 1] {"),
            },
            Mistake {
                name: "leaves_before_the_copy",
                module: "scenario",
                change: ("device.copy_to(page);", "drop(atc); device.copy_to(page);"),
            },
            Mistake {
                name: "asks_before_it_enters",
                module: "scenario",
                change: (
                    "let mut atc = device.guards.of(0).enter();",
                    "let device = &Asked::now(&device); let mut atc = device.guards.of(0).enter();",
                ),
            },
        ],
    },
    Model {
        name: "page_requests",
        source: "iommu",
        modules: &["interrupt", "page_request", "spec/page_request", "spec/registers"],
        of_bus: &[],
        mistakes: &[
            Mistake {
                name: "sends_after_unlocking",
                module: "page_request",
                change: (
                    "&& queue.event.raise(msi)",
                    "&& { let late = crate::scenario::Late::default(); queue.event.raise(&late); drop(queue); \
                     late.send(msi) }",
                ),
            },
            Mistake {
                name: "forgets_a_masked_event",
                module: "interrupt",
                change: (
                    "self.control.set_pending(true);",
                    "self.control.set_pending(!self.control.mask());",
                ),
            },
            Mistake {
                name: "announces_the_first_entry_only",
                module: "page_request",
                change: ("let raise = !self.is_unserviced();", "let raise = self.head == self.tail;"),
            },
            Mistake {
                name: "overflows_in_silence",
                module: "page_request",
                change: (
                    "return Enqueued::Overflow { raise };",
                    "return Enqueued::Overflow { raise: false };",
                ),
            },
        ],
    },
    Model {
        name: "destruction",
        source: "device/nic",
        modules: &["cause", "ids", "qp/answer", "qp/slot"],
        of_bus: &["guard"],
        mistakes: &[
            Mistake {
                name: "destroys_from_outside",
                module: "scenario",
                change: (
                    "world.slot.requester.interrupt(|requester| world.empty(requester));",
                    "world.slot.occupy(0);",
                ),
            },
            Mistake {
                name: "takes_any_answer",
                module: "qp/slot",
                change: ("(left >> 3 == ticket)", "(left != 0)"),
            },
            Mistake {
                name: "lets_a_late_answer_win",
                module: "qp/slot",
                change: (
                    ".fetch_max(ticket << 3 | answer.bits(), Ordering::AcqRel)",
                    ".store(ticket << 3 | answer.bits(), Ordering::Release)",
                ),
            },
            Mistake {
                name: "unmarks_behind_the_turn",
                module: "qp/slot",
                change: (
                    "self.scheduled.swap(false, Ordering::SeqCst);\n        let mut requester = self.requester.enter();",
                    "let mut requester = self.requester.enter(); \
                     let run = |requester: &mut R| { run(requester); self.scheduled.swap(false, Ordering::SeqCst); };",
                ),
            },
            Mistake {
                name: "serves_an_empty_slot",
                module: "qp/slot",
                change: ("if self.qpn() != 0 {", "{"),
            },
        ],
    },
    Model {
        name: "completions",
        source: "device/nic",
        modules: &["cause", "memory/publish", "queue/arming", "queue/index", "queue/moderation"],
        of_bus: &[],
        mistakes: &[
            Mistake {
                name: "arms_without_a_look_back",
                module: "queue/arming",
                change: (
                    "published(self.producer, consumer, log).unwrap_or(1)",
                    "published(consumer, consumer, log).unwrap_or(1)",
                ),
            },
            Mistake {
                name: "publishes_the_word_first",
                module: "memory/publish",
                change: (
                    "memory.write(at, bytes)?;\n    memory.store_u32(word_at, word)",
                    "memory.store_u32(word_at, word)?;\n    memory.write(at, bytes)",
                ),
            },
            Mistake {
                name: "publishes_without_release",
                module: "words",
                change: ("store(value, Ordering::Release)", "store(value, Ordering::Relaxed)"),
            },
        ],
    },
];

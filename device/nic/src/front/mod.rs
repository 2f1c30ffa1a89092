//! The front end: what the driver of `refault-abi` sees.
//!
//! It decodes commands, doorbells and registers, keeps the records of objects, and owns the layout of rings. The engine
//! behind it knows none of these formats.

mod command;
mod doorbell;
mod function;
mod registers;
mod rings;

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use refault_bus::sync::lock;

use crate::config::NicConfig;
use crate::engine::Engine;
use crate::fabric::Fabric;
use command::objects::Objects;
pub(crate) use function::endpoint;
use registers::{LANES, Registers};
use rings::AbiRings;

/// The front end, and the engine that it drives.
pub(crate) struct Front {
    pub(crate) engine: Engine,
    registers: Registers,
    /// Held for one command of the lane, from its request to its response.
    lanes: [Mutex<()>; LANES],
    /// Never held while a requester is waited for.
    objects: Mutex<Objects>,
    /// A lane may have a command for worker 0.
    commands_due: AtomicBool,
    /// [`crate::schedule::Task::Commands`] is in worker 0's queue.
    commands_queued: AtomicBool,
}

impl Front {
    /// A front end as after a reset.
    pub(crate) fn new(config: NicConfig, fabric: Fabric) -> Self {
        Self {
            registers: Registers::default(),
            objects: Mutex::new(Objects::new(&config)),
            lanes: Default::default(),
            commands_due: AtomicBool::new(false),
            commands_queued: AtomicBool::new(false),
            engine: Engine::new(config, fabric, &AbiRings),
        }
    }

    /// Resets the function.
    pub(crate) fn reset(&self) {
        self.destroy_everything();
        // Every queue pair is gone: no waiter is left to wake.
        self.engine.faults.reset_requests();
    }

    /// Destroys every object. Nothing is in flight afterwards but page requests that were sent; late answers to them,
    /// and to page faults, are discarded.
    fn destroy_everything(&self) {
        // One command is one step: the reset comes before it or after it.
        let _lanes = self.lanes.each_ref().map(|lane| lock(lane));
        let mut objects = lock(&self.objects);
        self.registers.reset();
        let Engine { config, memory, qps, cqs, srqs, events, faults, ethernet, .. } = &self.engine;
        for qp in qps.iter() {
            self.engine.empty_qp(qp);
        }
        cqs.clear();
        srqs.clear();
        events.clear();
        if let Some(port) = ethernet {
            port.reset();
        }
        *objects = Objects::new(config);
        memory.clear();
        faults.reset_events();
    }
}

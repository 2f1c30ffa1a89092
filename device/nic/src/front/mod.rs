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
use registers::Registers;
use rings::AbiRings;

/// The front end, and the engine that it drives.
pub(crate) struct Front {
    pub(crate) engine: Engine,
    registers: Registers,
    objects: Mutex<Objects>,
    /// [`crate::schedule::Task::Commands`] is in worker 0's queue.
    commands_scheduled: AtomicBool,
}

impl Front {
    /// A front end as after a reset.
    pub(crate) fn new(config: NicConfig, fabric: Fabric) -> Self {
        Self {
            registers: Registers::default(),
            objects: Mutex::new(Objects::new(&config)),
            commands_scheduled: AtomicBool::new(false),
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
        let mut objects = lock(&self.objects);
        self.registers.reset();
        let Engine { config, memory, qps, cqs, srqs, events, faults, .. } = &self.engine;
        for qp in qps.iter() {
            self.engine.empty_qp(qp);
        }
        cqs.clear();
        srqs.clear();
        events.clear();
        *objects = Objects::new(config);
        memory.clear();
        faults.reset_events();
    }
}

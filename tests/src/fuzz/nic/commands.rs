//! Both command lanes: any opcode with any body, and doorbells of a lane with any index.
//!
//! **Invariant.** The NIC comes to rest after bounded work, and every command that was announced as it should be gets its
//! answer. If the driver's addresses are translated, the NIC touches nothing that the driver has not mapped. After a
//! reset the next kernel finds everything working.

use refault_bus::Iova;
use refault_model::ModelError;
use refault_model::memory::FRAME;
use refault_model::nic::{CommandLane, Ticket};
use refault_rig::machine::OwnSpace;

use super::body::Driver;
use super::frames::{Frames, Owner};
use super::{SOURCE, SOURCE_PAGES, TARGET, World};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;
use crate::session::Session;

/// Frames that the driver has for rings and tables.
const BUFFER_FRAMES: u64 = 8;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let own_space = if feed.flag() { OwnSpace::Translated } else { OwnSpace::PassThrough };
    let mut play = Play::new(own_space);
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        play.operate(&mut feed);
    }
    play.world.recovers();
}

struct Play {
    world: World,
    session: Session,
    driver: Driver,
    /// The owners of frames, if the IOMMU keeps the NIC to them.
    frames: Option<Frames>,
    /// Whether the driver has kept to the rules of the lanes so far.
    is_orderly: bool,
}

impl Play {
    fn new(own_space: OwnSpace) -> Self {
        let world = World::new(own_space);
        let session = world.open(1);
        let (memory, domain) = (&world.machine.memory, world.machine.driver.domain());
        let buffer = memory.allocate(BUFFER_FRAMES * FRAME, 12).expect("memory");
        let driver = Driver {
            buffer: domain.map(buffer, BUFFER_FRAMES * FRAME).expect("memory").0,
            frames: BUFFER_FRAMES,
            pd: session.pd,
            context: session.context.id,
            cqn: session.completions.number(),
            eqn: session.events.number(),
            qpns: [session.sender.number(), session.receiver.number()],
            key: session.region.key,
        };
        let end = world.machine.memory.frame().expect("a frame");
        let frames = (own_space == OwnSpace::Translated).then(|| {
            let mut frames = Frames::new(end);
            frames.is_driver_open = true;
            let pages = (0..SOURCE_PAGES).map(|page| Iova(SOURCE.0 + page * FRAME));
            for leaf in
                pages.filter_map(|page| session.process.space.lookup(page).expect("tables are memory"))
            {
                frames.give(leaf.gpa, Owner::Process { write: true });
            }
            frames
        });
        Self { world, session, driver, frames, is_orderly: true }
    }

    fn operate(&mut self, feed: &mut Feed<'_>) {
        match feed.below(16) {
            0..=9 => self.command(feed),
            10 => {
                self.is_orderly = false;
                self.lane(feed).ring_raw(feed.word32());
            }
            11..=13 => self.session.write(1, SOURCE, Iova(SOURCE.0 + FRAME), feed.half().into()),
            14 => self.session.write(1, SOURCE, TARGET, feed.half().into()),
            _ => drop(self.world.pass_time()),
        }
        self.rest();
    }

    fn command(&mut self, feed: &mut Feed<'_>) {
        let (opcode, body) = self.driver.command(feed);
        let second = feed.flag();
        let lane = if second { self.world.machine.driver.lane1() } else { self.world.machine.driver.lane0() };
        let sent = lane.send(opcode, &body);
        self.rest();
        match sent {
            Ok(ticket) => self.check_answer(second, &ticket),
            // A command that a wild doorbell skipped has none.
            Err(error) => assert!(!self.is_orderly, "{error}"),
        }
    }

    fn check_answer(&self, second: bool, ticket: &Ticket) {
        let driver = &self.world.machine.driver;
        let lane = if second { driver.lane1() } else { driver.lane0() };
        match lane.answer::<[u8; 0]>(ticket) {
            Ok(Some(_)) | Err(ModelError::Command { .. }) => {}
            Ok(None) => assert!(!self.is_orderly, "a command without an answer"),
            Err(error) => panic!("{error}"),
        }
    }

    fn lane(&self, feed: &mut Feed<'_>) -> &CommandLane {
        let driver = &self.world.machine.driver;
        if feed.flag() { driver.lane1() } else { driver.lane0() }
    }

    fn rest(&self) {
        self.world.rest(|accesses| {
            if let Some(frames) = &self.frames {
                frames.check(accesses);
            }
        });
    }
}

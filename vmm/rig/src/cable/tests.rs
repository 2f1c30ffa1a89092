use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use refault_bus::clock::ManualClock;
use refault_bus::sync::lock;

use super::*;
use crate::clock::WallClock;

/// A port that keeps what it hears.
#[derive(Default)]
struct Ear {
    frames: Mutex<Vec<EthernetFrame>>,
    carrier: Mutex<Vec<bool>>,
    wire: Mutex<Option<Arc<dyn Wire>>>,
}

impl WirePort for Ear {
    fn receive(&self, frame: EthernetFrame) {
        lock(&self.frames).push(frame);
    }

    fn set_carrier(&self, up: bool) {
        lock(&self.carrier).push(up);
    }

    fn has_room(&self) -> bool {
        lock(&self.frames).len() < 3
    }
}

impl Ear {
    fn signal(&self, on: bool) {
        lock(&self.wire).clone().expect("plugged").set_signal(on);
    }

    /// What the port has heard of its carrier, once it is so much, or after a long time.
    fn carriers(&self, count: usize) -> Vec<bool> {
        let start = Instant::now();
        while lock(&self.carrier).len() < count && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        lock(&self.carrier).clone()
    }

    fn send(&self, number: u8) {
        let wire = lock(&self.wire).clone().expect("plugged");
        wire.send(frame(number));
    }

    /// The first bytes of what has arrived, once there are so many, or after a long time.
    fn wait(&self, count: usize) -> Vec<u8> {
        let start = Instant::now();
        while lock(&self.frames).len() < count && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        lock(&self.frames).iter().map(|frame| frame.bytes[0]).collect()
    }
}

fn frame(number: u8) -> EthernetFrame {
    EthernetFrame { bytes: vec![number; 60], sealed: false }
}

fn join(count: usize, options: CableOptions, clock: Arc<dyn Clock>) -> (Vec<Arc<Ear>>, Cables) {
    let ears: Vec<_> = (0..count).map(|_| Arc::<Ear>::default()).collect();
    let port = |(index, ear): (usize, &Arc<Ear>)| {
        let plugged = ear.clone();
        Port {
            name: format!("nic{index}"),
            port: ear.clone(),
            plug: Box::new(move |wire| *lock(&plugged.wire) = Some(wire)),
        }
    };
    let cables = Cables::join(ears.iter().enumerate().map(port).collect(), options, &clock).expect("threads");
    (ears, cables)
}

fn sends(texts: &[&str]) -> CableOptions {
    let sends = texts.iter().map(|text| text.parse().expect(text)).collect();
    CableOptions { sends, ..CableOptions::default() }
}

#[test]
fn ports_are_joined_in_pairs_and_an_odd_one_has_no_signal() {
    let (ears, mut cables) = join(5, CableOptions::default(), Arc::new(ManualClock::default()));
    ears[0].send(7);
    ears[3].send(8);
    assert_eq!((ears[1].wait(1), ears[2].wait(1)), (vec![7], vec![8]));
    assert!(lock(&ears[4].wire).is_none() && lock(&ears[4].carrier).is_empty());
    cables.end();
    ears[0].send(9);
    assert_eq!(ears[1].wait(1), [7]);
    let lines: Vec<_> = cables.counters().iter().flat_map(CableCounters::lines).collect();
    assert_eq!(lines[0], "nic0 to nic1: 1 frames sent, 1 delivered");
    assert_eq!(lines[3], "nic3 to nic2: 1 frames sent, 1 delivered");
}

#[test]
fn a_sender_hears_that_the_far_end_is_busy() {
    for options in [CableOptions::default(), sends(&["loss=0%,delay=1ns"])] {
        let (ears, _cables) = join(2, options, Arc::new(WallClock::new()));
        let wire = lock(&ears[0].wire).clone().expect("plugged");
        assert!(wire.is_ready());
        (0..3).for_each(|number| ears[0].send(number));
        ears[1].wait(3);
        assert!(!wire.is_ready());
    }
}

#[test]
fn what_is_delayed_arrives_by_itself_and_in_order() {
    let (ears, cables) = join(2, sends(&["delay=2ms", "drop=any#2"]), Arc::new(WallClock::new()));
    (0..50).for_each(|number| ears[0].send(number));
    (0..3).for_each(|number| ears[1].send(number));
    assert_eq!(ears[0].wait(2), [0, 2], "the other direction has no delay");
    assert_eq!(ears[1].wait(50), (0..50).collect::<Vec<_>>());
    let [line, _] = cables.counters()[0].lines();
    assert_eq!(line, "nic0 to nic1: 50 frames sent, 50 delivered");
    assert_eq!(
        cables.counters()[0].lines()[1],
        "nic1 to nic0: 3 frames sent, 2 delivered, 1 dropped by a rule"
    );
}

#[test]
fn a_cable_with_much_on_its_way_ends_at_once() {
    let (ears, mut cables) = join(2, sends(&["delay=1000s"]), Arc::new(WallClock::new()));
    (0..50).for_each(|number| ears[0].send(number));
    let start = Instant::now();
    cables.end();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(cables.counters()[0].sends[0].sent, 50);
}

#[test]
fn a_port_has_a_carrier_while_the_far_end_gives_a_signal() {
    for options in [CableOptions::default(), sends(&["delay=1ns"])] {
        let (ears, _cables) = join(2, options, Arc::new(WallClock::new()));
        for on in [true, true, false] {
            ears[0].signal(on);
            assert_eq!(ears[1].carriers(1 + usize::from(!on)).last(), Some(&on));
        }
        assert_eq!((ears[1].carriers(2), ears[0].carriers(0)), (vec![true, false], vec![]));
    }
}

#[test]
fn ports_hear_of_an_outage() {
    let (ears, _cables) = join(2, sends(&["down=any#1+1ms"]), Arc::new(WallClock::new()));
    ears.iter().for_each(|ear| ear.signal(true));
    ears.iter().for_each(|ear| assert_eq!(ear.carriers(1), [true]));
    ears[0].send(1);
    ears.iter().for_each(|ear| assert_eq!(ear.carriers(3), [true, false, true]));
}

/// A file that others can look at, with a limit to its size.
#[derive(Clone)]
struct Shared(Arc<Mutex<Vec<u8>>>, usize);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = lock(&self.0);
        if file.len() + bytes.len() > self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn captured(text: &str, room: usize) -> Arc<Mutex<Vec<u8>>> {
    let file = Shared(Arc::default(), room);
    let to = CaptureTo { name: "file".into(), to: Box::new(file.clone()), limit: 20 };
    let options = CableOptions { capture: Some(to), ..sends(&[text]) };
    let (ears, cables) = join(2, options, Arc::new(ManualClock::default()));
    (0..3).for_each(|number| ears[0].send(number));
    assert_eq!(ears[1].wait(2).len(), 2);
    drop(cables);
    file.0
}

#[test]
fn a_capture_has_each_frame_on_both_sides_and_says_which_are_lost() {
    let file = captured("drop=any#2", usize::MAX);
    let file = lock(&file);
    let count = |word: &[u8]| file.windows(word.len()).filter(|bytes| *bytes == word).count();
    assert_eq!(count(b"dropped by the link: by a rule"), 1);
    // An enhanced packet block with 20 of 60 bytes: sent three times, received twice.
    assert_eq!(count(&[20, 0, 0, 0, 60, 0, 0, 0]), 5);
    assert_eq!((count(b"nic0"), count(b"nic1")), (1, 1));
}

#[test]
fn a_full_disk_stops_the_capture_and_nothing_else() {
    assert!(lock(&captured("drop=any#2", 100)).len() <= 100);
}

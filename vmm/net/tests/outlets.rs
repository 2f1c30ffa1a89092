//! Two outlets that meet, and what comes from others.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_net::{Address, Outlet, Side as Which};

/// Where frames from out there go.
struct Inside {
    frames: Sender<Vec<u8>>,
    signal: AtomicBool,
    ready: AtomicBool,
}

impl Wire for Inside {
    fn send(&self, frame: EthernetFrame) {
        assert!(frame.sealed);
        let _ = self.frames.send(frame.bytes);
    }

    fn set_signal(&self, on: bool) {
        self.signal.store(on, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

struct Side {
    outlet: Arc<Outlet>,
    inside: Arc<Inside>,
    frames: Receiver<Vec<u8>>,
}

impl Side {
    fn of(outlet: Arc<Outlet>) -> Self {
        let (sender, frames) = unbounded();
        let inside =
            Arc::new(Inside { frames: sender, signal: AtomicBool::new(false), ready: AtomicBool::new(true) });
        outlet.start(inside.clone()).unwrap();
        outlet.set_carrier(true);
        Self { outlet, inside, frames }
    }

    fn at(address: &str) -> Self {
        Self::of(Outlet::open(&address.parse::<Address>().unwrap()).unwrap())
    }

    fn send(&self, bytes: &[u8]) {
        self.outlet.receive(EthernetFrame { bytes: bytes.to_vec(), sealed: true });
    }

    #[track_caller]
    fn expect(&self, bytes: &[u8]) {
        let frame = self.frames.recv_timeout(Duration::from_secs(60)).expect("a frame");
        assert_eq!(frame, bytes);
    }

    #[track_caller]
    fn expect_signal(&self, on: bool) {
        wait_for(|| self.inside.signal.load(Ordering::Relaxed) == on);
    }
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never happens");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn frame(byte: u8) -> Vec<u8> {
    vec![byte; 100]
}

#[test]
fn two_processes_meet_at_a_socket_whichever_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("wire").display());
    let one = Side::at(&address);
    let two = Side::at(&address);
    one.expect_signal(true);
    two.expect_signal(true);
    for byte in 0..200 {
        one.send(&frame(byte));
        two.send(&frame(!byte));
    }
    for byte in 0..200 {
        two.expect(&frame(byte));
        one.expect(&frame(!byte));
    }
    // The one that connected leaves, and another comes in its place.
    drop(two);
    one.expect_signal(false);
    one.send(&frame(1));
    let two = Side::at(&address);
    one.expect_signal(true);
    two.expect_signal(true);
    one.send(&frame(2));
    wait_for(|| two.frames.try_iter().any(|bytes| bytes == frame(2)));
    // The one that listened leaves: who comes then listens, and the other finds it.
    drop(one);
    two.expect_signal(false);
    let one = Side::at(&address);
    one.expect_signal(true);
    two.expect_signal(true);
    two.send(&frame(3));
    one.expect(&frame(3));
    let stats = one.outlet.stats();
    assert_eq!((stats.sent, stats.received), (0, 1));
}

#[test]
fn a_port_that_is_set_down_hangs_up_until_it_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("wire").display());
    let (one, two) = (Side::at(&address), Side::at(&address));
    assert_eq!((one.outlet.side(), two.outlet.side()), (Which::First, Which::Second));
    for side in [&one, &two] {
        one.expect_signal(true);
        two.expect_signal(true);
        side.outlet.set_carrier(false);
        one.expect_signal(false);
        two.expect_signal(false);
        side.outlet.set_carrier(true);
    }
    one.expect_signal(true);
    two.expect_signal(true);
}

#[test]
fn what_a_killed_process_left_does_not_block_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    std::fs::write(path.with_extension("lock"), "").unwrap();
    let address = format!("unix:{}", path.display());
    let (one, two) = (Side::at(&address), Side::at(&address));
    one.expect_signal(true);
    two.send(&frame(1));
    one.expect(&frame(1));
}

#[test]
fn a_third_process_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire");
    let address = format!("unix:{}", path.display());
    let (one, two) = (Side::at(&address), Side::at(&address));
    one.expect_signal(true);
    let mut third = UnixStream::connect(&path).unwrap();
    third.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(third.read(&mut [0; 1]).unwrap_or(0), 0, "hung up");
    two.send(&frame(7));
    one.expect(&frame(7));
}

#[test]
fn nonsense_ends_the_connection_and_not_the_outlet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire");
    let address = format!("unix:{}", path.display());
    let one = Side::at(&address);
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4], &[0, 0, 0x40, 0]] {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        peer.write_all(nonsense).unwrap();
        assert_eq!(peer.read(&mut [0; 1]).unwrap_or(0), 0, "hung up");
        one.expect_signal(false);
    }
    // A frame that comes in pieces is a frame; half of one is none.
    let mut peer = UnixStream::connect(&path).unwrap();
    let bytes = [&100_u32.to_be_bytes()[..], &frame(9)].concat();
    for piece in bytes.chunks(7) {
        peer.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    one.expect(&frame(9));
    peer.write_all(&bytes[..50]).unwrap();
    drop(peer);
    one.expect_signal(false);
    assert!(one.frames.is_empty());
}

#[test]
fn a_side_that_does_not_read_costs_frames_and_blocks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wire");
    let one = Side::at(&format!("unix:{}", path.display()));
    let peer = UnixStream::connect(&path).unwrap();
    one.expect_signal(true);
    let large = vec![1; 9000];
    let start = Instant::now();
    for _ in 0..4000 {
        one.send(&large);
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(one.outlet.stats().dropped > 1000 && !one.outlet.has_room());
    drop(peer);
    // The end does not wait for the other side.
    one.expect_signal(false);
}

#[test]
fn datagrams_go_both_ways() {
    let free = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (a, b) = (free(), free());
    let one = Side::at(&format!("udp:{a},{b}"));
    let two = Side::at(&format!("udp:{b},{a}"));
    one.expect_signal(true);
    two.expect_signal(true);
    one.send(&frame(1));
    two.expect(&frame(1));
    two.send(&vec![2; 9018]);
    one.expect(&vec![2; 9018]);
    let taken = Outlet::open(&format!("udp:{a},{b}").parse().unwrap()).err().unwrap();
    assert!(format!("{taken:#}").contains("is it an address of this host, and free?"), "{taken:#}");
}

#[test]
fn what_cannot_be_opened_is_said() {
    let open = |address: &str| match Outlet::open(&address.parse().unwrap()) {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    assert!(open("unix:/nonexistent/wire").contains("cannot make /nonexistent/wire.lock"));
    assert!(open("udp:192.0.2.1:7000,192.0.2.2:7000").contains("cannot use 192.0.2.1:7000"));
    // Also for root, and also what is there but no tap device.
    for name in ["refault-test9", "lo"] {
        assert!(
            open(&format!("tap:{name}")).contains(&format!("this host has no tap device {name}: have root"))
        );
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let path = folder.path().join("file");
    assert!(open(&format!("unix:{}", path.display())).contains("is no socket"));
    assert!(path.exists());
}

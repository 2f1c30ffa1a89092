//! What the socket adds between a guest's CPU and the devices when QEMU hosts the guest: a load from a register, and a
//! doorbell, each through a whole session; beside them a message of the same size that goes to a thread and back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use refault_hosts::serve::ClientMachine;
use refault_rig::wiring::DeviceOptions;
use refault_tests::bench::{Bench, Comparison, Target};
use refault_vmm::devices;

/// Commands of vfio-user.
const VERSION: u16 = 1;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
/// Flag of a request without a reply, as for a posted store of QEMU.
const NO_REPLY: u32 = 1 << 4;
/// Bytes of a header, and of the words in front of an access' data.
const HEADER: usize = 16;
const ACCESS: usize = 16;
/// Bytes of a load's message, of its reply, and of a doorbell's message.
const LOAD: usize = HEADER + ACCESS;
const REPLY: usize = LOAD + 4;
const DOORBELL: usize = LOAD + 4;
/// The IOMMU's version register, and the NIC's BAR with the doorbells.
const VERSION_REGISTER: u64 = 0;
const DOORBELLS: u32 = 2;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let board = ClientMachine::new(false);
    let (devices, _wired) = devices::build(&board.parts(), DeviceOptions::default()).expect("devices");
    let mut clients: Vec<_> = board
        .plug(devices)
        .expect("slots")
        .into_iter()
        .map(|slot| {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            slot.take();
            std::thread::spawn(move || slot.serve(theirs));
            let mut client = Client(ours);
            client.send(VERSION, 0, &[0; 4]);
            client.reply();
            client
        })
        .collect();
    let (mut nic, mut unit) = (clients.pop().expect("a NIC"), clients.pop().expect("an IOMMU"));
    let (mut load, mut both) = (Echo::start(LOAD), Echo::start(LOAD + DOORBELL));
    bench.compare(
        Comparison {
            name: "a register's load",
            baseline: "a message of its size to a thread and back",
            target: Target::None,
        },
        &mut |count| (0..count).map(|_| unit.load(0, VERSION_REGISTER)).sum(),
        &mut |count| (0..count).map(|_| load.turn(LOAD)).sum(),
    );
    bench.compare(
        Comparison {
            name: "a doorbell, posted, and the load behind it",
            baseline: "as many bytes to a thread, and a reply",
            target: Target::None,
        },
        &mut |count| (0..count).map(|_| nic.ring_and_load()).sum(),
        &mut |count| (0..count).map(|_| both.turn(LOAD + DOORBELL)).sum(),
    );
    bench.finish()
}

/// A client of one function.
struct Client(UnixStream);

impl Client {
    fn send(&mut self, command: u16, flags: u32, payload: &[u8]) {
        let size = (HEADER + payload.len()) as u32;
        let mut message = [1u16.to_le_bytes(), command.to_le_bytes()].concat();
        message.extend([size.to_le_bytes(), flags.to_le_bytes(), [0; 4]].concat());
        message.extend(payload);
        self.0.write_all(&message).expect("the server reads");
    }

    /// The payload of a reply.
    fn reply(&mut self) -> Vec<u8> {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).expect("the server answers");
        let size = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        assert_eq!(header[8..16], [1, 0, 0, 0, 0, 0, 0, 0], "a reply without an error");
        let mut payload = vec![0; size - HEADER];
        self.0.read_exact(&mut payload).expect("the server answers");
        payload
    }

    fn load(&mut self, region: u32, offset: u64) -> Duration {
        let start = Instant::now();
        self.send(REGION_READ, 0, &access(region, offset));
        let reply = self.reply();
        let took = start.elapsed();
        assert_eq!(reply.len(), ACCESS + 4);
        took
    }

    /// The load's reply shows that the doorbell has been processed: the server handles messages in order.
    fn ring_and_load(&mut self) -> Duration {
        let start = Instant::now();
        let doorbell = [access(DOORBELLS, 0), vec![0; 4]].concat();
        self.send(REGION_WRITE, NO_REPLY, &doorbell);
        self.load(0, 0);
        start.elapsed()
    }
}

/// An access of four bytes.
fn access(region: u32, offset: u64) -> Vec<u8> {
    [&offset.to_le_bytes()[..], &region.to_le_bytes(), &4u32.to_le_bytes()].concat()
}

/// The baseline: a thread that reads as many bytes and writes as many back.
struct Echo(UnixStream);

impl Echo {
    fn start(take: usize) -> Self {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while theirs.read_exact(&mut buffer[..take]).is_ok() {
                theirs.write_all(&buffer[..REPLY]).expect("the bench reads");
            }
        });
        Self(ours)
    }

    fn turn(&mut self, give: usize) -> Duration {
        let mut buffer = [0; 256];
        let start = Instant::now();
        self.0.write_all(&buffer[..give]).expect("it reads");
        self.0.read_exact(&mut buffer[..REPLY]).expect("it answers");
        start.elapsed()
    }
}

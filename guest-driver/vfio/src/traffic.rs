//! RDMA WRITE and READ between two queue pairs of this process, with every byte checked.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use refault_abi::codes::WC_SUCCESS;
use refault_abi::queue::{Cqe, SqWqe};
use refault_bus::Iova;
use refault_model::nic::{Buffer, CompletionQueue, Driver, MemoryRegion, QueuePair, QueuePairSetup, work};

/// log2 of the entries of a send ring.
const LOG_RING: u8 = 6;
/// log2 of the entries of the completion queue.
const LOG_COMPLETIONS: u8 = 8;
/// Transfers in flight when the throughput is measured.
const DEPTH: u64 = 16;
/// Transfers, one at a time, over which the latency is averaged.
const SINGLE: u64 = 200;
/// Longest time without a completion.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The results of all transfers.
pub(crate) struct Moved {
    /// Number of bytes that arrived wrong.
    pub(crate) wrong: u64,
    lines: Vec<String>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A source and a target buffer, and a queue pair that transfers from one to the other.
struct Transfers<'a> {
    driver: &'a Driver,
    completions: CompletionQueue,
    sender: QueuePair,
    buffers: [Buffer; 2],
    regions: [MemoryRegion; 2],
    size: u32,
}

/// Transfers `size` bytes `count` times with RDMA WRITE, then with RDMA READ.
pub(crate) fn run(driver: &Driver, size: u32, count: u64) -> Result<Moved> {
    let mut transfers = Transfers::new(driver, size).context("cannot create the queue pairs")?;
    let mut moved = Moved { wrong: 0, lines: Vec::new() };
    for (name, read) in [("RDMA WRITE", false), ("RDMA READ", true)] {
        let seed = if read { 0x5a } else { 0xa5 };
        transfers.fill(seed)?;
        let start = Instant::now();
        transfers.transfer(read, count, DEPTH)?;
        let elapsed = start.elapsed().as_secs_f64();
        let wrong = transfers.wrong(seed)?;
        let start = Instant::now();
        transfers.transfer(read, SINGLE, 1)?;
        let single = start.elapsed().as_secs_f64() / SINGLE as f64;
        let rate = count as f64 * f64::from(size) / elapsed / 1e6;
        moved.wrong += wrong;
        moved.lines.push(format!(
            "{name}: {count} times {size} bytes in {elapsed:.3} s, {rate:.0} MB/s; one alone takes {:.1} us; {wrong} bytes wrong",
            single * 1e6
        ));
    }
    Ok(moved)
}

impl<'a> Transfers<'a> {
    fn new(driver: &'a Driver, size: u32) -> Result<Self> {
        let context = driver.create_context(None)?;
        let pd = driver.create_pd(context)?;
        let events = driver.create_event_queue(0, LOG_RING)?;
        let completions = driver.create_completion_queue(context, events.number(), LOG_COMPLETIONS)?;
        let (cqn, eqn) = (completions.number(), events.number());
        let setup = QueuePairSetup { pd, context, cqn, eqn, log_sq: LOG_RING, log_rq: LOG_RING };
        let (sender, receiver) = (driver.create_queue_pair(setup)?, driver.create_queue_pair(setup)?);
        driver.connect(receiver.number(), sender.number())?;
        driver.connect(sender.number(), receiver.number())?;
        let buffer = || Buffer::new(driver.memory(), driver.domain(), size.into());
        let buffers = [buffer()?, buffer()?];
        let region = |buffer: &Buffer| {
            let table = buffer.table();
            let bytes = u64::from(table.pages) << table.page_shift;
            driver.register_pinned(pd, buffer.iova(), bytes, table)
        };
        let regions = [region(&buffers[0])?, region(&buffers[1])?];
        Ok(Self { driver, completions, sender, buffers, regions, size })
    }

    /// The request for a transfer from the first buffer to the second.
    fn request(&self, id: u64, read: bool) -> SqWqe {
        let [from, to] = [0, 1].map(|index: usize| (self.buffers[index].iova(), self.regions[index].key));
        let local = |(at, key): (Iova, u32)| work::piece(at, self.size, key);
        match read {
            false => work::rdma_write(id, local(from), to.0, to.1),
            true => work::rdma_read(id, local(to), from.0, from.1),
        }
    }

    /// Makes `count` transfers, with `depth` of them in flight.
    fn transfer(&mut self, read: bool, count: u64, depth: u64) -> Result<()> {
        let (mut posted, mut done) = (0, 0);
        let mut last = Instant::now();
        while done < count {
            while posted < count && posted - done < depth {
                let wqe = self.request(posted, read);
                self.sender.post(&wqe)?;
                posted += 1;
            }
            while let Some(entry) = self.completions.poll()? {
                check(&entry)?;
                done += 1;
                last = Instant::now();
            }
            if last.elapsed() > TIMEOUT {
                bail!("the NIC stopped completing requests after {done} of {count} transfers");
            }
        }
        Ok(())
    }

    /// Fills the first buffer with a pattern and the second with something else.
    fn fill(&self, seed: u8) -> Result<()> {
        let memory = self.driver.memory().dma();
        memory.write(self.buffers[0].gpa(), &pattern(self.size, seed))?;
        memory.write(self.buffers[1].gpa(), &pattern(self.size, !seed))?;
        Ok(())
    }

    /// Number of bytes in the second buffer that differ from the pattern.
    fn wrong(&self, seed: u8) -> Result<u64> {
        let mut found = vec![0; self.size as usize];
        self.driver.memory().dma().read(self.buffers[1].gpa(), &mut found)?;
        Ok(found.iter().zip(pattern(self.size, seed)).filter(|(found, wanted)| *found != wanted).count()
            as u64)
    }
}

fn check(entry: &Cqe) -> Result<()> {
    if entry.status != WC_SUCCESS {
        bail!("transfer {} failed with status {}, cause {}", entry.wr_id, entry.status.0, entry.vendor_error);
    }
    Ok(())
}

fn pattern(bytes: u32, seed: u8) -> Vec<u8> {
    (0..bytes).map(|index| (index.wrapping_mul(0x9e37_79b9) >> 24) as u8 ^ seed).collect()
}

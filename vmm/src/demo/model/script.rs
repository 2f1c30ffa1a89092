//! What the scenarios do to the file, as the programs in a real guest do it (guest-driver/workload).

use refault_model::dax::FileId;

use super::ledger::{Owner, Page};
use super::play::{Result, Stage, new_file};
use refault_lab::engine::actor::Next;

/// Nanoseconds between two operations: some hundred requests.
const GAP_NS: u64 = 1_000_000;
/// Pages that are punched, or exchanged, at once.
const RANGE: u64 = 64;

/// One scenario.
pub(super) trait Script {
    /// Before the first request.
    fn begin(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Nanoseconds until the next step.
    fn gap_ns(&mut self) -> u64 {
        GAP_NS
    }

    /// A step, while requests are under way.
    fn act(&mut self, stage: &mut Stage) -> Result<Next>;

    /// With nothing under way any more.
    fn end(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }
}

/// The script of a scenario, which takes `steps` steps; `None` of an unknown one.
pub(super) fn script(name: &str, steps: u32) -> Option<Box<dyn Script>> {
    Some(match name {
        "steady" => Box::new(Steady { left: steps }),
        "reflink-cow" => Box::new(ReflinkCow { left: steps, copy: None }),
        "exchange" => Box::new(Exchange { left: steps, donor: None, at: 0 }),
        "punch" => Box::new(Punch { left: steps, heir: None, at: 0 }),
        "truncate" => Box::new(Truncate { left: steps, heir: None }),
        "fsync" => Box::new(Fsync { left: steps }),
        "kill" => Box::new(Kill { left: steps }),
        _ => return None,
    })
}

/// Counts a step; whether it was the last.
fn step(left: &mut u32, stage: &mut Stage) -> Next {
    stage.counters.operations += 1;
    *left = left.saturating_sub(1);
    if *left == 0 { Next::Stop } else { Next::Continue }
}

/// Nothing happens.
struct Steady {
    left: u32,
}

impl Script for Steady {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let wish = step(&mut self.left, stage);
        stage.counters.operations = 0;
        Ok(wish)
    }
}

/// Copies that share all blocks are taken again and again: the next write to any of them goes to a new block.
struct ReflinkCow {
    left: u32,
    copy: Option<(FileId, Vec<Page>)>,
}

impl ReflinkCow {
    /// The last copy must be what the file was when it was taken.
    fn retire(&mut self, stage: &mut Stage) -> Result<()> {
        let Some((file, pages)) = self.copy.take() else { return Ok(()) };
        stage.verify(file, &pages)?;
        stage.fs.remove(file)
    }
}

impl Script for ReflinkCow {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        self.retire(stage)?;
        let file = stage.fs.reflink(stage.target)?;
        let now = stage.now();
        self.copy = Some((file, stage.ledger.iter().map(|page| page.frozen(now)).collect()));
        Ok(step(&mut self.left, stage))
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        self.retire(stage)
    }
}

/// Ranges change places with another file's.
struct Exchange {
    left: u32,
    donor: Option<(FileId, Vec<Page>)>,
    at: u64,
}

impl Script for Exchange {
    fn begin(&mut self, stage: &mut Stage) -> Result<()> {
        let pages = stage.fs.size(stage.target)?;
        let file = new_file(&stage.fs, Owner::Donor, 0, pages)?;
        let now = stage.now();
        self.donor = Some((file, (0..pages).map(|_| Page::holding(Some((Owner::Donor, 0)), now)).collect()));
        Ok(())
    }

    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let Some((donor, pages)) = &mut self.donor else { return Ok(Next::Stop) };
        let range = next_range(&mut self.at, pages.len() as u64);
        stage.fs.exchange(stage.target, *donor, range.clone())?;
        let now = stage.now();
        for page in range {
            stage.ledger[page as usize].exchange(&mut pages[page as usize], now);
        }
        Ok(step(&mut self.left, stage))
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        let Some((donor, pages)) = self.donor.take() else { return Ok(()) };
        stage.verify(donor, &pages)
    }
}

/// A file that takes the blocks which have become free, and must stay what it is.
struct Heir {
    file: FileId,
    version: u32,
    pages: u64,
}

impl Heir {
    fn new(stage: &Stage, version: u32, pages: u64) -> Result<Self> {
        Ok(Self { file: new_file(&stage.fs, Owner::Heir, version, pages)?, version, pages })
    }

    fn retire(self, stage: &mut Stage) -> Result<()> {
        let (content, now) = (Some((Owner::Heir, self.version)), stage.now());
        let pages: Vec<_> = (0..self.pages).map(|_| Page::holding(content, now)).collect();
        stage.verify(self.file, &pages)?;
        stage.fs.remove(self.file)
    }
}

/// Holes are punched, and somebody else gets the blocks at once.
struct Punch {
    left: u32,
    heir: Option<Heir>,
    at: u64,
}

impl Script for Punch {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        if let Some(heir) = self.heir.take() {
            heir.retire(stage)?;
        }
        let range = next_range(&mut self.at, stage.ledger.len() as u64);
        let (count, now) = (range.end - range.start, stage.now());
        stage.fs.punch(stage.target, range.clone())?;
        for page in range {
            stage.ledger[page as usize].replace(None, now);
        }
        self.heir = Some(Heir::new(stage, self.left, count)?);
        Ok(step(&mut self.left, stage))
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        self.heir.take().map_or(Ok(()), |heir| heir.retire(stage))
    }
}

/// The last quarter is cut off, somebody else gets the blocks, and the file grows again.
struct Truncate {
    left: u32,
    heir: Option<Heir>,
}

impl Script for Truncate {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let pages = stage.ledger.len() as u64;
        let (rest, now) = (pages - pages / 4, stage.now());
        if let Some(heir) = self.heir.take() {
            stage.fs.truncate(stage.target, pages)?;
            stage.ledger[rest as usize..].iter_mut().for_each(|page| page.replace(None, now));
            heir.retire(stage)?;
            return Ok(step(&mut self.left, stage));
        }
        stage.fs.truncate(stage.target, rest)?;
        self.heir = Some(Heir::new(stage, self.left, pages - rest)?);
        Ok(Next::Continue)
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        self.heir.take().map_or(Ok(()), |heir| heir.retire(stage))
    }
}

/// Pages are written out and write-protected.
struct Fsync {
    left: u32,
}

impl Script for Fsync {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        stage.fs.fsync(stage.target)?;
        Ok(step(&mut self.left, stage))
    }
}

/// The program is killed in the middle of its writes, and another one takes its place.
struct Kill {
    left: u32,
}

impl Script for Kill {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let wish = step(&mut self.left, stage);
        Ok(if wish == Next::Stop { wish } else { Next::Kill })
    }
}

/// The next range of a file that is gone through again and again.
fn next_range(at: &mut u64, pages: u64) -> std::ops::Range<u64> {
    let start = if *at >= pages { 0 } else { *at };
    *at = (start + RANGE).min(pages);
    start..*at
}

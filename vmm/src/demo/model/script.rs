//! The scenarios' operations on the file, as in the programs of a real guest (guest-driver/workload).

use refault_bus::bits::index;
use refault_model::dax::FileId;

use super::actor::{Result, Stage, new_file};
use super::ledger::{Owner, Page};
use refault_lab::engine::actor::Next;

/// Nanoseconds between two operations, in which some hundred requests complete.
const GAP_NS: u64 = 1_000_000;
/// Pages that are punched or exchanged in one operation.
const RANGE: u64 = 64;

/// The operations of one scenario.
pub(super) trait Script {
    /// Runs before the first request.
    fn begin(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Nanoseconds until the next step.
    fn gap_ns(&mut self) -> u64 {
        GAP_NS
    }

    /// One step, while requests are in flight.
    fn act(&mut self, stage: &mut Stage) -> Result<Next>;

    /// Runs when no request is in flight any more.
    fn end(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }
}

/// The script of a scenario with `steps` steps; `None` if the name is unknown.
pub(super) fn script(name: &str, steps: u32) -> Option<Box<dyn Script>> {
    Some(match name {
        "steady" => Box::new(Steady { left: steps }),
        "reflink-cow" => Box::new(ReflinkCow { left: steps, copy: None }),
        "exchange" => Box::new(Exchange { left: steps, donor: None, at: 0 }),
        "punch" => Box::new(Punch { left: steps, reuser: None, at: 0 }),
        "truncate" => Box::new(Truncate { left: steps, reuser: None }),
        "fsync" => Box::new(Fsync { left: steps }),
        "kill" => Box::new(Kill { left: steps }),
        _ => return None,
    })
}

/// Counts a step, and ends the scenario after the last.
fn step(left: &mut u32, stage: &mut Stage) -> Next {
    stage.counters.operations += 1;
    *left = left.saturating_sub(1);
    if *left == 0 { Next::Stop } else { Next::Continue }
}

/// Requests only, without any operation on the file.
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

/// Reflinks are taken repeatedly: the next write to a shared block goes to a new one.
struct ReflinkCow {
    left: u32,
    copy: Option<(FileId, Vec<Page>)>,
}

impl ReflinkCow {
    /// Verifies that the last copy is the file as it was when copied, and removes it.
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

/// Ranges are exchanged with another file's.
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
            stage.ledger[index(page)].exchange(&mut pages[index(page)], now);
        }
        Ok(step(&mut self.left, stage))
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        let Some((donor, pages)) = self.donor.take() else { return Ok(()) };
        stage.verify(donor, &pages)
    }
}

/// A file that reuses freed blocks, and must not change.
struct Reuser {
    file: FileId,
    version: u32,
    pages: u64,
}

impl Reuser {
    fn new(stage: &Stage, version: u32, pages: u64) -> Result<Self> {
        Ok(Self { file: new_file(&stage.fs, Owner::Reuser, version, pages)?, version, pages })
    }

    fn retire(self, stage: &mut Stage) -> Result<()> {
        let (content, now) = (Some((Owner::Reuser, self.version)), stage.now());
        let pages: Vec<_> = (0..self.pages).map(|_| Page::holding(content, now)).collect();
        stage.verify(self.file, &pages)?;
        stage.fs.remove(self.file)
    }
}

/// Holes are punched, and another file reuses the blocks immediately.
struct Punch {
    left: u32,
    reuser: Option<Reuser>,
    at: u64,
}

impl Script for Punch {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        if let Some(reuser) = self.reuser.take() {
            reuser.retire(stage)?;
        }
        let range = next_range(&mut self.at, stage.ledger.len() as u64);
        let (count, now) = (range.end - range.start, stage.now());
        stage.fs.punch(stage.target, range.clone())?;
        for page in range {
            stage.ledger[index(page)].replace(None, now);
        }
        self.reuser = Some(Reuser::new(stage, self.left, count)?);
        Ok(step(&mut self.left, stage))
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        self.reuser.take().map_or(Ok(()), |reuser| reuser.retire(stage))
    }
}

/// The last quarter is truncated, another file reuses the blocks, and the file grows again.
struct Truncate {
    left: u32,
    reuser: Option<Reuser>,
}

impl Script for Truncate {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let pages = stage.ledger.len() as u64;
        let (rest, now) = (pages - pages / 4, stage.now());
        if let Some(reuser) = self.reuser.take() {
            stage.fs.truncate(stage.target, pages)?;
            stage.ledger[index(rest)..].iter_mut().for_each(|page| page.replace(None, now));
            reuser.retire(stage)?;
            return Ok(step(&mut self.left, stage));
        }
        stage.fs.truncate(stage.target, rest)?;
        self.reuser = Some(Reuser::new(stage, self.left, pages - rest)?);
        Ok(Next::Continue)
    }

    fn end(&mut self, stage: &mut Stage) -> Result<()> {
        self.reuser.take().map_or(Ok(()), |reuser| reuser.retire(stage))
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

/// The program is killed during its writes, and another one replaces it.
struct Kill {
    left: u32,
}

impl Script for Kill {
    fn act(&mut self, stage: &mut Stage) -> Result<Next> {
        let wish = step(&mut self.left, stage);
        Ok(if wish == Next::Stop { wish } else { Next::Kill })
    }
}

/// The next range, starting over at the end of the file.
fn next_range(at: &mut u64, pages: u64) -> std::ops::Range<u64> {
    let start = if *at >= pages { 0 } else { *at };
    *at = (start + RANGE).min(pages);
    start..*at
}

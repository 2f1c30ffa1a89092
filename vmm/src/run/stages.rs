//! The guest's own account of its fault handling: requested with the job, brought out with the files, and merged into
//! the records.

use anyhow::{Context, Result};

use super::Spec;
use super::options::parse::Out;
use refault_observe::trace::guest::{FOLDER, GuestTrace};
use refault_observe::trace::{Recorder, Records};
use refault_os::scratch::Scratch;

/// The guest's events may take this fraction, 1/64, of its memory.
const SHARE: u64 = 64;
/// Minimum of that, in bytes. A fault takes about 200.
const LEAST: u64 = 2 << 20;
/// Maximum of that, in bytes.
const MOST: u64 = 32 << 20;
/// Bytes that the files take besides events.
const DESCRIPTIONS: u64 = 1 << 20;

/// A requested account.
#[derive(Debug)]
pub struct Stages {
    folder: Scratch,
}

impl Stages {
    /// Makes the guest trace its handling of faults.
    ///
    /// # Errors
    /// The folder for the files cannot be made.
    pub fn request(spec: &mut Spec) -> Result<Self> {
        let folder = Scratch::new().context("cannot make a temporary folder")?;
        let room = room(spec.memory);
        spec.trace_kib = Some((room >> 10) / u64::from(spec.cpus.max(1)));
        spec.out_size = if spec.out.is_empty() { 0 } else { spec.out_size } + room + DESCRIPTIONS;
        spec.out.push(Out { guest: FOLDER.into(), host: folder.path().join("files") });
        Ok(Self { folder })
    }

    /// Merges the guest's account into the records, and notes in them how complete it is.
    ///
    /// # Errors
    /// The guest's files cannot be read.
    pub fn merge(&self, recorder: &Recorder, records: &mut Records) -> Result<()> {
        let files = self.folder.path().join("files");
        // A guest that ended before its command leaves none.
        let account = match files.is_dir() {
            true => GuestTrace::load(&files).context("cannot read the guest's account of its faults")?,
            false => GuestTrace::default(),
        };
        let stages = account.merge(recorder.origin_ns(), records);
        records.observed.guest = Some(stages);
        Ok(())
    }

    /// Bytes that the files of a guest with this much memory may take.
    pub fn bytes(memory: u64) -> u64 {
        room(memory) + DESCRIPTIONS
    }
}

fn room(memory: u64) -> u64 {
    (memory / SHARE).clamp(LEAST, MOST)
}

//! The guest's own account of its fault handling: asked for with the job, brought out with the files, and put into the
//! records.

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Spec;
use super::options::parse::Out;
use refault_observe::trace::guest::{FOLDER, GuestTrace};
use refault_observe::trace::{Recorder, Records};

/// Part of the guest's memory that its events may take.
const SHARE: u64 = 64;
/// Least and most of it, in bytes: a fault takes some 200.
const LEAST: u64 = 2 << 20;
const MOST: u64 = 32 << 20;
/// What the files have besides events.
const DESCRIPTIONS: u64 = 1 << 20;

/// An account that was asked for.
#[derive(Debug)]
pub struct Stages {
    folder: TempDir,
}

impl Stages {
    /// Has the guest trace its handling of faults.
    ///
    /// # Errors
    /// There is no room for the files.
    pub fn request(spec: &mut Spec) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let room = room(spec.memory);
        spec.trace_kib = Some((room >> 10) / u64::from(spec.cpus.max(1)));
        spec.out_size = if spec.out.is_empty() { 0 } else { spec.out_size } + room + DESCRIPTIONS;
        spec.out.push(Out { guest: FOLDER.into(), host: folder.path().join("files") });
        Ok(Self { folder })
    }

    /// Puts what the guest told into the records, and says in them how far that went.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn merge(&self, recorder: &Recorder, records: &mut Records) -> Result<()> {
        let files = self.folder.path().join("files");
        // A guest that ended before its command did leaves none.
        let told = match files.is_dir() {
            true => GuestTrace::load(&files).context("cannot read what the guest told of its faults")?,
            false => GuestTrace::default(),
        };
        let stages = told.merge(recorder.origin_ns(), records);
        records.observed.guest = Some(stages);
        Ok(())
    }

    /// Bytes of the machine's memory that the files may take.
    pub fn bytes(memory: u64) -> u64 {
        room(memory) + DESCRIPTIONS
    }
}

fn room(memory: u64) -> u64 {
    (memory / SHARE).clamp(LEAST, MOST)
}

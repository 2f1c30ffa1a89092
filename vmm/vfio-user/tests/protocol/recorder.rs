//! A function that records its calls and has a BAR that keeps what is written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use refault_vfio_user::RequestError;
use refault_vfio_user::function::{CONFIG, VfioUserFunction};
use refault_vfio_user::request::{DATA_MAX, DmaMap, DmaUnmap, RegionAccess};

pub(crate) const BAR_SIZE: u64 = 0x1000;
pub(crate) const CONFIG_SIZE: u64 = 0x1000;
pub(crate) const VECTORS: u32 = 32;
/// Address at which the function refuses guest memory.
pub(crate) const TAKEN: u64 = 0xdead_0000;

/// One call. A file is represented by its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read(RegionAccess),
    Write(RegionAccess, Vec<u8>, bool),
    Map(DmaMap, Option<u8>),
    Unmap(DmaUnmap),
    Vectors(u32, Vec<bool>),
    Reset,
    Replied(u16, Option<u32>),
}

#[derive(Default)]
pub(crate) struct Recorder {
    calls: Mutex<Vec<Call>>,
    bar: Mutex<Vec<u8>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        let recorder = Self::default();
        recorder.bar.lock().unwrap().resize(BAR_SIZE as usize, 0);
        Arc::new(recorder)
    }

    /// The calls since this was last called.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl VfioUserFunction for Recorder {
    fn region_size(&self, index: u32) -> u64 {
        match index {
            0 => BAR_SIZE,
            CONFIG => CONFIG_SIZE,
            _ => 0,
        }
    }

    fn vectors(&self) -> u32 {
        VECTORS
    }

    fn read(&self, access: RegionAccess, data: &mut [u8]) -> Result<(), RequestError> {
        assert_eq!(data.len(), access.count as usize);
        assert!(data.len() <= DATA_MAX && access.offset + data.len() as u64 <= BAR_SIZE.max(CONFIG_SIZE));
        self.note(Call::Read(access));
        match access.region {
            0 => data.copy_from_slice(&self.bar.lock().unwrap()[access.offset as usize..][..data.len()]),
            _ => data.fill(0xc7),
        }
        Ok(())
    }

    fn write(&self, access: RegionAccess, data: &[u8], posted: bool) -> Result<(), RequestError> {
        assert_eq!(data.len(), access.count as usize);
        self.note(Call::Write(access, data.to_vec(), posted));
        if access.region == 0 {
            self.bar.lock().unwrap()[access.offset as usize..][..data.len()].copy_from_slice(data);
        }
        Ok(())
    }

    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), RequestError> {
        let mark = file.and_then(|file| {
            let mut mark = [0];
            file.read_exact_at(&mut mark, 0).ok().map(|()| mark[0])
        });
        self.note(Call::Map(map, mark));
        if map.address == TAKEN { Err(RequestError::Exists) } else { Ok(()) }
    }

    fn unmap(&self, unmap: DmaUnmap) -> Result<(), RequestError> {
        self.note(Call::Unmap(unmap));
        Ok(())
    }

    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), RequestError> {
        assert!(start as usize + events.len() <= VECTORS as usize);
        self.note(Call::Vectors(start, events.iter().map(Option::is_some).collect()));
        Ok(())
    }

    fn reset(&self) {
        self.note(Call::Reset);
    }

    fn replied(&self, id: u16, error: Option<u32>) {
        self.note(Call::Replied(id, error));
    }
}

//! Interrupts to a client: MSI-X vectors as eventfds, the IOMMU's messages as writes to guest memory.
//!
//! Both come from the devices as messages. A function's MSI-X table is the client's business, so that the function's own
//! is filled with marks: an address that no IOMMU can send to, for its lowest bit is set, and the vector as data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::warn::WarnLimit;
use refault_vfio_user::Refusal;
use refault_vfio_user::connection::Connection;
use refault_vfio_user::reply;

/// The address of marks, with the function's number above.
const MARK: u64 = 1;
/// Messages that can be on their way at a time; a unit has three events.
const UNDERWAY_MAX: usize = 64;

/// The mark for `vector` of function `owner`.
pub(super) fn mark(owner: usize, vector: u16) -> MsiMessage {
    MsiMessage { address: (owner as u64) << 8 | MARK, data: vector.into() }
}

/// Where the interrupts of all functions go.
#[derive(Default)]
pub(super) struct Interrupts {
    vectors: Mutex<BTreeMap<(usize, u16), File>>,
    messages: Mutex<Messages>,
    warnings: WarnLimit,
}

/// The IOMMU's messages, through the client of its function.
#[derive(Default)]
struct Messages {
    client: Option<Arc<Connection>>,
    next: u16,
    /// On their way, by request. The same one is sent once more behind the answer if it came up again meanwhile: so
    /// none is lost and their number stays that of the different ones.
    underway: BTreeMap<u16, (MsiMessage, bool)>,
}

impl Interrupts {
    /// Sends a vector to an eventfd, or to nowhere.
    ///
    /// # Errors
    /// It is no eventfd: a write to anything else might block. So might one to an eventfd that is full, unless that is
    /// switched off, as QEMU has it anyway.
    pub(super) fn set_vector(
        &self,
        owner: usize,
        vector: u16,
        event: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        let mut vectors = lock(&self.vectors);
        match event {
            None => drop(vectors.remove(&(owner, vector))),
            Some(event) if is_eventfd(&event) && rustix::io::ioctl_fionbio(&event, true).is_ok() => {
                vectors.insert((owner, vector), event.into());
            }
            Some(_) => return Err(Refusal::Invalid),
        }
        Ok(())
    }

    /// Whether a vector goes anywhere.
    pub(super) fn has_vector(&self, owner: usize, vector: u16) -> bool {
        lock(&self.vectors).contains_key(&(owner, vector))
    }

    /// Function `owner` has no client any more.
    pub(super) fn forget(&self, owner: usize) {
        lock(&self.vectors).retain(|(other, _), _| *other != owner);
    }

    /// The client through which messages go.
    pub(super) fn set_client(&self, client: Option<Arc<Connection>>) {
        *lock(&self.messages) = Messages { client, ..Messages::default() };
    }

    /// The client has taken a message, or refused it.
    pub(super) fn replied(&self, id: u16, error: Option<u32>) {
        let mut messages = lock(&self.messages);
        let Some((message, again)) = messages.underway.remove(&id) else { return };
        if let Some(error) = error
            && let Some(count) = self.warnings.admit()
        {
            let error = std::io::Error::from_raw_os_error(error.try_into().unwrap_or_default());
            tracing::warn!(count, "QEMU refused the interrupt {message:x?} of the IOMMU: {error}");
        }
        if again {
            messages.send(message);
        }
    }

    fn raise(&self, owner: usize, vector: u16) {
        if let Some(event) = lock(&self.vectors).get_mut(&(owner, vector)) {
            // Fails only if the counter is full: then the client has an interrupt to see already.
            let _ = event.write(&1u64.to_ne_bytes());
        }
    }
}

impl MsiSink for Interrupts {
    fn signal(&self, message: MsiMessage) {
        if message.address & MARK != 0 {
            self.raise((message.address >> 8) as usize, message.data as u16);
            return;
        }
        let mut messages = lock(&self.messages);
        if let Some((_, again)) = messages.underway.values_mut().find(|(other, _)| *other == message) {
            *again = true;
        } else if messages.underway.len() < UNDERWAY_MAX {
            messages.send(message);
        } else if let Some(count) = self.warnings.admit() {
            tracing::warn!(count, "dropped the interrupt {message:x?}: QEMU answers none");
        }
    }
}

impl Messages {
    /// Sends without waiting for the answer: the client gives none while a guest's CPU waits for one of ours.
    fn send(&mut self, message: MsiMessage) {
        let Some(client) = &self.client else { return };
        while self.underway.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let request = reply::dma_write(id, message.address, &message.data.to_le_bytes());
        if client.send(&request).is_ok() {
            self.underway.insert(id, (message, false));
        }
    }
}

fn is_eventfd(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|path| path.as_os_str() == "anon_inode:[eventfd]")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

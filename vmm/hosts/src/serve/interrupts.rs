//! Interrupts to a client: MSI-X vectors as eventfds, the IOMMU's messages as writes to guest memory.
//!
//! The devices send both as MSI messages. The client keeps a function's MSI-X table, so the function's own table is filled
//! with marks: an address with its lowest bit set, to which no IOMMU can send, and the vector as data.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use refault_bus::bits::low_u16;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::sync::lock;
use refault_bus::warn::WarnLimit;
use refault_vfio_user::RequestError;
use refault_vfio_user::connection::Connection;
use refault_vfio_user::reply;

/// The address of marks; the function's number is in the bits from 8 up.
const MARK: u64 = 1;
/// IOMMU messages in flight at most; a unit has three kinds of events.
const IN_FLIGHT_MAX: usize = 64;

/// The mark for `vector` of function `owner`.
pub(super) fn mark(owner: usize, vector: u16) -> MsiMessage {
    MsiMessage { address: (owner as u64) << 8 | MARK, data: vector.into() }
}

/// Where the interrupts of all functions go.
#[derive(Default)]
pub(super) struct Interrupts {
    vectors: Mutex<BTreeMap<(usize, u16), File>>,
    messages: Mutex<PendingMessages>,
    warnings: WarnLimit,
}

/// The IOMMU's messages, sent through the client of its function.
#[derive(Default)]
struct PendingMessages {
    client: Option<Arc<Connection>>,
    next: u16,
    /// Messages in flight by request id. If a message is raised again meanwhile, the flag requests to send it once more
    /// after the reply: so none is lost, and the number in flight is bounded by the number of different messages.
    in_flight: BTreeMap<u16, (MsiMessage, bool)>,
}

impl Interrupts {
    /// Connects a vector to an eventfd, or disconnects it.
    ///
    /// # Errors
    /// It is not an eventfd: a write to anything else might block. A write to a full eventfd might block too, so the
    /// descriptor is set to non-blocking, as QEMU does itself.
    pub(super) fn set_vector(
        &self,
        owner: usize,
        vector: u16,
        event: Option<OwnedFd>,
    ) -> Result<(), RequestError> {
        let mut vectors = lock(&self.vectors);
        match event {
            None => drop(vectors.remove(&(owner, vector))),
            Some(event) if is_eventfd(&event) && rustix::io::ioctl_fionbio(&event, true).is_ok() => {
                vectors.insert((owner, vector), event.into());
            }
            Some(_) => return Err(RequestError::Invalid),
        }
        Ok(())
    }

    /// Whether a vector is connected.
    pub(super) fn has_vector(&self, owner: usize, vector: u16) -> bool {
        lock(&self.vectors).contains_key(&(owner, vector))
    }

    /// Removes the vectors of function `owner`, whose client is gone.
    pub(super) fn forget(&self, owner: usize) {
        lock(&self.vectors).retain(|(other, _), _| *other != owner);
    }

    /// Sets the client through which messages are sent.
    pub(super) fn set_client(&self, client: Option<Arc<Connection>>) {
        *lock(&self.messages) = PendingMessages { client, ..PendingMessages::default() };
    }

    /// The client has accepted a message, or refused it.
    pub(super) fn replied(&self, id: u16, error: Option<u32>) {
        let mut messages = lock(&self.messages);
        let Some((message, again)) = messages.in_flight.remove(&id) else { return };
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
            // Fails only if the counter is full: then an interrupt is pending at the client anyway.
            let _ = event.write(&1u64.to_ne_bytes());
        }
    }
}

impl MsiSink for Interrupts {
    fn signal(&self, message: MsiMessage) {
        if message.address & MARK != 0 {
            self.raise((message.address >> 8) as usize, low_u16(message.data.into()));
            return;
        }
        let mut messages = lock(&self.messages);
        if let Some((_, again)) = messages.in_flight.values_mut().find(|(other, _)| *other == message) {
            *again = true;
        } else if messages.in_flight.len() < IN_FLIGHT_MAX {
            messages.send(message);
        } else if let Some(count) = self.warnings.admit() {
            tracing::warn!(count, "dropped the interrupt {message:x?}: QEMU replies to none");
        }
    }
}

impl PendingMessages {
    /// Sends without waiting for the reply: the client sends none while one of the guest's CPUs waits for our reply to an
    /// access.
    fn send(&mut self, message: MsiMessage) {
        let Some(client) = &self.client else { return };
        while self.in_flight.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        let request = reply::dma_write(id, message.address, &message.data.to_le_bytes());
        if client.send(&request).is_ok() {
            self.in_flight.insert(id, (message, false));
        }
    }
}

fn is_eventfd(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|path| path.as_os_str() == "anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn event(count: u32, flags: EventfdFlags) -> (File, OwnedFd) {
        let ours = File::from(eventfd(count, flags).unwrap());
        let theirs = ours.try_clone().unwrap().into();
        (ours, theirs)
    }

    /// Number of signals since the last call.
    fn count(mut event: &File) -> u64 {
        let mut count = [0; 8];
        event.read_exact(&mut count).map_or(0, |()| u64::from_ne_bytes(count))
    }

    /// Interrupts with a client, and the client's end of the socket.
    fn with_client() -> (Interrupts, UnixStream) {
        let interrupts = Interrupts::default();
        let (client, ours) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        interrupts.set_client(Some(Arc::new(Connection::new(ours).unwrap())));
        (interrupts, client)
    }

    fn arrived(mut client: &UnixStream) -> Vec<(u16, u64, u32)> {
        let mut messages = Vec::new();
        let mut bytes = [0; 36];
        while client.read_exact(&mut bytes).is_ok() {
            let number = |at: usize, size: usize| {
                bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
            };
            assert_eq!((number(2, 2), number(4, 4), number(24, 8)), (12, 36, 4), "a write of four bytes");
            messages.push((number(0, 2) as u16, number(16, 8), number(32, 4) as u32));
        }
        messages
    }

    fn message(data: u32) -> MsiMessage {
        MsiMessage { address: 0xfee0_0000, data }
    }

    #[test]
    fn a_mark_reaches_its_event_and_no_other() {
        let interrupts = Interrupts::default();
        let (ours, theirs) = event(0, EventfdFlags::NONBLOCK);
        let (other, others) = event(0, EventfdFlags::NONBLOCK);
        interrupts.set_vector(1, 3, Some(theirs)).unwrap();
        interrupts.set_vector(2, 3, Some(others)).unwrap();
        interrupts.signal(mark(1, 3));
        interrupts.signal(mark(1, 3));
        interrupts.signal(mark(1, 4));
        assert_eq!((count(&ours), count(&other)), (2, 0));
        interrupts.set_vector(1, 3, None).unwrap();
        interrupts.forget(2);
        interrupts.signal(mark(1, 3));
        interrupts.signal(mark(2, 3));
        assert_eq!((count(&ours), count(&other)), (0, 0));
        assert!(!interrupts.has_vector(1, 3) && !interrupts.has_vector(2, 3));
    }

    #[test]
    fn a_descriptor_that_is_not_an_eventfd_is_refused() {
        let interrupts = Interrupts::default();
        let (ours, theirs) = event(0, EventfdFlags::NONBLOCK);
        interrupts.set_vector(1, 0, Some(theirs)).unwrap();
        let socket = UnixStream::pair().unwrap().0;
        for fd in [socket.into(), tempfile::tempfile().unwrap().into(), File::open("/proc").unwrap().into()] {
            assert_eq!(interrupts.set_vector(1, 0, Some(fd)), Err(RequestError::Invalid));
        }
        interrupts.signal(mark(1, 0));
        assert_eq!(count(&ours), 1);
    }

    #[test]
    fn a_full_event_does_not_block() {
        let interrupts = Interrupts::default();
        let (mut ours, theirs) = event(0, EventfdFlags::empty());
        ours.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        interrupts.set_vector(1, 0, Some(theirs)).unwrap();
        let (done, ends) = mpsc::channel();
        std::thread::spawn(move || {
            interrupts.signal(mark(1, 0));
            let _ = done.send(());
        });
        assert_eq!(ends.recv_timeout(Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn a_message_raised_again_while_in_flight_is_sent_once_more() {
        let (interrupts, client) = with_client();
        interrupts.signal(message(0x21));
        let first = arrived(&client);
        assert!(matches!(first[..], [(_, 0xfee0_0000, 0x21)]));
        for _ in 0..5 {
            interrupts.signal(message(0x21));
        }
        assert_eq!(arrived(&client), []);
        interrupts.replied(first[0].0, None);
        let second = arrived(&client);
        assert_eq!(second.len(), 1, "one for all five");
        assert_eq!(second[0].2, 0x21);
        interrupts.replied(second[0].0, None);
        assert_eq!(arrived(&client), []);
        interrupts.signal(message(0x21));
        assert_eq!(arrived(&client).len(), 1);
    }

    #[test]
    fn different_messages_do_not_wait_for_each_other() {
        let (interrupts, client) = with_client();
        interrupts.signal(message(1));
        interrupts.signal(message(2));
        interrupts.signal(MsiMessage { address: 0xfee0_1000, data: 1 });
        let sent = arrived(&client);
        let what: Vec<_> = sent.iter().map(|(_, address, data)| (*address, *data)).collect();
        assert_eq!(what, [(0xfee0_0000, 1), (0xfee0_0000, 2), (0xfee0_1000, 1)]);
        assert!(sent[0].0 != sent[1].0 && sent[1].0 != sent[2].0);
    }

    #[test]
    fn a_client_that_does_not_reply_gets_a_limited_number_of_messages() {
        let (interrupts, client) = with_client();
        (0..1000).for_each(|data| interrupts.signal(message(data)));
        let sent = arrived(&client);
        assert_eq!(sent.len(), IN_FLIGHT_MAX);
        assert_eq!(lock(&interrupts.messages).in_flight.len(), IN_FLIGHT_MAX);
        interrupts.replied(sent[7].0, None);
        interrupts.signal(message(5000));
        interrupts.signal(message(5001));
        assert!(matches!(arrived(&client)[..], [(_, _, 5000)]), "room for one");
    }

    #[test]
    fn an_unexpected_reply_is_ignored() {
        let (interrupts, client) = with_client();
        interrupts.replied(0, None);
        interrupts.signal(message(1));
        let [(id, ..)] = arrived(&client)[..] else { panic!("one message") };
        interrupts.signal(message(1));
        interrupts.replied(id.wrapping_add(1), None);
        interrupts.replied(id.wrapping_sub(1), Some(19));
        assert_eq!(arrived(&client), []);
        interrupts.replied(id, Some(19));
        assert_eq!(arrived(&client).len(), 1, "a refusal is an answer");
        interrupts.replied(id, None);
        assert_eq!(arrived(&client), [], "the same answer twice is one");
    }

    #[test]
    fn ids_wrap_around_and_skip_those_in_use() {
        let (interrupts, client) = with_client();
        interrupts.signal(message(0));
        let [(held, ..)] = arrived(&client)[..] else { panic!("one message") };
        for _ in 0..=u16::MAX {
            interrupts.signal(message(1));
            let [(id, ..)] = arrived(&client)[..] else { panic!("one message") };
            assert_ne!(id, held);
            interrupts.replied(id, None);
        }
    }

    #[test]
    fn a_new_client_gets_no_messages_of_the_last_one() {
        let (interrupts, client) = with_client();
        interrupts.signal(message(1));
        interrupts.signal(message(1));
        assert_eq!(arrived(&client).len(), 1);
        interrupts.set_client(None);
        interrupts.signal(message(1));
        let (client, ours) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        interrupts.set_client(Some(Arc::new(Connection::new(ours).unwrap())));
        assert_eq!(arrived(&client), []);
        interrupts.signal(message(1));
        assert_eq!(arrived(&client).len(), 1);
    }
}

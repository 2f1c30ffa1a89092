//! The port at which gdb attaches: one gdb at a time.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use super::DebuggedGuest;
use super::session::{SessionEvent, serve};
use refault_bus::sync::lock;
use refault_os::message::note;

/// The server, and the gdb that is attached.
pub struct Server {
    listener: TcpListener,
    waiting: Option<JoinHandle<()>>,
    current: Arc<Mutex<Option<Current>>>,
}

/// The session of one gdb.
struct Current {
    events: Sender<SessionEvent>,
    stream: TcpStream,
    session: JoinHandle<()>,
}

impl Server {
    /// Serves `guest` on threads of its own. While a gdb is attached, further ones are refused.
    ///
    /// # Errors
    /// A thread cannot be started, or the listener cannot be duplicated.
    pub fn start(listener: TcpListener, guest: Arc<dyn DebuggedGuest>) -> Result<Self> {
        let current = Arc::<Mutex<Option<Current>>>::default();
        let (ours, slot) = (listener.try_clone().context("cannot listen for gdb")?, current.clone());
        let accept = move || {
            while let Ok((stream, _)) = ours.accept() {
                let mut slot = lock(&slot);
                if slot.as_ref().is_some_and(|current| !current.session.is_finished()) {
                    note("refused a second gdb: one is already attached");
                    continue;
                }
                // If the session cannot start, gdb sees a closed connection.
                *slot = Current::start(stream, guest.clone()).ok();
            }
        };
        let thread = std::thread::Builder::new().name("gdb-accept".into());
        let waiting = Some(thread.spawn(accept).context("cannot start a thread for gdb")?);
        Ok(Self { listener, waiting, current })
    }
}

impl Drop for Server {
    /// The machine has ended: gdb is notified.
    fn drop(&mut self) {
        // Wakes the accepting thread and refuses further connections.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = self.waiting.take().map(JoinHandle::join);
        if let Some(current) = lock(&self.current).take() {
            let _ = current.events.send(SessionEvent::Over);
            let _ = current.session.join();
            let _ = current.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Current {
    fn start(stream: TcpStream, guest: Arc<dyn DebuggedGuest>) -> Result<Self> {
        let (events, queue) = channel();
        let (sender, ours) = (events.clone(), stream.try_clone()?);
        let body = move || {
            let closing = ours.try_clone();
            serve(ours, &guest, sender, queue);
            let _ = closing.map(|stream| stream.shutdown(Shutdown::Both));
        };
        let session = std::thread::Builder::new().name("gdb".into()).spawn(body)?;
        Ok(Self { events, stream, session })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::super::commands::tests::Fake;
    use super::*;
    use crate::debug::place::listen;

    fn client(server: &Server) -> TcpStream {
        let address = server.listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream
    }

    fn packet(text: &str) -> Vec<u8> {
        let sum = text.bytes().fold(0u8, |sum, byte| sum.wrapping_add(byte));
        format!("${text}#{sum:02x}").into_bytes()
    }

    /// Sends a packet and returns the text of the reply.
    fn ask(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(&packet(text)).expect("sent");
        answer(stream)
    }

    fn answer(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"#") {
            stream.read_exact(&mut byte).expect("an answer");
            if byte != *b"+" {
                text.push(byte[0]);
            }
        }
        stream.read_exact(&mut [0; 2]).expect("a sum");
        stream.write_all(b"+").expect("sent");
        String::from_utf8_lossy(&text).trim_matches(['$', '#']).to_string()
    }

    fn started() -> (Server, Arc<Fake>) {
        let guest = Arc::new(Fake::default());
        let server = Server::start(listen(0).expect("a port"), guest.clone()).expect("a server");
        (server, guest)
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..2000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what}: not within 20 s");
    }

    #[test]
    fn a_guest_halts_for_gdb_and_continues_when_gdb_is_lost() {
        let (server, guest) = started();
        guest.map(0x1000, 0x1000);
        let mut gdb = client(&server);
        assert!(ask(&mut gdb, "?").contains("05"));
        assert!(guest.is_halted());
        assert_eq!(ask(&mut gdb, "Z0,1000,1"), "OK");
        assert_eq!(guest.physical(0x1000, 1), [0xcc]);
        drop(gdb);
        until("the guest continues", || !guest.is_halted());
        assert_eq!(guest.physical(0x1000, 1), [0], "the breakpoint stayed");
    }

    #[test]
    fn one_gdb_at_a_time() {
        let (server, guest) = started();
        let mut first = client(&server);
        assert!(ask(&mut first, "?").contains("05"));
        let mut second = client(&server);
        assert_eq!(second.read(&mut [0; 16]).unwrap_or(0), 0, "the second was served");
        assert_eq!(ask(&mut first, "D"), "OK");
        until("the first left", || !guest.is_halted());
        until("the next is accepted", || {
            let mut next = client(&server);
            next.write_all(&packet("?")).is_ok() && matches!(next.read(&mut [0; 1]), Ok(1))
        });
    }

    #[test]
    fn an_interrupt_and_the_end_of_the_machine_are_reported() {
        let (server, guest) = started();
        let mut gdb = client(&server);
        ask(&mut gdb, "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+");
        gdb.write_all(&packet("vCont;c")).expect("sent");
        until("the guest runs", || !guest.is_halted());
        gdb.write_all(&[3]).expect("sent");
        assert!(answer(&mut gdb).starts_with("T02"));
        assert!(guest.is_halted());
        gdb.write_all(&packet("vCont;c")).expect("sent");
        until("the guest runs again", || !guest.is_halted());
        drop(server);
        assert!(answer(&mut gdb).starts_with("W00"));
    }

    #[test]
    fn a_kill_by_gdb_ends_the_machine() {
        let (server, guest) = started();
        let mut gdb = client(&server);
        gdb.write_all(&packet("k")).expect("sent");
        until("the machine ends", || guest.is_killed());
    }
}

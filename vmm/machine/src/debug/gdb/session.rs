//! One gdb session, from its connection to its end.

use std::collections::VecDeque;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::{Result, anyhow};
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, MultiThreadStopReason};
use tracing::debug;

use super::DebuggedGuest;
use super::commands::GdbTarget;
use crate::debug::traps::VcpuStop;

/// How long gdb may leave replies unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// An event that a session waits for.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// A byte from gdb.
    Bytes(Vec<u8>),
    /// gdb closed the connection.
    Lost,
    /// A vCPU stopped.
    Stop(VcpuStop),
    /// The machine ended.
    Over,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// gdb detached, or its connection was lost: the guest continues.
    Left,
    /// gdb killed the guest.
    Killed,
}

/// Halts the guest, serves gdb until it detaches or is lost, and then resumes the guest without traps.
pub(super) fn serve(
    stream: TcpStream,
    guest: &Arc<dyn DebuggedGuest>,
    sender: Sender<SessionEvent>,
    events: Receiver<SessionEvent>,
) -> SessionEnd {
    let stops = sender.clone();
    guest.listen(Some(Box::new(move |stop| drop(stops.send(SessionEvent::Stop(stop))))));
    guest.halt();
    let mut session =
        Session { guest: guest.clone(), events, bytes: VecDeque::new(), stops: VecDeque::new(), end: None };
    let mut target = GdbTarget::new(guest.clone());
    let end = session.run(stream, sender, &mut target).unwrap_or_else(|error| {
        debug!("gdb: {error:#}");
        SessionEnd::Left
    });
    target.release();
    guest.listen(None);
    if end == SessionEnd::Killed {
        guest.kill();
    }
    end
}

struct Session {
    guest: Arc<dyn DebuggedGuest>,
    events: Receiver<SessionEvent>,
    bytes: VecDeque<u8>,
    stops: VecDeque<VcpuStop>,
    /// The connection is closed, or the machine has ended.
    end: Option<NextEvent>,
}

impl Session {
    fn run(
        &mut self,
        stream: TcpStream,
        sender: Sender<SessionEvent>,
        target: &mut GdbTarget,
    ) -> Result<SessionEnd> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        let incoming = stream.try_clone()?;
        // The thread ends with the connection.
        std::thread::Builder::new().name("gdb-read".into()).spawn(move || listen(incoming, &sender))?;
        let stub = GdbStub::<GdbTarget, _>::new(stream);
        let mut state = stub.run_state_machine(target).map_err(|error| anyhow!("{error}"))?;
        loop {
            let next = match state {
                GdbStubStateMachine::Idle(idle) => match self.byte() {
                    Some(byte) => idle.incoming_data(target, byte),
                    None => return Ok(SessionEnd::Left),
                },
                GdbStubStateMachine::Running(running) => match self.while_running() {
                    NextEvent::Byte(byte) => running.incoming_data(target, byte),
                    NextEvent::Stop(stop) => {
                        self.halt(target);
                        let reason = target.reason(stop);
                        running.report_stop(target, reason)
                    }
                    NextEvent::Over => running.report_stop(target, MultiThreadStopReason::Exited(0)),
                    NextEvent::Lost => return Ok(SessionEnd::Left),
                },
                GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                    self.halt(target);
                    let reason = target.interrupted();
                    interrupt.interrupt_handled(target, Some(reason))
                }
                GdbStubStateMachine::Disconnected(over) => {
                    return Ok(match over.get_reason() {
                        DisconnectReason::Kill => SessionEnd::Killed,
                        _ => SessionEnd::Left,
                    });
                }
            };
            state = next.map_err(|error| anyhow!("{error}"))?;
        }
    }

    /// Halts the guest. Of simultaneous stops, keeps those that would not recur.
    fn halt(&mut self, target: &GdbTarget) {
        self.guest.halt();
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        self.stops.retain(|stop| target.is_past(*stop));
    }

    /// gdb's next byte while the guest is halted; `None` when gdb or the machine is gone.
    fn byte(&mut self) -> Option<u8> {
        loop {
            if let Some(byte) = self.bytes.pop_front() {
                return Some(byte);
            }
            if self.end.is_some() {
                return None;
            }
            let event = self.events.recv().ok()?;
            self.take(event);
        }
    }

    fn while_running(&mut self) -> NextEvent {
        loop {
            if let Some(stop) = self.stops.pop_front() {
                return NextEvent::Stop(stop);
            }
            if let Some(byte) = self.bytes.pop_front() {
                return NextEvent::Byte(byte);
            }
            if let Some(end) = self.end {
                return end;
            }
            let event = self.events.recv().unwrap_or(SessionEvent::Lost);
            self.take(event);
        }
    }

    /// Stores an event in the field that is checked for it.
    fn take(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Bytes(bytes) => self.bytes.extend(bytes),
            SessionEvent::Stop(stop) => self.stops.push_back(stop),
            SessionEvent::Lost => self.end = Some(NextEvent::Lost),
            SessionEvent::Over => self.end = Some(NextEvent::Over),
        }
    }
}

/// What a session handles next.
#[derive(Clone, Copy)]
enum NextEvent {
    Byte(u8),
    Stop(VcpuStop),
    Lost,
    Over,
}

fn listen(mut stream: TcpStream, sender: &Sender<SessionEvent>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if sender.send(SessionEvent::Bytes(buffer.get(..count).unwrap_or_default().to_vec())).is_err() {
            return;
        }
    }
    let _ = sender.send(SessionEvent::Lost);
}

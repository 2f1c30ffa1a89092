//! One client's session, from its first message to its last.

use std::fs::File;
use std::os::fd::OwnedFd;

use thiserror::Error;

use crate::RequestError;
use crate::connection::{Connection, ConnectionError, Message};
use crate::function::{CONFIG, VfioUserFunction};
use crate::reply;
use crate::request::{self, IrqAction, IrqData, RegionAccess, Request, SetIrqs};

/// Index of the MSI-X interrupt kind.
const MSIX: u32 = 2;
/// Index of the kind by which a server reports an error; QEMU complains if there is none.
const ERROR_KIND: u32 = 3;

/// Why a session ended before the client closed it.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Receiving or sending failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The first message is not a version request.
    #[error("the client does not begin with its version, but with command {0}: is it a vfio-user client?")]
    NoVersion(u16),
    /// The client requires another version.
    #[error("the client speaks vfio-user {0}.{1}; this server speaks 0.0")]
    Version(u16, u16),
}

/// Serves a client until it closes the connection. An invalid request gets an error reply and the session continues; only
/// an error after which the next message cannot be found ends it.
///
/// # Errors
/// The client does not speak the protocol, or the connection failed.
pub fn serve(connection: &Connection, function: &dyn VfioUserFunction) -> Result<(), SessionError> {
    let mut greeted = false;
    while let Some(message) = connection.receive()? {
        if message.reply {
            function.replied(message.header.id, message.header.error());
            continue;
        }
        let Message { header, payload, fds, .. } = message;
        let mut request = request::parse(header.command, &payload);
        match request {
            Ok(Request::Version { major: 0, .. }) if !greeted => greeted = true,
            Ok(Request::Version { major, minor, .. }) if !greeted => {
                return Err(SessionError::Version(major, minor));
            }
            _ if !greeted => return Err(SessionError::NoVersion(header.command)),
            Ok(Request::Version { .. }) => request = Err(RequestError::Invalid),
            _ => {}
        }
        let posted = header.is_posted();
        let answer = request.and_then(|request| handle(function, request, fds, posted));
        if posted {
            continue;
        }
        let bytes = match answer {
            Ok(payload) => reply::message(header.reply(payload.len()), &payload),
            Err(error) => reply::message(header.error_reply(error.errno()), &[]),
        };
        connection.send(&bytes).map_err(ConnectionError::Socket)?;
    }
    Ok(())
}

/// Performs a request and returns the payload of the reply.
fn handle(
    function: &dyn VfioUserFunction,
    request: Request<'_>,
    fds: Vec<OwnedFd>,
    posted: bool,
) -> Result<Vec<u8>, RequestError> {
    match request {
        Request::Version { .. } => Ok(reply::version()),
        Request::DmaMap(map) => {
            let file = single_fd(fds)?.map(File::from);
            function.map(map, file).map(|()| Vec::new())
        }
        Request::DmaUnmap(unmap) => function.unmap(unmap).map(|()| reply::unmapped(unmap)),
        Request::DeviceInfo => Ok(reply::device_info()),
        Request::RegionInfo { index } if index < reply::REGIONS => {
            Ok(reply::region_info(index, function.region_size(index)))
        }
        Request::IrqInfo { index } if index < reply::IRQ_KINDS => {
            Ok(reply::irq_info(index, irq_count(function, index)))
        }
        Request::RegionInfo { .. } | Request::IrqInfo { .. } => Err(RequestError::Invalid),
        Request::SetIrqs(set) => set_irqs(function, set, fds).map(|()| Vec::new()),
        Request::RegionRead(access) => {
            check_bounds(function, access)?;
            let mut data = vec![0; access.count as usize];
            function.read(access, &mut data)?;
            Ok(reply::accessed(access, &data))
        }
        Request::RegionWrite(access, data) => {
            check_bounds(function, access)?;
            function.write(access, data, posted)?;
            Ok(reply::accessed(access, &[]))
        }
        Request::Reset => {
            function.reset();
            Ok(Vec::new())
        }
    }
}

/// The one file descriptor of a message, if there is one.
fn single_fd(mut fds: Vec<OwnedFd>) -> Result<Option<OwnedFd>, RequestError> {
    let first = fds.pop();
    if fds.is_empty() { Ok(first) } else { Err(RequestError::Invalid) }
}

/// Whether an access lies inside its region. Config space takes any length, a BAR only what a CPU can access in one
/// instruction.
fn check_bounds(function: &dyn VfioUserFunction, access: RegionAccess) -> Result<(), RequestError> {
    let RegionAccess { region, offset, count } = access;
    let fits = offset + u64::from(count) <= function.region_size(region);
    if fits && (region == CONFIG || count <= 8) { Ok(()) } else { Err(RequestError::Invalid) }
}

fn irq_count(function: &dyn VfioUserFunction, index: u32) -> u32 {
    match index {
        MSIX => function.vectors(),
        ERROR_KIND => 1,
        _ => 0,
    }
}

fn set_irqs(function: &dyn VfioUserFunction, set: SetIrqs, fds: Vec<OwnedFd>) -> Result<(), RequestError> {
    let SetIrqs { index, start, count, data, action } = set;
    let available = irq_count(function, index);
    if index >= reply::IRQ_KINDS || start + count > available {
        return Err(RequestError::Invalid);
    }
    if action != IrqAction::Trigger {
        return Err(RequestError::Unsupported);
    }
    let events: Vec<_> = match (data, fds.len()) {
        (IrqData::EventFds, 0) => (0..count).map(|_| None).collect(),
        (IrqData::EventFds, given) if given == count as usize => fds.into_iter().map(Some).collect(),
        (IrqData::EventFds, _) => return Err(RequestError::Invalid),
        // No data and no vectors: as in VFIO, this disconnects every vector of the kind.
        (IrqData::None, _) if count == 0 => (0..available).map(|_| None).collect(),
        (IrqData::None, _) => return Err(RequestError::Unsupported),
    };
    match index {
        MSIX => function.set_vectors(start, events),
        // No error is ever reported.
        _ => Ok(()),
    }
}

//! Which pages a request will need after the one that is missing.

use refault_abi::codes::{ACCESS_LOCAL_WRITE, AccessRights};

use crate::memory::list::List;
use crate::memory::port::Port;
use crate::memory::resolve::{Access, Ahead, Window};
use crate::qp::requester::Requester;
use crate::qp::responder::Responder;
use crate::qp::stall::Stall;
use crate::verbs::End;

/// Offset of the furthest page that was asked for. Pages before it are skipped: otherwise each answer would look all of them
/// up again, and the cost would grow with the square of a long message's pages.
pub(crate) fn asked(stall: &Stall, write: bool) -> Option<u32> {
    stall.faulted.iter().filter(|fault| fault.miss.write == write).map(|fault| fault.at).max()
}

/// Where a requester's active message looks for `pages` pages ahead; `None` if it has no message.
fn window(requester: &Requester, write: bool, pages: u32) -> Option<Window> {
    let message = requester.active.get()?;
    Some(Window { at: message.done, pages, asked: asked(&requester.stall, write) })
}

/// Pages ahead in the requester's own memory.
pub(crate) fn local(port: &mut Port<'_>, requester: &Requester, pages: u32) -> Ahead {
    let Some(message) = requester.active.get() else { return Ahead::default() };
    let write = message.request.operation.writes(End::Local);
    let Some(window) = window(requester, write, pages) else { return Ahead::default() };
    let list = List {
        pieces: message.request.pieces(),
        pd: requester.setup.pd,
        rights: Access::local_rights(write),
        write,
        end: End::Local,
    };
    list.missing_behind(port, window)
}

/// Pages ahead in the responder's memory: the remote region's, or the current receive request's.
pub(crate) fn remote(port: &mut Port<'_>, requester: &Requester, responder: &Responder, pages: u32) -> Ahead {
    let Some(message) = requester.active.get() else { return Ahead::default() };
    let operation = message.request.operation;
    let write = operation.writes(End::Remote);
    let Some(window) = window(requester, write, pages) else { return Ahead::default() };
    let remote = [message.request.remote()];
    let receive = responder.current.as_ref().map(|current| current.taken);
    let (pieces, rights, pd) = match (operation.remote_rights(), &receive) {
        (AccessRights::NONE, Some(taken)) => {
            let pieces = taken.request.pieces.as_deref().unwrap_or_default();
            (pieces, ACCESS_LOCAL_WRITE, taken.pd)
        }
        (AccessRights::NONE, None) => return Ahead::default(),
        (rights, _) => (&remote[..], rights, responder.setup.pd),
    };
    List { pieces, pd, rights, write, end: End::Remote }.missing_behind(port, window)
}

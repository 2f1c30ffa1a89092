//! An IOMMU that does what a test says.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use refault_bus::ats::*;
use refault_bus::pri::{PageGroupResponse, PageRequest, ResponseCode};
use refault_bus::{Gpa, Iova, Pasid, PrgIndex};
use refault_nic::Nic;

/// Answers a page request from inside the call, or not at all.
pub(crate) type Handler = dyn Fn(&ScriptedIommu, &PageRequest) -> Option<ResponseCode> + Send + Sync;

#[derive(Default)]
struct State {
    pages: HashMap<(u32, u64), (u64, bool)>,
    blocked: HashSet<u64>,
    requests: Vec<PageRequest>,
    kinds: Vec<RequestKind>,
    handler: Option<Arc<Handler>>,
}

/// The function's own space is mapped to itself, except blocked pages; a process has what the test maps.
#[derive(Default)]
pub(crate) struct ScriptedIommu {
    state: Mutex<State>,
    translations: AtomicU64,
    nic: OnceLock<Weak<Nic>>,
}

impl ScriptedIommu {
    pub(crate) fn attach(&self, nic: &Arc<Nic>) {
        assert!(self.nic.set(Arc::downgrade(nic)).is_ok());
    }

    pub(crate) fn map(&self, pasid: u32, iova: u64, gpa: u64, write: bool) {
        self.state.lock().unwrap().pages.insert((pasid, iova >> 12), (gpa, write));
    }

    /// Unmaps a page and invalidates it, as an operating system must.
    pub(crate) fn unmap(&self, pasid: u32, iova: u64) {
        self.state.lock().unwrap().pages.remove(&(pasid, iova >> 12));
        self.invalidate(Some(pasid), iova, 12);
    }

    /// Unmaps all of a process without telling the device: only what it has cached still leads anywhere.
    pub(crate) fn forget(&self, pasid: u32) {
        self.state.lock().unwrap().pages.retain(|&(of, _), _| of != pasid);
    }

    pub(crate) fn invalidate(&self, pasid: Option<u32>, iova: u64, size_shift: u8) {
        let pasid = pasid.map(|pasid| Pasid::new(pasid).unwrap());
        let nic = self.nic.get().and_then(Weak::upgrade).unwrap();
        nic.invalidate(InvalidationRequest { pasid, iova: Iova(iova), size_shift });
    }

    pub(crate) fn block(&self, iova: u64) {
        self.state.lock().unwrap().blocked.insert(iova >> 12);
    }

    pub(crate) fn unblock_all(&self) {
        self.state.lock().unwrap().blocked.clear();
    }

    /// Page requests so far, taken.
    pub(crate) fn take_requests(&self) -> Vec<PageRequest> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// How translations were asked for so far, taken.
    pub(crate) fn take_kinds(&self) -> Vec<RequestKind> {
        std::mem::take(&mut self.state.lock().unwrap().kinds)
    }

    pub(crate) fn translations(&self) -> u64 {
        self.translations.load(Ordering::Relaxed)
    }

    pub(crate) fn handle(
        &self,
        handler: impl Fn(&Self, &PageRequest) -> Option<ResponseCode> + Send + Sync + 'static,
    ) {
        self.state.lock().unwrap().handler = Some(Arc::new(handler));
    }

    pub(crate) fn answer(&self, request: &PageRequest, code: ResponseCode) {
        self.respond(request.pasid, request.group, code);
    }

    pub(crate) fn respond(&self, pasid: Option<Pasid>, group: PrgIndex, code: ResponseCode) {
        let nic = self.nic.get().and_then(Weak::upgrade).unwrap();
        nic.page_group_response(PageGroupResponse { pasid, group, code });
    }
}

impl TranslationAgent for ScriptedIommu {
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        self.translations.fetch_add(1, Ordering::Relaxed);
        let TranslationRequest { requester, pasid, iova, write, kind } = *request;
        let mut state = self.state.lock().unwrap();
        if state.kinds.len() < 64 {
            state.kinds.push(kind);
        }
        let page = iova.0 >> 12;
        let found = match pasid {
            None if state.blocked.contains(&page) => None,
            None => Some((iova.0 & !0xfff, true)),
            Some(pasid) => state.pages.get(&(pasid.get(), page)).copied(),
        };
        match (found, kind) {
            (Some((gpa, writable)), _) => {
                let write = writable && write;
                Ok(Translation { gpa: Gpa(gpa), page_shift: 12, read: true, write })
            }
            (None, RequestKind::Translation) => Ok(Translation::NONE),
            (None, RequestKind::Untranslated) => Err(TranslationError::Blocked { requester, pasid, iova }),
        }
    }

    fn page_request(&self, request: PageRequest) {
        let mut state = self.state.lock().unwrap();
        state.requests.push(request);
        let handler = state.handler.clone();
        drop(state);
        if let Some(code) = handler.and_then(|handler| handler(self, &request)) {
            self.answer(&request, code);
        }
    }
}

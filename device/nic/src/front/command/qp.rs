//! Queue pairs.

use refault_abi::codes::{
    QPS_ERR, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS, QPS_SQD, QPT_ETHERNET, QPT_GSI, QPT_RC, QPT_UD, QpState,
};
use refault_abi::command::{CreateQp, ModifyQp, QP_ATTR_STATE, QpSnapshot};
use refault_abi::queue::{MAX_LOG_WQES, RQ_WQE_SIZE, SQ_WQE_SIZE};
use refault_bus::sync::lock;

use super::objects::{Objects, QpRecord};
use super::reply::{DONE, Refused, Reply, created, reply};
use super::{MAX_RD_ATOMIC, PKEYS};
use crate::front::Front;
use crate::qp::Qp;
use crate::qp::attributes::{Attributes, Limits};
use crate::qp::requester::Requester;
use crate::qp::responder::Responder;
use crate::qp::setup::Setup;
use crate::qp::state::may_change;
use crate::queue::layout::WorkRings;
use crate::verbs::{Event, Path};

/// Alignment of receive ring and doorbell record, and the record's size.
const RECORD: u32 = 128;

impl Front {
    pub(super) fn create_qp(&self, worker: usize, objects: &mut Objects, command: &CreateQp) -> Reply {
        let CreateQp { pd, send_cq, recv_cq, eqn, .. } = *command;
        let context = context_of_qp(objects, command)?;
        self.check_kind(command)?;
        let rings = self.qp_rings(worker, command)?;
        let qpn = objects.qps.insert(QpRecord { pd, cqs: [send_cq, recv_cq], eqn, srqn: command.srqn })?;
        let setup = Setup {
            qpn,
            pd,
            context,
            send_cq,
            recv_cq,
            eqn,
            rings,
            signal_all: command.signal_all == 1,
            kind: command.kind,
            srqn: command.srqn,
        };
        let Some(qp) = self.engine.qps.slot(qpn) else {
            objects.qps.remove(qpn)?;
            return Err(Refused::NoResources);
        };
        if !self.take_role(&setup) {
            objects.qps.remove(qpn)?;
            return Err(Refused::Busy);
        }
        qp.slot.requester.interrupt(|requester| {
            *requester = Requester { setup, ..Default::default() };
            *lock(&qp.responder) = Responder { setup, ..Default::default() };
            qp.occupy(&setup);
        });
        objects.pds.find(pd)?.users += 1;
        objects.cqs.find(send_cq)?.users += 1;
        objects.cqs.find(recv_cq)?.users += 1;
        if command.srqn != 0 {
            objects.srqs.find(command.srqn)?.users += 1;
        }
        *objects.eqs.find(eqn)? += 1;
        created(qpn)
    }

    /// Whether the port has queue pairs of that kind.
    fn check_kind(&self, command: &CreateQp) -> Result<(), Refused> {
        let port = self.engine.ethernet.as_ref();
        let has_roce = port.is_none_or(|port| port.has_roce);
        let fits = match command.kind {
            QPT_RC | QPT_UD => has_roce,
            QPT_GSI => port.is_some() && has_roce,
            QPT_ETHERNET => port.is_some() && command.srqn == 0,
            _ => false,
        };
        if fits { Ok(()) } else { Err(Refused::BadParameter) }
    }

    /// Gives a queue pair for management or frames its role at the port; `false` if another has it.
    fn take_role(&self, setup: &Setup) -> bool {
        let takes = setup.is_raw() || setup.kind == QPT_GSI;
        let port = self.engine.ethernet.as_ref().filter(|_| takes);
        port.is_none_or(|port| port.take_role(setup.is_raw(), setup.qpn))
    }

    /// Checks that send ring, receive ring and doorbell record lie in this order, inside the buffer.
    fn qp_rings(&self, worker: usize, command: &CreateQp) -> Result<WorkRings, Refused> {
        let CreateQp { rq_offset, record_offset, log_sq, log_rq, .. } = *command;
        let logs = u32::from(log_sq.max(log_rq));
        if logs > MAX_LOG_WQES || (rq_offset | record_offset) & (RECORD - 1) != 0 {
            return Err(Refused::BadParameter);
        }
        let send_end = u64::from(SQ_WQE_SIZE) << log_sq;
        let own_receives = command.srqn == 0;
        let receive_ring = if own_receives { u64::from(RQ_WQE_SIZE) << log_rq } else { 0 };
        let receive_end = u64::from(rq_offset) + receive_ring;
        if u64::from(rq_offset) < send_end || u64::from(record_offset) < receive_end {
            return Err(Refused::BadParameter);
        }
        let record = u64::from(record_offset);
        let offsets = [0, record, u64::from(rq_offset)];
        let offsets = if own_receives { &offsets[..] } else { &offsets[..2] };
        let bytes = record + u64::from(RECORD);
        let pages = self.reachable_pages(worker, &command.buffer, bytes, offsets, false)?;
        Ok(WorkRings { pages, rq_offset, record_offset, log_sq, log_rq })
    }

    pub(super) fn modify_qp(&self, command: &ModifyQp) -> Reply {
        let qp = self.engine.qps.find(command.qpn).ok_or(Refused::NoObject)?;
        let stopped = self.is_stopped(qp.context())?;
        let ready_for =
            qp.slot.requester.interrupt(|requester| self.change_qp(qp, requester, command, stopped))?;
        // It may have been in RESET while its context was stopped.
        if self.is_stopped(qp.context())? {
            self.engine.fail_qp(qp, false);
        }
        // A requester that waits for this queue pair without a limit looks again, if it is one.
        if let Some(peer) = ready_for.and_then(|peer| self.engine.qps.find(peer)) {
            self.engine.workers.schedule(peer);
        }
        self.engine.workers.schedule(qp);
        DONE
    }

    fn limits(&self) -> Limits {
        let needs_grh = self.engine.ethernet.is_some();
        Limits { pkeys: PKEYS, gids: self.gids(), needs_grh, max_rd_atomic: MAX_RD_ATOMIC }
    }

    /// Whether a context's queue pairs stay in ERR or RESET.
    fn is_stopped(&self, context: u32) -> Result<bool, Refused> {
        Ok(lock(&self.objects).contexts.find(context)?.stopped)
    }

    /// Returns the number of the peer that it answers from now on, if it did not before.
    fn change_qp(
        &self,
        qp: &Qp,
        requester: &mut Requester,
        command: &ModifyQp,
        stopped: bool,
    ) -> Result<Option<u32>, Refused> {
        let mut responder = lock(&qp.responder);
        let from = qp.state();
        let to = if command.mask & QP_ATTR_STATE != 0 { command.state } else { from };
        let live = !matches!(to, QPS_RESET | QPS_ERR);
        if !may_change(requester.setup.kind, from, to, command.mask) || stopped && live {
            return Err(Refused::BadState);
        }
        let attributes = requester
            .attributes
            .with(&decode(command), command.mask, &self.limits())
            .ok_or(Refused::BadParameter)?;
        let attributes = Attributes { is_here: self.engine.leads_here(&attributes), ..attributes };
        match to {
            QPS_RESET => self.engine.reset_qp(qp, requester, &mut responder),
            // If its state has changed, it changed to ERR.
            QPS_ERR => drop(qp.change_state(from, QPS_ERR)),
            _ if !qp.change_state(from, to) => return Err(Refused::BadState),
            _ => apply(&attributes, requester, &mut responder),
        }
        requester.draining = to == QPS_SQD && (requester.draining || from == QPS_RTS);
        let connected = requester.setup.is_connected();
        Ok((connected && (from, to) == (QPS_INIT, QPS_RTR)).then_some(attributes.dest_qpn))
    }

    pub(super) fn query_qp(&self, qpn: u32) -> Reply {
        let qp = self.engine.qps.find(qpn).ok_or(Refused::NoObject)?;
        qp.slot.requester.interrupt(|requester| {
            let responder = lock(&qp.responder);
            reply(&QpSnapshot {
                attributes: encode(&requester.attributes, qpn, qp.state()),
                sq_consumer: requester.consumer,
                rq_consumer: responder.consumer,
                draining: u32::from(requester.draining),
                reserved: 0,
            })
        })
    }

    /// When this is answered nothing more is read, written or completed for the queue pair: its own work is done with
    /// its requester locked, its peer's with its responder locked.
    pub(super) fn destroy_qp(&self, qpn: u32) -> Reply {
        let qp = self.engine.qps.find(qpn).ok_or(Refused::NoObject)?;
        self.engine.empty_qp(qp);
        let mut objects = lock(&self.objects);
        let QpRecord { pd, cqs, eqn, srqn } = objects.qps.remove(qpn)?;
        self.engine
            .events
            .forget(eqn, |event| matches!(event, Event::QueuePair { qpn: of, .. } if *of == qpn));
        objects.pds.find(pd)?.users -= 1;
        for cqn in cqs {
            objects.cqs.find(cqn)?.users -= 1;
        }
        if srqn != 0 {
            objects.srqs.find(srqn)?.users -= 1;
        }
        *objects.eqs.find(eqn)? -= 1;
        DONE
    }
}

/// The context of a queue pair that may be created. Its queues must belong to the same one.
fn context_of_qp(objects: &mut Objects, command: &CreateQp) -> Result<u32, Refused> {
    let CreateQp { pd, send_cq, recv_cq, eqn, .. } = *command;
    let (context, owner) = objects.context_of(pd)?;
    let same_owner =
        objects.cqs.find(send_cq)?.context == context && objects.cqs.find(recv_cq)?.context == context;
    objects.eqs.find(eqn)?;
    let shared = match command.srqn {
        0 => true,
        srqn => {
            let pd = objects.srqs.find(srqn)?.pd;
            objects.context_of(pd)?.0 == context
        }
    };
    if !same_owner || !shared || command.signal_all > 1 {
        return Err(Refused::BadParameter);
    }
    if owner.stopped {
        return Err(Refused::BadState);
    }
    Ok(context)
}

/// Gives both halves the attributes they work by.
fn apply(attributes: &Attributes, requester: &mut Requester, responder: &mut Responder) {
    requester.attributes = *attributes;
    responder.peer_qpn = attributes.dest_qpn;
    responder.access = attributes.access;
    responder.qkey = attributes.qkey;
    responder.min_rnr_timer = attributes.min_rnr_timer;
    responder.max_dest_rd_atomic = attributes.max_dest_rd_atomic;
}

/// The attributes of a command, whether its mask names them or not.
fn decode(command: &ModifyQp) -> Attributes {
    Attributes {
        access: command.access,
        pkey_index: command.pkey_index,
        port: command.port,
        path_mtu: command.path_mtu,
        dest_lid: command.dest_lid,
        dest_gid: command.dest_gid,
        sgid_index: command.sgid_index,
        has_grh: command.has_grh,
        sl: command.sl,
        dest_qpn: command.dest_qpn,
        rq_psn: command.rq_psn,
        sq_psn: command.sq_psn,
        timeout: command.timeout,
        retry_count: command.retry_count,
        rnr_retry: command.rnr_retry,
        min_rnr_timer: command.min_rnr_timer,
        max_rd_atomic: command.max_rd_atomic,
        max_dest_rd_atomic: command.max_dest_rd_atomic,
        qkey: command.qkey,
        path: Path {
            dmac: command.dmac,
            sgid_index: command.sgid_index,
            hop_limit: command.hop_limit,
            traffic_class: command.traffic_class,
            source_port: command.source_port,
            flow_label: command.flow_label,
        },
        is_here: false,
    }
}

/// Attributes as QUERY_QP returns them: no mask, the present state.
fn encode(attributes: &Attributes, qpn: u32, state: QpState) -> ModifyQp {
    ModifyQp {
        qpn,
        state,
        access: attributes.access,
        pkey_index: attributes.pkey_index,
        port: attributes.port,
        path_mtu: attributes.path_mtu,
        dest_lid: attributes.dest_lid,
        dest_gid: attributes.dest_gid,
        sgid_index: attributes.sgid_index,
        has_grh: attributes.has_grh,
        sl: attributes.sl,
        dest_qpn: attributes.dest_qpn,
        rq_psn: attributes.rq_psn,
        sq_psn: attributes.sq_psn,
        timeout: attributes.timeout,
        retry_count: attributes.retry_count,
        rnr_retry: attributes.rnr_retry,
        min_rnr_timer: attributes.min_rnr_timer,
        max_rd_atomic: attributes.max_rd_atomic,
        max_dest_rd_atomic: attributes.max_dest_rd_atomic,
        qkey: attributes.qkey,
        flow_label: attributes.path.flow_label,
        dmac: attributes.path.dmac,
        hop_limit: attributes.path.hop_limit,
        traffic_class: attributes.path.traffic_class,
        source_port: attributes.path.source_port,
        ..ModifyQp::default()
    }
}

/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR MIT */
/* Generated from the crate refault-abi: change it there. */
#ifndef REFAULT_ABI_H
#define REFAULT_ABI_H

#include <linux/types.h>

/* BAR 0 registers: offsets */
#define REFAULT_REG_MAGIC 0x0U /* r32: always MAGIC_VALUE, so that a driver knows it talks to this device. */
#define REFAULT_REG_VERSION 0x4U /* r32: ABI_VERSION; a driver of another version must refuse the device. */
#define REFAULT_REG_CONTROL 0x8U /* rw32: CONTROL_* bits. */
#define REFAULT_REG_STATUS 0xcU /* r32: STATUS_* bits. */
#define REFAULT_REG_CMD0_BASE 0x10U /* rw64: IOVA of the command ring of lane 0, 4 KiB aligned; writable while not enabled. */
#define REFAULT_REG_CMD0_LOG 0x18U /* rw32: log2 of that ring's slots, 0..=CMD_MAX_LOG_SLOTS; writable while not enabled. */
#define REFAULT_REG_CMD0_DOORBELL 0x1cU /* w32: lane 0 producer index, free running: slots before it are commands to execute. */
#define REFAULT_REG_CMD1_BASE 0x20U /* rw64: the same for lane 1, the lane that never waits for a fault. */
#define REFAULT_REG_CMD1_LOG 0x28U /* rw32: log2 of lane 1's slots. */
#define REFAULT_REG_CMD1_DOORBELL 0x2cU /* w32: lane 1 producer index. */
#define REFAULT_REG_TIME_NS 0x40U /* r64: the device's clock in nanoseconds; completions are stamped with it. */
#define REFAULT_REG_EQ_DOORBELL 0x100U /* w32, one per event queue: consumer index in bits 30:0, EQ_ARM in bit 31. */

/* BAR 0 registers: values */
#define REFAULT_MAGIC_VALUE 0x544c4652U /* "RFLT". */
#define REFAULT_ABI_VERSION 0x4U /* Version of everything in this header. */
#define REFAULT_CONTROL_ENABLE 0x1U /* The command rings are set up, and commands are executed. Clearing it stops the device like a reset. */
#define REFAULT_CONTROL_RESET 0x2U /* Reset: every object is destroyed, every register has its initial value; reads as 0 when done. */
#define REFAULT_STATUS_READY 0x1U /* Enabled and serving. */
#define REFAULT_STATUS_FATAL 0x2U /* A command or event ring failed, or a command producer index was out of range: no command is served until reset. */
#define REFAULT_EQ_ARM 0x80000000U /* In an event queue doorbell: send an interrupt with the next event, or at once if one is not consumed yet. */
#define REFAULT_BAR0_SIZE 0x1000U /* Size of BAR 0 in bytes. */
#define REFAULT_DOORBELL_PAGE_SIZE 0x1000U /* BAR 2 holds one doorbell page per context. */
#define REFAULT_MAX_EQS 0x40U /* Most event queues a device has. */
#define REFAULT_PCI_VENDOR_ID 0x1fefU /* PCI vendor id (none is assigned; this one is not in use). */
#define REFAULT_PCI_DEVICE_ID 0x1U /* PCI device id. */

/* Doorbell values: kind 63:56, object number 55:32, argument 31:0 */
#define REFAULT_DOORBELL_SQ 0x1U /* Send work was posted to queue pair `number`; argument 0. */
#define REFAULT_DOORBELL_CQ_ARM 0x2U /* Notify on the next completion of completion queue `number`; argument: consumer index. */
#define REFAULT_DOORBELL_CQ_ARM_SOLICITED 0x3U /* Notify on the next solicited or failed completion; argument: consumer index. */
#define REFAULT_DOORBELL_KIND_SHIFT 0x38U /* Shift of the kind. */
#define REFAULT_DOORBELL_NUMBER_SHIFT 0x20U /* Shift of the object number. */

/* Rings */
#define REFAULT_SQ_WQE_SIZE 0x100U /* Bytes of a send queue entry. */
#define REFAULT_RQ_WQE_SIZE 0x100U /* Bytes of a receive queue entry. */
#define REFAULT_WQE_HEAD_SIZE 0x80U /* First bytes of a send or receive queue entry: the device reads the rest only if its data goes beyond them. */
#define REFAULT_CQE_SIZE 0x40U /* Bytes of a completion queue entry. */
#define REFAULT_MAX_SGE 0xcU /* Most scatter/gather elements of one request. */
#define REFAULT_MAX_INLINE 0xc0U /* Most bytes of inline data in one request. */
#define REFAULT_MAX_LOG_WQES 0xeU /* log2 of the largest send or receive ring. */
#define REFAULT_MAX_LOG_CQES 0x16U /* log2 of the largest completion ring. */

/* Send request flags */
#define REFAULT_WQE_SIGNALED 0x1U /* Report success too; failures are always reported. */
#define REFAULT_WQE_SOLICITED 0x2U /* The receiver's completion counts as solicited. */
#define REFAULT_WQE_FENCE 0x4U /* Start only when all earlier reads and atomics of this queue pair are complete. */
#define REFAULT_WQE_INLINE 0x8U /* The data is in the request itself: `inline_length` bytes in place of the scatter/gather list. */

/* Completion flags */
#define REFAULT_CQE_WITH_IMM 0x1U /* `imm` is valid. */
#define REFAULT_CQE_RECEIVE 0x2U /* Completion of a receive request; otherwise of a send request. */
#define REFAULT_CQE_SOLICITED 0x4U /* Solicited. */
#define REFAULT_CQE_GRH 0x8U /* UD: the first 40 bytes of the receive request's memory hold a GRH; without it they are left as they were. */
#define REFAULT_CQE_IPV4 0x10U /* UD on RoCE: it came by IPv4, whose header is in the last 20 of these 40 bytes. */
#define REFAULT_CQE_VLAN 0x20U /* UD on RoCE: `vlan` is valid. */
#define REFAULT_CQE_INVALIDATED 0x40U /* `imm` is a key of the receiver, which was invalidated. */
#define REFAULT_OWNER_PHASE 0x1U /* In `owner`: the phase. The first pass over the ring writes 1, the second 0, and so on. */

/* Event types */
#define REFAULT_EVENT_COMPLETION 0x1U /* A completion queue that was armed has a completion; `number`: CQN. */
#define REFAULT_EVENT_QP 0x2U /* Something happened to a queue pair; `number`: QPN, `code`: QP_EVENT_*. */
#define REFAULT_EVENT_CQ_ERROR 0x3U /* A completion queue overran or its memory is gone; `number`: CQN. */
#define REFAULT_EVENT_DEVICE_FATAL 0x4U /* Reserved: a device that has failed says so in REG_STATUS. */
#define REFAULT_EVENT_PAGE_FAULT 0x5U /* An access hit a hole; `number`: the region's key, `code`: FAULT_WRITE or 0, and `address`, `length`, `token`. */
#define REFAULT_EVENT_SRQ 0x6U /* Something happened to a shared receive queue; `number`: SRQN, `code`: SRQ_EVENT_*. */
#define REFAULT_EVENT_PORT 0x7U /* The port's link came up or went down; `number`: 1, `code`: PORT_EVENT_*. */
#define REFAULT_FAULT_WRITE 0x1U /* Page fault: the access is a write. */
#define REFAULT_SRQ_EVENT_LIMIT_REACHED 0x1U /* Shared receive queue event: fewer receive requests are left than the armed limit. */
#define REFAULT_SRQ_EVENT_ERROR 0x2U /* Shared receive queue event: its ring or record cannot be used. */
#define REFAULT_PORT_EVENT_DOWN 0x0U /* Port event: no signal. */
#define REFAULT_PORT_EVENT_UP 0x1U /* Port event: there is a signal. */
#define REFAULT_QP_EVENT_FATAL 0x1U /* Queue pair event: moved to the error state by a fatal local error. */
#define REFAULT_QP_EVENT_REQUEST_ERROR 0x2U /* Queue pair event: a remote request was invalid. */
#define REFAULT_QP_EVENT_ACCESS_ERROR 0x3U /* Queue pair event: a remote request broke the protection rules. */
#define REFAULT_QP_EVENT_COMMUNICATION_ESTABLISHED 0x4U /* Queue pair event: the first message arrived while in RTR. */
#define REFAULT_QP_EVENT_SQ_DRAINED 0x5U /* Queue pair event: the send queue is drained (SQD). */
#define REFAULT_QP_EVENT_LAST_WQE_REACHED 0x6U /* Queue pair event: in ERR, it takes nothing more from its shared receive queue. */
#define REFAULT_EQE_SIZE 0x40U /* Bytes of an event queue entry. */
#define REFAULT_MAX_LOG_EQES 0x10U /* log2 of the largest event ring. */

/* Operations */
#define REFAULT_OP_SEND 0x0U /* SEND. */
#define REFAULT_OP_SEND_IMM 0x1U /* SEND with immediate. */
#define REFAULT_OP_RDMA_WRITE 0x2U /* RDMA WRITE. */
#define REFAULT_OP_RDMA_WRITE_IMM 0x3U /* RDMA WRITE with immediate. */
#define REFAULT_OP_RDMA_READ 0x4U /* RDMA READ. */
#define REFAULT_OP_COMPARE_SWAP 0x5U /* Compare and swap, 8 bytes. */
#define REFAULT_OP_FETCH_ADD 0x6U /* Fetch and add, 8 bytes. */
#define REFAULT_OP_FLUSH 0x7U /* FLUSH: what was written to a range, or to a whole region, is visible or persistent. */
#define REFAULT_OP_ATOMIC_WRITE 0x8U /* ATOMIC WRITE, 8 bytes. */
#define REFAULT_OP_SEND_INVALIDATE 0x9U /* SEND that has the receiver invalidate a key. */
#define REFAULT_OP_REGISTER 0xaU /* Registers memory with a region of mode MR_FAST, which is not valid until then: the region has the address `remote_addr`, `compare_add` bytes, the rights `imm`, and the key `rkey`, of which the low 8 bits may be new; its first byte is at `swap` in the first page of its table. */
#define REFAULT_OP_LOCAL_INVALIDATE 0xbU /* Invalidates a region of mode MR_FAST, whose key is `imm`: once completed, no access through it is in flight. */

/* Work completion status */
#define REFAULT_WC_SUCCESS 0x0U /* Success. */
#define REFAULT_WC_LOC_LEN_ERR 0x1U /* Local length error. */
#define REFAULT_WC_LOC_QP_OP_ERR 0x2U /* Local queue pair operation error: the request itself is malformed. */
#define REFAULT_WC_LOC_PROT_ERR 0x4U /* Local protection error. */
#define REFAULT_WC_WR_FLUSH_ERR 0x5U /* Flushed because the queue pair is in the error state. */
#define REFAULT_WC_LOC_ACCESS_ERR 0x8U /* Local access error. */
#define REFAULT_WC_REM_INV_REQ_ERR 0x9U /* Remote invalid request error. */
#define REFAULT_WC_REM_ACCESS_ERR 0xaU /* Remote access error. */
#define REFAULT_WC_REM_OP_ERR 0xbU /* Remote operation error. */
#define REFAULT_WC_RETRY_EXC_ERR 0xcU /* Transport retries exceeded: the peer does not answer. */
#define REFAULT_WC_RNR_RETRY_EXC_ERR 0xdU /* Receiver-not-ready retries exceeded. */

/* FLUSH: placement in bits 7:0 of `imm`, selectivity in bits 15:8 */
#define REFAULT_FLUSH_GLOBAL 0x1U /* Placement: globally visible (ACCESS_FLUSH_GLOBAL). */
#define REFAULT_FLUSH_PERSISTENT 0x2U /* Placement: survives the machine (ACCESS_FLUSH_PERSISTENT). */
#define REFAULT_FLUSH_RANGE 0x100U /* Selectivity: the range named by the request; without it the whole region is meant. */

/* Vendor error: why an access failed */
#define REFAULT_CAUSE_NONE 0x0U /* No further cause. */
#define REFAULT_CAUSE_KEY 0x1U /* The key names no region, or one of another protection domain. */
#define REFAULT_CAUSE_BOUNDS 0x2U /* Outside the region. */
#define REFAULT_CAUSE_RIGHTS 0x3U /* The region does not allow it. */
#define REFAULT_CAUSE_REVOKED 0x4U /* The region was revoked. */
#define REFAULT_CAUSE_PAGE_REFUSED 0x5U /* The kernel answered the page request with "invalid request", or the driver the fault with FAULT_REFUSED. */
#define REFAULT_CAUSE_PAGE_FAILURE 0x6U /* The operating system answered with "response failure". */
#define REFAULT_CAUSE_PAGE_TIMEOUT 0x7U /* No answer to the page request, or to the page fault, in time. */
#define REFAULT_CAUSE_PAGE_RETRIES 0x8U /* Answered with success too often, and still missing. */
#define REFAULT_CAUSE_BLOCKED 0x9U /* The IOMMU blocked the access, or bus mastering, PASID or ATS is off. */
#define REFAULT_CAUSE_NOT_MEMORY 0xaU /* Translated to something that is not memory. */
#define REFAULT_CAUSE_ALIGNMENT 0xbU /* Atomic operand not aligned to 8 bytes. */
#define REFAULT_CAUSE_NOT_PERSISTENT 0xcU /* The memory is not persistent, or could not be written to the host's storage. */

/* Access rights */
#define REFAULT_ACCESS_LOCAL_WRITE 0x1U /* The device may write locally; local reads are always allowed. */
#define REFAULT_ACCESS_REMOTE_WRITE 0x2U /* Remote writes. */
#define REFAULT_ACCESS_REMOTE_READ 0x4U /* Remote reads. */
#define REFAULT_ACCESS_REMOTE_ATOMIC 0x8U /* Remote atomics. */
#define REFAULT_ACCESS_FLUSH_GLOBAL 0x100U /* Remote FLUSH with placement FLUSH_GLOBAL. */
#define REFAULT_ACCESS_FLUSH_PERSISTENT 0x200U /* Remote FLUSH with placement FLUSH_PERSISTENT. */

/* Queue pair types */
#define REFAULT_QPT_RC 0x0U /* Reliable connection. */
#define REFAULT_QPT_UD 0x1U /* Unreliable datagram. */
#define REFAULT_QPT_GSI 0x2U /* Unreliable datagrams to and from QPN 1: the general services interface. One for each device. */
#define REFAULT_QPT_ETHERNET 0x3U /* Ethernet frames, as they are: all that arrive but are not RoCE. One for each device. */

/* Queue pair states */
#define REFAULT_QPS_RESET 0x0U /* RESET. */
#define REFAULT_QPS_INIT 0x1U /* INIT. */
#define REFAULT_QPS_RTR 0x2U /* Ready to receive. */
#define REFAULT_QPS_RTS 0x3U /* Ready to send. */
#define REFAULT_QPS_SQD 0x4U /* Send queue drained. */
#define REFAULT_QPS_SQE 0x5U /* Send queue error: a request of a UD queue pair failed. */
#define REFAULT_QPS_ERR 0x6U /* Error. */

/* Command rings */
#define REFAULT_CMD_SLOT_SIZE 0x100U /* Bytes of a slot. */
#define REFAULT_CMD_MAX_LOG_SLOTS 0x8U /* log2 of the largest ring. */

/* Command opcodes (request body -> response body) */
#define REFAULT_CMD_QUERY_DEVICE 0x1U /* Nothing -> DeviceCaps. */
#define REFAULT_CMD_CREATE_EQ 0x10U /* CreateEq -> ObjectId. */
#define REFAULT_CMD_DESTROY_EQ 0x11U /* ObjectId -> nothing. */
#define REFAULT_CMD_CREATE_CONTEXT 0x20U /* CreateContext -> ObjectId, which is also the index of its doorbell page. */
#define REFAULT_CMD_DESTROY_CONTEXT 0x21U /* ObjectId -> nothing. Busy while it has objects; the last of a PASID also while a page request is unanswered. */
#define REFAULT_CMD_CREATE_PD 0x22U /* ObjectId of a context -> ObjectId. */
#define REFAULT_CMD_DESTROY_PD 0x23U /* ObjectId -> nothing. Refused while in use. */
#define REFAULT_CMD_CREATE_MR 0x30U /* CreateMr -> ObjectId: the lkey, which is also the rkey. */
#define REFAULT_CMD_DESTROY_MR 0x31U /* ObjectId (the key) -> nothing. When it is answered, no access through the region is in flight. */
#define REFAULT_CMD_CREATE_CQ 0x40U /* CreateCq -> ObjectId. */
#define REFAULT_CMD_DESTROY_CQ 0x41U /* ObjectId -> nothing. Refused while in use. */
#define REFAULT_CMD_MODIFY_CQ 0x42U /* ModifyCq -> nothing. */
#define REFAULT_CMD_CREATE_QP 0x50U /* CreateQp -> ObjectId. */
#define REFAULT_CMD_MODIFY_QP 0x51U /* ModifyQp -> nothing. */
#define REFAULT_CMD_QUERY_QP 0x52U /* ObjectId -> QpState. */
#define REFAULT_CMD_DESTROY_QP 0x53U /* ObjectId -> nothing. When it is answered nothing more is read, written or completed for it. */
#define REFAULT_CMD_CREATE_SRQ 0x60U /* CreateSrq -> ObjectId. */
#define REFAULT_CMD_DESTROY_SRQ 0x61U /* ObjectId -> nothing. Refused while in use. */
#define REFAULT_CMD_ARM_SRQ 0x62U /* ArmSrq -> nothing. */
#define REFAULT_CMD_QUERY_SRQ 0x63U /* ObjectId -> SrqState. */
#define REFAULT_CMD_SET_GID 0x70U /* SetGid -> nothing. Ethernet ports only. */
#define REFAULT_CMD_SET_PORT 0x71U /* SetPort -> nothing. Ethernet ports only. */
#define REFAULT_CMD_QUERY_COUNTERS 0x72U /* Nothing -> PortCounters. Ethernet ports only. */
#define REFAULT_CMD_REVOKE_MR 0x80U /* Lane 1. ObjectId (the key) -> nothing. Accesses fail from now on with CAUSE_REVOKED. */
#define REFAULT_CMD_STOP_CONTEXT 0x81U /* Lane 1. ObjectId of a context -> nothing. All its queue pairs go to ERR, its PASID is not used any more. */
#define REFAULT_CMD_INVALIDATE_MR 0x82U /* Lane 1. InvalidateMr -> nothing. Drops the cached range; once answered, no access that used it is in flight. */
#define REFAULT_CMD_RESUME_FAULT 0x83U /* Lane 1. ResumeFault -> nothing. Answers a page fault. */

/* Command status */
#define REFAULT_STATUS_OK 0x0U /* Done. */
#define REFAULT_STATUS_BAD_OPCODE 0x1U /* Unknown opcode, or not one of this lane's. */
#define REFAULT_STATUS_BAD_PARAMETER 0x2U /* A field is out of range or inconsistent. */
#define REFAULT_STATUS_NO_OBJECT 0x3U /* No such object, or no such page fault (any more). */
#define REFAULT_STATUS_BUSY 0x4U /* The object is in use by another one. */
#define REFAULT_STATUS_NO_RESOURCES 0x5U /* A limit of DeviceCaps is reached. */
#define REFAULT_STATUS_BAD_STATE 0x6U /* The queue pair's state does not allow it. */
#define REFAULT_STATUS_BAD_MEMORY 0x7U /* Guest memory named by the command could not be accessed. */

/* Memory region modes */
#define REFAULT_MR_PINNED 0x0U /* Translated by the region's page table, filled once with pinned pages. */
#define REFAULT_MR_PASID 0x1U /* Addresses are the process' own; the IOMMU translates them in the context's PASID, and faults. */
#define REFAULT_MR_ODP 0x2U /* On demand: translated by the region's own table, which may have holes; a hole is a page fault. */
#define REFAULT_MR_FAST 0x3U /* Translated by the region's page table, which is filled again for each OP_REGISTER. Created invalid. */
#define REFAULT_ODP_MAX_LEVELS 0x4U /* Most levels of an on-demand region's table. */

/* Words of an on-demand region's table: address in bits 63:12, zero is a hole */
#define REFAULT_ODP_PRESENT 0x1U /* The page is present, and may be read. */
#define REFAULT_ODP_WRITABLE 0x2U /* The page may be written; together with ODP_PRESENT. */
#define REFAULT_ODP_TABLE 0x4U /* The word names a table of the next level, not a page. */

/* Answers to a page fault */
#define REFAULT_FAULT_RESOLVED 0x0U /* The table was filled: look again. */
#define REFAULT_FAULT_REFUSED 0x1U /* The page is refused: the access fails. */

/* ModifyQp mask */
#define REFAULT_QP_ATTR_STATE 0x1U /* `state`. */
#define REFAULT_QP_ATTR_ACCESS 0x2U /* `access`. */
#define REFAULT_QP_ATTR_PKEY 0x4U /* `pkey_index`. */
#define REFAULT_QP_ATTR_PORT 0x8U /* `port`. */
#define REFAULT_QP_ATTR_PATH_MTU 0x10U /* `path_mtu`. */
#define REFAULT_QP_ATTR_AV 0x20U /* `dest_lid`, `dest_gid`, `sgid_index`, `has_grh`, `sl`; on RoCE all from `flow_label` on, too. */
#define REFAULT_QP_ATTR_DEST_QPN 0x40U /* `dest_qpn`. */
#define REFAULT_QP_ATTR_RQ_PSN 0x80U /* `rq_psn`. */
#define REFAULT_QP_ATTR_SQ_PSN 0x100U /* `sq_psn`. */
#define REFAULT_QP_ATTR_TIMEOUT 0x200U /* `timeout`. */
#define REFAULT_QP_ATTR_RETRY 0x400U /* `retry_count`. */
#define REFAULT_QP_ATTR_RNR_RETRY 0x800U /* `rnr_retry`. */
#define REFAULT_QP_ATTR_MIN_RNR_TIMER 0x1000U /* `min_rnr_timer`. */
#define REFAULT_QP_ATTR_MAX_RD_ATOMIC 0x2000U /* `max_rd_atomic`. */
#define REFAULT_QP_ATTR_MAX_DEST_RD_ATOMIC 0x4000U /* `max_dest_rd_atomic`. */
#define REFAULT_QP_ATTR_QKEY 0x8000U /* `qkey`. */

/* DeviceCaps features */
#define REFAULT_CAP_PASID 0x1U /* PASID regions work: the function's PASID, ATS and page request capabilities are enabled. */
#define REFAULT_CAP_ATOMIC_GLOBAL 0x2U /* Atomics are atomic with respect to the CPU too. */
#define REFAULT_CAP_ODP 0x4U /* On-demand regions with a table of their own work. */
#define REFAULT_CAP_FLUSH_PERSISTENT 0x8U /* FLUSH with placement FLUSH_PERSISTENT works. */
#define REFAULT_CAP_ETHERNET 0x10U /* The port is an Ethernet port: QPT_ETHERNET, CMD_SET_PORT. */
#define REFAULT_CAP_ROCE 0x20U /* RoCE v2 works: CMD_SET_GID, and all queue pairs but QPT_ETHERNET. Without it an Ethernet port has no others. */

/* SetPort flags */
#define REFAULT_PORT_UP 0x1U /* The port sends and receives; without it, it does neither. */
#define REFAULT_PORT_PROMISCUOUS 0x2U /* Frames to other MAC addresses are received too. */
#define REFAULT_GID_NO_VLAN 0xffffU /* SetGid: no VLAN. */

/* Context flags */
#define REFAULT_UVERBS_CONTEXT_PASID 0x1U /* The context is bound to the process' PASID. */
#define REFAULT_UVERBS_ABI_VERSION 0x4U /* ABI version that provider and module must share (ib_device_ops.uverbs_abi_ver). */
#define REFAULT_UVERBS_ACCESS_ODP 0x10000000U /* Optional access flag of an on-demand region: translate it by its own table (MR_ODP). */
#define REFAULT_UVERBS_ACCESS_PASID 0x20000000U /* Optional access flag of an on-demand region: translate it in the process' address space (MR_PASID). */

/* One piece of a request's local memory. */
struct refault_sge {
	__le64 addr; /* Virtual address in the memory region. */
	__le32 length; /* Bytes. */
	__le32 lkey; /* Key of the memory region. */
};
_Static_assert(sizeof(struct refault_sge) == 16, "refault_sge");

/* A request in a send queue. */
struct refault_sq_wqe {
	__u8 opcode; /* OP_*. */
	__u8 flags; /* WQE_*. */
	__u8 num_sge; /* Elements of `sge` in use, at most MAX_SGE; 0 for inline data. */
	__u8 reserved0; /* Zero. */
	__le32 imm; /* Immediate data, passed on unchanged; for a FLUSH, FLUSH_* bits; the key to invalidate. */
	__le64 wr_id; /* Given back in the completion. */
	__le64 remote_addr; /* RDMA and atomics: address in the remote region. UD on RoCE: the MAC address of the next hop in bytes 0..6, the index of the own GID in byte 6, the hop limit in byte 7. */
	__le32 rkey; /* RDMA and atomics: key of the remote region. UD on RoCE: flow label in bits 19:0, traffic class in bits 27:20. */
	__le32 inline_length; /* Inline data: its length, at most MAX_INLINE. */
	__le64 compare_add; /* Compare-and-swap: the value expected; fetch-and-add: the value to add; FLUSH of a range: its length. UD with a GRH: bytes 0..8 of the destination's GID, in the order of the wire. */
	__le64 swap; /* Compare-and-swap: the value to put. UD with a GRH: bytes 8..16 of the destination's GID. */
	__le32 dest_qpn; /* UD: destination. */
	__le32 qkey; /* UD: the Q_Key that the destination must have; with bit 31 set, the sender's own is used. */
	__le16 dest_lid; /* UD: the destination's LID. */
	__u8 sl; /* UD: service level. */
	__u8 has_grh; /* UD: 1 if the destination's GID counts, and a GRH is sent. On RoCE it must be 1. */
	__le16 source_port; /* UD on RoCE: UDP source port. */
	__le16 reserved1; /* Zero. */
	struct refault_sge sge[12]; /* Scatter/gather list; with WQE_INLINE the bytes themselves. */
};
_Static_assert(sizeof(struct refault_sq_wqe) == 256, "refault_sq_wqe");

/* A request in a receive queue. */
struct refault_rq_wqe {
	__le64 wr_id; /* Given back in the completion. */
	__le32 num_sge; /* Elements of `sge` in use, at most MAX_SGE. */
	__le32 reserved0; /* Zero. */
	struct refault_sge sge[12]; /* Where the message goes. */
	__le64 reserved1[6]; /* Zero. */
};
_Static_assert(sizeof(struct refault_rq_wqe) == 256, "refault_rq_wqe");

/* A completion. The device writes `owner` last, so an entry whose phase fits is whole. */
struct refault_cqe {
	__le64 wr_id; /* From the request. */
	__le64 timestamp_ns; /* Device clock when the completion was written. */
	__le32 qpn; /* Queue pair the request belongs to. */
	__le32 src_qpn; /* Queue pair the message came from; receive completions. */
	__le32 byte_len; /* Bytes received, read or fetched. */
	__le32 imm; /* Immediate data, with CQE_WITH_IMM. */
	__le32 wqe_index; /* Free-running index of the request in its ring: all slots up to it are free. */
	__le32 vendor_error; /* Diagnosis of a failure: CAUSE_*. */
	__u8 status; /* WC_* status. */
	__u8 opcode; /* OP_* of the request (send), or of the message that arrived (receive). */
	__u8 flags; /* CQE_*. */
	__u8 sl; /* UD: service level of the datagram. */
	__le16 src_lid; /* UD: LID that the datagram came from. */
	__le16 vlan; /* UD on RoCE: tag of the VLAN that the datagram came through, with CQE_VLAN. */
	__le32 reserved1[3]; /* Zero. */
	__le32 owner; /* OWNER_PHASE. */
};
_Static_assert(sizeof(struct refault_cqe) == 64, "refault_cqe");

/* Doorbell record of a queue pair, written by the driver but for one word. */
struct refault_qp_doorbell_record {
	__le32 sq_producer; /* Send producer index. */
	__le32 reserved0[15]; /* Zero: the two indices lie in cache lines of their own. */
	__le32 rq_producer; /* Receive producer index. */
	__le32 in_error; /* The device writes 1 in ERR: receive requests need the send doorbell from now on, to be flushed. */
	__le32 reserved1[14]; /* Zero. */
};
_Static_assert(sizeof(struct refault_qp_doorbell_record) == 128, "refault_qp_doorbell_record");

/* Doorbell record of a shared receive queue. */
struct refault_srq_doorbell_record {
	__le32 producer; /* Producer index, written by the driver. */
	__le32 reserved0[15]; /* Zero: the two indices lie in cache lines of their own. */
	__le32 consumer; /* Consumer index, written by the device: entries before it were taken, and may be overwritten. */
	__le32 reserved1[15]; /* Zero. */
};
_Static_assert(sizeof(struct refault_srq_doorbell_record) == 128, "refault_srq_doorbell_record");

/* Doorbell record of a completion queue, written by the driver. */
struct refault_cq_doorbell_record {
	__le32 consumer; /* Consumer index: entries before it may be overwritten. */
	__le32 reserved0[15]; /* Zero. */
};
_Static_assert(sizeof(struct refault_cq_doorbell_record) == 64, "refault_cq_doorbell_record");

/* An event. The device writes `owner` last. A full ring loses no event: events are held back, and written
 * when the consumer index moves. */
struct refault_eqe {
	__u8 kind; /* EVENT_*. */
	__u8 code; /* Code of the kind. */
	__u8 reserved0[2]; /* Zero. */
	__le32 number; /* Object number. */
	__le64 timestamp_ns; /* Device clock when the event was written. */
	__le64 address; /* Page fault: the first address that is missing, as the request names it. */
	__le32 length; /* Page fault: bytes from there on that the request also needs. */
	__le32 token; /* Page fault: names it in the answer; not zero. */
	__le64 reserved1[3]; /* Zero. */
	__le32 reserved2; /* Zero. */
	__le32 owner; /* OWNER_PHASE, as in completion queues. */
};
_Static_assert(sizeof(struct refault_eqe) == 64, "refault_eqe");

/* Head and body of a request. */
struct refault_command_request {
	__le16 opcode; /* CMD_*. */
	__le16 reserved; /* Zero. */
	__le32 token; /* Chosen by the driver, not zero, echoed in the response. */
	__le64 body[15]; /* The layout that the opcode names. */
};
_Static_assert(sizeof(struct refault_command_request) == 128, "refault_command_request");

/* Head and body of a response. */
struct refault_command_response {
	__le32 token; /* The request's token; written last. */
	__le16 status; /* STATUS_*. */
	__le16 reserved; /* Zero. */
	__le64 body[15]; /* The layout that the opcode names, if the status is STATUS_OK. */
};
_Static_assert(sizeof(struct refault_command_response) == 128, "refault_command_response");

/* One slot of a command ring. */
struct refault_command_slot {
	struct refault_command_request request; /* Written by the driver. */
	struct refault_command_response response; /* Written by the device. */
};
_Static_assert(sizeof(struct refault_command_slot) == 256, "refault_command_slot");

/* Number of an object: eqn, context, pd, key, cqn or qpn. */
struct refault_object_id {
	__le32 id; /* The number. */
	__le32 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_object_id) == 8, "refault_object_id");

/* A run of pages, named through 0 to 3 levels of 4 KiB tables of 64-bit addresses (all IOVAs of the function). */
struct refault_page_table {
	__le64 root; /* Level 0: address of the first byte; else of the top table. Page aligned. */
	__le32 pages; /* Pages in all. */
	__u8 levels; /* Tables between `root` and the pages, 0..=3. */
	__u8 page_shift; /* log2 of the size of the pages: 12 or 21. */
	__le16 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_page_table) == 16, "refault_page_table");

/* What the device is and can do. */
struct refault_device_caps {
	__le64 version; /* Version of the device model. */
	__le64 node_guid; /* EUI-64 of the node, as a number (most significant byte first on the wire). */
	__le64 max_mr_size; /* Largest memory region in bytes. */
	__le32 max_qp; /* Most queue pairs. */
	__le32 max_cq; /* Most completion queues. */
	__le32 max_mr; /* Most memory regions. */
	__le32 max_pd; /* Most protection domains. */
	__le32 max_context; /* Most contexts, and doorbell pages in BAR 2. */
	__le32 max_eq; /* Most event queues. */
	__le32 max_rd_atomic; /* Most RDMA reads and atomics in flight per queue pair. */
	__le32 features; /* CAP_* bits. */
	__le16 lid; /* Local identifier of port 1. */
	__le16 pkeys; /* Entries of the P_Key table. */
	__le16 gids; /* Entries of the GID table. On InfiniBand entry 0 is fe80::/64 and the node GUID; on Ethernet CMD_SET_GID sets all. */
	__le16 reserved0; /* Zero. */
	__le32 page_requests; /* Page requests that may be outstanding. */
	__le32 page_faults; /* Page faults of on-demand regions that may be outstanding. */
	__le32 max_srq; /* Most shared receive queues. */
	__le32 reserved1; /* Zero. */
	__u8 mac[6]; /* Ethernet: the port's MAC address. */
	__le16 max_frame; /* Ethernet: longest frame in bytes, from the MAC addresses on, without a checksum. */
	__le32 carrier; /* Ethernet: 1 if there is a signal now. */
	__le32 reserved2; /* Zero. */
	__le64 reserved3[3]; /* Zero. */
};
_Static_assert(sizeof(struct refault_device_caps) == 120, "refault_device_caps");

/* Sets or empties an entry of the GID table. */
struct refault_set_gid {
	__le16 index; /* Which. */
	__u8 present; /* 1: set; 0: emptied. */
	__u8 reserved0; /* Zero. */
	__le16 vlan; /* VLAN of what is sent from it and received for it; GID_NO_VLAN for none. */
	__u8 mac[6]; /* MAC address that it sends from. */
	__le32 reserved1; /* Zero. */
	__u8 gid[16]; /* The GID, network order: an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d. */
};
_Static_assert(sizeof(struct refault_set_gid) == 32, "refault_set_gid");

/* Configures an Ethernet port. */
struct refault_set_port {
	__u8 mac[6]; /* MAC address; frames to others are dropped, but for group addresses. */
	__le16 reserved0; /* Zero. */
	__le32 flags; /* PORT_*. */
	__le32 eqn; /* Event queue of EVENT_PORT. */
};
_Static_assert(sizeof(struct refault_set_port) == 16, "refault_set_port");

/* What an Ethernet port and the queue pairs behind it counted since the device was made. A reset clears none. */
struct refault_port_counters {
	__le64 sent_packets; /* Packets of RoCE sent. */
	__le64 received_packets; /* Packets of RoCE that arrived, well formed. */
	__le64 sent_bytes; /* Bytes of the frames of those sent. */
	__le64 received_bytes; /* Bytes of the frames of those that arrived. */
	__le64 duplicate_requests; /* Requests that came again. */
	__le64 out_of_sequence; /* Requests that came before one that was missing. */
	__le64 rnr_naks_received; /* RNR NAKs that requesters heeded. */
	__le64 rnr_naks_sent; /* RNR NAKs that responders sent. */
	__le64 sequence_naks_received; /* NAKs for a lost packet that requesters heeded. */
	__le64 retries_exceeded; /* Requests that failed with WC_RETRY_EXC_ERR. */
	__le64 rnr_retries_exceeded; /* Requests that failed with WC_RNR_RETRY_EXC_ERR. */
	__le64 bad_icrc; /* Frames dropped for their ICRC. */
	__le64 dropped; /* Frames dropped because they were malformed, or nothing takes them. */
	__le64 overflow; /* Frames dropped for want of room, or of a receive request. */
	__le64 fault_dropped; /* Messages dropped because a page was missing. */
};
_Static_assert(sizeof(struct refault_port_counters) == 120, "refault_port_counters");

/* Creates an event queue. */
struct refault_create_eq {
	struct refault_page_table ring; /* The ring. */
	__u8 log_size; /* log2 of its entries, at most MAX_LOG_EQES. */
	__u8 reserved0; /* Zero. */
	__le16 vector; /* MSI-X vector. */
	__le32 reserved1; /* Zero. */
	__le64 reserved2; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_eq) == 32, "refault_create_eq");

/* Creates a context: a process' share of the device. */
struct refault_create_context {
	__le32 pasid; /* PASID bound to the process, if `has_pasid`. */
	__le32 has_pasid; /* 1 if the context has a PASID. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_context) == 16, "refault_create_context");

/* Creates a memory region. */
struct refault_create_mr {
	__le64 start; /* First address, as requests name it. Fast: zero, as `length`, `first_offset` and `access`. */
	__le64 length; /* Bytes; `start + length` may reach 2^64 (then the whole address space is meant). */
	struct refault_page_table table; /* Pinned: the region's pages; without tables and from address zero on, none need be mapped yet. Fast: as many pages as may be registered, and 1 to 3 `levels`. On demand: the top table and 1 to ODP_MAX_LEVELS `levels`; `pages` is zero and `page_shift` 12. */
	__le32 first_offset; /* Bytes from the start of what the table covers to `start`: less than a page; on demand, less than 2 MiB. */
	__le32 pd; /* Protection domain. */
	__le32 access; /* ACCESS_*. */
	__u8 mode; /* MR_*. */
	__u8 reserved0[3]; /* Zero. */
	__le32 fault_eqn; /* On demand: event queue that its page faults go to. */
	__le32 reserved1; /* Zero. */
	__le64 reserved2; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_mr) == 64, "refault_create_mr");

/* Forgets translations of an on-demand region. */
struct refault_invalidate_mr {
	__le32 key; /* Which. */
	__le32 reserved; /* Zero. */
	__le64 start; /* First address, as requests name it. */
	__le64 length; /* Bytes; 2^64 - 1 is everything behind `start`. */
};
_Static_assert(sizeof(struct refault_invalidate_mr) == 24, "refault_invalidate_mr");

/* Answers a page fault of an on-demand region. */
struct refault_resume_fault {
	__le32 token; /* The event's token. */
	__le32 answer; /* FAULT_*. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_resume_fault) == 16, "refault_resume_fault");

/* Creates a completion queue. */
struct refault_create_cq {
	struct refault_page_table buffer; /* Its memory: ring, then the doorbell record. */
	__le32 record_offset; /* Bytes from the start of the buffer to the CqDoorbellRecord, 64-byte aligned. */
	__le32 context; /* Context whose doorbell page arms it. */
	__le32 eqn; /* Event queue that its events go to. */
	__u8 log_size; /* log2 of its entries, at most MAX_LOG_CQES. */
	__u8 reserved0[3]; /* Zero. */
	__le64 reserved1[2]; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_cq) == 48, "refault_create_cq");

/* Sets the moderation of a completion queue: an armed event is sent when `count` completions have arrived, or
 * `period_us` after the first of them. With a period of zero, with the first. */
struct refault_modify_cq {
	__le32 cqn; /* Which. */
	__le16 count; /* Completions. */
	__le16 period_us; /* Microseconds. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_modify_cq) == 16, "refault_modify_cq");

/* Creates a shared receive queue. */
struct refault_create_srq {
	struct refault_page_table buffer; /* Its memory: ring of RqWqe, then the doorbell record. */
	__le32 record_offset; /* Bytes from the start of the buffer to the SrqDoorbellRecord, 128-byte aligned. */
	__le32 pd; /* Protection domain. */
	__le32 eqn; /* Event queue of its asynchronous events. */
	__u8 log_size; /* log2 of its entries, at most MAX_LOG_WQES. */
	__u8 reserved0[3]; /* Zero. */
	__le64 reserved1[2]; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_srq) == 48, "refault_create_srq");

/* Asks for SRQ_EVENT_LIMIT_REACHED, once, when fewer than `limit` receive requests are left. */
struct refault_arm_srq {
	__le32 srqn; /* Which. */
	__le32 limit; /* Receive requests; zero disarms. */
};
_Static_assert(sizeof(struct refault_arm_srq) == 8, "refault_arm_srq");

/* A shared receive queue as the device has it. */
struct refault_srq_state {
	__le32 limit; /* The armed limit, zero if none. */
	__le32 consumer; /* Receive requests the device has taken. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_srq_state) == 16, "refault_srq_state");

/* Creates a queue pair. */
struct refault_create_qp {
	struct refault_page_table buffer; /* Its memory: send ring, receive ring, doorbell record. */
	__le32 rq_offset; /* Bytes from the start of the buffer to the receive ring, 128-byte aligned. */
	__le32 record_offset; /* Bytes from the start of the buffer to the QpDoorbellRecord, 128-byte aligned. */
	__le32 pd; /* Protection domain; its context's doorbell page starts the queue pair. */
	__le32 send_cq; /* Completion queue of the send queue. */
	__le32 recv_cq; /* Completion queue of the receive queue. */
	__le32 eqn; /* Event queue of its asynchronous events. */
	__u8 log_sq; /* log2 of the send ring's entries, at most MAX_LOG_WQES. */
	__u8 log_rq; /* log2 of the receive ring's entries, at most MAX_LOG_WQES; with `srqn` the ring is not used. */
	__u8 signal_all; /* 1: every send request is signaled. */
	__u8 kind; /* QPT_*. */
	__le32 reserved0; /* Zero. */
	__le32 srqn; /* Shared receive queue, of a protection domain of the same context; zero is none. */
	__le32 reserved1; /* Zero. */
	__le64 reserved2[3]; /* Zero. */
};
_Static_assert(sizeof(struct refault_create_qp) == 80, "refault_create_qp");

/* Changes a queue pair; only fields named in `mask` count. */
struct refault_modify_qp {
	__le32 qpn; /* Which. */
	__le32 mask; /* QP_ATTR_*. */
	__u8 state; /* QPS_*. */
	__u8 path_mtu; /* 1 = 256 bytes up to 5 = 4096 bytes. */
	__u8 timeout; /* Local ACK timeout: 4.096 us * 2^n, 0 = forever. */
	__u8 retry_count; /* Transport retries, 0..=7. */
	__u8 rnr_retry; /* RNR retries, 7 = forever. */
	__u8 min_rnr_timer; /* Delay that a sender is asked for, IB code 0..=31. */
	__u8 max_rd_atomic; /* Reads and atomics in flight as requester. */
	__u8 max_dest_rd_atomic; /* Reads and atomics in flight as responder. */
	__le32 access; /* ACCESS_REMOTE_* and ACCESS_FLUSH_* that incoming requests may use. */
	__le32 dest_qpn; /* Peer. */
	__le32 rq_psn; /* Packet sequence number expected first. */
	__le32 sq_psn; /* Packet sequence number sent first. */
	__le16 dest_lid; /* Peer's LID. */
	__le16 pkey_index; /* Index into the P_Key table. */
	__u8 port; /* Port, 1. */
	__u8 sl; /* Service level. */
	__u8 has_grh; /* 1: `dest_gid` is valid. */
	__u8 sgid_index; /* Own GID. */
	__u8 dest_gid[16]; /* Peer's GID, network order. */
	__le32 qkey; /* UD: the Q_Key that incoming datagrams must have. */
	__le32 flow_label; /* RoCE: flow label of IPv6, 20 bits. */
	__u8 dmac[6]; /* RoCE: MAC address of the next hop. */
	__u8 hop_limit; /* RoCE: IPv4 time to live, or IPv6 hop limit. */
	__u8 traffic_class; /* RoCE: IPv4 type of service, or IPv6 traffic class. */
	__le16 source_port; /* RoCE: UDP source port. */
	__u8 reserved0[6]; /* Zero. */
};
_Static_assert(sizeof(struct refault_modify_qp) == 80, "refault_modify_qp");

/* A queue pair's attributes as the device has them. */
struct refault_qp_state {
	struct refault_modify_qp attributes; /* What was set; `mask` is zero, `state` the present state. */
	__le32 sq_consumer; /* Send requests the device is done with. */
	__le32 rq_consumer; /* Receive requests the device is done with. */
	__le32 draining; /* 1 while draining to SQD. */
	__le32 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_qp_state) == 96, "refault_qp_state");

/* Answer to opening a context. */
struct refault_uverbs_context {
	__le64 doorbell_offset; /* Offset to mmap() for the doorbell page. */
	__le32 doorbell_length; /* Bytes of it. */
	__le32 flags; /* UVERBS_CONTEXT_* bits. */
	__le32 pasid; /* PASID of the process, if it has one. */
	__le32 reserved0; /* Zero. */
	__le64 reserved1; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_context) == 32, "refault_uverbs_context");

/* Request for a completion queue: its memory, as in CreateCq. */
struct refault_uverbs_create_cq {
	__le64 buffer; /* Address of the ring in the process, page aligned. */
	__le64 length; /* Bytes. */
	__le32 record_offset; /* Bytes from the start to the doorbell record. */
	__le32 log_size; /* log2 of its entries. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_create_cq) == 32, "refault_uverbs_create_cq");

/* Answer to it. */
struct refault_uverbs_cq {
	__le32 cqn; /* Number of the completion queue. */
	__le32 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_cq) == 8, "refault_uverbs_cq");

/* Request for a queue pair: its memory, as in CreateQp. */
struct refault_uverbs_create_qp {
	__le64 buffer; /* Address of the rings in the process, page aligned. */
	__le64 length; /* Bytes. */
	__le32 rq_offset; /* Bytes from the start to the receive ring. */
	__le32 record_offset; /* Bytes from the start to the doorbell record. */
	__le32 log_sq; /* log2 of the send ring's entries. */
	__le32 log_rq; /* log2 of the receive ring's entries. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_create_qp) == 40, "refault_uverbs_create_qp");

/* Request for a shared receive queue: its memory, as in CreateSrq. */
struct refault_uverbs_create_srq {
	__le64 buffer; /* Address of the ring in the process, page aligned. */
	__le64 length; /* Bytes. */
	__le32 record_offset; /* Bytes from the start to the doorbell record. */
	__le32 log_size; /* log2 of its entries. */
	__le64 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_create_srq) == 32, "refault_uverbs_create_srq");

/* Answer to it. */
struct refault_uverbs_srq {
	__le32 srqn; /* Number of the shared receive queue. */
	__le32 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_srq) == 8, "refault_uverbs_srq");

/* Answer to a request for an address handle, on RoCE: what the kernel resolved. Zero on InfiniBand. */
struct refault_uverbs_ah {
	__u8 dmac[6]; /* MAC address of the next hop. */
	__u8 sgid_index; /* Own GID. */
	__u8 hop_limit; /* Hop limit. */
	__le16 source_port; /* UDP source port. */
	__le16 reserved0; /* Zero. */
	__le32 reserved1; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_ah) == 16, "refault_uverbs_ah");

/* Answer to a request for a queue pair. */
struct refault_uverbs_qp {
	__le32 qpn; /* Number of the queue pair. */
	__le32 reserved; /* Zero. */
};
_Static_assert(sizeof(struct refault_uverbs_qp) == 8, "refault_uverbs_qp");

#endif

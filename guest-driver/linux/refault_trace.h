/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Trace events: the driver's steps in serving a page fault of a region that
 * the NIC translates. Faults through the IOMMU need none of ours: the kernel
 * has events and probe points on that path.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM refault

#if !defined(REFAULT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define REFAULT_TRACE_H

#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(refault_fault,
	TP_PROTO(u32 key, u32 token, u64 address),
	TP_ARGS(key, token, address),
	TP_STRUCT__entry(
		__field(u64, address)
		__field(u32, key)
		__field(u32, token)
	),
	TP_fast_assign(
		__entry->address = address;
		__entry->key = key;
		__entry->token = token;
	),
	TP_printk("key %#x token %#x address %#llx", __entry->key,
		  __entry->token, __entry->address)
);

/* The interrupt handler took the event from its queue. */
DEFINE_EVENT(refault_fault, fault_taken,
	TP_PROTO(u32 key, u32 token, u64 address),
	TP_ARGS(key, token, address)
);

/* A worker started on the fault. */
DEFINE_EVENT(refault_fault, fault_handling,
	TP_PROTO(u32 key, u32 token, u64 address),
	TP_ARGS(key, token, address)
);

/* The page is in the table, or the fault failed; the answer is next. */
DEFINE_EVENT(refault_fault, fault_handled,
	TP_PROTO(u32 key, u32 token, u64 address),
	TP_ARGS(key, token, address)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE refault_trace
#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of the module: events/address_space in tracefs. A space is known by
 * the inode number of its asfd, which fstat() shows; ranges are in pages.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM address_space

#if !defined(ADDRESS_SPACE_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define ADDRESS_SPACE_EVENTS_H

#include <linux/tracepoint.h>

/* The owner changed what a range shows; prot is 0 for an unmap. */
TRACE_EVENT(address_space_change,
	TP_PROTO(unsigned long ino, u64 start, u64 end, unsigned int prot, bool revoked),
	TP_ARGS(ino, start, end, prot, revoked),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(u64, start)
		__field(u64, end)
		__field(unsigned int, prot)
		__field(bool, revoked)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->start = start;
		__entry->end = end;
		__entry->prot = prot;
		__entry->revoked = revoked;
	),
	TP_printk("space=%lu pages=%#llx-%#llx prot=%u revoked=%d", __entry->ino,
		  __entry->start, __entry->end, __entry->prot, __entry->revoked)
);

/* An attachment was accessed where it had no entry, or none with enough rights. */
TRACE_EVENT(address_space_fault,
	TP_PROTO(unsigned long ino, u64 page, unsigned int access, unsigned int ret),
	TP_ARGS(ino, page, access, ret),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(u64, page)
		__field(unsigned int, access)
		__field(unsigned int, ret)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->page = page;
		__entry->access = access;
		__entry->ret = ret;
	),
	TP_printk("space=%lu page=%#llx access=%u ret=%#x", __entry->ino, __entry->page,
		  __entry->access, __entry->ret)
);

/*
 * The arena is about to stop showing pages of a segment that attachments may show.
 * By the notifier at once, or deferred to the worker.
 */
TRACE_EVENT(address_space_invalidate,
	TP_PROTO(unsigned long ino, u64 segment, u64 start, u64 end, bool deferred),
	TP_ARGS(ino, segment, start, end, deferred),
	TP_STRUCT__entry(
		__field(unsigned long, ino)
		__field(u64, segment)
		__field(u64, start)
		__field(u64, end)
		__field(bool, deferred)
	),
	TP_fast_assign(
		__entry->ino = ino;
		__entry->segment = segment;
		__entry->start = start;
		__entry->end = end;
		__entry->deferred = deferred;
	),
	TP_printk("space=%lu segment=%llu pages=%#llx-%#llx deferred=%d", __entry->ino,
		  __entry->segment, __entry->start, __entry->end, __entry->deferred)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>

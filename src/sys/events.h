/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints of the module: events/address_space in tracefs. A space is known by
 * the inode number of its asfd, which fstat() shows; ranges are in pages.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM address_space

#if !defined(ADDRESS_SPACE_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define ADDRESS_SPACE_EVENTS_H

#include <linux/mm_types.h>
#include <linux/tracepoint.h>

/*
 * The answers to a fault. Programs that read the raw events know no enums of the
 * kernel: their values are put into the format.
 */
TRACE_DEFINE_ENUM(VM_FAULT_OOM);
TRACE_DEFINE_ENUM(VM_FAULT_SIGBUS);
TRACE_DEFINE_ENUM(VM_FAULT_MAJOR);
TRACE_DEFINE_ENUM(VM_FAULT_HWPOISON);
TRACE_DEFINE_ENUM(VM_FAULT_SIGSEGV);
TRACE_DEFINE_ENUM(VM_FAULT_NOPAGE);
TRACE_DEFINE_ENUM(VM_FAULT_RETRY);
TRACE_DEFINE_ENUM(VM_FAULT_FALLBACK);

#define address_space_show_answer(ret)		\
	__print_flags(ret, "|",			\
		{ VM_FAULT_OOM, "OOM" },		\
		{ VM_FAULT_SIGBUS, "SIGBUS" },		\
		{ VM_FAULT_MAJOR, "MAJOR" },		\
		{ VM_FAULT_HWPOISON, "HWPOISON" },	\
		{ VM_FAULT_SIGSEGV, "SIGSEGV" },	\
		{ VM_FAULT_NOPAGE, "DONE" },		\
		{ VM_FAULT_RETRY, "RETRY" },		\
		{ VM_FAULT_FALLBACK, "NOT_HUGE" })

/* A protection, and how a page is accessed: PROT_* */
#define address_space_show_prot(prot)			\
	__print_symbolic(prot, { 0, "---" },		\
		{ 1, "r--" }, { 2, "-w-" }, { 3, "rw-" }, { 4, "--x" },	\
		{ 5, "r-x" }, { 6, "-wx" }, { 7, "rwx" })

/* The owner changed what a range shows; prot is 0 for an unmap. */
TRACE_EVENT(address_space_change,
	TP_PROTO(unsigned long space, u64 start, u64 end, unsigned int prot, bool revoked),
	TP_ARGS(space, start, end, prot, revoked),
	TP_STRUCT__entry(
		__field(unsigned long, space)
		__field(u64, start)
		__field(u64, end)
		__field(unsigned int, prot)
		__field(bool, revoked)
	),
	TP_fast_assign(
		__entry->space = space;
		__entry->start = start;
		__entry->end = end;
		__entry->prot = prot;
		__entry->revoked = revoked;
	),
	TP_printk("space=%lu pages=%#llx-%#llx prot=%s revoked=%d", __entry->space,
		  __entry->start, __entry->end, address_space_show_prot(__entry->prot),
		  __entry->revoked)
);

/*
 * An attachment was accessed where it had no entry, or none with enough rights. Its
 * view is the file that was mapped: an asfd is known by the number of the space.
 */
TRACE_EVENT(address_space_fault,
	TP_PROTO(unsigned long space, u64 view, u64 page, unsigned int access, unsigned int ret),
	TP_ARGS(space, view, page, access, ret),
	TP_STRUCT__entry(
		__field(unsigned long, space)
		__field(u64, view)
		__field(u64, page)
		__field(unsigned int, access)
		__field(unsigned int, ret)
	),
	TP_fast_assign(
		__entry->space = space;
		__entry->view = view;
		__entry->page = page;
		__entry->access = access;
		__entry->ret = ret;
	),
	TP_printk("space=%lu view=%llu page=%#llx access=%s ret=%s", __entry->space,
		  __entry->view, __entry->page, address_space_show_prot(__entry->access),
		  address_space_show_answer(__entry->ret))
);

/*
 * The arena is about to stop showing pages of a segment that attachments may show.
 * By the notifier at once, or deferred to the worker.
 */
TRACE_EVENT(address_space_invalidate,
	TP_PROTO(unsigned long space, u64 segment, u64 start, u64 end, bool deferred),
	TP_ARGS(space, segment, start, end, deferred),
	TP_STRUCT__entry(
		__field(unsigned long, space)
		__field(u64, segment)
		__field(u64, start)
		__field(u64, end)
		__field(bool, deferred)
	),
	TP_fast_assign(
		__entry->space = space;
		__entry->segment = segment;
		__entry->start = start;
		__entry->end = end;
		__entry->deferred = deferred;
	),
	TP_printk("space=%lu segment=%llu pages=%#llx-%#llx deferred=%d", __entry->space,
		  __entry->segment, __entry->start, __entry->end, __entry->deferred)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0 */
/* The operations in which fail_nth makes allocations fail. */
#ifndef FAIL_NTH_OPS_H
#define FAIL_NTH_OPS_H

#include "kvm_guest.h"

/*
 * The state for an operation: a space that shows pages of `a`, accessed, at 0, and
 * others, for reading, at SHOWN_RO; two files that are not mapped at SHOWN_NEW.
 */
struct fail_ctx {
	struct space s;
	char *mem;		/* the attachment of all of the space, or NULL */
	char *more;		/* another attachment, of more_len */
	size_t more_len;
	int fd;			/* what the operation works on or returns, or -1 */
	int other;		/* the same */
	pid_t child;
	bool has_vm;
	struct vm vm;
	char text[16384];
};

#define SHOWN_RO	(20 * PAGE)	/* 8 pages of `a` from its page 4 on */
#define SHOWN_NEW	(40 * PAGE)	/* FILE_PAGES of a file of zeroes, never accessed */

struct fail_op {
	bool needs_kvm;
	/* errors that it may return, or signals that it may raise */
	int may_give[4];
	/* -EOPNOTSUPP: the operation is impossible here */
	int (*prepare)(struct fail_ctx *c);
	/* the operation: < 0 is an error */
	int (*run)(struct fail_ctx *c);
	/* checks the effect after a reported success; 0 or -errno */
	int (*verify)(struct fail_ctx *c);
};

int fail_ctx_init(struct fail_ctx *c);
void fail_ctx_free(struct fail_ctx *c);
/* The layout, the attachments, and what each page shows; to be freed. */
char *fail_ctx_picture(struct fail_ctx *c);
bool fail_op_may_give(const struct fail_op *op, int error);

/* The number of users of the module; and waits until it is at most @users. */
long module_users(void);
int module_users_within(long users, unsigned int ms);

#define FAIL_OPS(each)							\
	each(create) each(mount) each(name) each(give_length) each(layout)	\
	each(map) each(map_again) each(map_registered)			\
	each(map_replace) each(map_anywhere) each(map_populate)		\
	each(unmap) each(unmap_in_two)		\
	each(protect) each(move) each(batch) each(view)			\
	each(register) each(unregister) each(unregister_all)		\
	each(attach) each(attach_view) each(detach)			\
	each(split_attachment) each(move_attachment) each(fork)			\
	each(fdinfo) each(close)					\
	each(read_fault) each(write_fault)				\
	each(absent_read_fault) each(absent_write_fault)		\
	each(write_after_read_fault) each(far_fault)			\
	each(disk_read_fault) each(huge_fault)			\
	each(events) each(attach_absorbing) each(absorb_fault)		\
	each(fork_absorbing) each(absorb_past_end_fault)		\
	each(wait_fault) each(wait_in_kernel_fault)			\
	each(read_events) each(poison)					\
	each(guest_absorb) each(guest_wait)				\
	each(map_private) each(register_private)			\
	each(private_write_fault) each(unmap_private)			\
	each(advise_dontneed) each(advise_populate)			\
	each(lend) each(map_lent) each(lent_read_fault)			\
	each(lent_absent_write_fault) each(lend_revoke)			\
	each(copy_into_attachment) each(punch) each(truncate)		\
	each(kvm_map) each(kvm_unmap) each(guest_read) each(guest_write)

#define FAIL_OP_DECLARE(name)	extern const struct fail_op fail_op_##name;
FAIL_OPS(FAIL_OP_DECLARE)
/* only on workers */
FAIL_OP_DECLARE(unmap_and_reap)

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Holes that are absorbed or waited for, and what is told of them: through an attachment,
 * in a system call, and in a guest.
 */
#include <sys/wait.h>

#include "fail_nth_ops.h"

#define OP(op, ...)	const struct fail_op fail_op_##op = { __VA_ARGS__ }
/* operations that never fail */
#define SURE(op, ...)	OP(op, .may_give = { 0 }, __VA_ARGS__)
#define FAULT(op, ...)	OP(op, .may_give = { SIGBUS }, __VA_ARGS__)
#define CALL(op, ...)	OP(op, .may_give = { ENOMEM, EFAULT }, __VA_ARGS__)

static int events_run(struct fail_ctx *c)
{
	c->fd = as_events(c->s.asfd, 0, 0, 0);
	return c->fd;
}

static int absorbing_view(struct fail_ctx *c)
{
	c->fd = as_view_flags(c->s.asfd, 0, SPACE_LEN, RW, ADDRESS_SPACE_HOLE_ABSORB);
	return c->fd < 0 ? c->fd : 0;
}

static int attach_absorbing_run(struct fail_ctx *c)
{
	c->more_len = SPACE_LEN;
	c->more = attach(c->fd, 0, c->more_len, RW);
	return c->more ? 0 : -errno;
}

static int absorbing_attached(struct fail_ctx *c)
{
	int ret = absorbing_view(c);

	return ret ?: attach_absorbing_run(c);
}

static int absorb_run(struct fail_ctx *c)
{
	return poke(c->more + 30 * PAGE, 7);
}

static int is_absorbed(struct fail_ctx *c)
{
	return peek(c->more + 30 * PAGE) == 7 ? 0 : -EIO;
}

static int absorbed(struct fail_ctx *c)
{
	int ret = absorbing_attached(c);

	return ret ?: absorb_run(c);
}

/* the child has a page of its own, or none */
static int fork_absorbing_run(struct fail_ctx *c)
{
	c->child = fork();
	if (!c->child) {
		int byte = peek(c->more + 30 * PAGE);

		_exit(byte != 0 && byte != -SIGBUS);
	}
	return c->child < 0 ? -errno : 0;
}

static int fork_absorbing_verify(struct fail_ctx *c)
{
	int status = -1;
	pid_t child = c->child;

	c->child = 0;
	if (waitpid(child, &status, 0) != child)
		return -errno;
	return status ? -EIO : is_absorbed(c);
}

/* past the end of a file: it is noted for a worker */
static int short_absorbing(struct fail_ctx *c)
{
	int ret = ftruncate(c->s.b, PAGE) ? -errno : 0;

	ret = ret ?: as_map(c->s.asfd, SHOWN_NEW, c->s.b, 0, FILE_LEN, RW, 0);
	return ret ?: absorbing_attached(c);
}

static int past_end_run(struct fail_ctx *c)
{
	return poke(c->more + SHOWN_NEW + 3 * PAGE, 7);
}

static int past_end_absorbed(struct fail_ctx *c)
{
	return peek(c->more + SHOWN_NEW + 3 * PAGE) == 7 ? 0 : -EIO;
}

static int watched_for(struct fail_ctx *c, unsigned int timeout_ms, uint32_t holes)
{
	c->other = as_events(c->s.asfd, 0, 0, timeout_ms);
	if (c->other < 0)
		return c->other;
	c->fd = as_view_flags(c->s.asfd, 0, SPACE_LEN, RW, holes);
	return c->fd < 0 ? c->fd : attach_absorbing_run(c);
}

static int watched(struct fail_ctx *c)
{
	return watched_for(c, 20, ADDRESS_SPACE_HOLE_WAIT);
}

static int watched_in_kernel(struct fail_ctx *c)
{
	return watched_for(c, 20, ADDRESS_SPACE_HOLE_WAIT | ADDRESS_SPACE_HOLE_KERNEL);
}

/*
 * Nobody maps anything: it is refused after its time, or at once without memory. The
 * signal is another one where the kernel cannot tell of the first.
 */
static int wait_run(struct fail_ctx *c)
{
	int byte = peek(c->more + 30 * PAGE);

	return byte == -SIGBUS || byte == -SIGSEGV ? 0 : -EIO;
}

/* the same, of a copy by the kernel */
static int wait_in_kernel_run(struct fail_ctx *c)
{
	ssize_t n = pread(c->s.a, c->more + 30 * PAGE, PAGE, 0);

	return n < 0 && errno == EFAULT ? 0 : -EIO;
}

static int something_told(struct fail_ctx *c)
{
	int ret = watched_for(c, 20, ADDRESS_SPACE_HOLE_SIGNAL);

	return ret ?: peek(c->more + 30 * PAGE) == -SIGBUS ? 0 : -EIO;
}

/* what could not be told counts as lost, which is told */
static int read_events_run(struct fail_ctx *c)
{
	struct address_space_event event;
	ssize_t n = read(c->other, &event, sizeof(event));

	return n < 0 ? -errno : n == sizeof(event) ? 0 : -EIO;
}

static int poison_run(struct fail_ctx *c)
{
	return as_poison(c->s.asfd, 30 * PAGE, PAGE, 0);
}

static int is_poisoned(struct fail_ctx *c)
{
	return peek(c->more + 30 * PAGE) == -SIGBUS ? 0 : -EIO;
}

/* a guest, which has read something before */

static int slot_made(struct fail_ctx *c, uint32_t holes)
{
	char *mem;
	int ret = vm_create(&c->vm);

	c->has_vm = !ret;
	ret = ret ?: as_kvm_map(c->s.asfd, c->vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, holes, &mem);
	if (!ret) {
		c->more = mem;
		c->more_len = SLOT_LEN;
	}
	/* the end of what is shown there */
	ret = ret ?: as_unmap(c->s.asfd, 5 * PAGE, FILE_LEN - 5 * PAGE);
	return ret ?: guest_read(&c->vm, 0) == 'a' ? 0 : -EIO;
}

static int absorbing_slot(struct fail_ctx *c)
{
	return slot_made(c, ADDRESS_SPACE_HOLE_ABSORB);
}

static int waiting_slot(struct fail_ctx *c)
{
	c->other = as_events(c->s.asfd, 0, 0, 20);
	return c->other < 0 ? c->other : slot_made(c, ADDRESS_SPACE_HOLE_WAIT);
}

static int guest_absorb_run(struct fail_ctx *c)
{
	int ret = guest_write(&c->vm, 5 * PAGE, '!');

	return ret == '!' ? 0 : ret < 0 ? ret : -EIO;
}

static int guest_wait_run(struct fail_ctx *c)
{
	int ret = guest_read(&c->vm, 5 * PAGE);

	/* KVM itself may lack memory */
	return ret == -EFAULT || ret == -ENOMEM ? 0 : -EIO;
}

CALL(events, .run = events_run);
OP(read_events, .may_give = { EFAULT }, .prepare = something_told, .run = read_events_run);
OP(poison, .may_give = { EFAULT }, .prepare = watched, .run = poison_run,
   .verify = is_poisoned);
FAULT(absorb_past_end_fault, .prepare = short_absorbing, .run = past_end_run,
      .verify = past_end_absorbed);
SURE(wait_in_kernel_fault, .prepare = watched_in_kernel, .run = wait_in_kernel_run);
CALL(guest_absorb, .needs_kvm = true, .prepare = absorbing_slot, .run = guest_absorb_run);
SURE(guest_wait, .needs_kvm = true, .prepare = waiting_slot, .run = guest_wait_run);
CALL(attach_absorbing, .prepare = absorbing_view, .run = attach_absorbing_run,
     .verify = absorb_run);
FAULT(absorb_fault, .prepare = absorbing_attached, .run = absorb_run, .verify = is_absorbed);
OP(fork_absorbing, .may_give = { ENOMEM, EAGAIN }, .prepare = absorbed,
   .run = fork_absorbing_run, .verify = fork_absorbing_verify);
SURE(wait_fault, .prepare = watched, .run = wait_run);

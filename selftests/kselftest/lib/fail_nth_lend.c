// SPDX-License-Identifier: GPL-2.0
/*
 * Lent memory: the test lends to itself. A fault for which the lender cannot have memory is
 * SIGBUS.
 */
#include "fail_nth_ops.h"

#define OP(op, ...)	const struct fail_op fail_op_##op = { __VA_ARGS__ }
#define FAULT(op, ...)	OP(op, .may_give = { SIGBUS }, __VA_ARGS__)
#define CALL(op, ...)	OP(op, .may_give = { ENOMEM, EFAULT }, __VA_ARGS__)

static int have_memory(struct fail_ctx *c)
{
	c->more_len = FILE_LEN;
	c->more = mmap(NULL, c->more_len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->more == MAP_FAILED) {
		c->more = NULL;
		return -errno;
	}
	c->more[3 * PAGE] = 'L';
	return 0;
}

static int lend_run(struct fail_ctx *c)
{
	c->fd = as_lend(c->more, c->more_len, RW);
	return c->fd;
}

static int is_lent(struct fail_ctx *c)
{
	if (as_map(c->s.asfd, SHOWN_NEW, c->fd, 0, FILE_LEN, RW, 0))
		return -EIO;
	return peek(c->mem + SHOWN_NEW + 3 * PAGE) == 'L' ? 0 : -EIO;
}

static int lent(struct fail_ctx *c)
{
	int ret = have_memory(c) ?: lend_run(c);

	return ret < 0 ? ret : 0;
}

static int map_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->fd, 0, FILE_LEN, RW, 0);
}

static int lent_shown(struct fail_ctx *c)
{
	return lent(c) ?: map_run(c);
}

static int read_run(struct fail_ctx *c)
{
	int value = peek(c->mem + SHOWN_NEW + 3 * PAGE);

	return value == 'L' ? 0 : value < 0 ? value : -EIO;
}

static int absent_write_run(struct fail_ctx *c)
{
	return poke(c->mem + SHOWN_NEW + 5 * PAGE, '!');
}

static int is_written(struct fail_ctx *c)
{
	return c->more[5 * PAGE] == '!' ? 0 : -EIO;
}

static int revoke_run(struct fail_ctx *c)
{
	return as_lend_revoke(c->fd);
}

static int is_gone(struct fail_ctx *c)
{
	return peek(c->mem + SHOWN_NEW + 3 * PAGE) == -SIGBUS ? 0 : -EIO;
}

CALL(lend, .prepare = have_memory, .run = lend_run, .verify = is_lent);
CALL(map_lent, .prepare = lent, .run = map_run);
FAULT(lent_read_fault, .prepare = lent_shown, .run = read_run);
FAULT(lent_absent_write_fault, .prepare = lent_shown, .run = absent_write_run,
      .verify = is_written);
CALL(lend_revoke, .prepare = lent_shown, .run = revoke_run, .verify = is_gone);

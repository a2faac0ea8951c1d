// SPDX-License-Identifier: GPL-2.0
/*
 * Private maps, and advice. A fault for which there is no memory for a copy is SIGBUS; what
 * is given back is given back whatever fails.
 */
#include "fail_nth_ops.h"

#define OP(op, ...)	const struct fail_op fail_op_##op = { __VA_ARGS__ }
#define FAULT(op, ...)	OP(op, .may_give = { SIGBUS }, __VA_ARGS__)
#define CALL(op, ...)	OP(op, .may_give = { ENOMEM, EFAULT }, __VA_ARGS__)

static int map_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->s.b, 0, FILE_LEN, RW,
		      ADDRESS_SPACE_MAP_PRIVATE);
}

static int can_be_written(struct fail_ctx *c)
{
	if (poke(c->mem + SHOWN_NEW, '!') || peek(c->mem + SHOWN_NEW) != '!')
		return -EIO;
	return file_byte(c->s.b, 0) == 'A' ? 0 : -EIO;
}

static int register_run(struct fail_ctx *c)
{
	return as_register(c->s.asfd, c->s.b, 0, FILE_LEN, RW,
			   ADDRESS_SPACE_REGISTER_PRIVATE);
}

static int is_registered(struct fail_ctx *c)
{
	int ret = map_run(c) ?: can_be_written(c) ?: as_unmap(c->s.asfd, SHOWN_NEW, FILE_LEN);

	return ret ?: as_unregister(c->s.asfd, c->s.b);
}

/* read before, so that the write replaces what is installed */
static int shown_and_read(struct fail_ctx *c)
{
	int ret = map_run(c);

	return ret ?: (peek(c->mem + SHOWN_NEW) == 'A' ? 0 : -EIO);
}

static int write_run(struct fail_ctx *c)
{
	return poke(c->mem + SHOWN_NEW, '!');
}

static int shown_and_written(struct fail_ctx *c)
{
	unsigned int i;
	int ret = map_run(c);

	for (i = 0; !ret && i < FILE_PAGES; i++)
		ret = poke(c->mem + SHOWN_NEW + i * PAGE, '!');
	return ret;
}

static int unmap_run(struct fail_ctx *c)
{
	return as_unmap(c->s.asfd, SHOWN_NEW + 2 * PAGE, 3 * PAGE);
}

static int has_given_back(struct fail_ctx *c)
{
	return fdinfo_value(c->s.asfd, "copies") == (long long)(FILE_LEN - 3 * PAGE) ? 0 : -EIO;
}

static int dontneed_run(struct fail_ctx *c)
{
	return as_advise(c->s.asfd, SHOWN_NEW + 2 * PAGE, 3 * PAGE, ADDRESS_SPACE_DONTNEED);
}

static int populate_run(struct fail_ctx *c)
{
	return as_advise(c->s.asfd, SHOWN_NEW, FILE_LEN, ADDRESS_SPACE_POPULATE_WRITE);
}

static int is_all_copied(struct fail_ctx *c)
{
	return fdinfo_value(c->s.asfd, "copies") == (long long)FILE_LEN ? 0 : -EIO;
}

CALL(map_private, .run = map_run, .verify = can_be_written);
CALL(register_private, .run = register_run, .verify = is_registered);
FAULT(private_write_fault, .prepare = shown_and_read, .run = write_run,
      .verify = can_be_written);
CALL(unmap_private, .prepare = shown_and_written, .run = unmap_run,
     .verify = has_given_back);
CALL(advise_dontneed, .prepare = shown_and_written, .run = dontneed_run,
     .verify = has_given_back);
CALL(advise_populate, .prepare = map_run, .run = populate_run, .verify = is_all_copied);

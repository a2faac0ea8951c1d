/* SPDX-License-Identifier: GPL-2.0 */
/* The area of a lender, shown in the first half of a space that is attached at @mem. */
#ifndef LEND_FIXTURE_H
#define LEND_FIXTURE_H

#include "lender.h"

FIXTURE(lent)
{
	struct agent lender;
	int number;	/* the lend fd in the lender */
	int fd;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(lent)
{
	ASSERT_EQ(0, agent_start(&self->lender));
	self->number = agent_call(&self->lender, lend_area, (void *)(long)RW);
	ASSERT_LE(0, self->number);
	self->fd = agent_fd(&self->lender, self->number);
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(2 * LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	self->mem = attach(self->asfd, 0, 2 * LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(lent)
{
	munmap(self->mem, 2 * LEN);
	close(self->asfd);
	close(self->fd);
	agent_stop(&self->lender);
}

#endif

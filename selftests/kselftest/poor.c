// SPDX-License-Identifier: GPL-2.0
/*
 * A memory limit that is too low: a process that touches more than the creator's
 * cgroup may have is killed or gets SIGBUS, and no other process is affected.
 */
#include "kselftest_harness.h"
#include "lib/as_util.h"

#define GROUP	CGROUP_ROOT "/address_space_poor"

/* A space whose creator is in a group with a limit far below what the space shows. */
FIXTURE(memory_limit)
{
	struct agent creator;
	struct space rich;	/* of another process */
	int asfd;
};

#define MAY_HAVE	(16UL << 20)
#define WANTED		(64UL << 20)

static long create_wanted(void *arg)
{
	int file = memfd_pages("wanted", 0, -1), asfd = as_create(WANTED), ret;

	(void)arg;
	if (file < 0 || ftruncate(file, WANTED))
		return -EIO;
	ret = as_map(asfd, 0, file, 0, WANTED, RW, 0);
	close(file);
	return ret ?: asfd;
}

/* 0, or what the first failed access gave */
static long want(void *mem)
{
	unsigned long at;
	int ret = 0;

	for (at = 0; !ret && at < WANTED; at += PAGE)
		ret = poke((char *)mem + at, 1);
	return ret;
}

FIXTURE_SETUP(memory_limit)
{
	char limit[32];
	long ret;

	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, create_group(GROUP));
	write_text(GROUP "/memory.swap.max", "0");
	snprintf(limit, sizeof(limit), "%lu", MAY_HAVE);
	ASSERT_EQ(0, write_text(GROUP "/memory.max", limit));
	ASSERT_EQ(0, agent_start(&self->creator));
	ASSERT_EQ(0, agent_call(&self->creator, enter_group, GROUP));
	ret = agent_call(&self->creator, create_wanted, NULL);
	ASSERT_LE(0, ret);
	self->asfd = agent_fd(&self->creator, ret);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, space_init(&self->rich));
	ASSERT_EQ(0, as_map(self->rich.asfd, 0, self->rich.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(memory_limit)
{
	if (self->creator.pid)
		agent_stop(&self->creator);
	close(self->asfd);
	space_free(&self->rich);
	remove_group(GROUP);
}

TEST_F_TIMEOUT(memory_limit, kills_process_that_touches_too_much, 120)
{
	char *mem = agent_attach(&self->creator, self->asfd, 0, WANTED, RW);

	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-EPIPE, agent_call(&self->creator, want, mem));
	EXPECT_EQ(SIGKILL, agent_stop(&self->creator));
	self->creator.pid = 0;
	EXPECT_EQ('a', peek(self->rich.mem));
	EXPECT_EQ(0, poke(self->rich.mem, 'a'));
}

/*
 * There is no process to kill, and the process that accesses the memory cannot reduce
 * it: the result is the same as with a full disk.
 */
TEST_F_TIMEOUT(memory_limit, without_process_to_kill_is_sigbus, 120)
{
	struct agent other;
	char *mem;

	ASSERT_EQ(0, agent_stop(&self->creator));
	self->creator.pid = 0;
	ASSERT_EQ(0, agent_start(&other));
	mem = agent_attach(&other, self->asfd, 0, WANTED, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-SIGBUS, agent_call(&other, want, mem));
	/* pages within the limit stay accessible */
	EXPECT_EQ(1, agent_peek(&other, mem));
	EXPECT_EQ('a', peek(self->rich.mem));
	EXPECT_EQ(0, agent_stop(&other));
}

TEST_HARNESS_MAIN

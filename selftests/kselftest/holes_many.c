// SPDX-License-Identifier: GPL-2.0
/*
 * Very many accesses to holes, by somebody who has a view and means ill: they take no memory
 * of the owner's, fill nothing that others need, and end when they are to end.
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"

#define OWNER	CGROUP_ROOT "/address_space_owner"
#define HOLDER	CGROUP_ROOT "/address_space_holder"

#define PAGES		(1UL << 15)
#define TASKS		2000U
#define TIMEOUT_MS	200
#define LONG_MS		60000
#define KEPT		256	/* events */
/* Charges are rounded up and updated late, a batch for each CPU. */
#define SLACK		(2L << 20)

/* what the holder uses, in memory that it shares with the owner */
struct holder {
	char *mem;
	volatile unsigned int ended;
	volatile unsigned int refused;
};

static struct holder *holder;

FIXTURE(owner)
{
	struct agent holder;
	int asfd, events, view;
};

FIXTURE_SETUP(owner)
{
	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, create_group(OWNER));
	ASSERT_EQ(0, create_group(HOLDER));
	holder = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)holder);
	ASSERT_EQ(0, agent_start(&self->holder));
	ASSERT_EQ(0, agent_call(&self->holder, enter_group, HOLDER));
	ASSERT_EQ(0, enter_group(OWNER));
	self->asfd = as_create(2 * PAGES * PAGE);
	ASSERT_LE(0, self->asfd);
	self->events = self->view = -1;
}

/* The owner watches, and the holder has a view. */
static int give_view(FIXTURE_DATA(owner) *self, uint32_t holes, uint32_t timeout_ms)
{
	self->events = as_events(self->asfd, 0, 0, timeout_ms);
	self->view = as_view_flags(self->asfd, 0, 2 * PAGES * PAGE, RW, holes);
	if (self->events < 0 || self->view < 0)
		return -EIO;
	fcntl(self->events, F_SETFL, O_NONBLOCK);
	holder->mem = agent_attach(&self->holder, self->view, 0, 2 * PAGES * PAGE, RW);
	return holder->mem ? 0 : -EIO;
}

FIXTURE_TEARDOWN(owner)
{
	agent_stop(&self->holder);
	close(self->events);
	close(self->view);
	close(self->asfd);
	enter_group(CGROUP_ROOT);
	remove_group(HOLDER);
	remove_group(OWNER);
}

static long charged(const char *group)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/memory.current", group);
	return number_in(path, NULL);
}

/* All pages: holes, and what a file of one page does not have. */
static long touch_all(void *arg)
{
	unsigned long page;

	(void)arg;
	for (page = 0; page < 2 * PAGES; page++)
		if (poke(holder->mem + page * PAGE, 1))
			return -EIO;
	return 0;
}

static unsigned int read_all(int fd, uint64_t *lost)
{
	struct address_space_event event;
	unsigned int count = 0;

	*lost = 0;
	while (read(fd, &event, sizeof(event)) == sizeof(event)) {
		if (event.type == ADDRESS_SPACE_EVENT_OVERFLOW)
			*lost += event.offset;
		else
			count++;
	}
	return count;
}

TEST_F_TIMEOUT(owner, pays_nothing_for_accesses_that_are_absorbed, 300)
{
	int fd = memfd_pages("short", 1, 'x');
	long before;
	uint64_t lost;
	unsigned int told;

	ASSERT_EQ(0, give_view(self, ADDRESS_SPACE_HOLE_ABSORB, 0));
	ASSERT_EQ(0, as_map(self->asfd, PAGES * PAGE, fd, 0, PAGES * PAGE, RW, 0));
	before = charged(OWNER);
	while (agent_call(&self->holder, touch_all, NULL) == -ETIMEDOUT)
		;
	EXPECT_GE(before + SLACK, charged(OWNER));
	TH_LOG("%ld KiB of the owner's", (charged(OWNER) - before) >> 10);
	told = read_all(self->events, &lost);
	EXPECT_GE((unsigned int)KEPT, told);
	/* each was told, or counted */
	EXPECT_LE(2 * PAGES - 1, told + lost);
}

static void *touch_one(void *arg)
{
	if (peek(arg) < 0)
		__atomic_add_fetch(&holder->refused, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&holder->ended, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Each task touches a page of its own. */
static long start_tasks(void *arg)
{
	unsigned int count = (uintptr_t)arg, i;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 1 << 16);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (i = 0; i < count; i++) {
		pthread_t thread;
		int err = pthread_create(&thread, &attr, touch_one, holder->mem + i * PAGE);

		if (err)
			return -err;
	}
	return 0;
}

static bool all_wait(int asfd, unsigned int count)
{
	uint64_t end = now_ms() + LONG_MS;

	while (fdinfo_value(asfd, "waiting") != count) {
		if (now_ms() > end)
			return false;
		sleep_ms(10);
	}
	return true;
}

TEST_F_TIMEOUT(owner, pays_nothing_for_tasks_that_wait, 300)
{
	int fd = memfd_pages("data", 1, 'x');
	long before, paid, ret;
	unsigned int round;
	uint64_t lost;
	int pid;

	ASSERT_EQ(0, give_view(self, ADDRESS_SPACE_HOLE_WAIT, 0));
	before = charged(OWNER);
	paid = charged(HOLDER);
	ret = agent_call(&self->holder, start_tasks, (void *)(uintptr_t)TASKS);
	/* when the machine is slow */
	ASSERT_TRUE(ret == 0 || ret == -ETIMEDOUT);
	ASSERT_TRUE(all_wait(self->asfd, TASKS));
	EXPECT_GE(before + SLACK, charged(OWNER));
	EXPECT_LT(paid, charged(HOLDER));
	TH_LOG("%u tasks, %ld KiB of the owner's, %ld KiB of their own", TASKS,
	       (charged(OWNER) - before) >> 10, (charged(HOLDER) - paid) >> 10);
	/* the owner goes on elsewhere, and hears of each */
	for (round = 0; round < 100; round++) {
		ASSERT_EQ(0, as_map(self->asfd, PAGES * PAGE, fd, 0, PAGE, RW, 0));
		ASSERT_EQ(0, as_unmap(self->asfd, PAGES * PAGE, PAGE));
	}
	EXPECT_EQ(TASKS, read_all(self->events, &lost));
	EXPECT_EQ(0ULL, lost);
	EXPECT_EQ(TASKS, fdinfo_value(self->asfd, "waiting"));
	/* some get a page, and all others die */
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, PAGE, RW, 0));
	ASSERT_TRUE(all_wait(self->asfd, TASKS - 1));
	EXPECT_EQ(0U, holder->refused);
	pid = self->holder.pid;
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_TRUE(all_wait(self->asfd, 0));
	EXPECT_EQ(0U, read_all(self->events, &lost));
}

TEST_F_TIMEOUT(owner, has_tasks_time_out_together, 300)
{
	uint64_t start, end;
	long ret;

	ASSERT_EQ(0, give_view(self, ADDRESS_SPACE_HOLE_WAIT, TIMEOUT_MS));
	start = now_ms();
	ret = agent_call(&self->holder, start_tasks, (void *)(uintptr_t)TASKS);
	ASSERT_TRUE(ret == 0 || ret == -ETIMEDOUT);
	end = now_ms();
	while (holder->ended < TASKS) {
		ASSERT_GT(end + LONG_MS, now_ms()) TH_LOG("%u have ended", holder->ended);
		sleep_ms(10);
	}
	EXPECT_EQ(TASKS, holder->refused);
	EXPECT_EQ(0, fdinfo_value(self->asfd, "waiting"));
	TH_LOG("%d ms to start %u, %d ms until the last has ended", (int)(end - start), TASKS,
	       (int)(now_ms() - end));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * A task that changes a file, and is kept from running meanwhile: it is of the idle class, on a
 * CPU on which another never pauses. The kernel has one count of what is under way in an mm, so
 * the first access to another file of the space may have to wait; but nobody waits for a lock of
 * whoever accesses it.
 */
#include <sched.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define BIG		(256UL << 20)	/* so much takes long to be unmapped */
#define LENGTH		(BIG + PAGE)
#define ROUNDS		10
#define AWHILE_MS	200
#define PATIENCE_MS	2000UL
#define HOG_MS		(4 * PATIENCE_MS)

/* Shared by all processes of the test. */
struct shared {
	int file;
	volatile bool punched, stop;
};

FIXTURE(starved)
{
	int asfd, big, small;
	char *window;	/* of the page behind the big file */
	struct shared *shared;
};

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static void *hog(void *arg)
{
	struct shared *shared = arg;
	uint64_t end = now_ms() + HOG_MS;

	run_on(0);
	while (!shared->stop && now_ms() < end)
		;
	return NULL;
}

static void *punch(void *arg)
{
	const struct sched_param param = { 0 };
	struct shared *shared = arg;

	run_on(0);
	sched_setscheduler(0, SCHED_IDLE, &param);
	fallocate(shared->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BIG);
	shared->punched = true;
	return NULL;
}

struct access {
	char *at;
	volatile int value;
	volatile bool done;
};

static void *access_once(void *arg)
{
	struct access *access = arg;

	access->value = peek(access->at);
	access->done = true;
	return NULL;
}

FIXTURE_SETUP(starved)
{
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "there is no CPU for whoever waits");
	if (!access("/sys/kernel/realtime", F_OK))
		SKIP(return, "whoever holds a spinlock may be kept from running");
	run_on(1);
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->shared);
	self->big = memfd_create("big", MFD_CLOEXEC);
	ASSERT_LE(0, self->big);
	ASSERT_EQ(0, ftruncate(self->big, BIG));
	self->shared->file = self->big;
	self->small = memfd_pages("small", 1, 's');
	ASSERT_LE(0, self->small);
	self->asfd = as_create(LENGTH);
	ASSERT_LE(0, self->asfd);
	self->window = attach(self->asfd, BIG, PAGE, RW);
	ASSERT_NE(NULL, self->window);
}

FIXTURE_TEARDOWN(starved)
{
	munmap(self->window, PAGE);
	close(self->asfd);
	close(self->small);
	close(self->big);
	munmap(self->shared, PAGE);
}

TEST_F(starved, change_of_a_file_has_who_waits_hold_no_lock)
{
	struct shared *shared = self->shared;
	bool has_waited = false;

	for (int round = 0; round < ROUNDS && !has_waited; round++) {
		struct access access = { .at = self->window };
		pid_t hogs, punches;
		long long before;
		pthread_t thread;
		uint64_t began;

		ASSERT_EQ(0, as_map(self->asfd, 0, self->big, 0, BIG, RW,
				    ADDRESS_SPACE_MAP_REPLACE | ADDRESS_SPACE_MAP_POPULATE));
		shared->punched = shared->stop = false;
		before = fdinfo_value(self->asfd, "invalidations");
		hogs = start_process(hog, shared);
		ASSERT_LT(0, hogs);
		punches = start_process(punch, shared);
		ASSERT_LT(0, punches);
		began = now_ms();
		while (fdinfo_value(self->asfd, "invalidations") == before &&
		       now_ms() - began < HOG_MS)
			sleep_ms(1);

		/* what is mapped now may be concerned, as far as the kernel knows */
		began = now_ms();
		ASSERT_EQ(0, as_map(self->asfd, BIG, self->small, 0, PAGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		EXPECT_GT(PATIENCE_MS, now_ms() - began);
		ASSERT_EQ(0, pthread_create(&thread, NULL, access_once, &access));
		sleep_ms(AWHILE_MS);
		has_waited = !access.done && !shared->punched;
		began = now_ms();
		EXPECT_EQ(0, mprotect(self->window, PAGE, PROT_READ));
		EXPECT_GT(PATIENCE_MS, now_ms() - began);

		shared->stop = true;
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_EQ('s', access.value);
		EXPECT_EQ(punches, waitpid(punches, NULL, 0));
		EXPECT_EQ(hogs, waitpid(hogs, NULL, 0));
		EXPECT_EQ(0, mprotect(self->window, PAGE, RW));
		ASSERT_EQ(0, as_unmap(self->asfd, BIG, PAGE));
	}
	/* what has failed stays so */
	if (!has_waited && _metadata->exit_code == KSFT_PASS)
		SKIP(return, "no change was caught in the middle");
}

TEST_HARNESS_MAIN

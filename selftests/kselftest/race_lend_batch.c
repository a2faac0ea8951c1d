// SPDX-License-Identifier: GPL-2.0
/*
 * A lender changes its memory, or takes it back, while the owner of the address space is at
 * a change that takes long: a batch of many places in many attachments, the lent page last;
 * or an unmap of many pages, which is not of the lent page.
 * All in one process, which lends to itself. Each test runs for race_ms(), and for a
 * minimum of rounds.
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define AREA	((char *)0x200000000000UL)
#define PLACES	300U	/* of a page, with as many of another file between them */
#define WINDOWS	60U
#define MANY	(16UL << 20)	/* bytes that are unmapped as one */
#define LENT	MANY	/* where the lent page is shown, beyond all others */
#define LENGTH	(LENT + PAGE)
#define AFRESH	(ADDRESS_SPACE_MAP_POPULATE | ADDRESS_SPACE_MAP_REPLACE)
#define LEAST	6	/* minimum of rounds, however slow the machine is */
#define DELAY_US	20000	/* the most that is waited for the batch to be under way */

FIXTURE(lender)
{
	int asfd, file, lend;
	char *window[WINDOWS];
	struct address_space_op map[2 * PLACES + 1], unmap[PLACES + 1];
	unsigned int maps, unmaps;
	struct writer writer;
	pthread_t batch;
	uint64_t until;
	unsigned int rounds, seed;
};

FIXTURE_VARIANT(lender)
{
	bool places;
};

FIXTURE_VARIANT_ADD(lender, many_places) { .places = true };
FIXTURE_VARIANT_ADD(lender, many_pages) { .places = false };

static void *make_batch(void *arg)
{
	FIXTURE_DATA(lender) *self = arg;

	return (void *)(long)as_batch(self->asfd, self->unmap, self->unmaps, NULL);
}

FIXTURE_SETUP(lender)
{
	self->seed = 1;
	self->asfd = as_create(LENGTH);
	ASSERT_LE(0, self->asfd);
	if (variant->places) {
		self->file = memfd_pages("file", 2, 'a');
		for (unsigned int place = 0; place < 2 * PLACES; place++)
			self->map[self->maps++] = op_map(place * PAGE, self->file, place % 2 * PAGE,
							 PAGE, RW, AFRESH);
		for (unsigned int place = 0; place < PLACES; place++)
			self->unmap[self->unmaps++] = op_unmap(2 * place * PAGE, PAGE);
		self->unmap[self->unmaps++] = op_unmap(LENT, PAGE);
	} else {
		self->file = memfd_pages("file", MANY / PAGE, 0);
		self->map[self->maps++] = op_map(0, self->file, 0, MANY, RW, AFRESH);
		self->unmap[self->unmaps++] = op_unmap(0, MANY);
	}
	for (unsigned int w = 0; w < WINDOWS; w++) {
		self->window[w] = attach(self->asfd, 0, LENGTH, RW);
		ASSERT_NE(NULL, self->window[w]);
	}
	self->until = now_ms() + race_ms();
}

FIXTURE_TEARDOWN(lender)
{
	for (unsigned int w = 0; w < WINDOWS; w++)
		munmap(self->window[w], LENGTH);
	close(self->file);
	close(self->asfd);
	TH_LOG("%u rounds", self->rounds);
}

static bool go_on(FIXTURE_DATA(lender) *self)
{
	return now_ms() < self->until || self->rounds < LEAST;
}

/* All windows have all places, and the lent page; and the batch begins. */
static int begin(FIXTURE_DATA(lender) *self)
{
	int ret;

	self->rounds++;
	if (mmap(AREA, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != AREA)
		return -errno;
	*(volatile uint64_t *)AREA = self->rounds;
	self->lend = as_lend(AREA, PAGE, RW);
	if (self->lend < 0)
		return self->lend;
	self->map[self->maps] = op_map(LENT, self->lend, 0, PAGE, RW, AFRESH);
	ret = as_batch(self->asfd, self->map, self->maps + 1, NULL);
	for (unsigned int w = 0; !ret && w < WINDOWS; w++) {
		uint64_t value;

		ret = peek64(self->window[w] + LENT, &value);
	}
	return ret ?: -pthread_create(&self->batch, NULL, make_batch, self);
}

static int end(FIXTURE_DATA(lender) *self)
{
	void *ret;

	pthread_join(self->batch, &ret);
	close(self->lend);
	return (long)ret;
}

static void wait_somewhat(FIXTURE_DATA(lender) *self)
{
	usleep(rand_r(&self->seed) % DELAY_US);
}

TEST_F_TIMEOUT(lender, munmap_is_seen_when_it_returns_whatever_the_owner_does, 600)
{
	unsigned int seen = 0;

	while (go_on(self)) {
		uint64_t value = 0;

		ASSERT_EQ(0, begin(self));
		wait_somewhat(self);
		ASSERT_EQ(0, munmap(AREA, PAGE));
		for (unsigned int w = 0; w < WINDOWS; w++)
			seen += peek64(self->window[w] + LENT, &value) != -SIGBUS;
		ASSERT_EQ(0, end(self));
	}
	EXPECT_EQ(0U, seen);
}

static void *take_back(void *arg)
{
	FIXTURE_DATA(lender) *self = arg;

	return (void *)(long)as_lend_revoke(self->lend);
}

TEST_F_TIMEOUT(lender, fork_while_it_takes_back_leaves_the_child_its_memory, 600)
{
	while (go_on(self)) {
		pthread_t revoke;
		int status;
		pid_t pid;

		ASSERT_EQ(0, begin(self));
		ASSERT_EQ(0, writer_start(&self->writer, self->window[0] + LENT));
		ASSERT_EQ(0, pthread_create(&revoke, NULL, take_back, self));
		wait_somewhat(self);
		pid = fork();
		if (!pid) {
			volatile uint64_t *own = (void *)AREA;
			uint64_t before = *own;

			usleep(2000);
			_exit(*own != before);
		}
		ASSERT_LT(0, pid);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		pthread_join(revoke, NULL);
		writer_stop(&self->writer);
		ASSERT_EQ(0, end(self));
		ASSERT_EQ(0, munmap(AREA, PAGE));
	}
}

TEST_HARNESS_MAIN

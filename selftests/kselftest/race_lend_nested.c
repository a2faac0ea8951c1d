// SPDX-License-Identifier: GPL-2.0
/*
 * A process lends all of its memory, and has windows of the very address space where memory
 * was that it had lent before: to zap those is to call its own notifiers back. For race_ms(),
 * and for a minimum of rounds.
 */
#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define GIB	(1UL << 30)
#define SPAN	(40 * GIB)	/* as many tables of frames as nobody looks through at once */
#define AREA	((char *)0x200000000000UL)
#define LENT	((char *)0x300000000000UL)
#define SHOWN	SPAN		/* where in the space lent pages are */
#define PAGES	(SPAN / GIB + 1)
#define LENGTH	(SHOWN + PAGES * PAGE)
#define PLACES	32768U		/* that the owner unmaps as one, which takes long */
#define APART	(2 * PAGE)
#define LATE_MS	10000U
#define LEAST	6		/* minimum of rounds, however slow the machine is */

FIXTURE(nested)
{
	int asfd, lend, file;
	char *window;
	struct address_space_op *map;
	volatile bool stop;
	unsigned int unmaps;
	pthread_t owner;
};

/* What takes long: all of the windows where memory was. */
static void *map_and_unmap(void *arg)
{
	FIXTURE_DATA(nested) *self = arg;
	int ret = 0;

	while (!ret && !self->stop) {
		ret = as_batch(self->asfd, self->map, PLACES, NULL);
		ret = ret ?: as_unmap(self->asfd, 0, SPAN);
		self->unmaps++;
	}
	return (void *)(long)ret;
}

FIXTURE_SETUP(nested)
{
	char *area;
	uint64_t value;

	self->asfd = as_create(LENGTH);
	ASSERT_LE(0, self->asfd);
	self->file = memfd_pages("file", 1, 'a');
	self->lend = as_lend(NULL, 0, RW);
	ASSERT_LE(0, self->lend);
	self->window = attach(self->asfd, 0, LENGTH, RW);
	ASSERT_NE(NULL, self->window);
	area = mmap(AREA, SPAN, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
		    MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_EQ(AREA, area);
	ASSERT_EQ(LENT, mmap(LENT, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0));
	/* A page of each GiB, so that there is a table for it from now on. */
	for (unsigned int i = 0; i < PAGES; i++) {
		char *page = i + 1 < PAGES ? AREA + i * GIB : LENT;

		*(volatile uint64_t *)page = i;
		ASSERT_EQ(0, as_map(self->asfd, SHOWN + i * PAGE, self->lend,
				    (uintptr_t)page, PAGE, RW, 0));
		ASSERT_EQ(0, peek64(self->window + SHOWN + i * PAGE, &value));
		ASSERT_EQ(i, value);
	}
	ASSERT_EQ(0, munmap(AREA, SPAN));
	ASSERT_EQ(AREA, mmap(AREA, SPAN, RW, MAP_SHARED | MAP_FIXED, self->asfd, 0));
	self->map = calloc(PLACES, sizeof(*self->map));
	ASSERT_NE(NULL, self->map);
	for (unsigned int i = 0; i < PLACES; i++)
		self->map[i] = op_map(i * APART, self->file, 0, PAGE, RW,
				      ADDRESS_SPACE_MAP_POPULATE);
	ASSERT_EQ(0, pthread_create(&self->owner, NULL, map_and_unmap, self));
}

FIXTURE_TEARDOWN(nested)
{
	void *ret;

	self->stop = true;
	pthread_join(self->owner, &ret);
	EXPECT_EQ(NULL, ret);
	TH_LOG("%u unmaps", self->unmaps);
	free(self->map);
	close(self->lend);
	close(self->file);
	close(self->asfd);
}

TEST_F_TIMEOUT(nested, zap_that_calls_back_its_own_notifier_ends, 600)
{
	char *shown = self->window + SHOWN + (PAGES - 1) * PAGE;
	uint64_t until = now_ms() + race_ms(), value;
	unsigned int rounds = 0;

	while (now_ms() < until || rounds < LEAST) {
		uint64_t late = now_ms() + LATE_MS;

		*(volatile uint64_t *)LENT = ++rounds;
		/* What was there before may be seen for a moment, as the owner zaps alone. */
		do {
			ASSERT_EQ(0, peek64(shown, &value));
		} while (value != rounds && now_ms() < late);
		ASSERT_EQ(rounds, value);
		ASSERT_EQ(0, madvise(LENT, PAGE, MADV_DONTNEED));
	}
	TH_LOG("%u rounds", rounds);
}

TEST_HARNESS_MAIN

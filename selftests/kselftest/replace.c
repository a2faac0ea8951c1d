// SPDX-License-Identifier: GPL-2.0
/*
 * Every reader sees a replace as the old or the new, never as a hole, and after it
 * has returned as the new only.
 */
#include <sched.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define LEAST	100	/* minimum of rounds, however slow the machine is */

/*
 * Shared by readers and the replacer, across processes. @seq is odd while a replace
 * is under way; while it is even, all readers must see @now.
 */
struct shared {
	volatile unsigned int seq;
	volatile int now;
	volatile bool stop;
	volatile unsigned long reads, checked;
	volatile unsigned long holes, strangers, stale;
	volatile int strange;
};

FIXTURE(replace_race)
{
	struct space s;
	struct shared *shared;
	char *at;		/* the page that is replaced */
};

FIXTURE_VARIANT(replace_race)
{
	unsigned int pages;	/* how much is replaced at once */
	bool write;		/* readers also write */
};

FIXTURE_VARIANT_ADD(replace_race, one_page) { .pages = 1, .write = false };
FIXTURE_VARIANT_ADD(replace_race, sixteen_pages) { .pages = FILE_PAGES, .write = false };
FIXTURE_VARIANT_ADD(replace_race, written) { .pages = 1, .write = true };

static int begin(struct space *s, struct shared **shared)
{
	unsigned int i;
	int ret = space_init(s);

	/* every page of the first reads as 'a', of the other as 'A' */
	for (i = 0; !ret && i < FILE_PAGES; i++)
		ret = file_set(s->a, i * PAGE, 'a') ?:
		      file_set(s->b, i * PAGE, 'A');
	if (!ret)
		ret = as_map(s->asfd, 0, s->a, 0, FILE_LEN, RW, 0);
	*shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (*shared == MAP_FAILED)
		return -errno;
	(*shared)->now = 'a';
	return ret;
}

FIXTURE_SETUP(replace_race)
{
	ASSERT_EQ(0, begin(&self->s, &self->shared));
	self->at = self->s.mem;
}

FIXTURE_TEARDOWN(replace_race)
{
	space_free(&self->s);
}

struct reader {
	struct shared *shared;
	const char *at;
	unsigned int pages;
	bool write;
	pthread_t thread;
	pid_t pid;
};

static void *read_forever(void *arg)
{
	struct reader *r = arg;
	struct shared *shared = r->shared;
	unsigned int page = 0;

	while (!shared->stop) {
		unsigned int before = __atomic_load_n(&shared->seq, __ATOMIC_ACQUIRE);
		int want = shared->now, got;

		page = (page + 1) % r->pages;
		got = peek(r->at + page * PAGE);
		if (r->write && poke((char *)r->at + page * PAGE + 1, 'w') < 0)
			__atomic_add_fetch(&shared->holes, 1, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		__atomic_add_fetch(&shared->reads, 1, __ATOMIC_RELAXED);
		if (got < 0) {
			__atomic_add_fetch(&shared->holes, 1, __ATOMIC_RELAXED);
		} else if (got != 'a' && got != 'A') {
			shared->strange = got;
			__atomic_add_fetch(&shared->strangers, 1, __ATOMIC_RELAXED);
		} else if (before % 2 == 0 && before == shared->seq) {
			__atomic_add_fetch(&shared->checked, 1, __ATOMIC_RELAXED);
			if (got != want)
				__atomic_add_fetch(&shared->stale, 1,
						   __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static int start_reader(struct reader *r, bool process)
{
	if (!process)
		return pthread_create(&r->thread, NULL, read_forever, r);
	r->pid = start_process(read_forever, r);
	return r->pid < 0 ? r->pid : 0;
}

static void stop_readers(struct reader *r, unsigned int n)
{
	unsigned int i;

	r->shared->stop = true;
	for (i = 0; i < n; i++) {
		if (r[i].pid)
			waitpid(r[i].pid, NULL, 0);
		else
			pthread_join(r[i].thread, NULL);
	}
}

/* swaps the files, and lets a reader run now and then */
static int replace_rounds(struct space *s, struct shared *shared,
			  unsigned int pages)
{
	uint64_t until = now_ms() + race_ms();
	unsigned int i;

	for (i = 0; i < LEAST || now_ms() < until; i++) {
		int file = i % 2 ? s->a : s->b;
		unsigned long seen = shared->reads;
		int ret;

		__atomic_add_fetch(&shared->seq, 1, __ATOMIC_SEQ_CST);
		ret = as_map(s->asfd, 0, file, 0, pages * PAGE, RW,
			     ADDRESS_SPACE_MAP_REPLACE);
		if (ret)
			return ret;
		shared->now = i % 2 ? 'a' : 'A';
		__atomic_add_fetch(&shared->seq, 1, __ATOMIC_SEQ_CST);
		while (i % 4 == 3 && shared->reads < seen + 4)
			sched_yield();
	}
	return i;
}

#define EXPECT_OLD_OR_NEW(shared, rounds) do {				\
	EXPECT_EQ(0UL, (shared)->holes);				\
	EXPECT_EQ(0UL, (shared)->strangers)				\
		TH_LOG("a reader saw %#x", (shared)->strange);		\
	EXPECT_EQ(0UL, (shared)->stale);				\
	/* otherwise there was no reader */					\
	EXPECT_LT((unsigned long)(rounds) / 4, (shared)->reads);	\
	EXPECT_LT(20UL, (shared)->checked);				\
} while (0)

TEST_F_TIMEOUT(replace_race, shows_no_hole_to_threads, 90)
{
	struct reader r[2];
	unsigned int i;
	int rounds;

	for (i = 0; i < 2; i++) {
		r[i] = (struct reader){ self->shared, self->at, variant->pages,
					variant->write, 0, 0 };
		ASSERT_EQ(0, start_reader(&r[i], false));
	}
	rounds = replace_rounds(&self->s, self->shared, variant->pages);
	stop_readers(r, 2);
	EXPECT_LE(LEAST, rounds);
	EXPECT_OLD_OR_NEW(self->shared, rounds);
}

TEST_F_TIMEOUT(replace_race, shows_no_hole_to_processes_and_views, 90)
{
	int view = as_view(self->s.asfd, 0, FILE_LEN, RW);
	char *at_view = attach(view, 0, FILE_LEN, RW);
	struct reader r[3];
	unsigned int i;
	int rounds;

	ASSERT_NE(NULL, at_view);
	for (i = 0; i < 3; i++) {
		r[i] = (struct reader){ self->shared, i == 1 ? at_view : self->at,
					variant->pages, variant->write, 0, 0 };
		ASSERT_EQ(0, start_reader(&r[i], i < 2));
	}
	rounds = replace_rounds(&self->s, self->shared, variant->pages);
	stop_readers(r, 3);
	EXPECT_LE(LEAST, rounds);
	EXPECT_OLD_OR_NEW(self->shared, rounds);
}

/* The same, without variants for the length of the replaced range. */
FIXTURE(replace)
{
	struct space s;
	struct shared *shared;
	char *at;
};

FIXTURE_SETUP(replace)
{
	ASSERT_EQ(0, begin(&self->s, &self->shared));
	self->at = self->s.mem;
}

FIXTURE_TEARDOWN(replace)
{
	space_free(&self->s);
}

/* The middle of a large mapping is swapped: the pages next to it stay mapped. */
TEST_F_TIMEOUT(replace, leaves_neighbours_alone, 90)
{
	struct reader r = { self->shared, self->at + 2 * PAGE, 1, false, 0, 0 };
	unsigned int i;

	self->shared->now = 'a';
	ASSERT_EQ(0, start_reader(&r, false));
	/* As long as it takes until the reader has seen a part of it. */
	for (i = 0; i < 150 || self->shared->checked <= 100; i++) {
		int file = i % 2 ? self->s.a : self->s.b;

		ASSERT_EQ(0, as_map(self->s.asfd, PAGE, file, PAGE, PAGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(0, as_map(self->s.asfd, 3 * PAGE, file, 0, PAGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		if (i % 8 == 0)
			ASSERT_EQ(0, as_unmap(self->s.asfd, 3 * PAGE, 13 * PAGE));
	}
	stop_readers(&r, 1);
	EXPECT_EQ(0UL, self->shared->holes);
	EXPECT_EQ(0UL, self->shared->stale);
	EXPECT_LT(100UL, self->shared->checked);
}

/* A failed replace leaves the old pages visible all the time. */
TEST_F_TIMEOUT(replace, that_fails_is_never_visible, 60)
{
	struct reader r = { self->shared, self->at, 1, false, 0, 0 };
	int path = open("/tmp", O_PATH);
	int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
	unsigned int i;

	ASSERT_EQ(0, start_reader(&r, false));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(-EBADF, as_map(self->s.asfd, 0, path, 0, PAGE, RW,
					 ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(-ENODEV, as_map(self->s.asfd, 0, dir, 0, PAGE, PROT_READ,
					  ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(-EINVAL, as_map(self->s.asfd, 0, self->s.b, 0,
					  SPACE_LEN + PAGE, RW,
					  ADDRESS_SPACE_MAP_REPLACE));
	}
	while (self->shared->checked < 100)
		sched_yield();
	stop_readers(&r, 1);
	EXPECT_EQ(0UL, self->shared->holes);
	EXPECT_EQ(0UL, self->shared->stale);
}

/* A file that was never mapped before has to be read in: there is no hole, either. */
TEST_F_TIMEOUT(replace, by_new_file_shows_no_hole, 90)
{
	struct reader r = { self->shared, self->at, 1, false, 0, 0 };
	unsigned int i;

	ASSERT_EQ(0, start_reader(&r, false));
	for (i = 0; i < 60; i++) {
		int file = memfd_pages("new", 1, i % 2 ? 'a' : 'A');

		ASSERT_LE(0, file);
		__atomic_add_fetch(&self->shared->seq, 1, __ATOMIC_SEQ_CST);
		ASSERT_EQ(0, as_map(self->s.asfd, 0, file, 0, PAGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		self->shared->now = i % 2 ? 'a' : 'A';
		__atomic_add_fetch(&self->shared->seq, 1, __ATOMIC_SEQ_CST);
		ASSERT_EQ(0, close(file));
	}
	stop_readers(&r, 1);
	EXPECT_OLD_OR_NEW(self->shared, i);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * The promises under concurrency. Each test runs for race_ms(), and for a minimum of
 * rounds, and checks in every round that a revoked value is not readable: POISON is
 * in the file only while no mapping shows it.
 */
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define POISON		0xdeadULL
#define PAGES		8
#define LEN		(PAGES * PAGE)
#define TIMEOUT		120
#define LEAST		12	/* minimum of rounds, however slow the machine is */

/* Shared by all threads and processes of a test. */
struct shared {
	volatile bool stop;
	volatile bool revoked;		/* no page may be accessible now */
	volatile uint64_t reads, hits, poisoned, signals, odd;
	volatile uint64_t odd_value;
};

FIXTURE(race)
{
	int asfd, file;
	char *mem;
	struct shared *shared;
	uint64_t until;
};

/* Whether pages are installed in all attachments when they are mapped. */
FIXTURE_VARIANT(race)
{
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(race, touched) { .flags = 0 };
FIXTURE_VARIANT_ADD(race, populated) { .flags = ADDRESS_SPACE_MAP_POPULATE };

FIXTURE_SETUP(race)
{
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	self->file = memfd_pages("race", PAGES, 0);
	ASSERT_LE(0, self->file);
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	self->until = now_ms() + race_ms();
}

FIXTURE_TEARDOWN(race)
{
	close(self->asfd);
}

struct worker {
	struct shared *shared;
	int asfd, file;
	char *mem;
	unsigned int seed;
	uint32_t flags;		/* flags of the maps */
};

static void bump(volatile uint64_t *count)
{
	__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
}

/* Reads a page; a reader that sees POISON has reached what was revoked. */
static void look(struct shared *shared, const char *at)
{
	uint64_t value;

	bump(&shared->reads);
	if (peek64(at, &value)) {
		bump(&shared->signals);
		return;
	}
	bump(&shared->hits);
	if (value == POISON)
		bump(&shared->poisoned);
}

static void *look_forever(void *arg)
{
	struct worker *w = arg;

	while (!w->shared->stop)
		look(w->shared, w->mem + rand_r(&w->seed) % PAGES * PAGE);
	return NULL;
}

/* attach, read, detach: an attachment that begins during another change */
static void *attach_forever(void *arg)
{
	struct worker *w = arg;

	while (!w->shared->stop) {
		unsigned int i;
		char *mem = attach(w->asfd, 0, LEN, RW);

		if (!mem) {
			bump(&w->shared->odd);
			break;
		}
		for (i = 0; i < PAGES; i++)
			look(w->shared, mem + i * PAGE);
		munmap(mem, LEN);
	}
	return NULL;
}

static void *move_forever(void *arg)
{
	struct worker *w = arg;
	char *room = mmap(NULL, 4 * LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *mem = attach(w->asfd, 0, LEN, RW);
	unsigned int i, step;

	for (step = 0; !w->shared->stop; step++) {
		char *to = room + step % 3 * LEN + PAGE;

		mem = mremap(mem, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		if (mem != to) {
			bump(&w->shared->odd);
			break;
		}
		for (i = 0; i < PAGES; i++)
			look(w->shared, mem + i * PAGE);
	}
	return NULL;
}

static void *protect_forever(void *arg)
{
	struct worker *w = arg;
	char *mem = attach(w->asfd, 0, LEN, RW);

	while (!w->shared->stop) {
		unsigned int page = rand_r(&w->seed) % PAGES;

		mprotect(mem + page * PAGE, PAGE, PROT_READ);
		look(w->shared, mem + page * PAGE);
		mprotect(mem + page * PAGE, PAGE, RW);
		look(w->shared, mem + page * PAGE);
	}
	return NULL;
}

/* Children that are forked during a change, and read for a moment. */
static void *fork_forever(void *arg)
{
	struct worker *w = arg;

	while (!w->shared->stop) {
		pid_t pid = fork();

		if (pid == 0) {
			unsigned int i;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (i = 0; i < 64; i++)
				look(w->shared, w->mem + i % PAGES * PAGE);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			bump(&w->shared->odd);
	}
	return NULL;
}

/*
 * Map; unmap; and only then poison the file for a while, in which no reader may see
 * it; and restore it before it is mapped again. Twice: a part and the whole.
 */
static int revoke_rounds(struct worker *w, uint64_t until, bool replace, int other)
{
	int rounds = 0, ret;

	while (now_ms() < until || rounds < LEAST) {
		unsigned int first = replace ? 0 : rounds % 3;
		unsigned int n = replace ? PAGES : PAGES - rounds % 2 - first;
		uint64_t seen, waited = now_ms() + 3000;

		ret = file_set_words(w->file, PAGES, rounds) ?:
		      as_map(w->asfd, first * PAGE, w->file, first * PAGE,
			     n * PAGE, RW,
			     w->flags | (replace ? ADDRESS_SPACE_MAP_REPLACE : 0));
		if (ret)
			return ret;
		seen = w->shared->hits;
		while (w->shared->hits < seen + 4 && now_ms() < waited)
			sched_yield();
		ret = replace ? as_map(w->asfd, 0, other, 0, LEN, RW,
				       w->flags | ADDRESS_SPACE_MAP_REPLACE) :
				as_unmap(w->asfd, first * PAGE, n * PAGE);
		if (ret)
			return ret;
		ret = file_set_words(w->file, PAGES, POISON);
		if (ret)
			return ret;
		seen = w->shared->reads;
		while (w->shared->reads < seen + 8 && now_ms() < waited)
			sched_yield();
		rounds++;
	}
	w->shared->stop = true;
	return rounds;
}

#define EXPECT_NOTHING_REACHED(shared, rounds) do {			\
	EXPECT_LE(LEAST, rounds);					\
	EXPECT_EQ(0ULL, (shared)->poisoned);				\
	EXPECT_EQ(0ULL, (shared)->odd);					\
	/* otherwise there was no reader */				\
	EXPECT_LT(100ULL, (shared)->hits);				\
	TH_LOG("%d rounds, %ju reads, %ju hits, %ju signals", rounds,	\
	       (uintmax_t)(shared)->reads, (uintmax_t)(shared)->hits,	\
	       (uintmax_t)(shared)->signals);				\
} while (0)

#define WORKER(i)	{ self->shared, self->asfd, self->file, self->mem, i, \
			  variant->flags }

/* Runs @thread and @process while mappings come and go. */
static int race(struct worker *w, run_fn thread, run_fn process, uint64_t until,
		bool replace, int other)
{
	struct worker w1 = *w, w2 = *w;
	struct pair pair;
	int rounds, ret;

	w1.seed++;
	ret = pair_start(&pair, thread, &w2, process, &w1);
	if (ret)
		return ret;
	rounds = revoke_rounds(w, until, replace, other);
	w->shared->stop = true;
	pair_join(&pair);
	return rounds;
}

TEST_F_TIMEOUT(race, readers_and_unmap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = race(&w, look_forever, look_forever, self->until, false, -1);

	EXPECT_NOTHING_REACHED(self->shared, rounds);
}

TEST_F_TIMEOUT(race, readers_and_replace, TIMEOUT)
{
	int other = memfd_pages("other", PAGES, 0);
	struct worker w = WORKER(1);
	int rounds;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, as_map(self->asfd, 0, other, 0, LEN, RW, 0));
	rounds = race(&w, look_forever, look_forever, self->until, true, other);
	EXPECT_NOTHING_REACHED(self->shared, rounds);
	/* nor was there ever a hole */
	EXPECT_EQ(0ULL, self->shared->signals);
}

TEST_F_TIMEOUT(race, attach_and_unmap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = race(&w, attach_forever, attach_forever, self->until, false, -1);

	EXPECT_NOTHING_REACHED(self->shared, rounds);
	EXPECT_EQ(1, fdinfo_value(self->asfd, "attachments"));
}

TEST_F_TIMEOUT(race, fork_and_unmap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = race(&w, look_forever, fork_forever, self->until, false, -1);

	EXPECT_NOTHING_REACHED(self->shared, rounds);
	EXPECT_EQ(1, fdinfo_value(self->asfd, "attachments"));
}

TEST_F_TIMEOUT(race, fork_and_replace, TIMEOUT)
{
	int other = memfd_pages("other", PAGES, 0);
	struct worker w = WORKER(1);
	int rounds;

	ASSERT_EQ(0, as_map(self->asfd, 0, other, 0, LEN, RW, 0));
	rounds = race(&w, look_forever, fork_forever, self->until, true, other);
	EXPECT_NOTHING_REACHED(self->shared, rounds);
	EXPECT_EQ(0ULL, self->shared->signals);
}

TEST_F_TIMEOUT(race, mremap_and_unmap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = race(&w, move_forever, move_forever, self->until, false, -1);

	EXPECT_NOTHING_REACHED(self->shared, rounds);
}

TEST_F_TIMEOUT(race, mprotect_and_unmap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = race(&w, protect_forever, protect_forever, self->until, false, -1);

	EXPECT_NOTHING_REACHED(self->shared, rounds);
}

/* Two owners change the same space: the changes of each hold. */
static void *map_elsewhere_forever(void *arg)
{
	struct worker *w = arg;
	int mine = memfd_pages("mine", 4, 0);

	while (!w->shared->stop) {
		if (as_map(w->asfd, LEN, mine, 0, 4 * PAGE, RW, 0) ||
		    as_unmap(w->asfd, LEN + PAGE, 2 * PAGE) ||
		    as_unmap(w->asfd, LEN, 4 * PAGE))
			bump(&w->shared->odd);
	}
	return NULL;
}

TEST_F_TIMEOUT(race, two_owners, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds;

	close(self->asfd);
	self->asfd = w.asfd = as_create(2 * LEN);
	ASSERT_LE(0, self->asfd);
	self->mem = w.mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	rounds = race(&w, look_forever, map_elsewhere_forever, self->until, false, -1);
	EXPECT_NOTHING_REACHED(self->shared, rounds);
}

TEST_HARNESS_MAIN

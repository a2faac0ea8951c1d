// SPDX-License-Identifier: GPL-2.0
/*
 * A change of many pages takes the entries of a page table out before the zap that flushes the
 * TLB, and leaves that the first and the last, from which it knows what to flush. Here others
 * take those two out at that moment, in each way that there is. A reader that goes on reading
 * from its TLB sees POISON, which is in the file only while no mapping shows it.
 *
 * (What is unmapped no notifier looks for. What is protected it does.)
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define POISON		0xdeadULL
#define PAGES		32
#define LEN		(PAGES * PAGE)
#define WORDS		(PAGE / sizeof(uint64_t))
#define TIMEOUT		120
#define LEAST		12	/* minimum of rounds, however slow the machine is */

/* Shared by all threads and processes of a test. */
struct shared {
	volatile bool stop;
	volatile uint64_t reads, hits, poisoned, odd, disturbed;
};

struct worker {
	struct shared *shared;
	int asfd, file;
	char *mem;
	unsigned int seed;
	void (*disturb)(struct worker *w, unsigned int page);
};

static void bump(volatile uint64_t *count)
{
	__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
}

/* Reads without a system call in between, which might flush. */
static void *look_forever(void *arg)
{
	struct worker *w = arg;
	uint64_t value;

	while (!w->shared->stop) {
		bump(&w->shared->reads);
		if (peek64(w->mem + rand_r(&w->seed) % PAGES * PAGE, &value))
			continue;
		bump(&w->shared->hits);
		if (value == POISON)
			bump(&w->shared->poisoned);
	}
	return NULL;
}

/* The file loses the page, and the notifier zaps it. */
static void punch(struct worker *w, unsigned int page)
{
	if (fallocate(w->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE))
		bump(&w->shared->odd);
}

/* An entry for reading is zapped for one for writing. */
static void store(struct worker *w, unsigned int page)
{
	char *word = w->mem + page * PAGE + sizeof(uint64_t);
	uint64_t value;

	peek64(word, &value);
	poke64(word, 1);
}

static void attach_at(struct worker *w, char *mem, uint64_t offset, uint64_t length)
{
	if (mmap(mem, length, RW, MAP_SHARED | MAP_FIXED, w->asfd, offset) != mem)
		bump(&w->shared->odd);
}

/* The page goes, with its entry, and comes back as a VMA of its own. */
static void detach_page(struct worker *w, unsigned int page)
{
	if (munmap(w->mem + page * PAGE, PAGE))
		bump(&w->shared->odd);
	attach_at(w, w->mem + page * PAGE, page * PAGE, PAGE);
}

static void detach_all(struct worker *w, unsigned int page __attribute__((unused)))
{
	if (munmap(w->mem, LEN))
		bump(&w->shared->odd);
	attach_at(w, w->mem, 0, LEN);
}

static void forbid_page(struct worker *w, unsigned int page)
{
	uint64_t value;

	mprotect(w->mem + page * PAGE, PAGE, PROT_NONE);
	mprotect(w->mem + page * PAGE, PAGE, RW);
	peek64(w->mem + page * PAGE, &value);
}

static void *disturb_forever(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; !w->shared->stop; i++) {
		w->disturb(w, i % 2 ? PAGES - 1 : 0);
		bump(&w->shared->disturbed);
	}
	return NULL;
}

/* A process with one thread that reads, and one that disturbs. */
static void *read_and_disturb(void *arg)
{
	struct worker *w = arg, reader = *w;
	pthread_t thread;

	if (pthread_create(&thread, NULL, look_forever, &reader)) {
		bump(&w->shared->odd);
		return NULL;
	}
	disturb_forever(w);
	pthread_join(thread, NULL);
	return NULL;
}

FIXTURE(zap)
{
	int asfd, file;
	char *mem, *own;
	struct shared *shared;
	uint64_t until;
};

FIXTURE_VARIANT(zap)
{
	void (*disturb)(struct worker *w, unsigned int page);
};

FIXTURE_VARIANT_ADD(zap, punch) { .disturb = punch };
FIXTURE_VARIANT_ADD(zap, store) { .disturb = store };
FIXTURE_VARIANT_ADD(zap, munmap_of_page) { .disturb = detach_page };
FIXTURE_VARIANT_ADD(zap, munmap_of_all) { .disturb = detach_all };
FIXTURE_VARIANT_ADD(zap, mprotect) { .disturb = forbid_page };

FIXTURE_SETUP(zap)
{
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	self->file = memfd_pages("zap", PAGES, 0);
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, as_register(self->asfd, self->file, 0, LEN, RW, 0));
	self->own = mmap(NULL, LEN, RW, MAP_SHARED, self->file, 0);
	ASSERT_NE(MAP_FAILED, self->own);
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	self->until = now_ms() + race_ms();
}

FIXTURE_TEARDOWN(zap)
{
	close(self->asfd);
}

static void set_words(char *file, uint64_t value)
{
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		((volatile uint64_t *)file)[i * WORDS] = value;
}

/* Until so many more are counted, for a while. */
static void await(volatile uint64_t *count, uint64_t more)
{
	const uint64_t first = *count, until = now_ms() + 3000;

	while (*count < first + more && now_ms() < until)
		sched_yield();
}

static int change_rounds(FIXTURE_DATA(zap) *self)
{
	int rounds, ret = 0;

	for (rounds = 0; now_ms() < self->until || rounds < LEAST; rounds++) {
		set_words(self->own, 1);
		ret = as_map(self->asfd, 0, self->file, 0, LEN, RW, ADDRESS_SPACE_MAP_REPLACE);
		if (ret)
			break;
		/* until there are entries in most of the page table */
		await(&self->shared->hits, 2 * PAGES);
		ret = rounds % 2 ? as_unmap(self->asfd, 0, LEN) :
				   as_protect(self->asfd, 0, LEN, PROT_NONE);
		if (ret)
			break;
		set_words(self->own, POISON);
		await(&self->shared->reads, 2 * PAGES);
	}
	self->shared->stop = true;
	return ret ?: rounds;
}

TEST_F_TIMEOUT(zap, change_reaches_all_pages, TIMEOUT)
{
	struct worker w = { self->shared, self->asfd, self->file, self->mem, 1,
			    variant->disturb };
	pid_t pid = start_process(read_and_disturb, &w);
	int rounds;

	ASSERT_LT(0, pid);
	rounds = change_rounds(self);
	waitpid(pid, NULL, 0);
	EXPECT_LE(LEAST, rounds);
	EXPECT_EQ(0ULL, self->shared->poisoned);
	EXPECT_EQ(0ULL, self->shared->odd);
	/* otherwise nothing was tested */
	EXPECT_LT(100ULL, self->shared->hits);
	EXPECT_LT(10ULL, self->shared->disturbed);
	TH_LOG("%d rounds, %ju reads, %ju hits; disturbed %ju times", rounds,
	       (uintmax_t)self->shared->reads, (uintmax_t)self->shared->hits,
	       (uintmax_t)self->shared->disturbed);
}

TEST_HARNESS_MAIN

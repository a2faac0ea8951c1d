// SPDX-License-Identifier: GPL-2.0
/*
 * Huge entries under concurrency: a process forks while what its huge entries show is
 * taken away, and threads install the same huge entry at once.
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define HUGE_PAGES	4
#define LEN		(HUGE_PAGES * HUGE)
#define TIMEOUT		120
#define LEAST		12	/* minimum of rounds, however slow the machine is */

/* Shared by all processes of a test. */
struct shared {
	volatile unsigned int round;	/* odd: accessible; even: taken away */
	volatile unsigned int touched, done;
	volatile uint64_t escaped, odd;
	volatile bool stop;
};

enum change { UNMAP, PROTECT, PUNCH };

FIXTURE(huge_entry)
{
	int asfd, file;
	char *mem;
	struct shared *shared;
};

FIXTURE_VARIANT(huge_entry)
{
	enum change change;
};

FIXTURE_VARIANT_ADD(huge_entry, unmap) { .change = UNMAP };
FIXTURE_VARIANT_ADD(huge_entry, protect) { .change = PROTECT };
FIXTURE_VARIANT_ADD(huge_entry, punch) { .change = PUNCH };

static char *attach_aligned(int fd, uint64_t length)
{
	char *room = mmap(NULL, length + HUGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));

	if (room == MAP_FAILED)
		return NULL;
	at = mmap(at, length, RW, MAP_SHARED | MAP_FIXED, fd, 0);
	return at == MAP_FAILED ? NULL : at;
}

FIXTURE_SETUP(huge_entry)
{
	self->file = hugetlb_memfd(HUGE_PAGES);
	if (self->file == -ENOMEM)
		SKIP(return, "no huge pages available");
	ASSERT_LE(0, self->file);
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_register(self->asfd, self->file, 0, LEN, RW, 0));
	self->mem = attach_aligned(self->asfd, LEN);
	ASSERT_NE(NULL, self->mem);
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
}

FIXTURE_TEARDOWN(huge_entry)
{
	close(self->asfd);
	close(self->file);
}

/* Whether the huge page at @at can still be reached, after @change took it away. */
static bool escaped(enum change change, int file, char *at, uint64_t offset)
{
	switch (change) {
	case UNMAP:
		return peek(at) >= 0;
	case PROTECT:
		return !poke(at, 'x');
	case PUNCH:
		/* what is written now must go to the page that the file has now */
		return poke(at, 'n') || file_byte(file, offset) != 'n';
	}
	return true;
}

/* A child that is forked in the round @round, and looks when that is over. */
static void look(struct shared *shared, unsigned int round, enum change change,
		 int file, char *mem)
{
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (shared->round == round && !shared->stop)
		;
	for (i = 0; i < HUGE_PAGES && !shared->stop; i++)
		if (escaped(change, file, mem + i * HUGE, i * HUGE))
			__atomic_add_fetch(&shared->escaped, 1, __ATOMIC_RELAXED);
}

/* In each round it touches all huge pages and forks children until the round is over. */
static void fork_forever(struct shared *shared, enum change change, int file,
			 char *mem)
{
	unsigned int i, round = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!shared->stop) {
		while (!shared->stop && (shared->round == round || shared->round % 2 == 0))
			;
		round = shared->round;
		for (i = 0; i < HUGE_PAGES; i++)
			if (!shared->stop && poke(mem + i * HUGE, 'y'))
				shared->odd++;
		shared->touched = round;
		do {
			pid_t pid = fork();

			if (pid == 0) {
				look(shared, round, change, file, mem);
				_exit(0);
			}
			if (pid < 0 || waitpid(pid, NULL, 0) != pid)
				shared->odd++;
		} while (!shared->stop && shared->round == round);
		shared->done = round;
	}
}

static bool reached(volatile unsigned int *value, unsigned int round)
{
	uint64_t until = now_ms() + 20000;

	while (*value != round)
		if (now_ms() > until)
			return false;
	return true;
}

static int give(int asfd, int file, enum change change, unsigned int round)
{
	if (change == PROTECT && round > 1)
		return as_protect(asfd, 0, LEN, RW);
	if (change == PUNCH && round > 1)
		return 0;
	return as_map(asfd, 0, file, 0, LEN, RW, 0);
}

static int take(int asfd, int file, enum change change)
{
	if (change == PROTECT)
		return as_protect(asfd, 0, LEN, PROT_READ);
	if (change == PUNCH)
		return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 0, LEN) ? -errno : 0;
	return as_unmap(asfd, 0, LEN);
}

TEST_F_TIMEOUT(huge_entry, is_revoked_in_child_being_forked, TIMEOUT)
{
	struct shared *shared = self->shared;
	uint64_t until = now_ms() + race_ms();
	unsigned int round = 0, seed = 1;
	pid_t pid = fork();

	if (pid == 0) {
		fork_forever(shared, variant->change, self->file, self->mem);
		_exit(0);
	}
	ASSERT_LT(0, pid);
	while (now_ms() < until || round / 2 < LEAST) {
		unsigned int spins = rand_r(&seed) % 200000;

		ASSERT_EQ(0, give(self->asfd, self->file, variant->change, round + 1));
		shared->round = ++round;
		ASSERT_TRUE(reached(&shared->touched, round));
		while (spins--)
			__asm__ volatile("pause");
		ASSERT_EQ(0, take(self->asfd, self->file, variant->change));
		shared->round = ++round;
		ASSERT_TRUE(reached(&shared->done, round - 1));
	}
	shared->stop = true;
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(0ULL, shared->escaped);
	EXPECT_EQ(0ULL, shared->odd);
	TH_LOG("%u rounds", round / 2);
}

struct toucher {
	char *mem;
	pthread_barrier_t *start, *end;
	bool write;
	unsigned int wrong;
};

#define ROUNDS	200

static void *touch(void *arg)
{
	struct toucher *t = arg;
	unsigned int round, i;

	for (round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(t->start);
		for (i = 0; i < HUGE_PAGES; i++) {
			char *at = t->mem + i * HUGE + PAGE;

			if (t->write ? poke(at, 'y') : peek(at) < 0)
				t->wrong++;
		}
		pthread_barrier_wait(t->end);
	}
	return NULL;
}

/* The kernel warns if a huge entry is replaced by another. */
TEST_F_TIMEOUT(huge_entry, is_installed_once_by_concurrent_faults, TIMEOUT)
{
	pthread_barrier_t start, end;
	struct toucher touchers[3];
	pthread_t threads[3];
	unsigned int i, round;

	if (variant->change != UNMAP)
		SKIP(return, "the same in all variants");
	pthread_barrier_init(&start, NULL, 4);
	pthread_barrier_init(&end, NULL, 4);
	for (i = 0; i < 3; i++) {
		touchers[i] = (struct toucher) {
			.mem = self->mem, .start = &start, .end = &end, .write = i % 2,
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, touch, &touchers[i]));
	}
	for (round = 0; round < ROUNDS; round++) {
		EXPECT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW, 0));
		pthread_barrier_wait(&start);
		pthread_barrier_wait(&end);
		EXPECT_EQ(0, as_unmap(self->asfd, 0, LEN));
	}
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0U, touchers[i].wrong);
	}
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Files change while they are accessed: punched, truncated, written, written back,
 * reclaimed. Each test runs for race_ms(), and for a minimum of rounds.
 */
#include <sched.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define PAGES		8
#define LEN		(PAGES * PAGE)
#define TIMEOUT		120
#define LEAST		12	/* minimum of rounds, however slow the machine is */

/*
 * While @seq is even, every page of the file reads as @now (or raises -@now); a
 * reader that finds @seq unchanged has read in between.
 */
struct shared {
	volatile unsigned int seq;
	volatile int64_t now;
	volatile bool stop;
	volatile uint64_t reads, checked, wrong;
	volatile int64_t got, want;
};

FIXTURE(race)
{
	int asfd, file;
	char *mem;
	struct shared *shared;
	uint64_t until;
};

FIXTURE_VARIANT(race)
{
	bool disk;
};

FIXTURE_VARIANT_ADD(race, memfd) { .disk = false };
FIXTURE_VARIANT_ADD(race, ext4) { .disk = true };

FIXTURE_SETUP(race)
{
	char dir[128];

	self->asfd = as_create(2 * LEN);
	ASSERT_LE(0, self->asfd);
	if (variant->disk) {
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, PAGES, -1);
	} else {
		self->file = memfd_pages("race", PAGES, -1);
	}
	ASSERT_LE(0, self->file);
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW, 0));
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	self->until = now_ms() + race_ms();
}

FIXTURE_TEARDOWN(race)
{
	close(self->asfd);
	close(self->file);
}

struct worker {
	struct shared *shared;
	int asfd;
	char *mem;
	unsigned int seed;
};

static int punch_all(int file)
{
	return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			 LEN) ? -errno : 0;
}

static int64_t value_at(const char *at)
{
	uint64_t value;
	int ret = peek64(at, &value);

	return ret ? ret : (int64_t)value;
}

static void *check_forever(void *arg)
{
	struct worker *w = arg;
	struct shared *shared = w->shared;

	while (!shared->stop) {
		unsigned int seq = __atomic_load_n(&shared->seq, __ATOMIC_ACQUIRE);
		int64_t want = shared->now, got;

		got = value_at(w->mem + rand_r(&w->seed) % PAGES * PAGE);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		__atomic_add_fetch(&shared->reads, 1, __ATOMIC_RELAXED);
		if (seq % 2 || seq != shared->seq)
			continue;
		__atomic_add_fetch(&shared->checked, 1, __ATOMIC_RELAXED);
		if (got == want)
			continue;
		shared->got = got;
		shared->want = want;
		__atomic_add_fetch(&shared->wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void begin(struct shared *shared)
{
	__atomic_add_fetch(&shared->seq, 1, __ATOMIC_SEQ_CST);
}

/* The change is complete, and now all readers must see @now; waits for their reads. */
static void done(struct shared *shared, int64_t now)
{
	uint64_t seen = shared->reads, until = now_ms() + 3000;

	shared->now = now;
	__atomic_add_fetch(&shared->seq, 1, __ATOMIC_SEQ_CST);
	while (shared->reads < seen + 6 && now_ms() < until)
		sched_yield();
}

enum change { PUNCH, TRUNCATE };

static int change_rounds(int file, struct shared *shared, uint64_t until,
			 enum change change)
{
	int rounds = 0, ret;

	while (now_ms() < until || rounds < LEAST) {
		begin(shared);
		ret = file_set_words(file, PAGES, rounds + 1);
		if (ret)
			return ret;
		done(shared, rounds + 1);
		begin(shared);
		if (change == PUNCH) {
			ret = punch_all(file);
		} else {
			ret = ftruncate(file, 0) ? -errno : 0;
			done(shared, -SIGBUS);
			begin(shared);
			if (!ret && ftruncate(file, LEN))
				ret = -errno;
		}
		if (ret)
			return ret;
		done(shared, 0);
		rounds++;
	}
	return rounds;
}

#define WORKER(i)	{ self->shared, self->asfd, self->mem, i }

#define EXPECT_ALL_RIGHT(shared, rounds) do {				\
	EXPECT_LE(LEAST, rounds);					\
	EXPECT_LT(100ULL, (shared)->checked);				\
	EXPECT_EQ(0ULL, (shared)->wrong)				\
		TH_LOG("saw %jd for %jd", (intmax_t)(shared)->got,	\
		       (intmax_t)(shared)->want);			\
	TH_LOG("%d rounds, %ju reads, %ju checked", rounds,		\
	       (uintmax_t)(shared)->reads, (uintmax_t)(shared)->checked); \
} while (0)

static int check_while(struct worker *w, int file, uint64_t until,
		       enum change change)
{
	struct worker w1 = *w, w2 = *w;
	struct pair pair;
	int rounds, ret;

	w1.seed++;
	ret = pair_start(&pair, check_forever, &w2, check_forever, &w1);
	if (ret)
		return ret;
	rounds = change_rounds(file, w->shared, until, change);
	w->shared->stop = true;
	pair_join(&pair);
	return rounds;
}

TEST_F_TIMEOUT(race, punch_and_fault, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = check_while(&w, self->file, self->until, PUNCH);

	EXPECT_ALL_RIGHT(self->shared, rounds);
}

TEST_F_TIMEOUT(race, truncate_and_fault, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds = check_while(&w, self->file, self->until, TRUNCATE);

	EXPECT_ALL_RIGHT(self->shared, rounds);
}

static void *change_maps_forever(void *arg)
{
	struct worker *w = arg;

	while (!w->shared->stop) {
		char *mem = attach(w->asfd, 0, LEN, RW);
		pid_t pid = fork();
		unsigned int i;

		if (pid == 0)
			_exit(0);
		for (i = 0; i < PAGES; i++)
			value_at(mem + i * PAGE);
		munmap(mem, LEN);
		waitpid(pid, NULL, 0);
		__atomic_add_fetch(&w->shared->reads, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/*
 * If attached processes change their VMAs at that moment it may take milliseconds
 * until a change is visible. An emulated CPU may sleep for longer than that; a missed
 * revocation is missed forever.
 */
#define SOON_MS	5000

TEST_F_TIMEOUT(race, punch_and_changing_vmas, TIMEOUT)
{
	struct worker w1 = WORKER(1), w2 = WORKER(2);
	uint64_t worst = 0;
	struct pair pair;
	int rounds;

	ASSERT_EQ(0, pair_start(&pair, change_maps_forever, &w2,
				change_maps_forever, &w1));
	for (rounds = 0; now_ms() < self->until || rounds < LEAST; rounds++) {
		char *at = self->mem + rounds % PAGES * PAGE;
		uint64_t start, took;

		ASSERT_EQ(0, poke64(at, rounds + 1));
		ASSERT_EQ(rounds + 1, value_at(at));
		start = now_ms();
		ASSERT_EQ(0, punch_all(self->file));
		while (value_at(at) != 0) {
			ASSERT_GT(start + SOON_MS, now_ms());
		}
		took = now_ms() - start;
		if (took > worst)
			worst = took;
		/* and it stays so */
		sched_yield();
		ASSERT_EQ(0, value_at(at));
	}
	self->shared->stop = true;
	pair_join(&pair);
	TH_LOG("%d rounds, seen after %ju ms at worst", rounds, (uintmax_t)worst);
	EXPECT_LT(10ULL, self->shared->reads);
}

/* A completed write is in the file, whatever else happens. */
static void *count_forever(void *arg)
{
	struct worker *w = arg;
	uint64_t *page = (uint64_t *)(w->mem + w->seed * PAGE);
	uint64_t i;

	for (i = 1; !w->shared->stop; i++)
		if (poke64(page, i))
			__atomic_add_fetch(&w->shared->wrong, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&w->shared->reads, i, __ATOMIC_RELAXED);
	/* the last value, where the test can read it */
	poke64((uint64_t *)(w->mem + w->seed * PAGE) + 1, i - 1);
	return NULL;
}

TEST_F_TIMEOUT(race, writeback_and_writes, TIMEOUT)
{
	struct worker w[2] = { WORKER(1), WORKER(2) };
	int view = as_view(self->asfd, 0, LEN, RW), rounds;
	uint64_t counts[2];
	struct pair pair;
	unsigned int i;

	w[1].mem = attach(view, 0, LEN, RW);
	ASSERT_NE(NULL, w[1].mem);
	ASSERT_EQ(0, pair_start(&pair, count_forever, &w[1], count_forever, &w[0]));
	for (rounds = 0; now_ms() < self->until || rounds < LEAST; rounds++) {
		ASSERT_EQ(0, fsync(self->file));
		if (rounds % 16 == 0)
			ASSERT_EQ(0, drop_caches());
	}
	self->shared->stop = true;
	pair_join(&pair);
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ(0ULL, self->shared->wrong);
	EXPECT_LT(1000ULL, self->shared->reads);
	for (i = 1; i <= 2; i++) {
		ASSERT_EQ(16, pread(self->file, counts, 16, i * PAGE));
		EXPECT_EQ(counts[0], counts[1]);
		if (variant->disk) {
			EXPECT_EQ((int)(counts[0] & 0xff),
				  disk_byte(self->file, i * PAGE));
			EXPECT_EQ((int)(counts[0] >> 8 & 0xff),
				  disk_byte(self->file, i * PAGE + 1));
		}
	}
}

/* Segments are found again, dropped and created while the file changes. */
TEST_F_TIMEOUT(race, punch_and_remap, TIMEOUT)
{
	struct worker w = WORKER(1);
	int rounds;
	pid_t pid;

	pid = start_process(change_maps_forever, &w);
	ASSERT_LT(0, pid);
	for (rounds = 0; now_ms() < self->until || rounds < LEAST; rounds++) {
		unsigned int page = rounds % PAGES;
		char *at = self->mem + page * PAGE;

		ASSERT_EQ(0, as_map(self->asfd, page * PAGE, self->file, 0,
				    PAGE, RW, ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(0, poke64(at, rounds + 1));
		ASSERT_EQ(0, punch_all(self->file));
		ASSERT_EQ(0, as_unmap(self->asfd, page * PAGE, PAGE));
		ASSERT_EQ(-SIGBUS, value_at(at));
		/* sometimes long enough for the worker to drop segments */
		if (rounds % 64 == 0)
			sleep_ms(150);
	}
	self->shared->stop = true;
	waitpid(pid, NULL, 0);
}

/* So many that a batch which replaces them lets the install lock go in between. */
#define COPIES	400

struct refusal {
	int asfd;
	struct address_space_op ops[COPIES + 1];
	volatile bool stop;
	volatile unsigned long refused, others;
};

static void *refuse_forever(void *arg)
{
	struct refusal *r = arg;

	while (!r->stop) {
		if (as_batch(r->asfd, r->ops, COPIES + 1, NULL) == -EEXIST)
			r->refused++;
		else
			r->others++;
	}
	return NULL;
}

/*
 * What a batch took away and, refused at its end, put back was shown nowhere when the
 * notifier looked: it is revoked all the same.
 */
TEST_F_TIMEOUT(race, punch_and_refused_batch, TIMEOUT)
{
	int other = memfd_pages("other", 1, 'o'), rounds, i;
	struct refusal r = { .asfd = as_create((COPIES + 1) * PAGE) };
	pthread_t thread;
	char *mem;

	ASSERT_LE(0, r.asfd);
	for (i = 0; i < COPIES; i++) {
		ASSERT_EQ(0, as_map(r.asfd, i * PAGE, self->file, 0, PAGE, RW, 0));
		r.ops[i] = op_map(i * PAGE, other, 0, PAGE, RW, ADDRESS_SPACE_MAP_REPLACE);
	}
	ASSERT_EQ(0, as_map(r.asfd, COPIES * PAGE, other, 0, PAGE, RW, 0));
	r.ops[COPIES] = op_map(COPIES * PAGE, other, 0, PAGE, RW, 0);
	mem = attach(r.asfd, 0, COPIES * PAGE, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, pthread_create(&thread, NULL, refuse_forever, &r));
	for (rounds = 1; now_ms() < self->until || rounds < LEAST; rounds++) {
		uint64_t value = rounds, soon;

		ASSERT_EQ((ssize_t)sizeof(value), pwrite(self->file, &value, sizeof(value), 0));
		for (i = 0; i < COPIES; i++)
			ASSERT_EQ((int64_t)value, value_at(mem + i * PAGE));
		ASSERT_EQ(0, punch_all(self->file));
		soon = now_ms() + SOON_MS;
		for (i = 0; i < COPIES; i++) {
			while (value_at(mem + i * PAGE)) {
				ASSERT_GT(soon, now_ms())
					TH_LOG("copy %d in round %d", i, rounds);
			}
		}
	}
	r.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0UL, r.others);
	EXPECT_LT((unsigned long)LEAST, r.refused);
	close(r.asfd);
}

TEST_HARNESS_MAIN

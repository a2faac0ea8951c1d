// SPDX-License-Identifier: GPL-2.0
/*
 * What an attachment shows is taken away while fork() copies its page table entries or
 * mremap() moves them, with a kernel in which these take long: test_modules/slow_copy.c
 * waits at each step. The pages get another file's content at once, which nobody may read.
 */
#include <libgen.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define MODULE		"slow_copy"
#define PARAMETERS	"/sys/module/" MODULE "/parameters/"
#define WAIT_US		10000	/* how long a moment is made */
#define STEPS_US	(5 * WAIT_US)	/* about as long as a fork() or mremap() takes */
#define LEAST		8	/* minimum of rounds, however slow the machine is */
#define PATIENCE_MS	20000
#define LATER_MS	2000	/* what was deferred to a worker must be done by then */

#define SPACE		(2 * HUGE)	/* more than is mapped */
#define FAR		(1UL << 30)	/* page tables have other locks there */
#define MOST_PAGES	8

enum change { UNMAP, FORBID, TRUNCATE };

/* Shared by all processes of a test. */
struct shared {
	volatile unsigned int round;	/* odd: accessible; even: taken away */
	volatile unsigned int busy, done;
	volatile uint64_t secrets;	/* reads of the other file's content */
	volatile uint64_t escapes;	/* reads of anything */
	volatile uint64_t odd;
	volatile uint64_t huge;		/* rounds in which all entries were huge */
	volatile bool stop;
};

FIXTURE(entries)
{
	int asfd, file;
	uint64_t length;
	unsigned int pages;
	uint64_t page[MOST_PAGES];	/* offsets of the pages that are accessed */
	char *mem, *elsewhere;		/* where it is, and where it can be moved to */
	int other;			/* a file that gets the pages */
	char *other_mem;
	uint64_t page_size;
	struct shared *shared;
};

FIXTURE_VARIANT(entries)
{
	enum change change;
	bool huge;
};

FIXTURE_VARIANT_ADD(entries, huge_unmap) { .change = UNMAP, .huge = true };
FIXTURE_VARIANT_ADD(entries, huge_forbid) { .change = FORBID, .huge = true };
FIXTURE_VARIANT_ADD(entries, huge_truncate) { .change = TRUNCATE, .huge = true };
FIXTURE_VARIANT_ADD(entries, small_unmap) { .change = UNMAP };
FIXTURE_VARIANT_ADD(entries, small_forbid) { .change = FORBID };
FIXTURE_VARIANT_ADD(entries, small_truncate) { .change = TRUNCATE };

/*
 * It was built with the module, for the same kernel. Since it takes a while, it is loaded
 * by the first test, and main() unloads it.
 */
static int load_slow_copy(void)
{
	const char *module = getenv("ADDRESS_SPACE_MODULE");
	char copy[512], path[1024];
	int fd, ret;

	snprintf(copy, sizeof(copy), "%s", module ? module : "address_space.ko");
	snprintf(path, sizeof(path), "%s/selftests/kselftest/test_modules/" MODULE ".ko",
		 dirname(copy));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return ret;
}

static int set_parameter(const char *path, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%ju", (uintmax_t)value);
	return write_text(path, text);
}

static unsigned long waits(void)
{
	char text[32] = "";

	read_text(PARAMETERS "waits", text, sizeof(text));
	return strtoul(text, NULL, 10);
}

/* Room for two attachments, aligned. */
static char *aligned_room(void)
{
	char *room = mmap(NULL, FAR + SPACE + HUGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return NULL;
	return (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1));
}

FIXTURE_SETUP(entries)
{
	unsigned int i;
	int ret;

	if (variant->huge) {
		if (!have_huge_pages())
			SKIP(return, "attachments have no huge entries here");
		/*
		 * One, since all in a gigabyte have one lock: another one, whose zap
		 * waits for it, would close the moment in which this one is missed.
		 */
		self->page_size = HUGE;
		self->length = HUGE;
		self->pages = 1;
		self->file = hugetlb_memfd(self->pages);
		if (self->file == -ENOMEM)
			SKIP(return, "no huge pages available");
	} else {
		/* mremap() moves one page table, and the entries of another one */
		self->page_size = PAGE;
		self->length = HUGE + MOST_PAGES / 2 * PAGE;
		self->pages = MOST_PAGES;
		self->file = memfd_pages("small", 0, -1);
		ASSERT_EQ(0, ftruncate(self->file, self->length));
	}
	ASSERT_LE(0, self->file);
	for (i = 0; i < self->pages; i++) {
		if (variant->huge)
			self->page[i] = i * HUGE;
		else
			self->page[i] = i % 2 * HUGE + i / 2 * PAGE;
	}
	ret = load_slow_copy();
	if (ret == -ENOENT || ret == -EOPNOTSUPP)
		SKIP(return, "no " MODULE ".ko for this kernel, or no kprobes in it");
	if (ret != -EEXIST)
		ASSERT_EQ(0, ret);

	self->asfd = as_create(SPACE);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_register(self->asfd, self->file, 0, self->length, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, self->length, RW, 0));
	self->mem = aligned_room();
	ASSERT_NE(NULL, self->mem);
	self->elsewhere = self->mem + FAR;

	self->other = memfd_create("other", MFD_CLOEXEC |
				   (variant->huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	ASSERT_LE(0, self->other);
	ASSERT_EQ(0, ftruncate(self->other, self->pages * self->page_size));
	/* there are no more huge pages than one of the two files needs */
	self->other_mem = mmap(NULL, self->pages * self->page_size, RW,
			       MAP_SHARED | MAP_NORESERVE, self->other, 0);
	ASSERT_NE(MAP_FAILED, self->other_mem);

	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
}

FIXTURE_TEARDOWN(entries)
{
	set_parameter(PARAMETERS "pid", 0);
	close(self->asfd);
	close(self->file);
}

/* Accessible again, after the round before. */
static int give(FIXTURE_DATA(entries) *self, enum change change)
{
	switch (change) {
	case UNMAP:
		return as_map(self->asfd, 0, self->file, 0, self->length, RW,
			      ADDRESS_SPACE_MAP_REPLACE);
	case FORBID:
		return as_protect(self->asfd, 0, self->length, RW);
	case TRUNCATE:
		return ftruncate(self->file, self->length);
	}
	return -1;
}

static int take(FIXTURE_DATA(entries) *self, enum change change)
{
	switch (change) {
	case UNMAP:
		return as_unmap(self->asfd, 0, self->length);
	case FORBID:
		return as_protect(self->asfd, 0, self->length, PROT_NONE);
	case TRUNCATE:
		return ftruncate(self->file, 0);
	}
	return -1;
}

static int punch(int file, uint64_t length)
{
	return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, length);
}

/* Frees the pages of the file, and has the other file get them. */
static int reuse(FIXTURE_DATA(entries) *self)
{
	uint64_t until = now_ms() + LATER_MS;
	unsigned int i;

	punch(self->file, self->length);
	while (fallocate(self->other, 0, 0, self->pages * self->page_size)) {
		if (now_ms() > until)
			return -errno;
		sleep_ms(1);
	}
	for (i = 0; i < self->pages; i++)
		self->other_mem[i * self->page_size] = 'S';
	return 0;
}

static void wait_for_end_of(struct shared *shared, unsigned int round)
{
	while (shared->round == round && !shared->stop)
		usleep(500);
}

/* Whether an access causes no page fault. */
static bool is_present(int asfd, const char *at)
{
	long long faults = fdinfo_value(asfd, "faults");

	return peek(at) >= 0 && fdinfo_value(asfd, "faults") == faults;
}

/* Accesses what was taken away. */
static void look(FIXTURE_DATA(entries) *self, enum change change, const char *mem)
{
	/* a change of the file may be finished later, but no page is freed before */
	uint64_t until = now_ms() + (change == TRUNCATE ? LATER_MS : 0);
	struct shared *shared = self->shared;
	unsigned int i;

	for (i = 0; i < self->pages && !shared->stop; i++) {
		int seen;

		while ((seen = peek(mem + self->page[i])) >= 0) {
			if (seen == 'S')
				__atomic_add_fetch(&shared->secrets, 1, __ATOMIC_RELAXED);
			if (seen == 'S' || now_ms() >= until) {
				__atomic_add_fetch(&shared->escapes, 1, __ATOMIC_RELAXED);
				break;
			}
			sleep_ms(1);
		}
	}
}

/* The step of a round in which the entries are copied or moved. */
typedef void (*slow_step)(FIXTURE_DATA(entries) *self, enum change change,
			  unsigned int round);

static void copy_entries(FIXTURE_DATA(entries) *self, enum change change,
			 unsigned int round)
{
	struct shared *shared = self->shared;
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		wait_for_end_of(shared, round);
		look(self, change, self->mem);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		shared->odd++;
}

static void move_entries(FIXTURE_DATA(entries) *self,
			 enum change change __attribute__((unused)),
			 unsigned int round __attribute__((unused)))
{
	char *from = self->mem;

	self->mem = mremap(from, self->length, self->length,
			   MREMAP_MAYMOVE | MREMAP_FIXED, self->elsewhere);
	if (self->mem == MAP_FAILED) {
		self->shared->odd++;
		self->mem = from;
		return;
	}
	self->elsewhere = from;
}

/*
 * Attaches and accesses all pages. It attaches anew each time since an access of what is
 * not there leaves a page table behind, and no huge entry would come in its place.
 */
static void access_all(FIXTURE_DATA(entries) *self)
{
	struct shared *shared = self->shared;
	unsigned int i, huge = 0;

	if (mmap(self->mem, self->length, RW, MAP_SHARED | MAP_FIXED, self->asfd, 0) !=
	    self->mem)
		shared->odd++;
	for (i = 0; i < self->pages && !shared->stop; i++) {
		char *at = self->mem + self->page[i];

		if (poke(at, 'y'))
			shared->odd++;
		huge += is_present(self->asfd, at + self->page_size / 2);
	}
	if (self->page_size == HUGE && huge == self->pages)
		shared->huge++;
}

/* The slow process: in each round it accesses all pages, copies or moves, and looks. */
static void slow_process(FIXTURE_DATA(entries) *self, enum change change, slow_step step)
{
	struct shared *shared = self->shared;
	unsigned int round = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (set_parameter(PARAMETERS "us", WAIT_US) ||
	    set_parameter(PARAMETERS "addr", (uintptr_t)self->mem) ||
	    set_parameter(PARAMETERS "pid", getpid()))
		shared->odd++;
	while (!shared->stop) {
		while (!shared->stop && (shared->round == round || shared->round % 2 == 0))
			usleep(500);
		round = shared->round;
		access_all(self);
		shared->busy = round;
		step(self, change, round);
		wait_for_end_of(shared, round);
		look(self, change, self->mem);
		shared->done = round;
	}
}

static bool reached(volatile unsigned int *value, unsigned int round)
{
	uint64_t until = now_ms() + PATIENCE_MS;

	while (*value != round) {
		if (now_ms() > until)
			return false;
		usleep(200);
	}
	return true;
}

/*
 * The owner takes away at any moment of the slow step, and what was taken away is looked
 * at when that, and the reuse of the pages, is over.
 */
static void race(struct __test_metadata *const _metadata, FIXTURE_DATA(entries) *self,
		 enum change change, slow_step step)
{
	struct shared *shared = self->shared;
	uint64_t until = now_ms() + race_ms();
	unsigned int round = 0, seed = 1;
	unsigned long waited = waits();
	pid_t pid = fork();

	if (pid == 0) {
		slow_process(self, change, step);
		_exit(0);
	}
	ASSERT_LT(0, pid);
	while (now_ms() < until || round / 2 < LEAST) {
		ASSERT_EQ(0, punch(self->other, self->pages * self->page_size));
		ASSERT_EQ(0, give(self, change));
		shared->round = ++round;
		ASSERT_TRUE(reached(&shared->busy, round));
		usleep(rand_r(&seed) % STEPS_US);
		ASSERT_EQ(0, take(self, change));
		ASSERT_EQ(0, reuse(self));
		shared->round = ++round;
		ASSERT_TRUE(reached(&shared->done, round - 1));
	}
	shared->stop = true;
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(0ULL, shared->secrets);
	EXPECT_EQ(0ULL, shared->escapes);
	EXPECT_EQ(0ULL, shared->odd);
	/* it was as slow as it should be, and the entries were what they should be */
	waited = waits() - waited;
	EXPECT_LE(round / 2, waited);
	if (self->page_size == HUGE)
		EXPECT_LE(round / 2 / 2, shared->huge);
	TH_LOG("%u rounds, %ju with huge entries, %lu waits", round / 2,
	       (uintmax_t)shared->huge, waited);
}

TEST_F(entries, are_revoked_while_fork_copies_them)
{
	race(_metadata, self, variant->change, copy_entries);
}

TEST_F(entries, are_revoked_while_mremap_moves_them)
{
	race(_metadata, self, variant->change, move_entries);
}

int main(int argc, char **argv)
{
	int ret = test_harness_run(argc, argv);

	if (syscall(SYS_delete_module, MODULE, 0) && errno != ENOENT) {
		ksft_print_msg(MODULE " does not unload: %s\n", strerror(errno));
		return KSFT_FAIL;
	}
	return ret;
}

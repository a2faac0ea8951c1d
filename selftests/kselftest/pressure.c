// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that an attachment shows is written out, migrated, collapsed and split like
 * any other, while it is in use; a read always returns what was written.
 */
#include <sys/swap.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define GROUP	CGROUP_ROOT "/address_space_pressure"

#define PAGES	4096u
#define LEN	(PAGES * PAGE)
#define USERS	3u

/*
 * Page i belongs to user i % USERS, which alone writes it, and counts the writes in
 * @stamp. All users read: a page holds the latest write, or one that was made during
 * the read.
 */
struct shared {
	volatile bool stop;
	volatile uint64_t stamp[PAGES];
	volatile uint64_t reads, writes, wrong, signals;
	volatile uint64_t page, got, before, after;
};

struct user {
	struct shared *shared;
	char *mem;
	unsigned int number, seed;
};

static uint64_t word(unsigned int page, uint64_t stamp)
{
	return (uint64_t)page << 40 | stamp;
}

static void read_one(struct user *u, unsigned int page)
{
	struct shared *shared = u->shared;
	uint64_t before, after, got;

	before = __atomic_load_n(&shared->stamp[page], __ATOMIC_ACQUIRE);
	if (peek64(u->mem + page * PAGE + 8 * (page % 500), &got)) {
		__atomic_add_fetch(&shared->signals, 1, __ATOMIC_RELAXED);
		return;
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	after = __atomic_load_n(&shared->stamp[page], __ATOMIC_ACQUIRE);
	__atomic_add_fetch(&shared->reads, 1, __ATOMIC_RELAXED);
	/* the writer counts first, and writes then */
	if (got + 1 >= word(page, before) && got <= word(page, after))
		return;
	if (!__atomic_fetch_add(&shared->wrong, 1, __ATOMIC_RELAXED)) {
		shared->page = page;
		shared->got = got;
		shared->before = before;
		shared->after = after;
	}
}

static void write_one(struct user *u, unsigned int page)
{
	struct shared *shared = u->shared;
	uint64_t next = shared->stamp[page] + 1;

	__atomic_store_n(&shared->stamp[page], next, __ATOMIC_RELEASE);
	if (poke64(u->mem + page * PAGE + 8 * (page % 500), word(page, next))) {
		__atomic_store_n(&shared->stamp[page], next - 1, __ATOMIC_RELEASE);
		__atomic_add_fetch(&shared->signals, 1, __ATOMIC_RELAXED);
	}
	__atomic_add_fetch(&shared->writes, 1, __ATOMIC_RELAXED);
}

static void *use(void *arg)
{
	struct user *u = arg;

	while (!u->shared->stop) {
		unsigned int page = rand_r(&u->seed) % PAGES;

		if (rand_r(&u->seed) % 4)
			read_one(u, page);
		else
			write_one(u, page / USERS * USERS + u->number < PAGES ?
				     page / USERS * USERS + u->number : u->number);
	}
	return NULL;
}

FIXTURE(memory_in_use)
{
	struct shared *shared;
	int asfd, file;
	char *mem, *plain;
	struct user users[USERS];
	pthread_t threads[USERS];
	pid_t other;
	long long before;
};

FIXTURE_VARIANT(memory_in_use)
{
	enum { MEMORY, HUGE_MEMORY, DISK, COPIES } kind;
};

FIXTURE_VARIANT_ADD(memory_in_use, memfd) { .kind = MEMORY };
FIXTURE_VARIANT_ADD(memory_in_use, huge_tmpfs) { .kind = HUGE_MEMORY };
FIXTURE_VARIANT_ADD(memory_in_use, ext4) { .kind = DISK };
/* private copies, which are in no file */
FIXTURE_VARIANT_ADD(memory_in_use, copies) { .kind = COPIES };

static long vmstat(const char *name)
{
	char line[64];

	snprintf(line, sizeof(line), "\n%s ", name);
	return number_in("/proc/vmstat", line);
}

/*
 * The users: threads of the test, except for the last, which is a process of its own.
 */
static int start_users(struct __test_metadata *_metadata, FIXTURE_DATA(memory_in_use) *self)
{
	unsigned int i;

	(void)_metadata;
	for (i = 0; i < USERS; i++)
		self->users[i] = (struct user){
			.shared = self->shared, .mem = self->mem,
			.number = i, .seed = i,
		};
	self->other = start_process(use, &self->users[USERS - 1]);
	if (self->other < 0)
		return self->other;
	for (i = 0; i < USERS - 1; i++)
		if (pthread_create(&self->threads[i], NULL, use, &self->users[i]))
			return -EAGAIN;
	return 0;
}

static void stop_users(FIXTURE_DATA(memory_in_use) *self)
{
	unsigned int i;

	self->shared->stop = true;
	for (i = 0; i < USERS - 1; i++)
		pthread_join(self->threads[i], NULL);
	waitpid(self->other, NULL, 0);
}

FIXTURE_SETUP(memory_in_use)
{
	char dir[128];
	unsigned int i;

	/* the pages of the attachment are charged to it, and can be limited there */
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	if (create_group(GROUP) || enter_group(GROUP))
		SKIP(return, "no cgroup2 at " CGROUP_ROOT);
	self->shared = mmap(NULL, sizeof(struct shared), RW,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	switch (variant->kind) {
	case MEMORY:
	case COPIES:
		self->file = memfd_pages("hot", 0, -1);
		break;
	case HUGE_MEMORY:
		if (!have_huge_pages())
			SKIP(return, "no huge pages in this kernel");
		ASSERT_EQ(0, own_mounts());
		ASSERT_EQ(0, mount_tmpfs(dir, "huge=always,size=64m"));
		self->file = file_pages(dir, 0, -1);
		break;
	case DISK:
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, 0, -1);
		break;
	}
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, ftruncate(self->file, LEN));
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW,
			    variant->kind == COPIES ? ADDRESS_SPACE_MAP_PRIVATE : 0));
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	self->plain = attach(self->file, 0, LEN, RW);
	ASSERT_NE(NULL, self->plain);
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(0, poke64(self->mem + i * PAGE + 8 * (i % 500), word(i, 0)));
	self->before = fdinfo_value(self->asfd, "invalidations");
	ASSERT_EQ(0, start_users(_metadata, self));
}

FIXTURE_TEARDOWN(memory_in_use)
{
	close(self->asfd);
	close(self->file);
	enter_group(CGROUP_ROOT);
	remove_group(GROUP);
}

/* What is kept of a page: in the file, or in the copy of it. */
static int kept(FIXTURE_DATA(memory_in_use) *self, bool copies, unsigned int page,
		uint64_t *value)
{
	unsigned long at = page * PAGE + 8 * (page % 500);

	if (copies)
		return peek64(self->mem + at, value);
	return pread(self->file, value, sizeof(*value), at) == sizeof(*value) ? 0 : -EIO;
}

/* At the end no user has read a wrong value, and every write is kept. */
#define EXPECT_TRUTH() do {						\
	struct shared *s_ = self->shared;				\
	unsigned int i_;						\
									\
	stop_users(self);						\
	TH_LOG("%ju reads, %ju writes, %lld invalidations, %lld of all deferred to the worker", \
	       (uintmax_t)s_->reads, (uintmax_t)s_->writes,		\
	       fdinfo_value(self->asfd, "invalidations") - self->before, \
	       fdinfo_value(self->asfd, "deferred"));			\
	EXPECT_EQ(0, (int)s_->wrong)					\
		TH_LOG("page %ju: %#jx, expected %#jx to %#jx",		\
		       (uintmax_t)s_->page, (uintmax_t)s_->got,		\
		       (uintmax_t)word(s_->page, s_->before),		\
		       (uintmax_t)word(s_->page, s_->after));		\
	EXPECT_LT(0, (int)s_->reads);					\
	EXPECT_LT(0, (int)s_->writes);					\
	for (i_ = 0; i_ < PAGES; i_++) {				\
		uint64_t got_ = 0;					\
									\
		ASSERT_EQ(0, kept(self, variant->kind == COPIES, i_, &got_)); \
		ASSERT_EQ(word(i_, s_->stamp[i_]), got_);		\
	}								\
} while (0)

/* The attachment was never unmapped, though it was revoked by changes of the file. */
#define EXPECT_UNBROKEN() do {						\
	EXPECT_EQ(0, (int)self->shared->signals);			\
	EXPECT_LT(self->before,						\
		  fdinfo_value(self->asfd, "invalidations"));		\
} while (0)

/* a file on the disk; the caller has mounts of its own */
static int swap_on(char *path, size_t size)
{
	char dir[128], command[768];
	int ret = disk_dir(dir, sizeof(dir));

	if (ret)
		return ret;
	snprintf(path, size, "%s/swap", dir);
	/* left by a test that was stopped */
	swapoff(path);
	snprintf(command, sizeof(command),
		 "dd if=/dev/zero of=%s bs=1M count=64 2>/dev/null && chmod 600 %s && mkswap %s >/dev/null 2>&1",
		 path, path, path);
	if (system(command))
		return -EIO;
	return swapon(path, 0) ? -errno : 0;
}

static void swap_off(const char *path)
{
	if (swapoff(path) || unlink(path))
		fprintf(stderr, "# swap stays on: %s\n", path);
}

/* Swaps out, and reads back on access. */
TEST_F_TIMEOUT(memory_in_use, survives_swap, 170)
{
	long out = vmstat("pswpout"), in = vmstat("pswpin");
	uint64_t until = now_ms() + 2 * race_ms();
	char path[160];

	if (variant->kind == DISK) {
		stop_users(self);
		SKIP(return, "files on a disk are not swapped");
	}
	ASSERT_EQ(0, swap_on(path, sizeof(path)));
	/* less than the attachment shows, so that a part is always swapped out */
	ASSERT_EQ(0, write_text(GROUP "/memory.max", "12582912"));
	while (now_ms() < until)
		sleep_ms(20);
	/* otherwise all of it would be swapped out and in once more to be compared */
	EXPECT_EQ(0, write_text(GROUP "/memory.max", "max"));
	EXPECT_TRUTH();
	EXPECT_UNBROKEN();
	swap_off(path);
	out = vmstat("pswpout") - out;
	in = vmstat("pswpin") - in;
	TH_LOG("%ld pages out, %ld in", out, in);
	EXPECT_LT(100, out);
	EXPECT_LT(100, in);
}

/* Written back and dropped, mapped or not. */
TEST_F_TIMEOUT(memory_in_use, survives_reclaim, 170)
{
	uint64_t until = now_ms() + 2 * race_ms();

	if (variant->kind != DISK) {
		stop_users(self);
		SKIP(return, "pages of a memfd have no other place");
	}
	while (now_ms() < until) {
		sync();
		write_text(GROUP "/memory.reclaim", "8M swappiness=0");
		drop_caches();
	}
	EXPECT_TRUTH();
	EXPECT_UNBROKEN();
}

TEST_F_TIMEOUT(memory_in_use, survives_compaction, 170)
{
	long before = vmstat("pgmigrate_success"), moved = 0;
	uint64_t until = now_ms() + 2 * race_ms(), patience = until + 60000;
	bool ours = false;
	unsigned int i;

	if (variant->kind == HUGE_MEMORY) {
		stop_users(self);
		SKIP(return, "a huge page is as compact as can be");
	}
	if (variant->kind == COPIES) {
		stop_users(self);
		SKIP(return, "compaction passes by anonymous memory that somebody refers to");
	}
	/* holes to be filled: every second page of a large range */
	for (i = 0; now_ms() < until || (!(moved && ours) && now_ms() < patience); i++) {
		char *some = mmap(NULL, 64 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		unsigned long at;

		ASSERT_NE(MAP_FAILED, (void *)some);
		if (i % 3 == 2 && !ours && variant->kind == DISK) {
			/* they are where compaction takes nothing from: have them read to elsewhere */
			sync();
			write_text(GROUP "/memory.reclaim", "8M swappiness=0");
			drop_caches();
			self->before = fdinfo_value(self->asfd, "invalidations");
		}
		madvise(some, 64 << 20, MADV_NOHUGEPAGE);
		memset(some, 1, 64 << 20);
		for (at = 0; at < 64 << 20; at += 2 * PAGE)
			madvise(some + at, PAGE, MADV_DONTNEED);
		write_text("/proc/sys/vm/compact_memory", "1");
		munmap(some, 64 << 20);
		write_text("/proc/sys/vm/compact_memory", "1");
		moved = vmstat("pgmigrate_success") - before;
		/* pages of the attachment among them */
		ours = fdinfo_value(self->asfd, "invalidations") > self->before;
	}
	TH_LOG("%ld pages moved in %u rounds", moved, i);
	EXPECT_LT(0, moved);
	EXPECT_TRUTH();
	EXPECT_UNBROKEN();
}

/*
 * A page that an attachment has accessed is held, and is neither collapsed nor split
 * then; so for a moment there is no mapping, and an access gets a signal.
 */
TEST_F_TIMEOUT(memory_in_use, survives_collapse_and_split, 170)
{
	long collapsed = vmstat("thp_collapse_alloc"), split = vmstat("thp_split_page");
	uintptr_t plain = ((uintptr_t)self->plain + HUGE - 1) & ~(HUGE - 1);
	uint64_t until = now_ms() + 2 * race_ms();
	char what[128];

	if (variant->kind == COPIES) {
		stop_users(self);
		SKIP(return, "copies end with their mapping");
	}
	if (variant->kind == DISK) {
		stop_users(self);
		SKIP(return, "not every kernel has huge pages of files on a disk");
	}
	if (!have_huge_pages()) {
		stop_users(self);
		SKIP(return, "no huge pages in this kernel");
	}
	snprintf(what, sizeof(what), "%d,%#lx,%#lx", getpid(), (long)plain,
		 (long)(plain + LEN - HUGE));
	while (now_ms() < until) {
		ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
		madvise((void *)plain, LEN - HUGE, MADV_COLLAPSE);
		ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW, 0));
		sleep_ms(20);
		ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
		write_text("/sys/kernel/debug/split_huge_pages", what);
		ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW, 0));
		sleep_ms(20);
	}
	collapsed = vmstat("thp_collapse_alloc") - collapsed;
	split = vmstat("thp_split_page") - split;
	TH_LOG("collapsed %ld, split %ld", collapsed, split);
	EXPECT_LT(0, collapsed);
	EXPECT_LT(0, split);
	EXPECT_TRUTH();
}

TEST_HARNESS_MAIN

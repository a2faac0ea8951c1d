// SPDX-License-Identifier: GPL-2.0
/*
 * ADDRESS_SPACE_ADVISE: what is wanted of the memory of a range. It changes nothing about
 * what is mapped.
 */
#include <sys/statvfs.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"

#define PRIVATE		ADDRESS_SPACE_MAP_PRIVATE
#define WILLNEED	ADDRESS_SPACE_WILLNEED
#define DONTNEED	ADDRESS_SPACE_DONTNEED
#define REMOVE		ADDRESS_SPACE_REMOVE
#define POPULATE_READ	ADDRESS_SPACE_POPULATE_READ
#define POPULATE_WRITE	ADDRESS_SPACE_POPULATE_WRITE

_Static_assert(WILLNEED == MADV_WILLNEED && DONTNEED == MADV_DONTNEED &&
	       REMOVE == MADV_REMOVE && POPULATE_READ == MADV_POPULATE_READ &&
	       POPULATE_WRITE == MADV_POPULATE_WRITE, "the values are those of madvise()");

FIXTURE(advise)
{
	struct space s;
	int file;	/* pages of 'a', 'b', ... */
	char *mem;	/* where it is mapped, at offset 0 */
};

FIXTURE_VARIANT(advise)
{
	enum { MEMFD, EXT4 } kind;
};

FIXTURE_VARIANT_ADD(advise, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(advise, ext4) { .kind = EXT4 };

FIXTURE_SETUP(advise)
{
	char dir[128];

	ASSERT_EQ(0, space_init(&self->s));
	self->file = dup(self->s.a);
	if (variant->kind == EXT4) {
		close(self->file);
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, FILE_PAGES, 'a');
	}
	ASSERT_LE(0, self->file);
	self->mem = self->s.mem;
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->file, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(advise)
{
	close(self->file);
	space_free(&self->s);
}

static long long copies(int asfd)
{
	return fdinfo_value(asfd, "copies") / PAGE;
}

static long long faults(int asfd)
{
	return fdinfo_value(asfd, "faults");
}

TEST_F(advise, dontneed_gives_copies_back)
{
	char *at = self->mem + FILE_LEN;
	struct agent child;
	unsigned int i;

	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, FILE_LEN, RW, PRIVATE));
	for (i = 0; i < FILE_PAGES; i++)
		ASSERT_EQ(0, poke(at + i * PAGE, '0' + i));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('1', agent_peek(&child, at + PAGE));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN + PAGE, 3 * PAGE, DONTNEED));
	EXPECT_EQ(13, copies(self->s.asfd));
	EXPECT_EQ('b', agent_peek(&child, at + PAGE));
	EXPECT_EQ('0', peek(at));
	EXPECT_EQ('c', peek(at + 2 * PAGE));
	EXPECT_EQ('4', peek(at + 4 * PAGE));
	/* and it can be copied again */
	EXPECT_EQ(0, agent_poke(&child, at + 2 * PAGE, '!'));
	EXPECT_EQ('!', peek(at + 2 * PAGE));
	EXPECT_EQ('c', file_byte(self->file, 2 * PAGE));
	EXPECT_EQ(0, agent_stop(&child));
	/* also where the layout does not allow to write any more */
	ASSERT_EQ(0, as_protect(self->s.asfd, FILE_LEN, FILE_LEN, PROT_NONE));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN, FILE_LEN, DONTNEED));
	EXPECT_EQ(0, copies(self->s.asfd));
}

TEST_F(advise, dontneed_leaves_the_file_as_it_was_written)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		ASSERT_EQ(0, poke(self->mem + i * PAGE, '0' + i));
	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, DONTNEED));
	for (i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ('0' + (int)i, peek(self->mem + i * PAGE));
		EXPECT_EQ('0' + (int)i, file_byte(self->file, i * PAGE));
	}
	if (variant->kind == EXT4) {
		ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, DONTNEED));
		ASSERT_EQ(0, fsync(self->file));
		EXPECT_EQ('7', disk_byte(self->file, 7 * PAGE));
	}
}

/* To hold a frame is to refer to a page, and that keeps a memfd from being sealed. */
TEST_F(advise, dontneed_lets_a_memfd_be_sealed)
{
	char path[64];
	int reader;

	if (variant->kind == EXT4)
		SKIP(return, "files on a disk have no seals");
	/* no mapping may be left of a file that is open for writing either */
	ASSERT_EQ(0, as_unmap_flags(self->s.asfd, 0, FILE_LEN, ADDRESS_SPACE_MUNMAP_RELEASE));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	reader = open(path, O_RDONLY);
	ASSERT_LE(0, reader);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, reader, 0, FILE_LEN, PROT_READ, 0));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('p', peek(self->mem + 15 * PAGE));
	EXPECT_EQ(-1, fcntl(self->file, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, DONTNEED));
	EXPECT_EQ(0, fcntl(self->file, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ('a', peek(self->mem));
	close(reader);
}

TEST_F(advise, dontneed_of_lent_memory_is_not_the_lender_s)
{
	char *own = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int lend = as_lend(own, 2 * PAGE, RW);

	ASSERT_LE(0, lend);
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, lend, 0, 2 * PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, '1'));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN, 2 * PAGE, DONTNEED));
	EXPECT_EQ('1', own[0]);
	EXPECT_EQ('1', peek(self->mem + FILE_LEN));
	EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
		       as_advise(self->s.asfd, FILE_LEN, PAGE, REMOVE));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN, 2 * PAGE, WILLNEED));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN, 2 * PAGE, POPULATE_WRITE));
	own[PAGE] = '2';
	EXPECT_EQ('2', peek(self->mem + FILE_LEN + PAGE));
	close(lend);
	munmap(own, 2 * PAGE);
}

TEST_F(advise, dontneed_ends_at_what_is_shown_of_a_huge_page)
{
	int asfd = as_create(2 * HUGE), file;
	char dir[128], *mem;
	unsigned long at;

	if (variant->kind == EXT4)
		SKIP(return, "files on a disk have no huge pages here");
	if (!have_huge_pages())
		SKIP(return, "no huge pages in this kernel");
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, own_mounts());
	ASSERT_EQ(0, mount_tmpfs(dir, "huge=always,size=64m"));
	file = file_pages(dir, 0, -1);
	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, HUGE));
	for (at = 0; at < HUGE; at += 16 * PAGE)
		ASSERT_EQ(0, file_set(file, at, '0' + at / PAGE % 64));
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, HUGE, RW, 0));
	mem = attach(asfd, 0, HUGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('0', peek(mem));
	ASSERT_EQ(0, as_advise(asfd, 16 * PAGE, 33 * PAGE, DONTNEED));
	for (at = 0; at < HUGE; at += 16 * PAGE)
		EXPECT_EQ('0' + (int)(at / PAGE % 64), peek(mem + at));
	munmap(mem, HUGE);
	close(file);
	close(asfd);
}

TEST_F(advise, remove_makes_a_hole_that_all_see)
{
	char *plain = attach(self->file, 0, FILE_LEN, PROT_READ);
	struct stat before, after;

	ASSERT_NE(NULL, plain);
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ('d', peek(plain + 3 * PAGE));
	ASSERT_EQ(0, fsync(self->file));
	ASSERT_EQ(0, fstat(self->file, &before));
	ASSERT_EQ(0, as_advise(self->s.asfd, 2 * PAGE, 4 * PAGE, REMOVE));
	ASSERT_EQ(0, fstat(self->file, &after));
	EXPECT_EQ((long)(4 * PAGE / 512), before.st_blocks - after.st_blocks);
	EXPECT_EQ(before.st_size, after.st_size);
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, peek(plain + 3 * PAGE));
	EXPECT_EQ(0, file_byte(self->file, 5 * PAGE));
	EXPECT_EQ('g', peek(self->mem + 6 * PAGE));
	/* it is mapped still */
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->file, 2 * PAGE));
	munmap(plain, FILE_LEN);
}

TEST_F(advise, remove_wants_a_shared_mapping_for_writing)
{
	int view = as_part(self->s.asfd, 0, FILE_LEN, PROT_READ);

	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(self->s.asfd, FILE_LEN, PAGE, REMOVE));
	ASSERT_EQ(0, as_map(self->s.asfd, 20 * PAGE, self->file, 0, PAGE, RW, PRIVATE));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(self->s.asfd, 20 * PAGE, PAGE, REMOVE));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(view, 0, PAGE, REMOVE));
	/* all or nothing: the first page could be */
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, PROT_READ));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(self->s.asfd, 0, 2 * PAGE, REMOVE));
	EXPECT_EQ('a', file_byte(self->file, 0));
	close(view);
}

TEST_F(advise, remove_respects_seals)
{
	if (variant->kind == EXT4)
		SKIP(return, "files on a disk have no seals");
	/* writable maps may stay with this one, though what they show may not be changed */
	ASSERT_EQ(0, fcntl(self->file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_EQ(-EPERM, as_advise(self->s.asfd, 0, PAGE, REMOVE));
	EXPECT_EQ('a', peek(self->mem));
}

TEST_F(advise, willneed_reads_ahead)
{
	unsigned char there[FILE_PAGES] = {};
	uint64_t until = now_ms() + WORKER_MS;
	char *plain;
	unsigned int i, count = 0;

	plain = attach(self->file, 0, FILE_LEN, PROT_READ);
	ASSERT_NE(NULL, plain);
	if (variant->kind == EXT4) {
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ(0, posix_fadvise(self->file, 0, 0, POSIX_FADV_DONTNEED));
		ASSERT_EQ(0, mincore(plain, FILE_LEN, there));
		EXPECT_EQ(0, there[0] & 1);
	}
	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, WILLNEED));
	while (count < FILE_PAGES && now_ms() < until) {
		ASSERT_EQ(0, mincore(plain, FILE_LEN, there));
		for (i = count = 0; i < FILE_PAGES; i++)
			count += there[i] & 1;
		sleep_ms(1);
	}
	EXPECT_EQ((unsigned int)FILE_PAGES, count);
	munmap(plain, FILE_LEN);
}

TEST_F(advise, populate_leaves_nothing_to_fault)
{
	long long before;
	unsigned int i;

	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, POPULATE_READ));
	before = faults(self->s.asfd);
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ('a' + (int)i, peek(self->mem + i * PAGE));
	EXPECT_EQ(before, faults(self->s.asfd));
	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, DONTNEED));
	ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, POPULATE_WRITE));
	before = faults(self->s.asfd);
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(0, poke(self->mem + i * PAGE, '!'));
	EXPECT_EQ(before, faults(self->s.asfd));
}

TEST_F(advise, populate_makes_copies_for_writing_only)
{
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, FILE_LEN, RW, PRIVATE));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN, FILE_LEN, POPULATE_READ));
	EXPECT_EQ(0, copies(self->s.asfd));
	ASSERT_EQ(0, as_advise(self->s.asfd, FILE_LEN + PAGE, 5 * PAGE, POPULATE_WRITE));
	EXPECT_EQ(5, copies(self->s.asfd));
	EXPECT_EQ('b', peek(self->mem + FILE_LEN + PAGE));
	ASSERT_EQ(0, file_set(self->file, 0, '0'));
	ASSERT_EQ(0, file_set(self->file, PAGE, '1'));
	EXPECT_EQ('0', peek(self->mem + FILE_LEN));
	EXPECT_EQ('b', peek(self->mem + FILE_LEN + PAGE));
}

TEST_F(advise, populate_says_what_cannot_be_had)
{
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, FILE_LEN - PAGE, 2 * PAGE, RW,
			    0));
	EXPECT_EQ(-EFAULT, as_advise(self->s.asfd, FILE_LEN, 2 * PAGE, POPULATE_READ));
	EXPECT_EQ(-EFAULT, as_advise(self->s.asfd, FILE_LEN, 2 * PAGE, POPULATE_WRITE));
	EXPECT_EQ(0, as_advise(self->s.asfd, FILE_LEN, PAGE, POPULATE_WRITE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, PAGE, PROT_READ));
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_advise(self->s.asfd, 0, 2 * PAGE, POPULATE_WRITE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, PAGE, PROT_NONE));
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_advise(self->s.asfd, 0, 2 * PAGE, POPULATE_READ));
}

TEST_F(advise, hole_is_refused_before_anything_is_done)
{
	static const uint32_t all[] = {
		WILLNEED, DONTNEED, REMOVE, POPULATE_READ, POPULATE_WRITE,
	};
	unsigned int i;

	ASSERT_EQ(0, as_unmap(self->s.asfd, 4 * PAGE, PAGE));
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		EXPECT_REFUSED(self->s.asfd, ENOENT,
			       as_advise(self->s.asfd, 0, FILE_LEN, all[i]));
		EXPECT_REFUSED(self->s.asfd, ENOENT,
			       as_advise(self->s.asfd, 4 * PAGE, PAGE, all[i]));
		EXPECT_REFUSED(self->s.asfd, ENOENT,
			       as_advise(self->s.asfd, 15 * PAGE, 2 * PAGE, all[i]));
	}
	EXPECT_EQ('a', file_byte(self->file, 0));
}

TEST_F(advise, what_means_nothing_here_is_refused)
{
	static const uint32_t others[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_FREE, MADV_DONTFORK,
		MADV_MERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD, MADV_PAGEOUT,
		25 /* MADV_COLLAPSE */, 100 /* MADV_HWPOISON */, 12345, UINT32_MAX,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(others); i++)
		EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
			       as_advise(self->s.asfd, 0, PAGE, others[i]));
}

TEST_F(advise, is_of_the_part_that_a_view_manages)
{
	int part = as_part(self->s.asfd, 2 * PAGE, 2 * PAGE, RW);
	int reader = as_part(self->s.asfd, FILE_LEN, FILE_LEN, PROT_READ);
	int view = as_view(self->s.asfd, 0, FILE_LEN, RW);
	char path[64];
	int again;

	ASSERT_LE(0, part);
	ASSERT_LE(0, reader);
	ASSERT_EQ(0, as_advise(part, PAGE, PAGE, REMOVE));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_advise(part, PAGE, 2 * PAGE, DONTNEED));
	EXPECT_REFUSED(self->s.asfd, ENOTTY, as_advise(view, 0, PAGE, DONTNEED));
	/* one that may not write takes nobody's copies */
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, FILE_LEN, RW, PRIVATE));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, '!'));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(reader, 0, PAGE, DONTNEED));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_advise(reader, 0, PAGE, POPULATE_WRITE));
	EXPECT_EQ(0, as_advise(reader, 0, PAGE, POPULATE_READ));
	EXPECT_EQ('!', peek(self->mem + FILE_LEN));
	/* nor one that is open for reading */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->s.asfd);
	again = open(path, O_RDONLY);
	ASSERT_LE(0, again);
	EXPECT_REFUSED(self->s.asfd, EBADF, as_advise(again, 0, PAGE, DONTNEED));
	close(again);
	close(view);
	close(reader);
	close(part);
}

/* Pages that are dropped while they are written, and others that are copied, again and again. */
struct counter {
	char *mem;
	volatile bool stop;
	volatile uint64_t wrong, rounds;
};

static void *count_up(void *arg)
{
	struct counter *c = arg;
	uint64_t value = 0, got;

	while (!c->stop) {
		value++;
		if (poke64(c->mem, value) || peek64(c->mem, &got) || got != value)
			c->wrong++;
		c->rounds++;
	}
	return NULL;
}

TEST_F(advise, dontneed_loses_no_write_to_the_file)
{
	struct counter *c = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t until = now_ms() + race_ms();
	unsigned int rounds = 0;
	struct pair pair;

	ASSERT_NE(MAP_FAILED, (void *)c);
	c[0].mem = self->mem;
	c[1].mem = self->mem + PAGE;
	ASSERT_EQ(0, pair_start(&pair, count_up, &c[0], count_up, &c[1]));
	while (now_ms() < until) {
		ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, DONTNEED));
		if (++rounds % 4 == 0)
			ASSERT_EQ(0, as_advise(self->s.asfd, 0, FILE_LEN, POPULATE_WRITE));
	}
	c[0].stop = c[1].stop = true;
	pair_join(&pair);
	TH_LOG("%u rounds, %ju and %ju writes", rounds, (uintmax_t)c[0].rounds,
	       (uintmax_t)c[1].rounds);
	EXPECT_EQ(0U, c[0].wrong);
	EXPECT_EQ(0U, c[1].wrong);
	EXPECT_LT(0U, c[0].rounds);
	munmap(c, PAGE);
}

TEST_HARNESS_MAIN

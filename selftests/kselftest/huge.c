// SPDX-License-Identifier: GPL-2.0
/*
 * Huge pages are mapped by huge entries where that is possible, and are revoked page
 * by page all the same. Every promise is tested here with a huge entry in place: all
 * pages were accessed with far fewer faults than pages.
 */
#include <pthread.h>
#include <sched.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define PAGES	(HUGE / PAGE)		/* pages in a huge page */
#define LEN	(2 * HUGE)

FIXTURE(huge_page)
{
	int asfd, file, small;
	char *mem;		/* aligned */
};

FIXTURE_VARIANT(huge_page)
{
	bool hugetlb;		/* otherwise tmpfs with huge pages */
};

FIXTURE_VARIANT_ADD(huge_page, hugetlb) { .hugetlb = true };
FIXTURE_VARIANT_ADD(huge_page, tmpfs) { .hugetlb = false };

/* attaches at an address that is @more bytes past a multiple of the huge page size */
static char *attach_at(int fd, uint64_t offset, uint64_t length, int prot,
		       uint64_t more)
{
	char *room = mmap(NULL, length + 2 * HUGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *at = (char *)(((uintptr_t)room + HUGE - 1) & ~(HUGE - 1)) + more;

	if (room == MAP_FAILED)
		return NULL;
	at = mmap(at, length, prot, MAP_SHARED | MAP_FIXED, fd, offset);
	return at == MAP_FAILED ? NULL : at;
}

FIXTURE_SETUP(huge_page)
{
	char dir[64], *map;
	unsigned int i;

	if (variant->hugetlb) {
		self->file = hugetlb_memfd(3);
		if (self->file == -ENOMEM)
			SKIP(return, "no huge pages available");
	} else {
		ASSERT_EQ(0, own_mounts());
		if (mount_tmpfs(dir, "size=16m,huge=always"))
			SKIP(return, "no tmpfs with huge pages");
		self->file = file_pages(dir, 0, -1);
		ASSERT_EQ(0, ftruncate(self->file, 3 * HUGE));
	}
	ASSERT_LE(0, self->file);
	map = attach_at(self->file, 0, LEN, RW, 0);
	ASSERT_NE(NULL, map);
	for (i = 0; i < 2 * PAGES; i++)
		map[i * PAGE] = 'a' + i % 26;
	munmap(map, LEN);
	self->small = memfd_pages("small", 4, 'A');
	self->asfd = as_create(4 * HUGE);
	ASSERT_LE(0, self->asfd);
	/* not populated: the first access must detect that the page can be huge */
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW, 0));
	self->mem = attach_at(self->asfd, 0, 4 * HUGE, RW, 0);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(huge_page)
{
	close(self->asfd);
	close(self->file);
}

static int content(unsigned int page)
{
	return 'a' + page % 26;
}

/*
 * Accesses @n pages from @first on; returns the number of faults, or -1 for a wrong
 * value.
 */
static long long touch(int asfd, const char *mem, unsigned int first,
		       unsigned int n)
{
	long long before = fdinfo_value(asfd, "faults");
	unsigned int i;

	for (i = first; i < first + n; i++)
		if (peek(mem + i * PAGE) != content(i))
			return -1;
	return fdinfo_value(asfd, "faults") - before;
}

#define EXPECT_HUGE(mem) do {						\
	long long __faults = touch(self->asfd, mem, 0, 2 * PAGES);	\
									\
	EXPECT_LE(0, __faults);						\
	EXPECT_GT(12, __faults);					\
} while (0)

TEST_F(huge_page, is_read_with_few_faults)
{
	EXPECT_HUGE(self->mem);
	EXPECT_EQ(-SIGBUS, peek(self->mem + LEN));
}

TEST_F(huge_page, is_written_with_few_faults)
{
	long long before = fdinfo_value(self->asfd, "faults");
	unsigned int i;

	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(0, poke(self->mem + i * PAGE + 1, 'w'));
	EXPECT_GT(before + 12, fdinfo_value(self->asfd, "faults"));
	EXPECT_EQ('w', file_byte(self->file, 300 * PAGE + 1));
	/* also pages that were read before */
	EXPECT_EQ(content(700), peek(self->mem + 700 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 701 * PAGE + 1, 'w'));
	EXPECT_EQ('w', file_byte(self->file, 701 * PAGE + 1));
}

TEST_F(huge_page, loses_one_page_to_unmap)
{
	int view = as_view(self->asfd, HUGE / 2, HUGE, RW);
	char *view_mem = attach_at(view, 0, HUGE, RW, HUGE / 2);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	EXPECT_HUGE(self->mem);
	EXPECT_EQ(content(300), peek(view_mem + 44 * PAGE));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(content(300), agent_peek(&child, self->mem + 300 * PAGE));
	ASSERT_EQ(0, as_unmap(self->asfd, 300 * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 300 * PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + 300 * PAGE, '!'));
	EXPECT_EQ(-SIGBUS, peek(view_mem + 44 * PAGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem + 300 * PAGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, view_mem + 44 * PAGE));
	EXPECT_LE(0, touch(self->asfd, self->mem, 0, 300));
	EXPECT_LE(0, touch(self->asfd, self->mem, 301, 2 * PAGES - 301));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 300 * PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(huge_page, loses_one_page_to_replace)
{
	EXPECT_HUGE(self->mem);
	ASSERT_EQ(0, as_map(self->asfd, 5 * PAGE, self->small, 0, 2 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('A', peek(self->mem + 5 * PAGE));
	EXPECT_EQ('B', peek(self->mem + 6 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 6 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->small, PAGE));
	EXPECT_EQ(content(6), file_byte(self->file, 6 * PAGE));
	EXPECT_LE(0, touch(self->asfd, self->mem, 7, 2 * PAGES - 7));
	/* and maps the huge file again */
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_LE(0, touch(self->asfd, self->mem, 0, 2 * PAGES));
}

TEST_F(huge_page, loses_write_access_to_one_page)
{
	EXPECT_EQ(0, poke(self->mem, 'a'));
	EXPECT_HUGE(self->mem);
	ASSERT_EQ(0, as_protect(self->asfd, 100 * PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 100 * PAGE, '!'));
	EXPECT_EQ(content(100), peek(self->mem + 100 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 100 * PAGE, '!'));
	EXPECT_EQ(0, poke(self->mem + 99 * PAGE, content(99)));
	EXPECT_EQ(0, poke(self->mem + 101 * PAGE, content(101)));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 100 * PAGE, '!'));
	EXPECT_EQ(content(100), file_byte(self->file, 100 * PAGE));
}

/* The first write does not make a huge entry for reading writable, either. */
TEST_F(huge_page, for_reading_is_never_written)
{
	int view = as_view(self->asfd, 0, LEN, PROT_READ);
	char *view_mem = attach_at(view, 0, LEN, PROT_READ, 0);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	EXPECT_HUGE(view_mem);
	EXPECT_EQ(-SIGSEGV, poke(view_mem + 7 * PAGE, '!'));
	EXPECT_EQ(-1, mprotect(view_mem, HUGE, RW));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, PROT_READ,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_HUGE(self->mem);
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 511 * PAGE, '!'));
	ASSERT_EQ(0, mprotect(self->mem, HUGE, PROT_READ));
	ASSERT_EQ(0, mprotect(self->mem, HUGE, RW));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + PAGE, '!'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(content(2), agent_peek(&child, self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem + 2 * PAGE, '!'));
	EXPECT_EQ(0, agent_stop(&child));
	EXPECT_LE(0, touch(self->asfd, self->mem, 0, 2 * PAGES));
	EXPECT_EQ(content(7), file_byte(self->file, 7 * PAGE));
}

/*
 * If the addresses are not congruent there can be no huge entry; all values are right
 * all the same.
 */
TEST_F(huge_page, is_mapped_at_unaligned_address)
{
	int view = as_view(self->asfd, 3 * PAGE, LEN - 3 * PAGE, RW);
	char *odd = attach_at(self->asfd, 0, LEN, RW, 5 * PAGE);
	char *middle = attach_at(self->asfd, 100 * PAGE, HUGE, RW, 100 * PAGE);
	char *view_mem = attach_at(view, 0, LEN - 3 * PAGE, RW, 0);
	unsigned int i;

	ASSERT_NE(NULL, odd);
	ASSERT_NE(NULL, middle);
	ASSERT_NE(NULL, view_mem);
	EXPECT_LE(0, touch(self->asfd, odd, 0, 2 * PAGES));
	EXPECT_LE(0, touch(self->asfd, middle - 100 * PAGE, 100, PAGES));
	for (i = 0; i < 2 * PAGES - 3; i += 7)
		EXPECT_EQ(content(i + 3), peek(view_mem + i * PAGE));
	/* and within the space itself */
	ASSERT_EQ(0, as_map(self->asfd, LEN + PAGE, self->file, 0, HUGE, RW, 0));
	for (i = 0; i < PAGES; i += 7)
		EXPECT_EQ(content(i), peek(self->mem + LEN + (i + 1) * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem + LEN + HUGE + PAGE));
}

TEST_F(huge_page, survives_split_and_moved_attachment)
{
	char *room = attach_at(self->small, 0, PAGE, PROT_READ, 0), *moved;

	EXPECT_HUGE(self->mem);
	ASSERT_EQ(0, munmap(self->mem + 10 * PAGE, PAGE));
	EXPECT_LE(0, touch(self->asfd, self->mem, 0, 10));
	EXPECT_LE(0, touch(self->asfd, self->mem, 11, 2 * PAGES - 11));
	/* moves the second huge page, to an aligned and to an unaligned address */
	moved = mremap(self->mem + HUGE, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       room);
	ASSERT_EQ(room, moved);
	EXPECT_LE(0, touch(self->asfd, moved - HUGE, PAGES, PAGES));
	moved = mremap(moved, HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       room + HUGE + PAGE);
	ASSERT_EQ(room + HUGE + PAGE, moved);
	EXPECT_LE(0, touch(self->asfd, moved - HUGE, PAGES, PAGES));
	ASSERT_EQ(0, as_unmap(self->asfd, HUGE + 9 * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(moved + 9 * PAGE));
	EXPECT_EQ(content(PAGES + 8), peek(moved + 8 * PAGE));
}

TEST_F(huge_page, follows_punch_and_truncate)
{
	struct agent child;

	EXPECT_HUGE(self->mem);
	EXPECT_EQ(0, poke(self->mem + 1, 'w'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(content(3), agent_peek(&child, self->mem + 3 * PAGE));
	ASSERT_EQ(0, fallocate(self->file, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 0, HUGE));
	EXPECT_EQ(0, peek(self->mem));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(0, agent_peek(&child, self->mem + 3 * PAGE));
	EXPECT_EQ(content(PAGES), peek(self->mem + HUGE));
	EXPECT_EQ(0, poke(self->mem + 3 * PAGE, 'n'));
	EXPECT_EQ('n', file_byte(self->file, 3 * PAGE));
	ASSERT_EQ(0, ftruncate(self->file, HUGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + HUGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem + HUGE + 9 * PAGE));
	EXPECT_EQ('n', peek(self->mem + 3 * PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

/*
 * fork() reads a huge entry without a lock and copies it later; an unmap in between
 * would not reach the copy. There must be no huge entry that it could copy.
 */
struct toucher {
	const char *mem;
	volatile bool stop;
	volatile unsigned long touches;
};

static void *touch_forever(void *arg)
{
	struct toucher *t = arg;

	for (; !t->stop; t->touches++)
		peek(t->mem + t->touches % PAGES * PAGE);
	return NULL;
}

/* A small entry would bring a page table, and that stays. */
TEST_F(huge_page, stays_huge_when_touched_during_replaces)
{
	struct toucher toucher = { .mem = self->mem };
	uint64_t until = now_ms() + race_ms();
	pthread_t thread;
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, touch_forever, &toucher));
	for (i = 0; i < 300 || now_ms() < until; i++) {
		unsigned long seen = toucher.touches;

		ASSERT_EQ(0, as_map(self->asfd, 0, self->file, i % 2 * HUGE, HUGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		while (i % 4 == 0 && toucher.touches == seen)
			sched_yield();
	}
	toucher.stop = true;
	pthread_join(thread, NULL);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, LEN, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_HUGE(self->mem);
}

TEST_F(huge_page, is_not_copied_by_fork)
{
	struct agent child;
	long long before;

	if (!have_huge_pages())
		SKIP(return, "no huge pages in attachments of this kernel");
	EXPECT_HUGE(self->mem);
	EXPECT_EQ(0, poke(self->mem + 1, 'w'));
	before = fdinfo_value(self->asfd, "faults");
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(content(3), agent_peek(&child, self->mem + 3 * PAGE));
	EXPECT_EQ(content(PAGES + 3),
		  agent_peek(&child, self->mem + HUGE + 3 * PAGE));
	EXPECT_LE(before + 2, fdinfo_value(self->asfd, "faults"));
	EXPECT_EQ(0, agent_poke(&child, self->mem + 2, 'c'));
	EXPECT_EQ('c', peek(self->mem + 2));
	EXPECT_HUGE(self->mem);
	EXPECT_EQ(0, agent_stop(&child));
}

/* mremap() takes it out of one place before it sets it in the other. */
TEST_F(huge_page, is_not_moved_by_mremap)
{
	char *to = attach_at(self->asfd, 0, LEN, RW, 0), *moved;
	long long before;

	if (!have_huge_pages())
		SKIP(return, "no huge pages in attachments of this kernel");
	EXPECT_HUGE(self->mem);
	before = fdinfo_value(self->asfd, "faults");
	moved = mremap(self->mem, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	ASSERT_EQ(to, moved);
	EXPECT_HUGE(moved);
	EXPECT_LE(before + 2, fdinfo_value(self->asfd, "faults"));
}

/* tmpfs splits a huge page when a part of it is punched. */
TEST_F(huge_page, follows_punch_of_one_page)
{
	if (variant->hugetlb)
		SKIP(return, "hugetlb punches whole huge pages only");
	EXPECT_HUGE(self->mem);
	ASSERT_EQ(0, fallocate(self->file, FALLOC_FL_PUNCH_HOLE |
			       FALLOC_FL_KEEP_SIZE, 50 * PAGE, PAGE));
	EXPECT_EQ(0, peek(self->mem + 50 * PAGE));
	EXPECT_LE(0, touch(self->asfd, self->mem, 0, 50));
	EXPECT_LE(0, touch(self->asfd, self->mem, 51, 2 * PAGES - 51));
	EXPECT_EQ(0, poke(self->mem + 50 * PAGE, 'n'));
	EXPECT_EQ('n', file_byte(self->file, 50 * PAGE));
	EXPECT_EQ(content(49), file_byte(self->file, 49 * PAGE));
}

TEST_HARNESS_MAIN

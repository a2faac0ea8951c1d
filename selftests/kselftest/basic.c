// SPDX-License-Identifier: GPL-2.0
/* What is mapped is visible where it was mapped and nowhere else. */
#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(space)
{
	struct space s;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, a_new_space_is_empty)
{
	char *layout = fdinfo_layout(self->s.asfd);
	unsigned int i;

	for (i = 0; i < SPACE_PAGES; i++) {
		EXPECT_EQ(-SIGBUS, peek(self->s.mem + i * PAGE));
		EXPECT_EQ(-SIGBUS, poke(self->s.mem + i * PAGE, 1));
	}
	ASSERT_NE(NULL, layout);
	EXPECT_STREQ("", layout);
	free(layout);
}

TEST_F(space, map_is_visible_at_once)
{
	unsigned int i;

	/* the hole was accessed before: it must leave no trace */
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 4 * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 4 * PAGE, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ('a' + (int)i, peek(self->s.mem + (4 + i) * PAGE));
		EXPECT_EQ('a' + (int)i, peek(self->s.mem + (5 + i) * PAGE - 1));
	}
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 4 * PAGE - 1));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + (4 + FILE_PAGES) * PAGE));
}

TEST_F(space, map_shows_requested_file_range)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 5 * PAGE, 2 * PAGE, RW, 0));
	EXPECT_EQ('f', peek(self->s.mem));
	EXPECT_EQ('g', peek(self->s.mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
}

TEST_F(space, attachment_shows_its_part_of_the_space)
{
	char *part;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	part = attach(self->s.asfd, 3 * PAGE, 2 * PAGE, RW);
	ASSERT_NE(NULL, part);
	EXPECT_EQ('d', peek(part));
	EXPECT_EQ('e', peek(part + PAGE));
	EXPECT_EQ(0, poke(part + PAGE, '!'));
	EXPECT_EQ('!', peek(self->s.mem + 4 * PAGE));
	/* a split attachment still shows the same pages */
	ASSERT_EQ(0, munmap(part, PAGE));
	EXPECT_EQ('!', peek(part + PAGE));
}

TEST_F(space, a_file_may_be_mapped_twice)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, 4 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 8 * PAGE, self->s.a, 2 * PAGE,
			    4 * PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->s.mem + 2 * PAGE, '!'));
	EXPECT_EQ('!', peek(self->s.mem + 8 * PAGE));
	/* and one of the two parts may be unmapped */
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, 4 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ('!', peek(self->s.mem + 8 * PAGE));
	EXPECT_EQ('d', peek(self->s.mem + 9 * PAGE));
}

TEST_F(space, write_reaches_the_mapped_file_only)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('b', peek(self->s.mem + PAGE));
	EXPECT_EQ(0, poke(self->s.mem + PAGE, '1'));
	EXPECT_EQ(0, poke(self->s.mem + 2 * PAGE, '2'));
	EXPECT_EQ('1', file_byte(self->s.a, PAGE));
	EXPECT_EQ('2', file_byte(self->s.a, 2 * PAGE));
	EXPECT_EQ('b', file_byte(self->s.a, PAGE + 1));
	EXPECT_EQ('B', file_byte(self->s.b, PAGE));
}

TEST_F(space, unmap_leaves_a_hole)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', peek(self->s.mem));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem));
	EXPECT_EQ(-SIGBUS, poke(self->s.mem, 1));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + PAGE));
	/* the file is unchanged */
	EXPECT_EQ('a', file_byte(self->s.a, 0));
	/* and can be mapped again */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, PAGE, PAGE, RW, 0));
	EXPECT_EQ('b', peek(self->s.mem));
}

TEST_F(space, unmap_splits_mapping)
{
	unsigned int i;

	ASSERT_EQ(0, as_map(self->s.asfd, 8 * PAGE, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('f', peek(self->s.mem + 13 * PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 12 * PAGE, 3 * PAGE));
	for (i = 0; i < FILE_PAGES; i++) {
		int want = i >= 4 && i < 7 ? -SIGBUS : 'a' + (int)i;

		EXPECT_EQ(want, peek(self->s.mem + (8 + i) * PAGE));
	}
	/* the rest may be split again, at its ends */
	ASSERT_EQ(0, as_unmap(self->s.asfd, 8 * PAGE, PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 23 * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 8 * PAGE));
	EXPECT_EQ('b', peek(self->s.mem + 9 * PAGE));
	EXPECT_EQ('o', peek(self->s.mem + 22 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 23 * PAGE));
}

TEST_F(space, unmap_spans_holes_and_mappings)
{
	unsigned int i;

	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, as_map(self->s.asfd, 3 * i * PAGE, self->s.a,
				    i * PAGE, 2 * PAGE, RW, 0));
	/* from the middle of the first mapping to the middle of the last */
	ASSERT_EQ(0, as_unmap(self->s.asfd, PAGE, 21 * PAGE));
	EXPECT_EQ('a', peek(self->s.mem));
	for (i = 1; i < 22; i++)
		EXPECT_EQ(-SIGBUS, peek(self->s.mem + i * PAGE));
	EXPECT_EQ('i', peek(self->s.mem + 22 * PAGE));
}

TEST_F(space, map_over_a_mapping_is_eexist)
{
	char *before, *after;

	ASSERT_EQ(0, as_map(self->s.asfd, 8 * PAGE, self->s.a, 0, 4 * PAGE, RW, 0));
	before = fdinfo_layout(self->s.asfd);
	EXPECT_EQ(-EEXIST, as_map(self->s.asfd, 8 * PAGE, self->s.b, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ(-EEXIST, as_map(self->s.asfd, 9 * PAGE, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ(-EEXIST, as_map(self->s.asfd, 7 * PAGE, self->s.b, 0, 2 * PAGE, RW, 0));
	EXPECT_EQ(-EEXIST, as_map(self->s.asfd, 11 * PAGE, self->s.b, 0, 2 * PAGE, RW, 0));
	EXPECT_EQ(-EEXIST, as_map(self->s.asfd, 0, self->s.b, 0, FILE_LEN, RW, 0));
	after = fdinfo_layout(self->s.asfd);
	EXPECT_STREQ(before, after);
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 7 * PAGE));
	EXPECT_EQ('a', peek(self->s.mem + 8 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 12 * PAGE));
	/* the ranges next to it are free */
	EXPECT_EQ(0, as_map(self->s.asfd, 7 * PAGE, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ(0, as_map(self->s.asfd, 12 * PAGE, self->s.b, PAGE, PAGE, RW, 0));
	EXPECT_EQ('A', peek(self->s.mem + 7 * PAGE));
	EXPECT_EQ('d', peek(self->s.mem + 11 * PAGE));
	EXPECT_EQ('B', peek(self->s.mem + 12 * PAGE));
	free(before);
	free(after);
}

TEST_F(space, replace_covers_mappings_and_holes)
{
	unsigned int i;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < FILE_PAGES; i++)
		ASSERT_EQ('a' + (int)i, peek(self->s.mem + i * PAGE));
	/* the middle of a mapping */
	ASSERT_EQ(0, as_map(self->s.asfd, 4 * PAGE, self->s.b, 4 * PAGE,
			    4 * PAGE, RW, ADDRESS_SPACE_MAP_REPLACE));
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ((i >= 4 && i < 8 ? 'A' : 'a') + (int)i,
			  peek(self->s.mem + i * PAGE));
	/* the end of a mapping and a hole, and a hole alone */
	ASSERT_EQ(0, as_map(self->s.asfd, 15 * PAGE, self->s.b, 0, 2 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, as_map(self->s.asfd, 32 * PAGE, self->s.b, 0, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('o', peek(self->s.mem + 14 * PAGE));
	EXPECT_EQ('A', peek(self->s.mem + 15 * PAGE));
	EXPECT_EQ('B', peek(self->s.mem + 16 * PAGE));
	EXPECT_EQ('A', peek(self->s.mem + 32 * PAGE));
	/* the same file at another offset, over several mappings */
	ASSERT_EQ(0, as_map(self->s.asfd, 3 * PAGE, self->s.a, 0, 6 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('c', peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ('a', peek(self->s.mem + 3 * PAGE));
	EXPECT_EQ('f', peek(self->s.mem + 8 * PAGE));
	EXPECT_EQ('j', peek(self->s.mem + 9 * PAGE));
}

TEST_F(space, anywhere_finds_holes_until_full)
{
	bool taken[SPACE_PAGES] = { false };
	unsigned int i, j;
	uint64_t addr;

	ASSERT_EQ(0, as_map(self->s.asfd, 5 * PAGE, self->s.b, 0, 3 * PAGE, RW, 0));
	for (j = 5; j < 8; j++)
		taken[j] = true;
	for (i = 0; i < SPACE_PAGES - 3; i++) {
		ASSERT_EQ(0, as_map_anywhere(self->s.asfd, &addr, self->s.a,
					     i % FILE_PAGES * PAGE, PAGE, RW));
		ASSERT_EQ(0UL, addr % PAGE);
		ASSERT_LT(addr, SPACE_LEN);
		EXPECT_EQ(false, taken[addr / PAGE]);
		taken[addr / PAGE] = true;
		EXPECT_EQ('a' + (int)(i % FILE_PAGES), peek(self->s.mem + addr));
	}
	EXPECT_EQ(-ENOSPC, as_map_anywhere(self->s.asfd, &addr, self->s.a, 0,
					   PAGE, RW));
	EXPECT_EQ('A', peek(self->s.mem + 5 * PAGE));
	/* two holes of one page do not make a hole of two */
	ASSERT_EQ(0, as_unmap(self->s.asfd, 20 * PAGE, PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 22 * PAGE, PAGE));
	EXPECT_EQ(-ENOSPC, as_map_anywhere(self->s.asfd, &addr, self->s.a, 0,
					   2 * PAGE, RW));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 21 * PAGE, PAGE));
	ASSERT_EQ(0, as_map_anywhere(self->s.asfd, &addr, self->s.a, 0,
				     3 * PAGE, RW));
	EXPECT_EQ(20 * PAGE, addr);
}

static long long allocated(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -errno : (long long)st.st_blocks * 512;
}

TEST_F(space, populate_reads_pages_in)
{
	static const int prots[] = { RW, PROT_READ };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		int sparse = memfd_pages("sparse", FILE_PAGES, -1);

		ASSERT_LE(0, sparse);
		ASSERT_EQ(0, as_map(self->s.asfd, 0, sparse, 0, FILE_LEN,
				    prots[i], 0));
		EXPECT_EQ(0, allocated(sparse));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, sparse, 0, 4 * PAGE,
				    prots[i], ADDRESS_SPACE_MAP_POPULATE |
				    ADDRESS_SPACE_MAP_REPLACE));
		EXPECT_EQ(4 * (long long)PAGE, allocated(sparse));
		ASSERT_EQ(0, as_map(self->s.asfd, 16 * PAGE, sparse, 0, FILE_LEN,
				    prots[i], ADDRESS_SPACE_MAP_POPULATE));
		EXPECT_EQ((long long)FILE_LEN, allocated(sparse));
		EXPECT_EQ(0, peek(self->s.mem));
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
		close(sparse);
	}
}

TEST_F(space, populate_past_end_of_file_succeeds)
{
	int file = memfd_pages("short", 2, 'x');

	ASSERT_LE(0, file);
	EXPECT_EQ(0, as_map(self->s.asfd, 0, file, 0, 4 * PAGE, RW,
			    ADDRESS_SPACE_MAP_POPULATE));
	EXPECT_EQ('y', peek(self->s.mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
}

TEST_F(space, large_space_works_like_small_one)
{
	uint64_t length = 1ULL << 47;
	int asfd = as_create(length);
	char *end;

	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, as_map(asfd, length - 2 * PAGE, self->s.a, 0, 2 * PAGE, RW, 0));
	end = attach(asfd, length - 3 * PAGE, 3 * PAGE, RW);
	ASSERT_NE(NULL, end);
	EXPECT_EQ(-SIGBUS, peek(end));
	EXPECT_EQ('a', peek(end + PAGE));
	EXPECT_EQ('b', peek(end + 2 * PAGE));
	ASSERT_EQ(0, as_unmap(asfd, 0, length));
	EXPECT_EQ(-SIGBUS, peek(end + PAGE));
}

TEST_F(space, two_spaces_are_independent)
{
	int other = as_create(SPACE_LEN);
	char *mem;

	ASSERT_LE(0, other);
	mem = attach(other, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(-SIGBUS, peek(mem));
	ASSERT_EQ(0, as_map(other, 0, self->s.a, PAGE, PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->s.mem));
	EXPECT_EQ('b', peek(mem));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	EXPECT_EQ('b', peek(mem));
}

TEST_F(space, hugetlb_file_is_mapped_at_page_granularity)
{
	int huge = hugetlb_memfd(2);
	int asfd = as_create(16 * HUGE);
	uint64_t addr;
	char *mem;

	if (huge == -ENOMEM)
		SKIP(return, "no huge pages available");
	ASSERT_LE(0, huge);
	ASSERT_LE(0, asfd);
	mem = attach(asfd, 0, 16 * HUGE, RW);
	ASSERT_NE(NULL, mem);
	/* 5 pages from the middle of the first huge page, at an odd address */
	ASSERT_EQ(0, as_map(asfd, 3 * PAGE, huge, 7 * PAGE, 5 * PAGE, RW, 0));
	EXPECT_EQ('h', peek(mem + 3 * PAGE));
	EXPECT_EQ(0, poke(mem + 7 * PAGE, '!'));
	EXPECT_EQ(-SIGBUS, peek(mem + 8 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem + 2 * PAGE));
	/* the kernel aligns attachments that could have huge entries */
	ASSERT_EQ(0, as_map_anywhere(asfd, &addr, huge, 0, 2 * HUGE, RW));
	EXPECT_EQ(0UL, addr % HUGE);
	EXPECT_EQ('!', peek(mem + addr + 11 * PAGE));
	EXPECT_EQ('h', peek(mem + addr + HUGE + 11 * PAGE));
	/* a page in the middle of it may be unmapped, the others stay */
	ASSERT_EQ(0, as_unmap(asfd, addr + 12 * PAGE, PAGE));
	EXPECT_EQ('!', peek(mem + addr + 11 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem + addr + 12 * PAGE));
	EXPECT_EQ('h', peek(mem + addr + 13 * PAGE));
}

TEST_HARNESS_MAIN

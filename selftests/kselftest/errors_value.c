// SPDX-License-Identifier: GPL-2.0
/* An invalid value in any field gives the errno of the contract and changes nothing. */
#include "kselftest_harness.h"
#include "lib/as_util.h"

#define TOP	(1ULL << 63)
#define LAST	(-PAGE)		/* the last page that 64 bits can address */

FIXTURE(space)
{
	struct space s;
	int asfd, file;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	self->file = self->s.b;
	/* a mapping in the middle that must stay unchanged */
	ASSERT_EQ(0, as_map(self->asfd, 20 * PAGE, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ('a', peek(self->s.mem + 20 * PAGE));
}

FIXTURE_TEARDOWN(space)
{
	EXPECT_EQ('a', peek(self->s.mem + 20 * PAGE));
	EXPECT_EQ('b', peek(self->s.mem + 21 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 19 * PAGE));
	space_free(&self->s);
}

TEST_F(space, create_rejects_invalid_lengths)
{
	static const uint64_t wrong[] = {
		0, 1, PAGE - 1, PAGE + 1, SPACE_LEN - 1, (1ULL << 47) + PAGE,
		1ULL << 48, TOP, LAST, UINT64_MAX,
	};
	static const uint64_t right[] = { PAGE, 3 * PAGE, 1ULL << 32, 1ULL << 47 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		EXPECT_REFUSED(self->asfd, EINVAL, as_create(wrong[i]));
	for (i = 0; i < ARRAY_SIZE(right); i++) {
		int fd = as_create(right[i]);
		struct stat st;

		ASSERT_LE(0, fd);
		ASSERT_EQ(0, fstat(fd, &st));
		EXPECT_EQ(right[i], (uint64_t)st.st_size);
		close(fd);
	}
}

struct range_case {
	uint64_t addr, offset, length;
	int err;
};

TEST_F(space, mmap_rejects_invalid_ranges)
{
	static const struct range_case cases[] = {
		/* not a multiple of the page size */
		{ 1, 0, PAGE, EINVAL },
		{ PAGE - 1, 0, PAGE, EINVAL },
		{ 0, 1, PAGE, EINVAL },
		{ 0, PAGE + 512, PAGE, EINVAL },
		{ 0, 0, 1, EINVAL },
		{ 0, 0, PAGE + 1, EINVAL },
		{ 0, 0, UINT64_MAX, EINVAL },
		/* empty */
		{ 0, 0, 0, EINVAL },
		{ SPACE_LEN, 0, 0, EINVAL },
		/* past the end */
		{ 0, 0, SPACE_LEN + PAGE, EINVAL },
		{ PAGE, 0, SPACE_LEN, EINVAL },
		{ SPACE_LEN - PAGE, 0, 2 * PAGE, EINVAL },
		{ SPACE_LEN, 0, PAGE, EINVAL },
		{ TOP, 0, PAGE, EINVAL },
		{ 0, 0, TOP / 2, EINVAL },
		/* the sum overflows */
		{ LAST, 0, PAGE, EOVERFLOW },
		{ LAST, 0, 2 * PAGE, EOVERFLOW },
		{ 2 * PAGE, 0, LAST, EOVERFLOW },
		{ TOP, 0, TOP, EOVERFLOW },
		{ 0, LAST, PAGE, EOVERFLOW },
		{ 0, LAST, 2 * PAGE, EOVERFLOW },
		{ 0, TOP, TOP, EOVERFLOW },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		EXPECT_REFUSED(self->asfd, cases[i].err,
			       as_map(self->asfd, cases[i].addr, self->file,
				      cases[i].offset, cases[i].length, RW, 0));
	/* the same where REPLACE would not find a hole */
	for (i = 0; i < ARRAY_SIZE(cases); i++)
		EXPECT_REFUSED(self->asfd, cases[i].err,
			       as_map(self->asfd, cases[i].addr, self->file,
				      cases[i].offset, cases[i].length, RW,
				      ADDRESS_SPACE_MAP_REPLACE));
}

/* No file is that long: mmap() gives EOVERFLOW, the contract EINVAL. */
TEST_F(space, mmap_past_maximum_file_size_is_refused)
{
	static const uint64_t offsets[] = { TOP - PAGE, TOP, TOP + PAGE, LAST - PAGE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		char *before = state_of(self->asfd), *after;
		int ret = as_map(self->asfd, 0, self->file, offsets[i], PAGE, RW, 0);

		if (ret == 0) {
			/* the last page that a file could ever have */
			EXPECT_EQ(TOP - PAGE, offsets[i]);
			EXPECT_EQ(-SIGBUS, peek(self->s.mem));
			ASSERT_EQ(0, as_unmap(self->asfd, 0, PAGE));
		} else if (ret != -EINVAL) {
			EXPECT_EQ(-EOVERFLOW, ret);
		}
		after = state_of(self->asfd);
		EXPECT_STREQ(before, after);
		free(before);
		free(after);
	}
}

TEST_F(space, mmap_past_end_of_file_succeeds)
{
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, FILE_LEN - PAGE, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 2 * PAGE, self->file, 1ULL << 40, PAGE, RW, 0));
	EXPECT_EQ('A' + FILE_PAGES - 1, peek(self->s.mem));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->s.mem + 2 * PAGE, 1));
}

static const uint32_t wrong_prots[] = {
	PROT_WRITE, PROT_EXEC, PROT_WRITE | PROT_EXEC,
	PROT_READ | 0x8, PROT_READ | 0x10, PROT_READ | 0x100,
	PROT_READ | PROT_GROWSDOWN, PROT_READ | PROT_GROWSUP,
	PROT_READ | 1U << 31, 0x8, ~0U,
};

TEST_F(space, mmap_rejects_unknown_protections)
{
	static const int right[] = { PROT_NONE, PROT_READ, RW, RX, RWX };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(wrong_prots); i++)
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_map(self->asfd, 0, self->file, 0, PAGE,
				      wrong_prots[i], 0));
	for (i = 0; i < ARRAY_SIZE(right); i++)
		EXPECT_EQ(0, as_map(self->asfd, 0, self->file, 0, PAGE, right[i],
				    ADDRESS_SPACE_MAP_REPLACE));
}

TEST_F(space, prot_none_is_mapped_but_not_accessible)
{
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, PAGE, PROT_NONE, 0));
	EXPECT_EQ(-SIGSEGV, peek(self->s.mem));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem, 1));
	EXPECT_EQ(-EEXIST, as_map(self->asfd, 0, self->file, 0, PAGE, RW, 0));
	EXPECT_EQ('A', file_byte(self->file, 0));
}

TEST_F(space, anywhere_with_address_or_replace_is_einval)
{
	struct address_space_mmap arg = {
		.size = sizeof(arg),
		.flags = ADDRESS_SPACE_MAP_ANYWHERE,
		.fd = self->file,
		.prot = RW,
		.length = PAGE,
	};

	arg.addr = PAGE;
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_ioctl(self->asfd, ADDRESS_SPACE_MMAP, &arg));
	arg.addr = 0;
	arg.flags |= ADDRESS_SPACE_MAP_REPLACE;
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_ioctl(self->asfd, ADDRESS_SPACE_MMAP, &arg));
	arg.flags = ADDRESS_SPACE_MAP_ANYWHERE | ADDRESS_SPACE_MAP_POPULATE;
	EXPECT_EQ(0, as_ioctl(self->asfd, ADDRESS_SPACE_MMAP, &arg));
}

TEST_F(space, anywhere_without_large_enough_hole_is_enospc)
{
	uint64_t addr;

	/* holes of 20, 24 and 3 pages remain */
	ASSERT_EQ(0, as_map(self->asfd, 60 * PAGE, self->file, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->asfd, ENOSPC,
		       as_map_anywhere(self->asfd, &addr, self->file, 0,
				       25 * PAGE, RW));
	EXPECT_EQ(0ULL, addr);
	EXPECT_EQ(0, as_map_anywhere(self->asfd, &addr, self->file, 0,
				     24 * PAGE, RW));
	EXPECT_EQ(36 * PAGE, addr);
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_map_anywhere(self->asfd, &addr, self->file, 0, 0, RW));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_map_anywhere(self->asfd, &addr, self->file, 0, 1, RW));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_map_anywhere(self->asfd, &addr, self->file, 1, PAGE, RW));
	EXPECT_REFUSED(self->asfd, EOVERFLOW,
		       as_map_anywhere(self->asfd, &addr, self->file, LAST,
				       2 * PAGE, RW));
}

/* The address is written back; if that fails, nothing stays mapped. */
TEST_F(space, unwritable_result_undoes_mmap)
{
	struct address_space_mmap *arg = mmap(NULL, PAGE, RW, MAP_PRIVATE |
					      MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)arg);
	arg->size = sizeof(*arg);
	arg->flags = ADDRESS_SPACE_MAP_ANYWHERE;
	arg->fd = self->file;
	arg->prot = RW;
	arg->length = PAGE;
	ASSERT_EQ(0, mprotect(arg, PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_ioctl(self->asfd, ADDRESS_SPACE_MMAP, arg));
	/* this does not matter if nothing is to be written */
	ASSERT_EQ(0, mprotect(arg, PAGE, RW));
	arg->flags = 0;
	ASSERT_EQ(0, mprotect(arg, PAGE, PROT_READ));
	EXPECT_EQ(0, as_ioctl(self->asfd, ADDRESS_SPACE_MMAP, arg));
}

static const struct range_case ranges[] = {
	{ 1, 0, PAGE, EINVAL },
	{ PAGE + 8, 0, PAGE, EINVAL },
	{ 0, 0, 1, EINVAL },
	{ 0, 0, PAGE - 1, EINVAL },
	{ 0, 0, 0, EINVAL },
	{ 20 * PAGE, 0, 0, EINVAL },
	{ 0, 0, SPACE_LEN + PAGE, EINVAL },
	{ PAGE, 0, SPACE_LEN, EINVAL },
	{ SPACE_LEN, 0, PAGE, EINVAL },
	{ TOP, 0, PAGE, EINVAL },
	{ 0, 0, TOP, EINVAL },
	{ LAST, 0, PAGE, EOVERFLOW },
	{ PAGE, 0, LAST, EOVERFLOW },
	{ TOP, 0, TOP, EOVERFLOW },
};

TEST_F(space, munmap_rejects_invalid_ranges)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ranges); i++)
		EXPECT_REFUSED(self->asfd, ranges[i].err,
			       as_unmap(self->asfd, ranges[i].addr,
					ranges[i].length));
}

TEST_F(space, view_rejects_invalid_ranges)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ranges); i++)
		EXPECT_REFUSED(self->asfd, ranges[i].err,
			       as_view(self->asfd, ranges[i].addr,
				       ranges[i].length, PROT_READ));
	EXPECT_LE(0, as_view(self->asfd, 0, SPACE_LEN, PROT_READ));
	EXPECT_LE(0, as_view(self->asfd, SPACE_LEN - PAGE, PAGE, PROT_READ));
}

TEST_F(space, view_rejects_unknown_protections)
{
	static const int right[] = { PROT_READ, RW, RX, RWX };
	unsigned int i;

	/* a view without any access is refused */
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_view(self->asfd, 0, PAGE, PROT_NONE));
	for (i = 0; i < ARRAY_SIZE(wrong_prots); i++)
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_view(self->asfd, 0, PAGE, wrong_prots[i]));
	for (i = 0; i < ARRAY_SIZE(right); i++)
		EXPECT_LE(0, as_view(self->asfd, 0, PAGE, right[i]));
}

TEST_HARNESS_MAIN

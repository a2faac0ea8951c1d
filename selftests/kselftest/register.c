// SPDX-License-Identifier: GPL-2.0
/* A registered file is kept ready, is not visible, and does not bypass a check. */
#include <sys/mount.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(space)
{
	struct space s;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	self->mem = self->s.mem;
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, register_makes_nothing_visible)
{
	char *layout;

	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	layout = fdinfo_layout(self->asfd);
	EXPECT_STREQ("", layout);
	free(layout);
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, poke(self->mem + PAGE, 1));
}

TEST_F(space, registered_file_maps_like_any_other)
{
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 2 * PAGE, 8 * PAGE, RW, 0));
	/* within it, at its ends, over its end, and outside of it */
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 4 * PAGE, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 10 * PAGE, self->s.a, 2 * PAGE, 8 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 20 * PAGE, self->s.a, 9 * PAGE, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 30 * PAGE, self->s.a, 0, PAGE, RW, 0));
	EXPECT_EQ('e', peek(self->mem));
	EXPECT_EQ('f', peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
	EXPECT_EQ('c', peek(self->mem + 10 * PAGE));
	EXPECT_EQ('j', peek(self->mem + 17 * PAGE));
	EXPECT_EQ('j', peek(self->mem + 20 * PAGE));
	EXPECT_EQ('k', peek(self->mem + 21 * PAGE));
	EXPECT_EQ('a', peek(self->mem + 30 * PAGE));
	/* one page, visible at all of its addresses */
	EXPECT_EQ(0, poke(self->mem + 17 * PAGE, '!'));
	EXPECT_EQ('!', peek(self->mem + 20 * PAGE));
	EXPECT_EQ('!', file_byte(self->s.a, 9 * PAGE));
}

TEST_F(space, unmap_revokes_registered_file)
{
	struct agent child;

	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(0, poke(self->mem, '!'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('!', agent_peek(&child, self->mem));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, FILE_LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, PAGE, PAGE, RW, 0));
	EXPECT_EQ('b', peek(self->mem));
	EXPECT_EQ('b', agent_peek(&child, self->mem));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, truncation_of_registered_file_is_visible)
{
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('e', peek(self->mem + 4 * PAGE));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, FILE_LEN));
	/* while no mapping shows it */
	ASSERT_EQ(0, ftruncate(self->s.a, 2 * PAGE));
	ASSERT_EQ(0, ftruncate(self->s.a, 6 * PAGE));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, peek(self->mem + 4 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 6 * PAGE));
	ASSERT_EQ(0, ftruncate(self->s.a, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
}

/* A registration holds its file, and with it the file system. */
TEST_F(space, register_holds_file_until_unregister)
{
	char dir[64];
	int file = own_tmpfs_file(dir, 4, 'x');

	ASSERT_LE(0, file);
	ASSERT_EQ(0, as_register(self->asfd, file, 0, 4 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, file, 0, PAGE, RW, 0));
	EXPECT_EQ('x', peek(self->mem));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, PAGE));
	/* longer than an unused segment is kept */
	sleep_ms(1000);
	ASSERT_EQ(0, as_unregister(self->asfd, file));
	ASSERT_EQ(0, as_register(self->asfd, file, 0, 4 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, file, PAGE, PAGE, RW, 0));
	ASSERT_EQ(0, close(file));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, PAGE));
	EXPECT_EQ(-EBUSY, umount_within(dir, 1000));
	ASSERT_EQ(0, close(self->asfd));
	ASSERT_EQ(0, munmap(self->mem, SPACE_LEN));
	self->s.mem = NULL;
	EXPECT_EQ(0, umount_within(dir, WORKER_MS));
}

TEST_F(space, unregister_releases_file)
{
	char dir[64], path[80];
	int other, file = own_tmpfs_file(dir, 4, 'x');

	other = file_pages(dir, 4, 'X');
	ASSERT_EQ(0, as_register(self->asfd, file, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_register(self->asfd, file, PAGE, 2 * PAGE, PROT_READ, 0));
	ASSERT_EQ(0, as_register(self->asfd, other, 0, 0, PROT_READ, 0));
	/* all registrations of one file, and none of another */
	ASSERT_EQ(0, as_unregister(self->asfd, file));
	EXPECT_EQ(-ENOENT, as_unregister(self->asfd, file));
	ASSERT_EQ(0, close(file));
	/* the same file opened again is another open file */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", other);
	file = open(path, O_RDWR);
	ASSERT_LE(0, file);
	EXPECT_EQ(-ENOENT, as_unregister(self->asfd, file));
	ASSERT_EQ(0, as_unregister(self->asfd, other));
	ASSERT_EQ(0, close(file));
	ASSERT_EQ(0, close(other));
	EXPECT_EQ(0, umount_within(dir, WORKER_MS));
}

TEST_F(space, unregister_keeps_mappings)
{
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->mem));
	ASSERT_EQ(0, as_unregister(self->asfd, self->s.a));
	sleep_ms(500);
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 2 * PAGE));
}

/* Whether a file can be sealed against writing soon. */
static bool can_be_sealed(int file)
{
	uint64_t until = now_ms() + WORKER_MS;
	int ret;

	do {
		ret = fcntl(file, F_ADD_SEALS, F_SEAL_WRITE);
		sleep_ms(10);
	} while (ret && now_ms() < until);
	return !ret;
}

TEST_F(space, unregister_all_ends_all_registrations)
{
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_register(self->asfd, self->s.b, 0, PAGE, PROT_READ, 0));
	ASSERT_EQ(0, as_register(self->asfd, self->s.b, 4 * PAGE, PAGE, RW, 0));
	EXPECT_EQ(3, fdinfo_value(self->asfd, "registered"));
	ASSERT_EQ(0, as_unregister_all(self->asfd));
	EXPECT_EQ(0, fdinfo_value(self->asfd, "registered"));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-ENOENT, as_unregister(self->asfd, self->s.a));
	/* with none */
	ASSERT_EQ(0, as_unregister_all(self->asfd));
	/* nothing is left of a file that is not mapped */
	EXPECT_TRUE(can_be_sealed(self->s.b));
}

TEST_F(space, unregister_all_is_not_about_a_file)
{
	struct address_space_unregister arg = {
		.size = sizeof(arg),
		.flags = ADDRESS_SPACE_UNREGISTER_ALL,
		.fd = self->s.a,
	};

	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_REFUSED(self->asfd, EINVAL, as_ioctl(self->asfd, ADDRESS_SPACE_UNREGISTER, &arg));
	EXPECT_EQ(1, fdinfo_value(self->asfd, "registered"));
}

TEST_F(space, zero_length_reaches_to_end_of_file)
{
	ASSERT_EQ(0, ftruncate(self->s.a, 3 * PAGE + 100));
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, PAGE, 0, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, PAGE, 3 * PAGE, RW, 0));
	EXPECT_EQ('b', peek(self->mem));
	EXPECT_EQ('d', peek(self->mem + 2 * PAGE));
	/* nothing to register */
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_register(self->asfd, self->s.a, 4 * PAGE, 0, RW, 0));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_register(self->asfd, self->s.a, 64 * PAGE, 0, RW, 0));
	ASSERT_EQ(0, ftruncate(self->s.b, 0));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_register(self->asfd, self->s.b, 0, 0, RW, 0));
}

TEST_F(space, populate_reads_pages_in)
{
	int sparse = memfd_pages("sparse", FILE_PAGES, -1);
	struct stat st;

	ASSERT_LE(0, sparse);
	ASSERT_EQ(0, as_register(self->asfd, sparse, 0, 8 * PAGE, RW, 0));
	ASSERT_EQ(0, fstat(sparse, &st));
	EXPECT_EQ(0, st.st_blocks);
	ASSERT_EQ(0, as_register(self->asfd, sparse, 0, 4 * PAGE, RW,
				 ADDRESS_SPACE_REGISTER_POPULATE));
	ASSERT_EQ(0, fstat(sparse, &st));
	EXPECT_EQ(4 * 8, st.st_blocks);
}

TEST_F(space, map_may_ask_for_more_protection_than_register)
{
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, PROT_READ, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->mem, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 0));
	/* if it asks for less, it gets less */
	ASSERT_EQ(0, as_register(self->asfd, self->s.b, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, PAGE, self->s.b, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ('A', peek(self->mem + PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + PAGE, '!'));
}

/* The checks are valid for one open file at that time. */
TEST_F(space, registration_bypasses_no_check)
{
	char path[64];
	int readonly;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->s.a);
	readonly = open(path, O_RDONLY);
	ASSERT_LE(0, readonly);
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_map(self->asfd, 0, readonly, 0, PAGE, RW, 0));
	ASSERT_EQ(0, fcntl(self->s.a, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_REFUSED(self->asfd, EPERM,
		       as_map(self->asfd, 0, self->s.a, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->asfd, EPERM,
		       as_register(self->asfd, self->s.a, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

TEST_F(space, unmappable_file_cannot_be_registered)
{
	static const uint32_t prots[] = {
		PROT_WRITE, PROT_EXEC, PROT_WRITE | PROT_EXEC, PROT_READ | 8, ~0U,
	};
	static const struct {
		uint64_t offset, length;
		int err;
	} ranges[] = {
		{ 1, PAGE, EINVAL },
		{ 0, 1, EINVAL },
		{ 1, 0, EINVAL },
		{ 0, PAGE + 1, EINVAL },
		{ -PAGE, PAGE, EOVERFLOW },
		{ PAGE, -PAGE, EOVERFLOW },
		/* up to the end of 64 bits, of 63 and beyond, and what no mm has room for */
		{ 0, -PAGE, EOVERFLOW },
		{ 0, -HUGE, EOVERFLOW },
		{ 0, 1UL << 63, EOVERFLOW },
		{ PAGE, (1UL << 63) - PAGE, EOVERFLOW },
		{ 0, (1UL << 63) - PAGE, ENOMEM },
		{ 0, 1UL << 48, ENOMEM },
	};
	int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
	int path = open("/tmp", O_PATH);
	int view = as_view(self->asfd, 0, PAGE, PROT_READ);
	char name[64];
	unsigned int i;
	int writeonly;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", self->s.a);
	writeonly = open(name, O_WRONLY);
	ASSERT_LE(0, writeonly);
	for (i = 0; i < ARRAY_SIZE(prots); i++)
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_register(self->asfd, self->s.a, 0, PAGE,
					   prots[i], 0));
	for (i = 0; i < ARRAY_SIZE(ranges); i++)
		EXPECT_REFUSED(self->asfd, ranges[i].err,
			       as_register(self->asfd, self->s.a, ranges[i].offset,
					   ranges[i].length, RW, 0));
	EXPECT_REFUSED(self->asfd, EBADF,
		       as_register(self->asfd, closed_fd(), 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->asfd, EBADF,
		       as_register(self->asfd, path, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_register(self->asfd, writeonly, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->asfd, ENODEV,
		       as_register(self->asfd, dir, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->asfd, ELOOP,
		       as_register(self->asfd, self->asfd, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->asfd, ELOOP,
		       as_register(self->asfd, view, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->asfd, EBADF, as_unregister(self->asfd, closed_fd()));
	EXPECT_REFUSED(self->asfd, EBADF, as_unregister(self->asfd, path));
	EXPECT_REFUSED(self->asfd, ENOENT, as_unregister(self->asfd, self->s.a));
	EXPECT_REFUSED(self->asfd, ENOENT, as_unregister(self->asfd, self->asfd));
}

/* A file registered for writing can be written, so it cannot be sealed. */
TEST_F(space, file_can_be_sealed_after_unregister_only)
{
	ASSERT_EQ(0, as_register(self->asfd, self->s.a, 0, FILE_LEN, RW, 0));
	sleep_ms(500);
	EXPECT_EQ(-1, fcntl(self->s.a, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, as_unregister(self->asfd, self->s.a));
	EXPECT_TRUE(can_be_sealed(self->s.a));
}

TEST_HARNESS_MAIN

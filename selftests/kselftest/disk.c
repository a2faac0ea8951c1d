// SPDX-License-Identifier: GPL-2.0
/*
 * What is written through an attachment reaches the disk. The kernel notices such a
 * write by a fault only, so the next write after each writeback must fault again;
 * disk_byte() reports what is lost if it does not.
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(disk)
{
	int asfd, file;
	char *mem;
	char dir[128];
};

FIXTURE_SETUP(disk)
{
	self->asfd = as_create(SPACE_LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, disk_dir(self->dir, sizeof(self->dir)));
	self->file = file_pages(self->dir, FILE_PAGES, 'a');
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, fsync(self->file));
	self->mem = attach(self->asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(disk)
{
	close(self->asfd);
	close(self->file);
}

/* If this test fails, the others prove nothing. */
TEST_F(disk, sees_ordinary_write)
{
	EXPECT_EQ('a', disk_byte(self->file, 0));
	ASSERT_EQ(0, file_set(self->file, 0, '!'));
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ('!', disk_byte(self->file, 0));
	EXPECT_EQ('!', peek(self->mem));
}

TEST_F(disk, receives_writes_after_each_fsync)
{
	unsigned int round;

	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, poke(self->mem + 3 * PAGE, '0' + round));
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ('0' + (int)round, disk_byte(self->file, 3 * PAGE));
	}
}

TEST_F(disk, receives_writes_after_each_sync)
{
	unsigned int round;

	for (round = 0; round < 5; round++) {
		ASSERT_EQ(0, poke(self->mem + 3 * PAGE, '0' + round));
		sync();
		ASSERT_EQ('0' + (int)round, disk_byte(self->file, 3 * PAGE));
		/* a read in between installs an entry, which must not be writable */
		ASSERT_EQ('0' + (int)round, peek(self->mem + 3 * PAGE));
	}
}

/* Two attachments and a child: each has an entry that writeback must write-protect. */
TEST_F(disk, receives_writes_of_other_attachments_after_fsync)
{
	char *second = attach(self->asfd, 0, FILE_LEN, RW);
	struct agent child;
	unsigned int round;

	ASSERT_NE(NULL, second);
	ASSERT_EQ(0, agent_start(&child));
	for (round = 0; round < 5; round++) {
		ASSERT_EQ(0, poke(self->mem + PAGE, 'A' + round));
		ASSERT_EQ(0, poke(second + PAGE, 'A' + round));
		ASSERT_EQ(0, agent_poke(&child, self->mem + PAGE, 'A' + round));
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ('A' + (int)round, disk_byte(self->file, PAGE));
		ASSERT_EQ(0, poke(second + PAGE, 'a' + round));
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ('a' + (int)round, disk_byte(self->file, PAGE));
		ASSERT_EQ(0, agent_poke(&child, self->mem + PAGE, '0' + round));
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ('0' + (int)round, disk_byte(self->file, PAGE));
	}
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(disk, receives_writes_made_before_unmap)
{
	ASSERT_EQ(0, poke(self->mem, '1'));
	ASSERT_EQ(0, poke(self->mem + 5 * PAGE, '2'));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, FILE_LEN));
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ('1', disk_byte(self->file, 0));
	EXPECT_EQ('2', disk_byte(self->file, 5 * PAGE));
}

TEST_F(disk, receives_writes_made_before_close)
{
	ASSERT_EQ(0, poke(self->mem, '1'));
	ASSERT_EQ(0, fsync(self->file));
	ASSERT_EQ(0, poke(self->mem, '2'));
	ASSERT_EQ(0, close(self->asfd));
	ASSERT_EQ(0, munmap(self->mem, SPACE_LEN));
	self->asfd = -1;
	ASSERT_EQ(0, drop_caches());
	EXPECT_EQ('2', disk_byte(self->file, 0));
	EXPECT_EQ('2', file_byte(self->file, 0));
}

TEST_F(disk, receives_writes_of_killed_process)
{
	struct agent child;
	int status;

	ASSERT_EQ(0, agent_start(&child));
	ASSERT_EQ(0, agent_poke(&child, self->mem + PAGE, 'k'));
	ASSERT_EQ(0, kill(child.pid, SIGKILL));
	ASSERT_EQ(child.pid, waitpid(child.pid, &status, 0));
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ('k', disk_byte(self->file, PAGE));
}

/*
 * msync() of an attachment may be refused; it must not report success for data that
 * is not on the disk.
 */
TEST_F(disk, msync_success_means_data_is_on_disk)
{
	unsigned int round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, poke(self->mem + PAGE, '0' + round));
		if (!msync(self->mem, FILE_LEN, MS_SYNC))
			EXPECT_EQ('0' + (int)round, disk_byte(self->file, PAGE));
		/* in any case the file can be synced by its owner */
		ASSERT_EQ(0, fsync(self->file));
		EXPECT_EQ('0' + (int)round, disk_byte(self->file, PAGE));
	}
}

TEST_F(disk, agrees_with_direct_io)
{
	static char block[PAGE] __attribute__((aligned(PAGE)));
	char path[64];
	int direct;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	direct = open(path, O_RDWR | O_DIRECT);
	ASSERT_LE(0, direct);
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, 'w'));
	memset(block, 'd', sizeof(block));
	/*
	 * invalidates the page cache of what it writes, and so the entries of the
	 * attachment
	 */
	ASSERT_EQ((ssize_t)PAGE, pwrite(direct, block, PAGE, PAGE));
	EXPECT_EQ('d', peek(self->mem + PAGE));
	ASSERT_EQ((ssize_t)PAGE, pwrite(direct, block, PAGE, 2 * PAGE));
	EXPECT_EQ('d', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, 'x'));
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ('x', disk_byte(self->file, 2 * PAGE));
}

#define BIG_PAGES	5120		/* 20 MiB, in a group limited to 8 */
#define LIMIT		"8M"
#define GROUP		"/sys/fs/cgroup/address_space_disk"

static int enter_limited_group(void)
{
	int ret;

	write_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		return -errno;
	ret = write_text(GROUP "/memory.max", LIMIT);
	return ret ?: enter_group(GROUP);
}

static void leave_limited_group(void)
{
	enter_group("/sys/fs/cgroup");
	rmdir(GROUP);
}

static uint64_t pattern(unsigned int page, unsigned int round)
{
	return 0x0123456789abcdefULL ^ ((uint64_t)page << 20) ^ round;
}

/*
 * A file larger than the memory limit of the group, written and read through an
 * attachment: reclaim takes its pages away all the time; no write may be lost and no
 * process killed.
 */
TEST_F_TIMEOUT(disk, receives_reclaimed_pages, 120)
{
	unsigned int page, round;
	int asfd, file;
	char *mem;

	ASSERT_EQ(0, enter_limited_group());
	file = file_pages(self->dir, BIG_PAGES, -1);
	ASSERT_LE(0, file);
	asfd = as_create(BIG_PAGES * PAGE);
	ASSERT_LE(0, asfd);
	mem = attach(asfd, 0, BIG_PAGES * PAGE, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, BIG_PAGES * PAGE, RW, 0));
	for (round = 0; round < 2; round++) {
		for (page = 0; page < BIG_PAGES; page++)
			ASSERT_EQ(0, poke64(mem + page * PAGE, pattern(page, round)));
		for (page = 0; page < BIG_PAGES; page += 3) {
			uint64_t value;

			ASSERT_EQ(0, peek64(mem + page * PAGE, &value));
			ASSERT_EQ(pattern(page, round), value);
		}
	}
	ASSERT_EQ(0, fsync(file));
	leave_limited_group();
	for (page = 0; page < BIG_PAGES; page += 17) {
		uint64_t value = pattern(page, round - 1);

		ASSERT_EQ((int)(value & 0xff), disk_byte(file, page * PAGE));
		ASSERT_EQ((int)(value >> 24 & 0xff), disk_byte(file, page * PAGE + 3));
	}
}

TEST_HARNESS_MAIN

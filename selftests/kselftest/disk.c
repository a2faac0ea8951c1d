// SPDX-License-Identifier: GPL-2.0
/*
 * What is written through an attachment reaches the disk. The kernel notices such a
 * write by a fault only, so the next write after each writeback must fault again;
 * disk_byte() reports what is lost if it does not.
 */
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/kvm.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

FIXTURE(disk)
{
	int asfd, file;
	char *mem;
	char dir[128];
};

FIXTURE_VARIANT(disk)
{
	int (*dir)(char *dir, size_t size);
	int (*other)(char *dir, size_t size);
};

FIXTURE_VARIANT_ADD(disk, ext4) { .dir = disk_dir, .other = btrfs_dir };
FIXTURE_VARIANT_ADD(disk, btrfs) { .dir = btrfs_dir, .other = disk_dir };

FIXTURE_SETUP(disk)
{
	int ret = variant->dir(self->dir, sizeof(self->dir));

	if (ret == -ENODEV)
		SKIP(return, "no such file system here");
	ASSERT_EQ(0, ret);
	self->asfd = as_create(SPACE_LEN);
	ASSERT_LE(0, self->asfd);
	self->file = file_pages(self->dir, FILE_PAGES, 'a');
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, fsync(self->file));
	self->mem = attach(self->asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(disk)
{
	/* a test that fails may leave it so */
	ioctl(self->file, FITHAW, 0);
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

/* Of a view, which does not begin where the space does; its first and its second half. */
TEST_F(disk, msync_of_a_view_reaches_its_pages)
{
	const struct { uint64_t offset, length; } views[] = {
		{ PAGE, 3 * PAGE }, { 3 * PAGE, 2 * PAGE },
	};
	char value = '0';

	for (unsigned int i = 0; i < ARRAY_SIZE(views); i++) {
		int view = as_view(self->asfd, views[i].offset, views[i].length, RW);
		char *mem = attach(view, 0, views[i].length, RW);

		ASSERT_NE(NULL, mem);
		for (uint64_t at = 0; at < views[i].length; at += PAGE) {
			ASSERT_EQ(0, poke(mem + at, ++value));
			EXPECT_EQ(0, msync(mem + at, PAGE, MS_SYNC));
			EXPECT_EQ(value, disk_byte(self->file, views[i].offset + at));
			ASSERT_EQ(0, poke(mem + at, ++value));
			EXPECT_EQ(0, fsync(view));
			EXPECT_EQ(value, disk_byte(self->file, views[i].offset + at));
		}
		munmap(mem, views[i].length);
		close(view);
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
TEST_F_TIMEOUT(disk, receives_reclaimed_pages, 360)
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

/*
 * Makes virtual machines: for each, the kernel takes the locks of all that the process
 * maps, the attachment's among them, and has much to go through. What a notifier cannot
 * do at once meanwhile is left to the worker.
 */
static void *make_vms(void *arg)
{
	int asfd = *(int *)arg, kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), i;

	for (i = 0; i < 20000; i++)
		mmap(NULL, PAGE, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	attach(asfd, 0, FILE_LEN, RW);
	for (;;)
		close(ioctl(kvm, KVM_CREATE_VM, 0));
	return NULL;
}

#define SOON_MS	5000

/* Punches a file of which a page is mapped at @mem; 0 if the hole is seen there. */
static int hole_is_seen(int file, char *mem, uint64_t until)
{
	int ret = file_set(file, 0, 'm');

	if (ret || peek(mem) != 'm')
		return ret ?: -EIO;
	if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
		return -errno;
	while (peek(mem) && now_ms() < until)
		sched_yield();
	return peek(mem) ? -ETIMEDOUT : 0;
}

/*
 * A freeze writes back what is dirty when pages can no longer be made dirty. What was
 * left to the worker then waits for the thaw, and nothing else does: neither memory nor
 * what is on another disk.
 */
TEST_F_TIMEOUT(disk, when_frozen_holds_up_no_revocation, 120)
{
	int dir = open(self->dir, O_RDONLY | O_DIRECTORY), memory = memfd_pages("memory", 1, 'm');
	uint64_t until = now_ms() + race_ms(), start;
	int space, rounds, i, other = -1;
	char *mem, other_dir[128];
	long long deferred;
	pid_t pid;

	if (access("/dev/kvm", R_OK | W_OK))
		SKIP(return, "no /dev/kvm");
	ASSERT_LE(0, dir);
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, memory, 0, PAGE, RW, 0));
	if (!variant->other(other_dir, sizeof(other_dir))) {
		other = file_pages(other_dir, 1, 'm');
		ASSERT_LE(0, other);
		ASSERT_EQ(0, as_map(self->asfd, FILE_LEN + PAGE, other, 0, PAGE, RW, 0));
	}
	pid = start_process(make_vms, &self->asfd);
	ASSERT_LT(0, pid);
	for (rounds = 0; now_ms() < until || rounds < 4; rounds++) {
		/* a space that is closed while the file system is frozen */
		space = as_create(SPACE_LEN);
		ASSERT_LE(0, space);
		ASSERT_EQ(0, as_map(space, 0, self->file, 0, FILE_LEN, RW, 0));
		mem = attach(space, 0, FILE_LEN, RW);
		ASSERT_NE(NULL, mem);
		ASSERT_EQ(0, poke(mem, 'x'));
		ASSERT_EQ(0, poke(self->mem + PAGE, '0' + rounds % 10));
		ASSERT_EQ(0, ioctl(dir, FIFREEZE, 0));
		start = now_ms();
		/* some are left to the worker, which may have to do with the disk */
		for (i = 0; i < 20; i++) {
			EXPECT_EQ(0, hole_is_seen(memory, self->mem + FILE_LEN, start + SOON_MS));
			if (other >= 0 && i % 4 == 0)
				EXPECT_EQ(0, hole_is_seen(other, self->mem + FILE_LEN + PAGE,
							  start + SOON_MS));
		}
		EXPECT_EQ(0, munmap(mem, FILE_LEN));
		EXPECT_EQ(0, close(space));
		EXPECT_GT(start + SOON_MS, now_ms())
			TH_LOG("in round %d", rounds);
		ASSERT_EQ(0, ioctl(dir, FITHAW, 0));
		if (!__test_passed(_metadata))
			break;
	}
	deferred = fdinfo_value(self->asfd, "deferred");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	TH_LOG("%d rounds, %lld deferred", rounds, deferred);
	ASSERT_EQ(0, fsync(self->file));
	EXPECT_EQ('0' + (rounds - 1) % 10, disk_byte(self->file, PAGE));
}

/*
 * A page is not written to while it is on its way to the disk: its checksum holds. (Not
 * so where the write protection is left to the worker: then what is on the disk is wrong
 * until the page, dirty again, has been written once more.)
 */
static int checksums_after_fsync(int file, unsigned int rounds, unsigned int *wrong)
{
	static char pages[FILE_LEN] __attribute__((aligned(PAGE)));
	uint64_t until = now_ms() + race_ms();
	unsigned int round;

	*wrong = 0;
	for (round = 0; now_ms() < until || round < rounds; round++) {
		if (fsync(file) || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
			return -errno;
		*wrong += pread(file, pages, FILE_LEN, 0) != (ssize_t)FILE_LEN;
	}
	return 0;
}

TEST_F_TIMEOUT(disk, has_the_checksums_of_what_is_written, 120)
{
	struct writer writers[2];
	unsigned int wrong;
	pid_t pid = start_process(make_vms, &self->asfd);

	ASSERT_EQ(0, writer_start(&writers[0], self->mem));
	ASSERT_EQ(0, writer_start(&writers[1], self->mem + 3 * PAGE));
	ASSERT_EQ(0, checksums_after_fsync(self->file, 8, &wrong));
	TH_LOG("%u wrong, %lld deferred", wrong, fdinfo_value(self->asfd, "deferred"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ASSERT_EQ(0, checksums_after_fsync(self->file, 8, &wrong));
	EXPECT_EQ(0U, wrong);
	writer_stop(&writers[0]);
	writer_stop(&writers[1]);
	EXPECT_LT(100UL, writers[0].writes);
	ASSERT_EQ(0, fsync(self->file));
	ASSERT_EQ(0, drop_caches());
	ASSERT_EQ(0, checksums_after_fsync(self->file, 1, &wrong));
	EXPECT_EQ(0U, wrong);
}

TEST_HARNESS_MAIN

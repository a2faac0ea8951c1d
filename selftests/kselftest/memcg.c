// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that is first accessed through an address space belongs to its creator: it
 * is charged to the creator's cgroup, whichever process accesses it, and also after
 * the creator has exited. So are private copies, and what the module needs for the
 * ranges that are mapped, until they are unmapped; and for pages that are known, which
 * is little where they are few and far between.
 */
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"

#define CREATOR	CGROUP_ROOT "/address_space_creator"
#define TOUCHER	CGROUP_ROOT "/address_space_toucher"

#define TOUCHED	(16L << 20)
#define MOST	(12L << 20)	/* charges are rounded and updated late */
#define LITTLE	(4L << 20)	/* page tables and the like */

FIXTURE(charge)
{
	struct agent creator, toucher;
	int asfd, file;
};

FIXTURE_VARIANT(charge)
{
	enum { MEMFD, EXT4 } kind;
	bool read_only;
	bool creator_exits;
	bool private;
};

FIXTURE_VARIANT_ADD(charge, memfd)
{
	.kind = MEMFD, .read_only = false, .creator_exits = false,
};

FIXTURE_VARIANT_ADD(charge, memfd_of_exited_creator)
{
	.kind = MEMFD, .read_only = false, .creator_exits = true,
};

FIXTURE_VARIANT_ADD(charge, ext4_read)
{
	.kind = EXT4, .read_only = true, .creator_exits = false,
};

FIXTURE_VARIANT_ADD(charge, ext4_of_exited_creator)
{
	.kind = EXT4, .read_only = false, .creator_exits = true,
};

FIXTURE_VARIANT_ADD(charge, private_copies)
{
	.kind = MEMFD, .read_only = false, .creator_exits = false, .private = true,
};

FIXTURE_VARIANT_ADD(charge, private_copies_of_exited_creator)
{
	.kind = MEMFD, .read_only = false, .creator_exits = true, .private = true,
};

static long memory_of(const char *group)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "%s/memory.current", group);
	return read_text(path, text, sizeof(text)) ? -1 : atol(text);
}

/* in a fresh group: memory left by an earlier run does not count */
static int make_group(const char *group)
{
	rmdir(group);
	return mkdir(group, 0755) && errno != EEXIST ? -errno : 0;
}

/* What a step returns in a process of its own: 0, or which part of it failed. */
static int in_child(int (*step)(void))
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0)
		_exit(step());
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static long create(void *arg)
{
	(void)arg;
	return as_create(TOUCHED);
}

FIXTURE_SETUP(charge)
{
	char dir[128];

	self->asfd = -1;
	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, make_group(CREATOR));
	ASSERT_EQ(0, make_group(TOUCHER));
	if (variant->kind == EXT4) {
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, 0, -1);
	} else {
		self->file = memfd_pages("touched", 0, -1);
	}
	ASSERT_LE(0, self->file);
	ASSERT_EQ(0, ftruncate(self->file, TOUCHED));
	if (variant->private)
		/* in memory, and charged to neither: what is left are the copies */
		ASSERT_EQ(0, posix_fallocate(self->file, 0, TOUCHED));
	if (variant->read_only) {
		/* on the disk, but not in memory */
		ASSERT_EQ(0, posix_fallocate(self->file, 0, TOUCHED));
		ASSERT_EQ(0, file_set(self->file, 0, 'x'));
		ASSERT_EQ(0, drop_caches());
	}
	ASSERT_EQ(0, agent_start(&self->toucher));
	ASSERT_EQ(0, agent_call(&self->toucher, enter_group, TOUCHER));
	ASSERT_EQ(0, agent_start(&self->creator));
	ASSERT_EQ(0, agent_call(&self->creator, enter_group, CREATOR));
}

FIXTURE_TEARDOWN(charge)
{
	if (self->creator.pid)
		agent_stop(&self->creator);
	agent_stop(&self->toucher);
	close(self->asfd);
	close(self->file);
	rmdir(CREATOR);
	rmdir(TOUCHER);
}

/* The agent was forked before: its argument is passed by value. */
static long read_all(void *arg)
{
	char *mem = arg;
	long at;

	for (at = 0; at < TOUCHED; at += PAGE)
		if (peek(mem + at) < 0)
			return -EIO;
	return 0;
}

static long write_all(void *arg)
{
	char *mem = arg;
	long at;

	for (at = 0; at < TOUCHED; at += PAGE)
		if (poke(mem + at, 1) < 0)
			return -EIO;
	return 0;
}

TEST_F_TIMEOUT(charge, goes_to_the_creator, 60)
{
	long creators, touchers;
	char *mem;
	int number;

	number = agent_call(&self->creator, create, NULL);
	ASSERT_LE(0, number);
	self->asfd = agent_fd(&self->creator, number);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, TOUCHED,
			    variant->read_only ? PROT_READ : RW,
			    variant->private ? ADDRESS_SPACE_MAP_PRIVATE : 0));
	if (variant->creator_exits) {
		ASSERT_EQ(0, agent_stop(&self->creator));
		self->creator.pid = 0;
	}
	creators = memory_of(CREATOR);
	touchers = memory_of(TOUCHER);
	ASSERT_LE(0, creators);
	ASSERT_LE(0, touchers);

	/* the agent attaches, and accesses pages that no process has accessed before */
	mem = agent_attach(&self->toucher, self->asfd, 0, TOUCHED, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, agent_call(&self->toucher,
				variant->read_only ? read_all : write_all, mem));
	creators = memory_of(CREATOR) - creators;
	touchers = memory_of(TOUCHER) - touchers;
	TH_LOG("creator %+ld KiB, toucher %+ld KiB", creators >> 10, touchers >> 10);
	EXPECT_LE(MOST, creators);
	EXPECT_GT(LITTLE, touchers);
}

/*
 * Otherwise the test above would prove nothing: without a space the process that
 * accesses the page pays.
 */
TEST_F_TIMEOUT(charge, of_ordinary_mapping_goes_to_the_toucher, 60)
{
	long creators = memory_of(CREATOR), touchers = memory_of(TOUCHER);
	char *mem;

	if (variant->private)
		SKIP(return, "the file is in memory already");
	mem = agent_attach(&self->toucher, self->file, 0, TOUCHED, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, agent_call(&self->toucher,
				variant->read_only ? read_all : write_all, mem));
	creators = memory_of(CREATOR) - creators;
	touchers = memory_of(TOUCHER) - touchers;
	EXPECT_LE(MOST, touchers);
	EXPECT_GT(LITTLE, creators);
}

#define POOL	"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

static int huge_memfd(unsigned int pages)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);

	return fd < 0 || ftruncate(fd, pages * HUGE) ? -errno : fd;
}

static long reserved(void)
{
	char text[32];

	return read_text(CREATOR "/hugetlb.2MB.rsvd.current", text, sizeof(text)) ? -1 : atol(text);
}

/* 0, or which step failed. */
static int reserve_in_group(void)
{
	int file = huge_memfd(4), one = huge_memfd(1), asfd;

	if (write_text(CREATOR "/cgroup.procs", "0") || file < 0 || one < 0)
		return 1;
	/* so the limit works */
	if (mmap(NULL, 4 * HUGE, RW, MAP_SHARED, file, 0) != MAP_FAILED || errno != ENOMEM)
		return 2;
	asfd = as_create(8 * HUGE);
	if (asfd < 0)
		return 3;
	if (as_map(asfd, 0, file, 0, 4 * HUGE, RW, 0) != -ENOMEM)
		return 4;
	if (as_register(asfd, file, 0, 4 * HUGE, RW, 0) != -ENOMEM)
		return 5;
	if (reserved() != 0)
		return 6;
	if (as_map(asfd, 0, one, 0, HUGE, RW, 0) || reserved() != (long)HUGE)
		return 7;
	/* it is the file's: to unmap it changes nothing */
	if (as_unmap(asfd, 0, HUGE) || reserved() != (long)HUGE)
		return 8;
	return as_map(asfd, HUGE, one, 0, HUGE, RW, 0) ? 9 : 0;
}

TEST(reserved_huge_pages_are_charged_to_the_caller)
{
	char was[32];

	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+hugetlb");
	ASSERT_EQ(0, make_group(CREATOR));
	if (write_text(CREATOR "/hugetlb.2MB.rsvd.max", "2097152"))
		SKIP(return, "no hugetlb controller");
	ASSERT_EQ(0, read_text(POOL, was, sizeof(was)));
	ASSERT_EQ(0, write_text(POOL, "8"));
	EXPECT_EQ(0, in_child(reserve_in_group));
	write_text(POOL, was);
}

#define RANGES	(64UL * 1024)

/* Ranges of a page each, with a hole after each. */
static int map_ranges(int asfd, int file)
{
	static struct address_space_op ops[1024];
	uint64_t i;

	for (i = 0; i < RANGES; i++) {
		ops[i % ARRAY_SIZE(ops)] = op_map(2 * i * PAGE, file, 0, PAGE, PROT_READ, 0);
		if ((i + 1) % ARRAY_SIZE(ops) == 0 && as_batch(asfd, ops, ARRAY_SIZE(ops), NULL))
			return -1;
	}
	return 0;
}

/* 0, or which step failed. */
static int unmap_ranges_in_group(void)
{
	long before, mapped, left;
	int asfd, file, round;

	if (enter_group((void *)CREATOR))
		return 1;
	file = memfd_pages("shown", 1, 'a');
	asfd = as_create(2 * RANGES * PAGE);
	if (file < 0 || asfd < 0)
		return 2;
	before = memory_of(CREATOR);
	for (round = 0; round < 3; round++) {
		if (map_ranges(asfd, file))
			return 3;
		mapped = memory_of(CREATOR) - before;
		/* all but a few, which stay where they are */
		if (as_unmap(asfd, PAGE, (2 * RANGES - 3) * PAGE))
			return 4;
		left = memory_of(CREATOR) - before;
		if (mapped < (long)RANGES * 100)
			return 5;
		if (left > mapped / 4) {
			printf("# %ld bytes with %lu ranges, %ld with two\n", mapped, RANGES, left);
			return 6;
		}
		if (as_unmap(asfd, 0, 2 * RANGES * PAGE))
			return 7;
	}
	return 0;
}

TEST(memory_of_unmapped_ranges_goes_back)
{
	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, make_group(CREATOR));
	EXPECT_EQ(0, in_child(unmap_ranges_in_group));
	rmdir(CREATOR);
}

#define SPARSE	(16UL << 30)
#define STEP	(2UL << 20)	/* a page of each has a page table of its own */
#define STEPS	(SPARSE / STEP)
#define SOME	37		/* steps, so that their pages are at many places */
#define EACH	64		/* bytes, beside the page tables */

/* A number in the group's memory.stat, or -1. */
static long stat_of_group(const char *name)
{
	char text[8192], *at;

	if (read_text(CREATOR "/memory.stat", text, sizeof(text)))
		return -1;
	at = strstr(text, name);
	return at ? atol(at + strlen(name)) : -1;
}

/* The kernel's memory of the group but for page tables. */
static long kernel_memory(void)
{
	long kernel = stat_of_group("\nkernel "), tables = stat_of_group("\npagetables ");

	return kernel < 0 || tables < 0 ? -1 : kernel - tables;
}

/* A page of a step: that which is in the file, or so many after it; another in each step. */
static unsigned long page_of(unsigned long step, unsigned long after)
{
	return step * STEP + (step + after) % (STEP / PAGE) * PAGE;
}

/* 0, or which step failed. */
static int touch_sparsely_in_group(void)
{
	unsigned long step, after;
	int asfd, file;
	long before;
	char *mem;

	file = memfd_pages("sparse", 0, -1);
	if (file < 0 || ftruncate(file, SPARSE))
		return 1;
	/* its own memory is charged to where we come from */
	for (step = 0; step < STEPS; step++)
		if (pwrite(file, "x", 1, page_of(step, 0)) != 1)
			return 2;
	if (enter_group((void *)CREATOR))
		return 3;
	asfd = as_create(SPARSE);
	if (asfd < 0 || as_map(asfd, 0, file, 0, SPARSE, RW, 0))
		return 4;
	mem = mmap(NULL, SPARSE, RW, MAP_SHARED, asfd, 0);
	if (mem == MAP_FAILED)
		return 5;
	before = kernel_memory();
	for (step = 0; step < STEPS; step++)
		if (peek(mem + page_of(step, 0)) != 'x')
			return 6;
	if (before < 0 || kernel_memory() - before > (long)(STEPS * EACH)) {
		printf("# %ld bytes before, %ld with %lu pages\n", before, kernel_memory(), STEPS);
		return 7;
	}
	/* a second page of a step, and a third, are found beside the first */
	for (step = 0; step < STEPS; step += SOME)
		for (after = 0; after < 3; after++)
			if (peek(mem + page_of(step, 2 - after)) != (after == 2 ? 'x' : 0))
				return 8;
	/* and all of them go */
	if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SPARSE))
		return 9;
	for (step = 0; step < STEPS; step += SOME)
		if (peek(mem + page_of(step, 0)))
			return 10;
	return 0;
}

TEST(table_of_a_sparse_file_is_small)
{
	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, make_group(CREATOR));
	EXPECT_EQ(0, in_child(touch_sparsely_in_group));
	rmdir(CREATOR);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * An asfd or a view replaces a memfd that is only mapped: what programs do with the
 * fd of a memory region works; all but mapping is refused.
 */
#include <sys/sendfile.h>
#include <sys/vfs.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(fd)
{
	struct space s;
	int fd;		/* the asfd, or a view of all of it */
};

FIXTURE_VARIANT(fd)
{
	bool view;
};

FIXTURE_VARIANT_ADD(fd, asfd) { .view = false };
FIXTURE_VARIANT_ADD(fd, view) { .view = true };

FIXTURE_SETUP(fd)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	self->fd = variant->view ? as_view(self->s.asfd, 0, SPACE_LEN, RW) :
				   dup(self->s.asfd);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(fd)
{
	close(self->fd);
	space_free(&self->s);
}

TEST_F(fd, lseek_finds_data_and_holes)
{
	int part = as_view(self->s.asfd, 2 * PAGE, 40 * PAGE, PROT_READ);
	int whole[] = { self->s.asfd, part };
	unsigned int i;

	ASSERT_LE(0, part);
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-1, lseek(whole[i], 0, SEEK_DATA));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(0, lseek(whole[i], 0, SEEK_HOLE));
		EXPECT_EQ(100, lseek(whole[i], 100, SEEK_HOLE));
	}
	/* two ranges side by side are one piece of data */
	ASSERT_EQ(0, as_map(self->s.asfd, 4 * PAGE, self->s.a, 0, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 6 * PAGE, self->s.b, 0, PAGE, PROT_NONE, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, SPACE_LEN - PAGE, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ((off_t)(4 * PAGE), lseek(self->s.asfd, 100, SEEK_DATA));
	EXPECT_EQ((off_t)(4 * PAGE + 5), lseek(self->s.asfd, 4 * PAGE + 5, SEEK_DATA));
	EXPECT_EQ((off_t)(7 * PAGE), lseek(self->s.asfd, 4 * PAGE + 5, SEEK_HOLE));
	EXPECT_EQ((off_t)(SPACE_LEN - PAGE), lseek(self->s.asfd, 7 * PAGE, SEEK_DATA));
	EXPECT_EQ((off_t)SPACE_LEN, lseek(self->s.asfd, SPACE_LEN - 1, SEEK_HOLE));
	EXPECT_EQ((off_t)SPACE_LEN, lseek(self->s.asfd, 0, SEEK_CUR));
	EXPECT_EQ(-1, lseek(self->s.asfd, SPACE_LEN, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, lseek(self->s.asfd, -1, SEEK_HOLE));
	EXPECT_EQ(ENXIO, errno);
	/* a view counts from its own start, and knows nothing beyond its end */
	EXPECT_EQ((off_t)(2 * PAGE), lseek(part, 0, SEEK_DATA));
	EXPECT_EQ((off_t)(5 * PAGE), lseek(part, 2 * PAGE, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(part, 5 * PAGE, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
}

TEST_F(fd, fstat_and_lseek_report_length)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
	EXPECT_EQ((off_t)SPACE_LEN, lseek(self->fd, 0, SEEK_END));
	EXPECT_EQ((off_t)(SPACE_LEN - PAGE), lseek(self->fd, -(off_t)PAGE, SEEK_END));
	EXPECT_EQ((off_t)PAGE, lseek(self->fd, PAGE, SEEK_SET));
	EXPECT_EQ((off_t)PAGE, lseek(self->fd, 0, SEEK_CUR));
	EXPECT_EQ(-1, lseek(self->fd, -1, SEEK_SET));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(fd, view_of_part_reports_its_own_length)
{
	int part = as_view(self->s.asfd, 2 * PAGE, 5 * PAGE, PROT_READ);
	struct stat st;

	ASSERT_LE(0, part);
	ASSERT_EQ(0, fstat(part, &st));
	EXPECT_EQ((off_t)(5 * PAGE), st.st_size);
	EXPECT_EQ((off_t)(5 * PAGE), lseek(part, 0, SEEK_END));
	/* and leaves the length of the space unchanged */
	ASSERT_EQ(0, fstat(self->s.asfd, &st));
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
}

TEST_F(fd, is_closed_on_exec)
{
	int view = as_view(self->s.asfd, 0, PAGE, PROT_READ);

	EXPECT_EQ(FD_CLOEXEC, fcntl(self->s.asfd, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(view, F_GETFD));
}

TEST_F(fd, private_mappings_are_refused)
{
	void *addr;

	addr = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, self->fd, 0);
	EXPECT_EQ(MAP_FAILED, addr);
	EXPECT_EQ(EINVAL, errno);
	addr = mmap(NULL, PAGE, RW, MAP_PRIVATE, self->fd, 0);
	EXPECT_EQ(MAP_FAILED, addr);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_NE(NULL, attach(self->fd, 0, PAGE, RW));
}

TEST_F(fd, mmap_past_end_is_refused)
{
	static const struct {
		uint64_t offset, length;
	} past[] = {
		{ 0, SPACE_LEN + 1 },
		{ 0, SPACE_LEN + PAGE },
		{ PAGE, SPACE_LEN },
		{ SPACE_LEN - PAGE, 2 * PAGE },
		{ SPACE_LEN, PAGE },
		{ 1ULL << 40, PAGE },
		{ 1ULL << 62, PAGE },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(past); i++) {
		EXPECT_EQ(NULL, attach(self->fd, past[i].offset, past[i].length, RW))
			TH_LOG("case %u", i);
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_NE(NULL, attach(self->fd, 0, SPACE_LEN, RW));
	EXPECT_NE(NULL, attach(self->fd, SPACE_LEN - PAGE, PAGE, RW));
	/* mmap() rounds a length up, as for any file */
	EXPECT_NE(NULL, attach(self->fd, 0, SPACE_LEN - 1, RW));
}

TEST_F(fd, attachment_cannot_grow)
{
	char *mem = attach(self->fd, SPACE_LEN - 2 * PAGE, PAGE, RW);

	ASSERT_NE(NULL, mem);
	EXPECT_EQ(MAP_FAILED, mremap(mem, PAGE, 8 * PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(-SIGBUS, peek(mem));
}

TEST_F(fd, read_and_write_are_refused)
{
	char byte = 'x';
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(1, write(pipes[1], &byte, 1));
	EXPECT_EQ(-1, read(self->fd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(self->fd, &byte, 1, 0));
	EXPECT_EQ(-1, pwrite(self->fd, &byte, 1, 0));
	EXPECT_EQ(-1, sendfile(pipes[1], self->fd, NULL, 1));
	EXPECT_EQ(-1, splice(self->fd, NULL, pipes[1], NULL, 1, 0));
	EXPECT_EQ(-1, splice(pipes[0], NULL, self->fd, NULL, 1, 0));
	EXPECT_EQ('a', file_byte(self->s.a, 0));
	EXPECT_EQ('a', peek(self->s.mem));
}

TEST_F(fd, cannot_be_resized)
{
	struct stat st;

	EXPECT_EQ(-1, ftruncate(self->fd, 0));
	EXPECT_EQ(-1, ftruncate(self->fd, 2 * SPACE_LEN));
	EXPECT_EQ(-1, fallocate(self->fd, 0, 0, 2 * SPACE_LEN));
	EXPECT_EQ(-1, fallocate(self->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				0, PAGE));
	ASSERT_EQ(0, fstat(self->fd, &st));
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
	EXPECT_EQ('a', peek(self->s.mem));
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

/* What qemu-storage-daemon and virtiofsd do with the fd of a memory region. */
TEST_F(fd, supports_vhost_user_backends)
{
	struct statfs fs;
	int flags;
	char *mem;

	flags = fcntl(self->fd, F_GETFL);
	EXPECT_EQ(O_RDWR, flags & O_ACCMODE);
	EXPECT_EQ(0, fcntl(self->fd, F_SETFL, flags | O_NONBLOCK));
	EXPECT_EQ(0, fcntl(self->fd, F_SETFL, flags));
	EXPECT_EQ(0, fstatfs(self->fd, &fs));
	EXPECT_EQ((long)PAGE, (long)fs.f_bsize);
	mem = mmap(NULL, SPACE_LEN, RW, MAP_SHARED | MAP_NORESERVE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)mem);
	EXPECT_EQ(0, madvise(mem, SPACE_LEN, MADV_DONTDUMP));
	EXPECT_EQ('c', peek(mem + 2 * PAGE));
	EXPECT_EQ(0, munmap(mem, SPACE_LEN));
}

TEST_F(fd, can_be_mapped_at_fixed_address)
{
	char *room = mmap(NULL, SPACE_LEN, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	void *addr;

	ASSERT_NE(MAP_FAILED, (void *)room);
	addr = mmap(room + PAGE, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, self->fd,
		    4 * PAGE);
	EXPECT_EQ((void *)(room + PAGE), addr);
	EXPECT_EQ('e', peek(room + PAGE));
	EXPECT_EQ('f', peek(room + 2 * PAGE));
	addr = mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE, self->fd, PAGE);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ('b', peek(addr));
	addr = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_POPULATE, self->fd, 0);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ('a', peek(addr));
}

/* An agent that had no access to the space before it received the fd. */
TEST_F(fd, works_in_another_process)
{
	struct agent other;
	char *there;

	ASSERT_EQ(0, munmap(self->s.mem, SPACE_LEN));
	self->s.mem = NULL;
	ASSERT_EQ(0, agent_start(&other));
	there = agent_attach(&other, self->fd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, there);
	EXPECT_EQ('a', agent_peek(&other, there));
	EXPECT_EQ(0, agent_poke(&other, there + PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ('A', agent_peek(&other, there + FILE_LEN));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	EXPECT_EQ(-SIGBUS, agent_peek(&other, there));
	EXPECT_EQ(-SIGBUS, agent_peek(&other, there + FILE_LEN));
	EXPECT_EQ(0, agent_stop(&other));
}

static long change_the_space(void *arg)
{
	const struct space *s = arg;
	int ret = as_unmap(s->asfd, 0, PAGE);

	return ret ?: as_map(s->asfd, FILE_LEN, s->b, 0, PAGE, RW, 0);
}

TEST_F(fd, owner_calls_work_in_forked_child)
{
	struct agent child;

	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('a', peek(self->s.mem));
	EXPECT_EQ(0, agent_call(&child, change_the_space, &self->s));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem));
	EXPECT_EQ('b', peek(self->s.mem + PAGE));
	EXPECT_EQ('A', peek(self->s.mem + FILE_LEN));
	EXPECT_EQ(0, agent_stop(&child));
	/* the child may be gone */
	EXPECT_EQ('c', peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ('A', peek(self->s.mem + FILE_LEN));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * A file and the attachments that show it agree: writes on either side, truncation
 * and hole punching, on a memfd, on tmpfs and on ext4.
 */
#include <setjmp.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(file)
{
	int asfd, file;
	char *mem;
};

FIXTURE_VARIANT(file)
{
	enum { MEMFD, TMPFS, EXT4 } kind;
};

FIXTURE_VARIANT_ADD(file, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(file, tmpfs) { .kind = TMPFS };
FIXTURE_VARIANT_ADD(file, ext4) { .kind = EXT4 };

FIXTURE_SETUP(file)
{
	char dir[128];

	self->asfd = as_create(SPACE_LEN);
	ASSERT_LE(0, self->asfd);
	switch (variant->kind) {
	case MEMFD:
		self->file = memfd_pages("file", FILE_PAGES, 'a');
		break;
	case TMPFS:
		ASSERT_EQ(0, own_mounts());
		ASSERT_EQ(0, mount_tmpfs(dir, "size=8m"));
		self->file = file_pages(dir, FILE_PAGES, 'a');
		break;
	case EXT4:
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, FILE_PAGES, 'a');
		break;
	}
	ASSERT_LE(0, self->file);
	self->mem = attach(self->asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(file)
{
	munmap(self->mem, SPACE_LEN);
	close(self->asfd);
	close(self->file);
}

static sigjmp_buf escape;
static volatile int signal_code;

static void note_code(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	signal_code = info->si_code;
	siglongjmp(escape, 1);
}

/* What SIGBUS tells of an access; 0 for none. */
static int sigbus_code(const char *at)
{
	struct sigaction to = { .sa_sigaction = note_code, .sa_flags = SA_SIGINFO }, was;

	sigaction(SIGBUS, &to, &was);
	signal_code = 0;
	if (!sigsetjmp(escape, 1))
		(void)*(const volatile char *)at;
	sigaction(SIGBUS, &was, NULL);
	return signal_code;
}

/* A VMM hands a memory error on to its guest, where a hole is a fault of its own. */
TEST(bad_memory_is_told_apart_from_a_hole)
{
	int asfd = as_create(SPACE_LEN), file = memfd_pages("file", FILE_PAGES, 'a'), status;
	char *mem = attach(asfd, 0, SPACE_LEN, RW);
	pid_t pid;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, FILE_LEN, RW, 0));
	ASSERT_EQ('d', peek(mem + 3 * PAGE));
	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0) {
		char *page = mmap(NULL, PAGE, RW, MAP_SHARED, file, 3 * PAGE);

		signal(SIGBUS, SIG_IGN);
		if (page == MAP_FAILED || *page != 'd')
			_exit(1);
		_exit(madvise(page, PAGE, MADV_HWPOISON) ? 2 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	/* a process that has the page mapped is killed for it, or not */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
		SKIP(return, "no memory errors can be made");
	ASSERT_TRUE(!WIFEXITED(status) || WEXITSTATUS(status) == 0);
	EXPECT_EQ(BUS_MCEERR_AR, sigbus_code(mem + 3 * PAGE));
	EXPECT_EQ(BUS_MCEERR_AR, sigbus_code(mem + 3 * PAGE));
	EXPECT_EQ('e', peek(mem + 4 * PAGE));
	EXPECT_EQ(BUS_ADRERR, sigbus_code(mem + 20 * PAGE));
}

TEST_F(file, shows_what_was_written_to_it)
{
	/* for a present page, for an absent one, and after a write */
	EXPECT_EQ('a', peek(self->mem));
	ASSERT_EQ(0, file_set(self->file, 0, '1'));
	EXPECT_EQ('1', peek(self->mem));
	ASSERT_EQ(0, file_set(self->file, PAGE, '2'));
	EXPECT_EQ('2', peek(self->mem + PAGE));
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, '3'));
	ASSERT_EQ(0, file_set(self->file, 2 * PAGE, '4'));
	EXPECT_EQ('4', peek(self->mem + 2 * PAGE));
}

TEST_F(file, receives_writes)
{
	EXPECT_EQ(0, poke(self->mem, '1'));
	EXPECT_EQ('1', file_byte(self->file, 0));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, poke(self->mem + PAGE + 7, '2'));
	EXPECT_EQ('2', file_byte(self->file, PAGE + 7));
	EXPECT_EQ('b', file_byte(self->file, PAGE + 6));
}

TEST_F(file, agrees_with_ordinary_mapping)
{
	char *map = attach(self->file, 0, FILE_LEN, RW);
	unsigned int i;

	ASSERT_NE(NULL, map);
	for (i = 0; i < FILE_PAGES; i++) {
		map[i * PAGE] = 'm';
		EXPECT_EQ('m', peek(self->mem + i * PAGE));
		EXPECT_EQ(0, poke(self->mem + i * PAGE, 'w'));
		EXPECT_EQ('w', map[i * PAGE]);
		map[i * PAGE] = 'n';
		EXPECT_EQ('n', peek(self->mem + i * PAGE));
	}
}

TEST_F(file, agrees_after_sync_and_dropped_caches)
{
	unsigned int round;

	for (round = 0; round < 4; round++) {
		EXPECT_EQ(0, poke(self->mem + PAGE, '0' + round));
		ASSERT_EQ(0, fsync(self->file));
		EXPECT_EQ('0' + (int)round, peek(self->mem + PAGE));
		ASSERT_EQ(0, drop_caches());
		EXPECT_EQ('0' + (int)round, file_byte(self->file, PAGE));
		EXPECT_EQ('0' + (int)round, peek(self->mem + PAGE));
		ASSERT_EQ(0, file_set(self->file, PAGE, 'A' + round));
		EXPECT_EQ('A' + (int)round, peek(self->mem + PAGE));
		ASSERT_EQ(0, drop_caches());
		EXPECT_EQ('A' + (int)round, peek(self->mem + PAGE));
		EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	}
}

TEST_F(file, truncation_is_visible)
{
	struct agent child;
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(0, poke(self->mem + i * PAGE, 'x'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('x', agent_peek(&child, self->mem + 8 * PAGE));
	ASSERT_EQ(0, ftruncate(self->file, 4 * PAGE));
	EXPECT_EQ('x', peek(self->mem + 3 * PAGE));
	for (i = 4; i < FILE_PAGES; i++)
		EXPECT_EQ(-SIGBUS, peek(self->mem + i * PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + 8 * PAGE, '!'));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem + 8 * PAGE));
	EXPECT_EQ('x', agent_peek(&child, self->mem + 3 * PAGE));
	/* the range that comes back is new and empty */
	ASSERT_EQ(0, ftruncate(self->file, FILE_LEN));
	for (i = 4; i < FILE_PAGES; i++)
		EXPECT_EQ(0, peek(self->mem + i * PAGE));
	EXPECT_EQ(0, agent_peek(&child, self->mem + 8 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 8 * PAGE, 'y'));
	EXPECT_EQ('y', file_byte(self->file, 8 * PAGE));
	EXPECT_EQ('y', agent_peek(&child, self->mem + 8 * PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

/* Frames are looked for, and zapped where any range shows them: near each other or not. */
TEST_F(file, truncation_reaches_pages_far_apart)
{
	static const unsigned int pages[] = { 0, 1, 70, 511, 512, 600, 2 * 512 + 3, 4 * 512 - 1 };
	const uint64_t length = 2 * HUGE, last = 4 * 512;
	struct agent child;
	unsigned int i;
	char *mem;
	int asfd;

	ASSERT_EQ(0, ftruncate(self->file, 2 * length));
	asfd = as_create(3 * length);
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, as_register(asfd, self->file, 0, 2 * length, RW, 0));
	/* all of it, the first half in single pages, and the second twice */
	for (i = 0; i < length / PAGE; i++)
		ASSERT_EQ(0, as_map(asfd, 2 * length - (i + 1) * PAGE, self->file, i * PAGE, PAGE,
				    RW, 0));
	ASSERT_EQ(0, as_map(asfd, 0, self->file, length, length, RW, 0));
	ASSERT_EQ(0, as_map(asfd, 2 * length, self->file, length, length, RW, 0));
	mem = attach(asfd, 0, 3 * length, RW);
	ASSERT_NE(NULL, mem);
#define AT(page)	((page) < last / 2 ? mem + 2 * length - ((page) + 1) * PAGE :	\
			 mem + ((page) - last / 2) * PAGE)
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		EXPECT_EQ(0, poke(AT(pages[i]), 'x'));
	ASSERT_EQ(0, agent_start(&child));
	for (i = 0; i < ARRAY_SIZE(pages); i++)
		EXPECT_EQ('x', agent_peek(&child, AT(pages[i])));
	EXPECT_EQ('x', peek(mem + 3 * length - PAGE));
	ASSERT_EQ(0, ftruncate(self->file, 0));
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		EXPECT_EQ(-SIGBUS, peek(AT(pages[i])))
			TH_LOG("page %u", pages[i]);
		EXPECT_EQ(-SIGBUS, agent_peek(&child, AT(pages[i])));
	}
	EXPECT_EQ(-SIGBUS, peek(mem + 3 * length - PAGE));
#undef AT
	EXPECT_EQ(0, agent_stop(&child));
	close(asfd);
}

TEST_F(file, truncation_within_page_zeroes_the_rest)
{
	EXPECT_EQ(0, poke(self->mem + PAGE + 99, 'x'));
	EXPECT_EQ(0, poke(self->mem + PAGE + 100, 'x'));
	ASSERT_EQ(0, ftruncate(self->file, PAGE + 100));
	EXPECT_EQ('x', peek(self->mem + PAGE + 99));
	EXPECT_EQ(0, peek(self->mem + PAGE + 100));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
}

TEST_F(file, truncation_and_extension_show_no_old_data)
{
	unsigned int round;

	for (round = 0; round < 100; round++) {
		char *at = self->mem + round % FILE_PAGES * PAGE;

		EXPECT_EQ(0, poke(at, 'x'));
		ASSERT_EQ(0, ftruncate(self->file, 0));
		ASSERT_EQ(0, ftruncate(self->file, FILE_LEN));
		ASSERT_EQ(0, peek(at));
	}
}

TEST_F(file, extension_is_visible)
{
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, self->file, FILE_LEN,
			    4 * PAGE, RW, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + FILE_LEN));
	ASSERT_EQ(0, ftruncate(self->file, FILE_LEN + PAGE));
	EXPECT_EQ(0, peek(self->mem + FILE_LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem + FILE_LEN + PAGE));
	ASSERT_EQ(0, file_set(self->file, FILE_LEN + PAGE, 'z'));
	EXPECT_EQ('z', peek(self->mem + FILE_LEN + PAGE));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, 'w'));
	EXPECT_EQ('w', file_byte(self->file, FILE_LEN));
}

static int punch(int fd, uint64_t offset, uint64_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
			 length) ? -errno : 0;
}

TEST_F(file, punched_hole_is_visible)
{
	int view = as_view(self->asfd, PAGE, 8 * PAGE, RW);
	char *view_mem = attach(view, 0, 8 * PAGE, RW);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	/* read through one attachment, written through another */
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(0, poke(view_mem + PAGE, 'x'));
	EXPECT_EQ('d', peek(view_mem + 2 * PAGE));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('b', agent_peek(&child, view_mem));
	ASSERT_EQ(0, punch(self->file, PAGE, 2 * PAGE));
	EXPECT_EQ(0, peek(self->mem + PAGE));
	EXPECT_EQ(0, peek(view_mem));
	EXPECT_EQ(0, agent_peek(&child, view_mem));
	EXPECT_EQ(0, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, peek(view_mem + PAGE));
	EXPECT_EQ('d', peek(view_mem + 2 * PAGE));
	EXPECT_EQ('a', peek(self->mem));
	/* a new write goes to the file, not to the page that was removed */
	EXPECT_EQ(0, poke(self->mem + 2 * PAGE, 'n'));
	EXPECT_EQ('n', file_byte(self->file, 2 * PAGE));
	EXPECT_EQ('n', agent_peek(&child, view_mem + PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(file, repeated_punching_shows_no_old_data)
{
	unsigned int round;

	for (round = 0; round < 200; round++) {
		uint64_t at = round % FILE_PAGES * PAGE;

		ASSERT_EQ(0, round % 3 ? poke(self->mem + at, 'x') :
					 file_set(self->file, at, 'x'));
		ASSERT_EQ('x', peek(self->mem + at));
		ASSERT_EQ(0, punch(self->file, at, PAGE));
		ASSERT_EQ(0, peek(self->mem + at));
	}
}

/* The file is mapped twice in the layout, and punched at both places. */
TEST_F(file, punched_hole_is_visible_at_every_mapping)
{
	ASSERT_EQ(0, as_map(self->asfd, 20 * PAGE, self->file, 0, 8 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->asfd, 40 * PAGE, self->file, 2 * PAGE,
			    2 * PAGE, PROT_READ, 0));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ('c', peek(self->mem + 22 * PAGE));
	EXPECT_EQ('c', peek(self->mem + 40 * PAGE));
	ASSERT_EQ(0, punch(self->file, 2 * PAGE, PAGE));
	EXPECT_EQ(0, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, peek(self->mem + 22 * PAGE));
	EXPECT_EQ(0, peek(self->mem + 40 * PAGE));
	EXPECT_EQ('d', peek(self->mem + 41 * PAGE));
}

/* A hole in the file is not a hole in the space. */
TEST_F(file, sparse_file_can_be_filled)
{
	unsigned int i;

	ASSERT_EQ(0, ftruncate(self->file, 0));
	ASSERT_EQ(0, ftruncate(self->file, FILE_LEN));
	for (i = 0; i < FILE_PAGES; i += 2)
		EXPECT_EQ(0, peek(self->mem + i * PAGE));
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(0, poke(self->mem + i * PAGE, 'a' + i));
	for (i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ('a' + (int)i, file_byte(self->file, i * PAGE));
		EXPECT_EQ('a' + (int)i, peek(self->mem + i * PAGE));
	}
	ASSERT_EQ(0, drop_caches());
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ('a' + (int)i, file_byte(self->file, i * PAGE));
}

/*
 * A page is also replaced behind the owner's back when it is swapped out, migrated or
 * written back; compaction moves most pages at once.
 */
TEST_F(file, compaction_changes_nothing)
{
	unsigned int i, round;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < FILE_PAGES; i++)
			EXPECT_EQ(0, poke(self->mem + i * PAGE, 'a' + i + round));
		if (write_text("/proc/sys/vm/compact_memory", "1"))
			SKIP(return, "this kernel cannot compact on request");
		for (i = 0; i < FILE_PAGES; i++) {
			EXPECT_EQ('a' + (int)(i + round),
				  peek(self->mem + i * PAGE));
			EXPECT_EQ('a' + (int)(i + round),
				  file_byte(self->file, i * PAGE));
			EXPECT_EQ(0, poke(self->mem + i * PAGE, '!'));
			EXPECT_EQ('!', file_byte(self->file, i * PAGE));
		}
	}
}

TEST(full_file_system_is_sigbus)
{
	int asfd = as_create(SPACE_LEN), file;
	unsigned int i, full = 0;
	char dir[64], *mem;

	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, own_mounts());
	ASSERT_EQ(0, mount_tmpfs(dir, "size=32k"));
	file = file_pages(dir, FILE_PAGES, -1);
	ASSERT_LE(0, file);
	mem = attach(asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, FILE_LEN, RW, 0));
	for (i = 0; i < FILE_PAGES; i++) {
		int ret = poke(mem + i * PAGE, 'f');

		if (ret) {
			EXPECT_EQ(-SIGBUS, ret);
			full++;
		}
	}
	EXPECT_EQ(8U, full);
	ASSERT_EQ(0, punch(file, 0, PAGE));
	EXPECT_EQ(0, poke(mem + 15 * PAGE, 'f'));
}

TEST_HARNESS_MAIN

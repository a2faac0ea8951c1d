// SPDX-License-Identifier: GPL-2.0
/*
 * When an unmap or a replace returns it has reached every process, in whatever way
 * the process got the memory. Every test first accesses the page in that way, so that
 * there is an entry to zap.
 */

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

FIXTURE(revocation)
{
	struct space s;
	char *mem;
};

/* How the owner takes away the page at 0: leaves a hole, or maps 'A' of another file */
FIXTURE_VARIANT(revocation)
{
	bool replace;
	int seen;		/* by a reader afterwards */
};

FIXTURE_VARIANT_ADD(revocation, unmap) { .replace = false, .seen = -SIGBUS };
FIXTURE_VARIANT_ADD(revocation, replace) { .replace = true, .seen = 'A' };

FIXTURE_SETUP(revocation)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	self->mem = self->s.mem;
}

FIXTURE_TEARDOWN(revocation)
{
	/* no more than that was taken away */
	EXPECT_EQ('b', peek(self->mem + PAGE));
	space_free(&self->s);
}

static int take_away(struct space *s, bool replace)
{
	return replace ? as_map(s->asfd, 0, s->b, 0, PAGE, RW,
				ADDRESS_SPACE_MAP_REPLACE) :
			 as_unmap(s->asfd, 0, PAGE);
}

TEST_F(revocation, reaches_attachment_of_caller)
{
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(0, poke(self->mem, '!'));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(self->mem));
	EXPECT_EQ('!', file_byte(self->s.a, 0));
}

TEST_F(revocation, reaches_second_attachment)
{
	char *second = attach(self->s.asfd, 0, 2 * PAGE, RW);
	char *readonly = attach(self->s.asfd, 0, PAGE, PROT_READ);

	ASSERT_NE(NULL, second);
	ASSERT_NE(NULL, readonly);
	EXPECT_EQ(0, poke(second, '!'));
	EXPECT_EQ('!', peek(readonly));
	EXPECT_EQ('b', peek(second + PAGE));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(second));
	EXPECT_EQ(variant->seen, peek(readonly));
	EXPECT_EQ(variant->seen, peek(self->mem));
	EXPECT_EQ('b', peek(second + PAGE));
}

TEST_F(revocation, reaches_forked_child)
{
	struct agent child;

	/* the child inherits the entries, and adds some of its own */
	EXPECT_EQ(0, poke(self->mem, '!'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('!', agent_peek(&child, self->mem));
	EXPECT_EQ('b', agent_peek(&child, self->mem + PAGE));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, agent_peek(&child, self->mem));
	EXPECT_EQ('b', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(revocation, reaches_child_that_never_faulted)
{
	struct agent child;

	EXPECT_EQ('a', peek(self->mem));
	ASSERT_EQ(0, agent_start(&child));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, agent_peek(&child, self->mem));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(revocation, reaches_orphaned_grandchild)
{
	struct agent child;

	EXPECT_EQ('a', peek(self->mem));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('a', agent_peek(&child, self->mem));
	ASSERT_EQ(0, agent_respawn(&child));
	EXPECT_EQ('a', agent_peek(&child, self->mem));
	ASSERT_EQ(0, agent_respawn(&child));
	EXPECT_EQ('a', agent_peek(&child, self->mem));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, agent_peek(&child, self->mem));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(revocation, reaches_process_that_received_fd)
{
	struct agent other;
	char *there;

	ASSERT_EQ(0, munmap(self->mem, SPACE_LEN));
	ASSERT_EQ(0, agent_start(&other));
	self->mem = self->s.mem = attach(self->s.asfd, 0, SPACE_LEN, RW);
	there = agent_attach(&other, self->s.asfd, 0, 4 * PAGE, RW);
	ASSERT_NE(NULL, there);
	EXPECT_EQ(0, agent_poke(&other, there, '!'));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, agent_peek(&other, there));
	EXPECT_EQ('b', agent_peek(&other, there + PAGE));
	EXPECT_EQ(0, agent_stop(&other));
}

TEST_F(revocation, reaches_moved_attachment)
{
	char *room = mmap(NULL, 2 * SPACE_LEN, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *moved;

	ASSERT_NE(MAP_FAILED, (void *)room);
	EXPECT_EQ(0, poke(self->mem, '!'));
	moved = mremap(self->mem, SPACE_LEN, SPACE_LEN,
		       MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE);
	ASSERT_EQ(room + PAGE, moved);
	self->mem = self->s.mem = moved;
	EXPECT_EQ('!', peek(moved));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(moved));
	/* shrunk and moved again */
	EXPECT_EQ('c', peek(moved + 2 * PAGE));
	moved = mremap(moved + 2 * PAGE, PAGE, PAGE,
		       MREMAP_MAYMOVE | MREMAP_FIXED, room + SPACE_LEN + PAGE);
	ASSERT_NE(MAP_FAILED, (void *)moved);
	EXPECT_EQ('c', peek(moved));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 2 * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(moved));
}

TEST_F(revocation, reaches_split_attachment)
{
	EXPECT_EQ(0, poke(self->mem, '!'));
	/* cut before and after the page, which then is an attachment of its own */
	ASSERT_EQ(0, munmap(self->mem + 2 * PAGE, PAGE));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, PROT_READ));
	EXPECT_EQ('!', peek(self->mem));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(self->mem));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, RW));
	EXPECT_EQ(variant->seen, peek(self->mem));
}

TEST_F(revocation, reaches_pages_hidden_by_mprotect)
{
	EXPECT_EQ(0, poke(self->mem, '!'));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, RW));
	EXPECT_EQ(variant->seen, peek(self->mem));
}

TEST_F(revocation, reaches_views)
{
	int all = as_view(self->s.asfd, 0, SPACE_LEN, RW);
	int part = as_view(self->s.asfd, 0, 2 * PAGE, PROT_READ);
	char *all_mem = attach(all, 0, SPACE_LEN, RW);
	char *part_mem = attach(part, 0, 2 * PAGE, PROT_READ);
	struct agent child;

	ASSERT_NE(NULL, all_mem);
	ASSERT_NE(NULL, part_mem);
	EXPECT_EQ(0, poke(all_mem, '!'));
	EXPECT_EQ('!', peek(part_mem));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('!', agent_peek(&child, part_mem));
	ASSERT_EQ(0, close(part));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(all_mem));
	EXPECT_EQ(variant->seen, peek(part_mem));
	EXPECT_EQ(variant->seen, agent_peek(&child, all_mem));
	EXPECT_EQ(variant->seen, agent_peek(&child, part_mem));
	EXPECT_EQ('b', peek(part_mem + PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

/* The view begins elsewhere: its offset 0 is not offset 0 of the space. */
TEST_F(revocation, reaches_view_at_offset)
{
	int before = as_view(self->s.asfd, PAGE, 4 * PAGE, RW);
	int view = as_view(self->s.asfd, 3 * PAGE, 4 * PAGE, RW);
	int around = as_view(self->s.asfd, 0, SPACE_LEN, RW);
	char *before_mem = attach(before, PAGE, 2 * PAGE, RW);
	char *view_mem = attach(view, PAGE, 2 * PAGE, RW);
	char *around_mem = attach(around, 4 * PAGE, PAGE, RW);

	ASSERT_NE(NULL, before_mem);
	ASSERT_NE(NULL, view_mem);
	ASSERT_NE(NULL, around_mem);
	EXPECT_EQ('c', peek(before_mem));
	EXPECT_EQ('d', peek(before_mem + PAGE));
	EXPECT_EQ('e', peek(view_mem));
	EXPECT_EQ('e', peek(around_mem));
	ASSERT_EQ(0, variant->replace ?
		  as_map(self->s.asfd, 4 * PAGE, self->s.b, 0, PAGE, RW,
			 ADDRESS_SPACE_MAP_REPLACE) :
		  as_unmap(self->s.asfd, 4 * PAGE, PAGE));
	EXPECT_EQ(variant->seen, peek(view_mem));
	EXPECT_EQ(variant->seen, peek(around_mem));
	EXPECT_EQ('f', peek(view_mem + PAGE));
	EXPECT_EQ('c', peek(before_mem));
	EXPECT_EQ('d', peek(before_mem + PAGE));
}

TEST_F(revocation, reaches_attachment_with_closed_fds)
{
	int again = dup(self->s.asfd);

	EXPECT_EQ(0, poke(self->mem, '!'));
	ASSERT_EQ(0, close(self->s.asfd));
	self->s.asfd = again;
	ASSERT_EQ(0, close(self->s.a));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->seen, peek(self->mem));
}

/* Both ways in which the kernel accesses memory for a process: no signal then. */
TEST_F(revocation, reaches_system_calls)
{
	int into = memfd_pages("into", 1, 0);
	int pipes[2];
	char byte = 'x';

	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(1, pwrite(into, self->mem, 1, 0));
	EXPECT_EQ('a', file_byte(into, 0));
	ASSERT_EQ(1, write(pipes[1], &byte, 1));
	EXPECT_EQ(1, read(pipes[0], self->mem, 1));
	EXPECT_EQ('x', file_byte(self->s.a, 0));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	ASSERT_EQ(1, write(pipes[1], &byte, 1));
	if (variant->replace) {
		EXPECT_EQ(1, pwrite(into, self->mem, 1, 0));
		EXPECT_EQ('A', file_byte(into, 0));
		EXPECT_EQ(1, read(pipes[0], self->mem, 1));
		EXPECT_EQ('x', file_byte(self->s.b, 0));
	} else {
		EXPECT_EQ(-1, pwrite(into, self->mem, 1, 0));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ('a', file_byte(into, 0));
		EXPECT_EQ(-1, read(pipes[0], self->mem, 1));
		EXPECT_EQ(EFAULT, errno);
	}
}

/* What a debugger sees, through the access operation of the VMA. */
TEST_F(revocation, reaches_debuggers)
{
	int mem = open("/proc/self/mem", O_RDWR);
	char byte = 'd';

	ASSERT_LE(0, mem);
	EXPECT_EQ('a', file_byte(mem, (uintptr_t)self->mem));
	EXPECT_EQ(1, pwrite(mem, &byte, 1, (uintptr_t)self->mem));
	EXPECT_EQ('d', file_byte(self->s.a, 0));
	ASSERT_EQ(0, take_away(&self->s, variant->replace));
	EXPECT_EQ(variant->replace ? 'A' : -EIO,
		  file_byte(mem, (uintptr_t)self->mem));
	byte = 'e';
	EXPECT_EQ(variant->replace ? 1 : -1,
		  pwrite(mem, &byte, 1, (uintptr_t)self->mem));
	EXPECT_EQ('d', file_byte(self->s.a, 0));
}

/*
 * Writers never pause; after the call has returned no write of theirs reaches the old
 * file.
 */
TEST_F(revocation, stops_writes_to_old_file)
{
	int view = as_view(self->s.asfd, 0, PAGE, RW);
	char *view_mem = attach(view, 0, PAGE, RW);
	struct writer w[2];
	unsigned int round;

	ASSERT_NE(NULL, view_mem);
	ASSERT_EQ(0, writer_start(&w[0], self->mem));
	ASSERT_EQ(0, writer_start(&w[1], view_mem + 8));
	for (round = 0; round < 40; round++) {
		uint64_t after[2], later[2];

		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		writer_wait(&w[0], 100);
		ASSERT_EQ(0, take_away(&self->s, variant->replace));
		ASSERT_EQ(16, pread(self->s.a, after, 16, 0));
		writer_wait(&w[0], 20);
		ASSERT_EQ(16, pread(self->s.a, later, 16, 0));
		ASSERT_EQ(after[0], later[0]);
		ASSERT_EQ(after[1], later[1]);
	}
	writer_stop(&w[0]);
	writer_stop(&w[1]);
	/* a replace leaves no hole to access, an unmap does */
	EXPECT_EQ(variant->replace, w[0].signals == 0);
	EXPECT_EQ(variant->replace, w[1].signals == 0);
}

TEST_HARNESS_MAIN

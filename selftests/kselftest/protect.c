// SPDX-License-Identifier: GPL-2.0
/*
 * What may only be read is never written, in whatever way a process tries: every
 * sequence here begins with a read, so that a read-only entry exists when the write
 * comes.
 */
#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(readonly)
{
	struct space s;
	char *mem;	/* allows only reading of 'a', ... */
	int fd;
};

FIXTURE_VARIANT(readonly)
{
	enum { LAYOUT, VIEW, ATTACHMENT } what;
};

/* the mapping allows reading only, its attachment all */
FIXTURE_VARIANT_ADD(readonly, layout) { .what = LAYOUT };
/* the view allows reading only, the mapping all */
FIXTURE_VARIANT_ADD(readonly, view) { .what = VIEW };
/* the attachment allows reading only, for now: the process may ask for more */
FIXTURE_VARIANT_ADD(readonly, attachment) { .what = ATTACHMENT };

FIXTURE_SETUP(readonly)
{
	int prot = variant->what == LAYOUT ? PROT_READ : RW;

	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, prot, 0));
	self->fd = variant->what == VIEW ?
		   as_view(self->s.asfd, 0, SPACE_LEN, PROT_READ) :
		   dup(self->s.asfd);
	ASSERT_LE(0, self->fd);
	self->mem = attach(self->fd, 0, SPACE_LEN,
			   variant->what == LAYOUT ? RW : PROT_READ);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(readonly)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ('a' + (int)i, file_byte(self->s.a, i * PAGE));
	space_free(&self->s);
}

TEST_F(readonly, first_write_is_sigsegv)
{
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ('a', peek(self->mem));
}

TEST_F(readonly, write_after_read_is_sigsegv)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ('a' + (int)i, peek(self->mem + i * PAGE));
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(-SIGSEGV, poke(self->mem + i * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
}

/* The same frame can be written through another attachment. */
TEST_F(readonly, write_after_write_elsewhere_is_sigsegv)
{
	char *other;

	/* the layout variant has the file writable elsewhere in the space */
	if (variant->what == LAYOUT)
		ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->s.a, 0,
				    FILE_LEN, RW, 0));
	other = attach(self->s.asfd, variant->what == LAYOUT ? FILE_LEN : 0,
		       FILE_LEN, RW);
	ASSERT_NE(NULL, other);
	EXPECT_EQ(0, poke(other, 'a'));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ(0, poke(other, 'a'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	/* never read through this attachment before */
	EXPECT_EQ(0, poke(other + PAGE, 'b'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + PAGE, '!'));
}

TEST_F(readonly, child_cannot_write)
{
	struct agent child;

	EXPECT_EQ('a', peek(self->mem));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem, '!'));
	EXPECT_EQ('b', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem + PAGE, '!'));
	ASSERT_EQ(0, agent_respawn(&child));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem, '!'));
	EXPECT_EQ(0, agent_stop(&child));
	/* nor the parent after it */
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
}

TEST_F(readonly, moved_attachment_cannot_be_written)
{
	char *room = mmap(NULL, 2 * SPACE_LEN, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *moved;

	ASSERT_NE(MAP_FAILED, (void *)room);
	EXPECT_EQ('a', peek(self->mem));
	moved = mremap(self->mem, SPACE_LEN, SPACE_LEN,
		       MREMAP_MAYMOVE | MREMAP_FIXED, room + PAGE);
	ASSERT_NE(MAP_FAILED, (void *)moved);
	EXPECT_EQ(-SIGSEGV, poke(moved, '!'));
	EXPECT_EQ('a', peek(moved));
	EXPECT_EQ(-SIGSEGV, poke(moved, '!'));
	EXPECT_EQ(-SIGSEGV, poke(moved + PAGE, '!'));
}

TEST_F(readonly, mprotect_grants_no_more_than_allowed)
{
	int ret;

	EXPECT_EQ('a', peek(self->mem));
	ret = mprotect(self->mem, SPACE_LEN, RW);
	switch (variant->what) {
	case VIEW:
		EXPECT_EQ(-1, ret);
		EXPECT_EQ(EACCES, errno);
		EXPECT_EQ(-1, mprotect(self->mem, PAGE, RWX));
		EXPECT_EQ(-1, mprotect(self->mem, PAGE, RX));
		EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
		break;
	case LAYOUT:
		EXPECT_EQ(0, ret);
		EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
		ASSERT_EQ(0, mprotect(self->mem, SPACE_LEN, PROT_READ));
		EXPECT_EQ('a', peek(self->mem));
		EXPECT_EQ('b', peek(self->mem + PAGE));
		ASSERT_EQ(0, mprotect(self->mem, SPACE_LEN, RW));
		EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
		EXPECT_EQ(-SIGSEGV, poke(self->mem + PAGE, '!'));
		break;
	case ATTACHMENT:
		/* all rights were available */
		EXPECT_EQ(0, ret);
		EXPECT_EQ(0, poke(self->mem, '!'));
		EXPECT_EQ('!', file_byte(self->s.a, 0));
		EXPECT_EQ(0, poke(self->mem, 'a'));
		ASSERT_EQ(0, mprotect(self->mem, SPACE_LEN, PROT_READ));
		EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
		break;
	}
}

TEST_F(readonly, system_calls_cannot_write)
{
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(4, write(pipes[1], "!!!!", 4));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-1, read(pipes[0], self->mem, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, read(pipes[0], self->mem + PAGE, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(1, write(pipes[1], self->mem, 1));
}

/* As with any shared mapping: FOLL_FORCE is for private ones. */
TEST_F(readonly, debuggers_cannot_write)
{
	int proc_mem = open("/proc/self/mem", O_RDWR);

	ASSERT_LE(0, proc_mem);
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-1, pwrite(proc_mem, "!", 1, (uintptr_t)self->mem));
	EXPECT_EQ(-1, pwrite(proc_mem, "!", 1, (uintptr_t)self->mem + PAGE));
	EXPECT_EQ('a', file_byte(proc_mem, (uintptr_t)self->mem));
	EXPECT_EQ('c', file_byte(proc_mem, (uintptr_t)self->mem + 2 * PAGE));
}

/* The above in random order: the seed is printed, so that a run can be repeated. */
TEST_F(readonly, random_sequence_never_writes)
{
	unsigned int seed = getpid() ^ now_ms(), start = seed, i;
	struct agent child;

	ASSERT_EQ(0, agent_start(&child));
	for (i = 0; i < 1000; i++) {
		unsigned int what = rand_r(&seed) % 8;
		unsigned int page = rand_r(&seed) % FILE_PAGES;
		char *at = self->mem + page * PAGE;
		void *moved;

		switch (what) {
		case 0:
			EXPECT_EQ('a' + (int)page, peek(at));
			break;
		case 1:
			EXPECT_EQ(-SIGSEGV, poke(at, '!'));
			break;
		case 2:
			EXPECT_EQ(variant->what == VIEW ? -1 : 0,
				  mprotect(at, PAGE, RW));
			if (variant->what == ATTACHMENT) {
				EXPECT_EQ(0, poke(at, 'a' + page));
				EXPECT_EQ(0, mprotect(at, PAGE, PROT_READ));
			}
			break;
		case 3:
			EXPECT_EQ(0, mprotect(at, PAGE, PROT_READ));
			break;
		case 4:
			EXPECT_EQ('a' + (int)page, agent_peek(&child, at));
			break;
		case 5:
			EXPECT_EQ(-SIGSEGV, agent_poke(&child, at, '!'));
			break;
		case 6:
			if (i % 16)
				break;
			ASSERT_EQ(0, agent_stop(&child));
			ASSERT_EQ(0, agent_start(&child));
			break;
		case 7:
			/* moved away and back; the child has it, too */
			moved = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE |
				     MAP_ANONYMOUS, -1, 0);
			ASSERT_EQ(moved, mremap(at, PAGE, PAGE, MREMAP_MAYMOVE |
						MREMAP_FIXED, moved));
			EXPECT_EQ(-SIGSEGV, poke(moved, '!'));
			ASSERT_EQ((void *)at, mremap(moved, PAGE, PAGE,
				  MREMAP_MAYMOVE | MREMAP_FIXED, at));
			break;
		}
		if (_metadata->exit_code) {
			TH_LOG("seed %u, step %u, do %u, page %u", start, i,
			       what, page);
			break;
		}
	}
	EXPECT_EQ(0, agent_stop(&child));
}

FIXTURE(space)
{
	struct space s;
	char *mem;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	self->mem = self->s.mem;
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, allowed_write_after_read_reaches_the_file)
{
	struct agent child;

	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('b', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(0, poke(self->mem, '1'));
	EXPECT_EQ('1', file_byte(self->s.a, 0));
	EXPECT_EQ('1', agent_peek(&child, self->mem));
	EXPECT_EQ(0, agent_poke(&child, self->mem + PAGE, '2'));
	EXPECT_EQ('2', file_byte(self->s.a, PAGE));
	EXPECT_EQ('2', peek(self->mem + PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, readonly_view_cannot_be_mapped_writable)
{
	int view = as_view(self->s.asfd, 0, SPACE_LEN, PROT_READ);

	ASSERT_LE(0, view);
	EXPECT_EQ(NULL, attach(view, 0, PAGE, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(NULL, attach(view, 0, PAGE, PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_NE(NULL, attach(view, 0, PAGE, PROT_READ));
	EXPECT_NE(NULL, attach(view, 0, PAGE, PROT_NONE));
}

#define RET	0xc3	/* the instruction */

TEST_F(space, attachment_executes_what_is_mapped_so)
{
	int view = as_view(self->s.asfd, 0, 4 * PAGE, RWX);
	char *mem;

	ASSERT_EQ(0, file_set(self->s.a, 0, RET));
	ASSERT_EQ(0, file_set(self->s.a, PAGE, RET));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, 2 * PAGE, RWX,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, RW));
	mem = attach(view, 0, 4 * PAGE, RX);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, execute(mem));
	EXPECT_EQ(-SIGSEGV, execute(mem + PAGE));
	/* nor does it help to have read it */
	EXPECT_EQ(RET, peek(mem + PAGE));
	EXPECT_EQ(-SIGSEGV, execute(mem + PAGE));
	/* by a change of the layout it does */
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, RX));
	EXPECT_EQ(0, execute(mem + PAGE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, 2 * PAGE, RW));
	EXPECT_EQ(RET, peek(mem));
	EXPECT_EQ(-SIGSEGV, execute(mem));
	EXPECT_EQ(-SIGSEGV, execute(mem + PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, PAGE));
	EXPECT_EQ(-SIGBUS, execute(mem));
	close(view);
}

TEST_F(space, mprotect_makes_nothing_executable)
{
	static const int to[] = { RX, PROT_READ, RWX, RX, RW, RWX, RX };
	char *mem = attach(self->s.asfd, 0, 2 * PAGE, RW);
	unsigned int i;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, file_set(self->s.a, 0, RET));
	ASSERT_EQ(0, file_set(self->s.a, PAGE, RET));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RWX,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, as_map(self->s.asfd, PAGE, self->s.a, PAGE, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	for (i = 0; i < sizeof(to) / sizeof(to[0]); i++) {
		EXPECT_EQ(RET, peek(mem));
		EXPECT_EQ(RET, peek(mem + PAGE));
		ASSERT_EQ(0, mprotect(mem, 2 * PAGE, to[i]));
		EXPECT_EQ(to[i] & PROT_EXEC ? 0 : -SIGSEGV, execute(mem));
		EXPECT_EQ(-SIGSEGV, execute(mem + PAGE));
	}
}

TEST_F(space, attachment_executes_no_more_than_the_view_allows)
{
	int view = as_view(self->s.asfd, 0, PAGE, RW);
	char *mem = attach(view, 0, PAGE, RW);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, file_set(self->s.a, 0, RET));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RWX,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ(NULL, attach(view, 0, PAGE, RX));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(mem, PAGE, RX));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(RET, peek(mem));
	EXPECT_EQ(-SIGSEGV, execute(mem));
	close(view);
}

TEST_F(space, reduced_protection_reaches_every_attacher)
{
	int view = as_view(self->s.asfd, 0, SPACE_LEN, RW);
	char *view_mem = attach(view, 0, SPACE_LEN, RW);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	EXPECT_EQ(0, poke(self->mem, 'a'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(0, agent_poke(&child, view_mem, 'a'));
	EXPECT_EQ(0, poke(view_mem, 'a'));
	/* the same page, for reading only from now on */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, PROT_READ,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ(-SIGSEGV, poke(view_mem, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, view_mem, '!'));
	EXPECT_EQ('a', peek(self->mem));
	/* with no access at all */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, PROT_NONE,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem));
	EXPECT_EQ(-SIGSEGV, agent_peek(&child, view_mem));
	/* and with all access again */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ(0, poke(self->mem, '1'));
	EXPECT_EQ(0, agent_poke(&child, view_mem, '2'));
	EXPECT_EQ('2', file_byte(self->s.a, 0));
	EXPECT_EQ(0, agent_stop(&child));
}

/*
 * A fault may install the pages around the accessed one, above all if accesses are
 * sequential: it must not install more than their mapping allows.
 */
TEST_F(space, fault_around_respects_protection_of_each_page)
{
	static const int prots[] = { RW, PROT_READ, PROT_NONE, -1, RW, RW, PROT_READ };
	int view = as_view(self->s.asfd, 3 * PAGE, FILE_LEN - 3 * PAGE, PROT_READ);
	char *view_mem = attach(view, 0, FILE_LEN - 3 * PAGE, PROT_READ);
	unsigned int i, pass;

	ASSERT_NE(NULL, view_mem);
	for (i = 0; i < FILE_PAGES; i++) {
		int prot = prots[i % ARRAY_SIZE(prots)];

		ASSERT_EQ(0, prot < 0 ? as_unmap(self->s.asfd, i * PAGE, PAGE) :
			  as_map(self->s.asfd, i * PAGE, self->s.a, i * PAGE, PAGE,
				 prot, ADDRESS_SPACE_MAP_REPLACE));
	}
	for (pass = 0; pass < 3; pass++) {
		for (i = 0; i < FILE_PAGES; i++) {
			int prot = prots[i % ARRAY_SIZE(prots)];
			int refused = prot < 0 ? -SIGBUS : -SIGSEGV;

			EXPECT_EQ(prot > 0 ? 'a' + (int)i : refused,
				  peek(self->mem + i * PAGE));
			if (i >= 3)
				EXPECT_EQ(prot > 0 ? 'a' + (int)i : refused,
					  peek(view_mem + (i - 3) * PAGE));
		}
		for (i = 0; i < FILE_PAGES; i++) {
			int prot = prots[i % ARRAY_SIZE(prots)];
			int refused = prot < 0 ? -SIGBUS : -SIGSEGV;

			EXPECT_EQ(prot == RW ? 0 : refused,
				  poke(self->mem + i * PAGE, 'a' + i));
			if (i >= 3)
				EXPECT_EQ(-SIGSEGV,
					  poke(view_mem + (i - 3) * PAGE, '!'));
		}
	}
}

TEST_F(space, siginfo_has_code_and_address)
{
	char *hole = self->mem + FILE_LEN + 123;
	char *readonly = self->mem + 2 * PAGE + 45;
	char *mem = attach(self->s.asfd, 0, PAGE, PROT_READ);

	EXPECT_EQ(-SIGBUS, peek(hole));
	EXPECT_EQ(BUS_ADRERR, probe_info.si_code);
	EXPECT_EQ((void *)hole, probe_info.si_addr);
	EXPECT_EQ(-SIGBUS, poke(hole, 1));
	EXPECT_EQ(BUS_ADRERR, probe_info.si_code);
	EXPECT_EQ((void *)hole, probe_info.si_addr);
	ASSERT_EQ(0, as_map(self->s.asfd, 2 * PAGE, self->s.a, 0, PAGE, PROT_READ,
			    ADDRESS_SPACE_MAP_REPLACE));
	/* x86 gives MAPERR for what a fault handler refuses: not tested */
	EXPECT_EQ(-SIGSEGV, poke(readonly, 1));
	EXPECT_EQ((void *)readonly, probe_info.si_addr);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-SIGSEGV, poke(mem + 6, 1));
	EXPECT_EQ(SEGV_ACCERR, probe_info.si_code);
	EXPECT_EQ((void *)(mem + 6), probe_info.si_addr);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/* Changes of an existing mapping: its protection and its address. */
#include <sched.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define TOP	(1ULL << 63)
#define REPLACE	ADDRESS_SPACE_MAP_REPLACE

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
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, protect_reaches_every_attacher)
{
	int view = as_view(self->asfd, 0, SPACE_LEN, RW);
	char *view_mem = attach(view, 0, SPACE_LEN, RW);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	EXPECT_EQ(0, poke(self->mem, '1'));
	EXPECT_EQ(0, poke(view_mem, '2'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(0, agent_poke(&child, self->mem, '3'));
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ(-SIGSEGV, poke(view_mem, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, view_mem, '!'));
	EXPECT_EQ('3', peek(self->mem));
	EXPECT_EQ('3', agent_peek(&child, view_mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem));
	EXPECT_EQ(-SIGSEGV, agent_peek(&child, view_mem));
	/* and back to the protection of the map */
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, RW));
	EXPECT_EQ(0, poke(self->mem, '4'));
	EXPECT_EQ(0, agent_poke(&child, view_mem + PAGE, '5'));
	EXPECT_EQ('4', file_byte(self->s.a, 0));
	EXPECT_EQ('5', file_byte(self->s.a, PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, protect_applies_to_part_of_mapping)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(0, poke(self->mem + i * PAGE, '0' + i));
	ASSERT_EQ(0, as_protect(self->asfd, 4 * PAGE, 3 * PAGE, PROT_READ));
	for (i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ(i >= 4 && i < 7 ? -SIGSEGV : 0,
			  poke(self->mem + i * PAGE, 'A' + i));
		EXPECT_EQ((i >= 4 && i < 7 ? '0' : 'A') + (int)i,
			  peek(self->mem + i * PAGE));
	}
}

TEST_F(space, protect_spans_several_mappings)
{
	/* of two files, with different protections */
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, self->s.b, 0, 4 * PAGE, PROT_READ, 0));
	ASSERT_EQ(0, as_protect(self->asfd, 14 * PAGE, 4 * PAGE, PROT_READ));
	EXPECT_EQ(0, poke(self->mem + 13 * PAGE, 'n'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 14 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 17 * PAGE, '!'));
	EXPECT_EQ('o', peek(self->mem + 14 * PAGE));
	EXPECT_EQ('B', peek(self->mem + 17 * PAGE));
	EXPECT_EQ('C', peek(self->mem + 18 * PAGE));
}

TEST_F(space, protect_of_hole_is_enoent)
{
	ASSERT_EQ(0, as_unmap(self->asfd, 6 * PAGE, PAGE));
	/* in the middle, at the end, before the beginning, and alone */
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_protect(self->asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_protect(self->asfd, 5 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_protect(self->asfd, 6 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_protect(self->asfd, 15 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_protect(self->asfd, 40 * PAGE, PAGE, PROT_READ));
	EXPECT_EQ(0, poke(self->mem, '!'));
	EXPECT_EQ(0, poke(self->mem + 5 * PAGE, '!'));
	EXPECT_EQ(0, poke(self->mem + 15 * PAGE, '!'));
}

TEST_F(space, protect_grants_no_more_than_map_checked)
{
	char path[64];
	int readonly;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->s.b);
	readonly = open(path, O_RDONLY);
	ASSERT_LE(0, readonly);
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, readonly, 0, 4 * PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_protect(self->asfd, FILE_LEN, PAGE, RW));
	/* also if a part of the range could be changed */
	ASSERT_EQ(0, as_protect(self->asfd, 14 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_protect(self->asfd, 14 * PAGE, 4 * PAGE, RW));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 14 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + FILE_LEN, '!'));
	EXPECT_EQ('A', file_byte(self->s.b, 0));
}

TEST_F(space, protect_rejects_invalid_values)
{
	static const uint32_t prots[] = {
		PROT_WRITE, PROT_EXEC, PROT_READ | 8, PROT_READ | PROT_GROWSDOWN, ~0U,
	};
	static const struct {
		uint64_t addr, length;
		int err;
	} ranges[] = {
		{ 1, PAGE, EINVAL }, { 0, 1, EINVAL }, { 0, 0, EINVAL },
		{ 0, SPACE_LEN + PAGE, EINVAL }, { SPACE_LEN, PAGE, EINVAL },
		{ TOP, PAGE, EINVAL }, { -PAGE, PAGE, EOVERFLOW },
		{ PAGE, -PAGE, EOVERFLOW },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(prots); i++)
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_protect(self->asfd, 0, PAGE, prots[i]));
	for (i = 0; i < ARRAY_SIZE(ranges); i++)
		EXPECT_REFUSED(self->asfd, ranges[i].err,
			       as_protect(self->asfd, ranges[i].addr,
					  ranges[i].length, PROT_READ));
}

TEST_F(space, no_write_after_protect_returns)
{
	struct writer w;
	unsigned int round;

	ASSERT_EQ(0, writer_start(&w, self->mem));
	for (round = 0; round < 40; round++) {
		uint64_t after, later;

		writer_wait(&w, 100);
		ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_READ));
		ASSERT_EQ(8, pread(self->s.a, &after, 8, 0));
		writer_wait(&w, 20);
		ASSERT_EQ(8, pread(self->s.a, &later, 8, 0));
		ASSERT_EQ(after, later);
		ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, RW));
	}
	writer_stop(&w);
	EXPECT_LT(0UL, w.signals);
}

TEST_F(space, move_reaches_every_attacher)
{
	int view = as_view(self->asfd, PAGE, SPACE_LEN - PAGE, RW);
	char *view_mem = attach(view, 0, SPACE_LEN - PAGE, RW);
	struct agent child;

	ASSERT_NE(NULL, view_mem);
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, poke(view_mem + PAGE, '!'));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 42 * PAGE));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('!', agent_peek(&child, self->mem + 2 * PAGE));
	ASSERT_EQ(0, as_move(self->asfd, 0, FILE_LEN, 40 * PAGE, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(view_mem + PAGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem + 2 * PAGE));
	EXPECT_EQ('!', peek(self->mem + 42 * PAGE));
	EXPECT_EQ('!', peek(view_mem + 41 * PAGE));
	EXPECT_EQ('!', agent_peek(&child, self->mem + 42 * PAGE));
	EXPECT_EQ('p', peek(self->mem + 55 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 56 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 40 * PAGE, '?'));
	EXPECT_EQ('?', file_byte(self->s.a, 0));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, move_of_part_keeps_protection)
{
	ASSERT_EQ(0, as_protect(self->asfd, 4 * PAGE, 2 * PAGE, PROT_READ));
	ASSERT_EQ(0, as_move(self->asfd, 3 * PAGE, 4 * PAGE, 30 * PAGE, 0));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 6 * PAGE));
	EXPECT_EQ('h', peek(self->mem + 7 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 30 * PAGE, 'd'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 31 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 32 * PAGE, '!'));
	EXPECT_EQ('f', peek(self->mem + 32 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 33 * PAGE, 'g'));
	/* back to its old address, next to what is mapped there */
	ASSERT_EQ(0, as_move(self->asfd, 30 * PAGE, 4 * PAGE, 3 * PAGE, 0));
	EXPECT_EQ('d', peek(self->mem + 3 * PAGE));
	EXPECT_EQ('g', peek(self->mem + 6 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 30 * PAGE));
}

TEST_F(space, move_over_mapping_is_eexist_or_replaces)
{
	ASSERT_EQ(0, as_map(self->asfd, 32 * PAGE, self->s.b, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('B', peek(self->mem + 33 * PAGE));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 33 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 35 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 8 * PAGE, 0));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('B', peek(self->mem + 33 * PAGE));
	ASSERT_EQ(0, as_move(self->asfd, 0, 2 * PAGE, 33 * PAGE, REPLACE));
	EXPECT_EQ('A', peek(self->mem + 32 * PAGE));
	EXPECT_EQ('a', peek(self->mem + 33 * PAGE));
	EXPECT_EQ('b', peek(self->mem + 34 * PAGE));
	EXPECT_EQ('D', peek(self->mem + 35 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	/* next to itself, within its own mapping */
	ASSERT_EQ(0, as_move(self->asfd, 4 * PAGE, 2 * PAGE, 6 * PAGE, REPLACE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 4 * PAGE));
	EXPECT_EQ('e', peek(self->mem + 6 * PAGE));
	EXPECT_EQ('i', peek(self->mem + 8 * PAGE));
}

TEST_F(space, move_of_hole_is_enoent)
{
	ASSERT_EQ(0, as_unmap(self->asfd, 6 * PAGE, PAGE));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 0, FILE_LEN, 40 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 6 * PAGE, PAGE, 40 * PAGE, REPLACE));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 15 * PAGE, 2 * PAGE, 40 * PAGE, 0));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 40 * PAGE));
}

TEST_F(space, move_rejects_invalid_ranges)
{
	static const struct {
		uint64_t addr, length, to;
		int err;
	} cases[] = {
		{ 1, PAGE, 40 * PAGE, EINVAL },
		{ 0, 1, 40 * PAGE, EINVAL },
		{ 0, 0, 40 * PAGE, EINVAL },
		{ 0, PAGE, 40 * PAGE + 1, EINVAL },
		{ SPACE_LEN, PAGE, 40 * PAGE, EINVAL },
		{ 0, 2 * PAGE, SPACE_LEN - PAGE, EINVAL },
		{ 0, PAGE, SPACE_LEN, EINVAL },
		{ 0, PAGE, TOP, EINVAL },
		{ TOP, PAGE, 0, EINVAL },
		/* the ranges overlap */
		{ 0, PAGE, 0, EINVAL },
		{ 0, 4 * PAGE, 3 * PAGE, EINVAL },
		{ 3 * PAGE, 4 * PAGE, 0, EINVAL },
		{ 0, PAGE, -PAGE, EOVERFLOW },
		{ -PAGE, PAGE, 0, EOVERFLOW },
		{ PAGE, -PAGE, 40 * PAGE, EOVERFLOW },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		EXPECT_REFUSED(self->asfd, cases[i].err,
			       as_move(self->asfd, cases[i].addr,
				       cases[i].length, cases[i].to, 0));
		EXPECT_REFUSED(self->asfd, cases[i].err,
			       as_move(self->asfd, cases[i].addr,
				       cases[i].length, cases[i].to, REPLACE));
	}
}

struct reader {
	char *mem;
	volatile bool stop;
	volatile unsigned int seq;	/* odd while a move is under way */
	volatile unsigned int at;	/* where the page is otherwise */
	volatile unsigned long checked, gone, left;
};

static void *follow(void *arg)
{
	struct reader *r = arg;

	while (!r->stop) {
		unsigned int seq = __atomic_load_n(&r->seq, __ATOMIC_ACQUIRE);
		unsigned int at = r->at;
		int here = peek(r->mem + at * PAGE);
		int there = peek(r->mem + (at ^ 1) * PAGE);

		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (seq % 2 || seq != r->seq)
			continue;
		r->checked++;
		r->gone += here != 'a';
		r->left += there != -SIGBUS;
	}
	return NULL;
}

TEST_F_TIMEOUT(space, moved_page_is_only_at_new_address, 60)
{
	struct reader r = { .mem = self->mem + 32 * PAGE, .at = 0 };
	uint64_t until = now_ms() + race_ms();
	pthread_t thread;
	unsigned int i;

	ASSERT_EQ(0, as_move(self->asfd, 0, PAGE, 32 * PAGE, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, follow, &r));
	for (i = 0; i < 100 || now_ms() < until; i++) {
		unsigned long seen = r.checked;

		__atomic_add_fetch(&r.seq, 1, __ATOMIC_SEQ_CST);
		ASSERT_EQ(0, as_move(self->asfd, (32 + i % 2) * PAGE, PAGE,
				     (33 - i % 2) * PAGE, 0));
		r.at = 1 - i % 2;
		__atomic_add_fetch(&r.seq, 1, __ATOMIC_SEQ_CST);
		while (i % 4 == 0 && r.checked < seen + 2)
			sched_yield();
	}
	r.stop = true;
	pthread_join(thread, NULL);
	EXPECT_LT(20UL, r.checked);
	EXPECT_EQ(0UL, r.gone);
	EXPECT_EQ(0UL, r.left);
}

TEST_HARNESS_MAIN

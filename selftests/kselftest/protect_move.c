// SPDX-License-Identifier: GPL-2.0
/* Changing what is mapped in place: its protection, and its address. */
#include <pthread.h>
#include <sched.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define TOP	(1ULL << 63)
#define REPLACE	ADDRESS_SPACE_MAP_REPLACE

FIXTURE(space)
{
	struct space s;
	int asfd;
	char *win;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	self->win = self->s.win;
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, protect_reaches_everybody)
{
	int view = as_view(self->asfd, 0, SPACE_LEN, RW);
	char *view_win = attach(view, 0, SPACE_LEN, RW);
	struct agent child;

	ASSERT_NE(NULL, view_win);
	EXPECT_EQ(0, poke(self->win, '1'));
	EXPECT_EQ(0, poke(view_win, '2'));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(0, agent_poke(&child, self->win, '3'));
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ(-SIGSEGV, poke(self->win, '!'));
	EXPECT_EQ(-SIGSEGV, poke(view_win, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->win, '!'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, view_win, '!'));
	EXPECT_EQ('3', peek(self->win));
	EXPECT_EQ('3', agent_peek(&child, view_win));
	EXPECT_EQ(-SIGSEGV, poke(self->win, '!'));
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->win));
	EXPECT_EQ(-SIGSEGV, agent_peek(&child, view_win));
	/* and back to what it was mapped for */
	ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, RW));
	EXPECT_EQ(0, poke(self->win, '4'));
	EXPECT_EQ(0, agent_poke(&child, view_win + PAGE, '5'));
	EXPECT_EQ('4', file_byte(self->s.a, 0));
	EXPECT_EQ('5', file_byte(self->s.a, PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, protect_takes_a_part)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ(0, poke(self->win + i * PAGE, '0' + i));
	ASSERT_EQ(0, as_protect(self->asfd, 4 * PAGE, 3 * PAGE, PROT_READ));
	for (i = 0; i < FILE_PAGES; i++) {
		EXPECT_EQ(i >= 4 && i < 7 ? -SIGSEGV : 0,
			  poke(self->win + i * PAGE, 'A' + i));
		EXPECT_EQ((i >= 4 && i < 7 ? '0' : 'A') + (int)i,
			  peek(self->win + i * PAGE));
	}
}

TEST_F(space, protect_takes_several_mappings)
{
	/* of two files, with different protections */
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, self->s.b, 0, 4 * PAGE, PROT_READ, 0));
	ASSERT_EQ(0, as_protect(self->asfd, 14 * PAGE, 4 * PAGE, PROT_READ));
	EXPECT_EQ(0, poke(self->win + 13 * PAGE, 'n'));
	EXPECT_EQ(-SIGSEGV, poke(self->win + 14 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->win + 17 * PAGE, '!'));
	EXPECT_EQ('o', peek(self->win + 14 * PAGE));
	EXPECT_EQ('B', peek(self->win + 17 * PAGE));
	EXPECT_EQ('C', peek(self->win + 18 * PAGE));
}

TEST_F(space, protect_of_a_hole_is_enoent)
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
	EXPECT_EQ(0, poke(self->win, '!'));
	EXPECT_EQ(0, poke(self->win + 5 * PAGE, '!'));
	EXPECT_EQ(0, poke(self->win + 15 * PAGE, '!'));
}

TEST_F(space, protect_gives_no_more_than_was_checked)
{
	char path[64];
	int readonly;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->s.b);
	readonly = open(path, O_RDONLY);
	ASSERT_LE(0, readonly);
	ASSERT_EQ(0, as_map(self->asfd, FILE_LEN, readonly, 0, 4 * PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_protect(self->asfd, FILE_LEN, PAGE, RW));
	/* also where a part of the range could be given it */
	ASSERT_EQ(0, as_protect(self->asfd, 14 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_protect(self->asfd, 14 * PAGE, 4 * PAGE, RW));
	EXPECT_EQ(-SIGSEGV, poke(self->win + 14 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->win + FILE_LEN, '!'));
	EXPECT_EQ('A', file_byte(self->s.b, 0));
}

TEST_F(space, protect_takes_values_that_make_sense)
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

struct writer {
	char *at;
	volatile bool stop;
	volatile unsigned long writes, refused;
};

static void *write_for_ever(void *arg)
{
	struct writer *w = arg;
	uint64_t i;

	for (i = 1; !w->stop; i++) {
		if (poke64(w->at, i))
			w->refused++;
		w->writes++;
	}
	return NULL;
}

static void wait_for_writes(struct writer *w, unsigned long n)
{
	unsigned long seen = w->writes;

	while (w->writes < seen + n)
		sched_yield();
}

TEST_F(space, no_write_comes_after_a_protect)
{
	struct writer w = { .at = self->win };
	unsigned int round;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, write_for_ever, &w));
	for (round = 0; round < 40; round++) {
		uint64_t after, later;

		wait_for_writes(&w, 100);
		ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, PROT_READ));
		ASSERT_EQ(8, pread(self->s.a, &after, 8, 0));
		wait_for_writes(&w, 20);
		ASSERT_EQ(8, pread(self->s.a, &later, 8, 0));
		ASSERT_EQ(after, later);
		ASSERT_EQ(0, as_protect(self->asfd, 0, FILE_LEN, RW));
	}
	w.stop = true;
	pthread_join(thread, NULL);
	EXPECT_LT(0UL, w.refused);
}

TEST_F(space, move_reaches_everybody)
{
	int view = as_view(self->asfd, PAGE, SPACE_LEN - PAGE, RW);
	char *view_win = attach(view, 0, SPACE_LEN - PAGE, RW);
	struct agent child;

	ASSERT_NE(NULL, view_win);
	EXPECT_EQ('c', peek(self->win + 2 * PAGE));
	EXPECT_EQ(0, poke(view_win + PAGE, '!'));
	EXPECT_EQ(-SIGBUS, peek(self->win + 42 * PAGE));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('!', agent_peek(&child, self->win + 2 * PAGE));
	ASSERT_EQ(0, as_move(self->asfd, 0, FILE_LEN, 40 * PAGE, 0));
	EXPECT_EQ(-SIGBUS, peek(self->win + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(view_win + PAGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->win + 2 * PAGE));
	EXPECT_EQ('!', peek(self->win + 42 * PAGE));
	EXPECT_EQ('!', peek(view_win + 41 * PAGE));
	EXPECT_EQ('!', agent_peek(&child, self->win + 42 * PAGE));
	EXPECT_EQ('p', peek(self->win + 55 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->win + 56 * PAGE));
	EXPECT_EQ(0, poke(self->win + 40 * PAGE, '?'));
	EXPECT_EQ('?', file_byte(self->s.a, 0));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_F(space, move_takes_a_part_and_its_protection)
{
	ASSERT_EQ(0, as_protect(self->asfd, 4 * PAGE, 2 * PAGE, PROT_READ));
	ASSERT_EQ(0, as_move(self->asfd, 3 * PAGE, 4 * PAGE, 30 * PAGE, 0));
	EXPECT_EQ('c', peek(self->win + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->win + 3 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->win + 6 * PAGE));
	EXPECT_EQ('h', peek(self->win + 7 * PAGE));
	EXPECT_EQ(0, poke(self->win + 30 * PAGE, 'd'));
	EXPECT_EQ(-SIGSEGV, poke(self->win + 31 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(self->win + 32 * PAGE, '!'));
	EXPECT_EQ('f', peek(self->win + 32 * PAGE));
	EXPECT_EQ(0, poke(self->win + 33 * PAGE, 'g'));
	/* to where it came from, side by side with what is there */
	ASSERT_EQ(0, as_move(self->asfd, 30 * PAGE, 4 * PAGE, 3 * PAGE, 0));
	EXPECT_EQ('d', peek(self->win + 3 * PAGE));
	EXPECT_EQ('g', peek(self->win + 6 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->win + 30 * PAGE));
}

TEST_F(space, move_over_a_mapping_is_eexist_or_replaces)
{
	ASSERT_EQ(0, as_map(self->asfd, 32 * PAGE, self->s.b, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('B', peek(self->win + 33 * PAGE));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 33 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 35 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_move(self->asfd, 0, 2 * PAGE, 8 * PAGE, 0));
	EXPECT_EQ('a', peek(self->win));
	EXPECT_EQ('B', peek(self->win + 33 * PAGE));
	ASSERT_EQ(0, as_move(self->asfd, 0, 2 * PAGE, 33 * PAGE, REPLACE));
	EXPECT_EQ('A', peek(self->win + 32 * PAGE));
	EXPECT_EQ('a', peek(self->win + 33 * PAGE));
	EXPECT_EQ('b', peek(self->win + 34 * PAGE));
	EXPECT_EQ('D', peek(self->win + 35 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->win));
	/* next to itself, within its own mapping */
	ASSERT_EQ(0, as_move(self->asfd, 4 * PAGE, 2 * PAGE, 6 * PAGE, REPLACE));
	EXPECT_EQ(-SIGBUS, peek(self->win + 4 * PAGE));
	EXPECT_EQ('e', peek(self->win + 6 * PAGE));
	EXPECT_EQ('i', peek(self->win + 8 * PAGE));
}

TEST_F(space, move_of_a_hole_is_enoent)
{
	ASSERT_EQ(0, as_unmap(self->asfd, 6 * PAGE, PAGE));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 0, FILE_LEN, 40 * PAGE, 0));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 6 * PAGE, PAGE, 40 * PAGE, REPLACE));
	EXPECT_REFUSED(self->asfd, ENOENT,
		       as_move(self->asfd, 15 * PAGE, 2 * PAGE, 40 * PAGE, 0));
	EXPECT_EQ('a', peek(self->win));
	EXPECT_EQ(-SIGBUS, peek(self->win + 40 * PAGE));
}

TEST_F(space, move_takes_ranges_that_make_sense)
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
		/* they overlap */
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
	char *win;
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
		int here = peek(r->win + at * PAGE);
		int there = peek(r->win + (at ^ 1) * PAGE);

		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (seq % 2 || seq != r->seq)
			continue;
		r->checked++;
		r->gone += here != 'a';
		r->left += there != -SIGBUS;
	}
	return NULL;
}

TEST_F_TIMEOUT(space, once_moved_it_is_there_and_not_here, 60)
{
	struct reader r = { .win = self->win + 32 * PAGE, .at = 0 };
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

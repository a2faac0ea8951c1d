// SPDX-License-Identifier: GPL-2.0
/*
 * ADDRESS_SPACE_MAP_POPULATE installs what is mapped in the existing attachments, and
 * grants no more access, nor for longer, than a page fault would.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_util.h"

#define POPULATE	ADDRESS_SPACE_MAP_POPULATE
#define REPLACE		ADDRESS_SPACE_MAP_REPLACE

/* The range to access, and whether to write it. */
struct touch {
	char *at;
	unsigned int pages;
	bool write;
};

/* The number of page faults that this takes, if no signal is raised. */
static long touch(void *arg)
{
	const struct touch *touch = arg;
	struct rusage before, after;
	unsigned int i;

	getrusage(RUSAGE_THREAD, &before);
	for (i = 0; i < touch->pages; i++) {
		volatile char *at = touch->at + i * PAGE;
		char value = *at;

		if (touch->write)
			*at = value;
	}
	getrusage(RUSAGE_THREAD, &after);
	return after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt;
}

/*
 * The same in a child, which must have accessed all else that it needs before. Its
 * argument is at an address that is the same in both.
 */
static long agent_touch(struct agent *agent, struct touch *shared, char *at,
			unsigned int pages, bool write)
{
	static char other[PAGE];

	*shared = (struct touch) { other, 1, true };
	agent_call(agent, touch, shared);
	*shared = (struct touch) { at, pages, write };
	return agent_call(agent, touch, shared);
}

FIXTURE(space)
{
	struct space s;
	int asfd;
	char *mem;
	struct touch *shared;
	struct agent child;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	self->mem = self->s.mem;
	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	/*
	 * the child has the attachment, and must not fault in any of its page tables
	 * either
	 */
	ASSERT_EQ(0, agent_start(&self->child));
}

FIXTURE_TEARDOWN(space)
{
	EXPECT_EQ(0, agent_stop(&self->child));
	space_free(&self->s);
}

TEST_F(space, populate_installs_pages_in_every_attachment)
{
	int view = as_view(self->asfd, 2 * PAGE, 8 * PAGE, RW);
	char *second = attach(self->asfd, PAGE, FILE_LEN, RW);
	char *mine = attach(view, 0, 8 * PAGE, RW);
	char *theirs = agent_attach(&self->child, view, 0, 8 * PAGE, RW);
	struct touch all[] = {
		{ self->mem + 4 * PAGE, 4, false }, { self->mem, FILE_PAGES, true },
		{ second, FILE_PAGES - 1, true }, { mine, 8, true },
	};
	unsigned int i;

	ASSERT_NE(NULL, second);
	ASSERT_NE(NULL, mine);
	ASSERT_NE(NULL, theirs);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, POPULATE));
	for (i = 0; i < ARRAY_SIZE(all); i++)
		EXPECT_EQ(0, touch(&all[i]))
			TH_LOG("case %u", i);
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem, FILE_PAGES, true));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, theirs, 8, true));
	EXPECT_EQ('a', agent_peek(&self->child, self->mem));
	EXPECT_EQ('c', peek(mine));
	EXPECT_EQ('b', peek(second));

	/* and again, in place of another mapping, when page tables exist */
	ASSERT_EQ(0, as_map(self->asfd, PAGE, self->s.b, 0, 4 * PAGE, RW, POPULATE | REPLACE));
	EXPECT_EQ(0, touch(&all[1]));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, theirs, 3, true));
	EXPECT_EQ('A', agent_peek(&self->child, self->mem + PAGE));
	EXPECT_EQ('B', peek(mine));
}

/* Proves that the other tests can fail. */
TEST_F(space, every_access_faults_without_populate)
{
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_LT(0, touch(&(struct touch) { self->mem, FILE_PAGES, true }));
	EXPECT_LT(0, agent_touch(&self->child, self->shared, self->mem, FILE_PAGES, true));
}

TEST_F(space, populate_in_batch_installs_final_layout)
{
	struct address_space_op ops[] = {
		op_map(0, self->s.a, 0, 8 * PAGE, RW, POPULATE),
		op_map(32 * PAGE, self->s.b, 0, 4 * PAGE, RW, POPULATE),
		op_map(48 * PAGE, self->s.b, 0, 4 * PAGE, RW, POPULATE),
		/* this is what remains of the populated range */
		{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .addr = 2 * PAGE, .length = PAGE },
		{ .opcode = ADDRESS_SPACE_OP_PROTECT, .prot = PROT_READ,
		  .addr = 33 * PAGE, .length = PAGE },
		op_map(49 * PAGE, self->s.a, 0, PAGE, RW, REPLACE),
	};

	ASSERT_EQ(0, as_batch(self->asfd, ops, ARRAY_SIZE(ops), NULL));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem, 2, true));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem + 3 * PAGE, 5, true));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem + 32 * PAGE, 1, true));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem + 33 * PAGE, 3, false));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem + 50 * PAGE, 2, true));
	EXPECT_EQ(-SIGBUS, agent_peek(&self->child, self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGSEGV, agent_poke(&self->child, self->mem + 33 * PAGE, '!'));
	EXPECT_EQ('B', file_byte(self->s.b, PAGE));
	EXPECT_EQ('a', agent_peek(&self->child, self->mem + 49 * PAGE));
}

/* A page that was installed and never accessed must be revoked as well. */
TEST_F(space, populated_untouched_page_is_revoked)
{
	static const unsigned int pages[] = { 1, 2, 3, FILE_PAGES };
	unsigned int i, last, how;

	for (i = 0; i < ARRAY_SIZE(pages) * 6; i++) {
		uint64_t length = pages[i / 6] * PAGE;
		struct address_space_op map = op_map(0, self->s.a, 0, length, RW, POPULATE);
		struct address_space_op unmap = {
			.opcode = ADDRESS_SPACE_OP_MUNMAP, .length = length,
		};

		last = pages[i / 6] - 1;
		how = i % 3;
		ASSERT_EQ(0, i % 6 < 3 ? as_batch(self->asfd, &map, 1, NULL) :
			     as_map(self->asfd, 0, self->s.a, 0, length, RW, POPULATE));
		ASSERT_EQ(0, how == 0 ? as_unmap(self->asfd, 0, length) :
			     how == 1 ? as_batch(self->asfd, &unmap, 1, NULL) :
			     as_map(self->asfd, 0, self->s.b, 0, length, RW, REPLACE));
		EXPECT_EQ(how == 2 ? 'A' : -SIGBUS, agent_peek(&self->child, self->mem));
		EXPECT_EQ(how == 2 ? 'A' : -SIGBUS, peek(self->mem))
			TH_LOG("case %u", i);
		EXPECT_EQ(how == 2 ? 'A' + (int)last : -SIGBUS,
			  agent_peek(&self->child, self->mem + last * PAGE));
		ASSERT_EQ(0, as_unmap(self->asfd, 0, length));
	}
}

TEST_F(space, populate_is_allowed_for_map_only)
{
	struct address_space_op ops[] = {
		op_map(0, self->s.a, 0, 8 * PAGE, RW, POPULATE),
		{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .flags = POPULATE, .length = PAGE },
	};
	uint32_t failed;

	EXPECT_REFUSED(self->asfd, EOPNOTSUPP, as_batch(self->asfd, ops, 2, &failed));
	EXPECT_EQ(1U, failed);
	ops[1].opcode = ADDRESS_SPACE_OP_PROTECT;
	EXPECT_REFUSED(self->asfd, EOPNOTSUPP, as_batch(self->asfd, ops, 2, &failed));
	EXPECT_EQ(1U, failed);
}

/* If the view, the attachment or the layout forbids an access, it fails. */
TEST_F(space, populate_respects_every_protection)
{
	static const struct {
		int view, attachment, layout;
	} rights[] = {
		{ PROT_READ, PROT_READ, RW },
		{ RW, PROT_READ, RW },
		{ RW, RW, PROT_READ },
		{ RW, PROT_NONE, RW },
		{ RW, RW, PROT_NONE },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rights); i++) {
		int view = as_view(self->asfd, 0, FILE_LEN, rights[i].view);
		char *mem = attach(view, 0, FILE_LEN, rights[i].attachment);
		char *theirs = agent_attach(&self->child, view, 0, FILE_LEN, rights[i].attachment);
		bool readable = rights[i].attachment && rights[i].layout;

		ASSERT_NE(NULL, mem);
		ASSERT_NE(NULL, theirs);
		ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN,
				    rights[i].layout, POPULATE));
		if (readable)
			EXPECT_EQ(0, agent_touch(&self->child, self->shared, theirs,
						 FILE_PAGES, false));
		EXPECT_EQ(readable ? 'a' : -SIGSEGV, peek(mem));
		EXPECT_EQ(-SIGSEGV, poke(mem, '!'));
		EXPECT_EQ(-SIGSEGV, agent_poke(&self->child, theirs + PAGE, '!'));
		EXPECT_EQ('a', file_byte(self->s.a, 0))
			TH_LOG("case %u", i);
		EXPECT_EQ('b', file_byte(self->s.a, PAGE));
		ASSERT_EQ(0, as_unmap(self->asfd, 0, FILE_LEN));
		EXPECT_EQ(readable ? -SIGBUS : rights[i].attachment ? -SIGBUS : -SIGSEGV, peek(mem));
		munmap(mem, FILE_LEN);
		close(view);
	}
}

/* Entries are not installed past the ends of an attachment that shows a part. */
TEST_F(space, populate_stays_within_attachment)
{
	char *room = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *mem = mmap(room + PAGE, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, self->asfd,
			 4 * PAGE);

	ASSERT_EQ(room + PAGE, mem);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, POPULATE));
	EXPECT_EQ(0, touch(&(struct touch) { mem, 2, true }));
	EXPECT_EQ('e', peek(mem));
	EXPECT_EQ(-SIGSEGV, peek(mem - 1));
	EXPECT_EQ(-SIGSEGV, peek(mem + 2 * PAGE));
}

TEST_F(space, populate_installs_huge_page)
{
	int file = hugetlb_memfd(1), asfd = as_create(4 * HUGE);
	char *mem;

	if (file < 0)
		SKIP(return, "no huge pages");
	mem = attach(asfd, 0, 4 * HUGE, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(asfd, HUGE, file, 0, HUGE, RW, POPULATE));
	EXPECT_EQ(0, touch(&(struct touch) { mem + HUGE, HUGE / PAGE, true }));
	/* with a page table for a part of the range, there are small entries */
	ASSERT_EQ(0, as_map(asfd, 3 * HUGE, file, PAGE, PAGE, RW, POPULATE));
	ASSERT_EQ(0, as_unmap(asfd, 3 * HUGE, PAGE));
	ASSERT_EQ(0, as_map(asfd, 3 * HUGE, file, 0, HUGE, RW, POPULATE));
	EXPECT_EQ(0, touch(&(struct touch) { mem + 3 * HUGE, HUGE / PAGE, true }));
	ASSERT_EQ(0, as_unmap(asfd, 0, 4 * HUGE));
	EXPECT_EQ(-SIGBUS, peek(mem + HUGE));
	EXPECT_EQ(-SIGBUS, peek(mem + 3 * HUGE));
	EXPECT_EQ(-SIGBUS, peek(mem + 3 * HUGE + PAGE));
}

/* A part past the end of the file is no reason to refuse the call. */
TEST_F(space, populate_past_end_of_file_succeeds)
{
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 8 * PAGE, FILE_LEN, RW, POPULATE));
	EXPECT_EQ(0, agent_touch(&self->child, self->shared, self->mem, 8, true));
	EXPECT_EQ(-SIGBUS, agent_peek(&self->child, self->mem + 8 * PAGE));
}

/*
 * Attachers are killed while pages are installed in their attachments: all is
 * released.
 */
TEST_F_TIMEOUT(space, populate_survives_killed_attachers, 120)
{
	uint64_t until = now_ms() + race_ms();
	unsigned int rounds;

	for (rounds = 0; now_ms() < until || rounds < 12; rounds++) {
		pid_t pid = fork();
		unsigned int i;

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				peek(self->mem + rand() % SPACE_PAGES * PAGE);
		}
		ASSERT_LT(0, pid);
		for (i = 0; i < 8; i++) {
			if (i == rounds % 8)
				kill(pid, SIGKILL);
			ASSERT_EQ(0, as_map(self->asfd, i * PAGE, self->s.a, 0, FILE_LEN, RW,
					    POPULATE | REPLACE));
		}
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	}
	ASSERT_EQ(0, as_unmap(self->asfd, 0, SPACE_LEN));
	/* the worker of the kernel may be the last to drop an mm */
	for (until = now_ms() + WORKER_MS; now_ms() < until; sleep_ms(1))
		if (fdinfo_value(self->asfd, "attachments") == 2)
			break;
	EXPECT_EQ(2, fdinfo_value(self->asfd, "attachments"));
}

/*
 * Two threads race: one maps and populates while the other takes the pages away. The
 * layout shows which one was last, and all attachments must agree with it.
 */
#define MANY_PAGES	512
#define MANY_LEN	(MANY_PAGES * PAGE)

struct duel {
	pthread_barrier_t barrier;
	int asfd, file, ret;
	bool stop;
};

static void *map_at_each_signal(void *arg)
{
	struct duel *duel = arg;

	for (;;) {
		pthread_barrier_wait(&duel->barrier);
		if (duel->stop)
			return NULL;
		duel->ret = as_map(duel->asfd, 0, duel->file, 0, MANY_LEN, RW,
				   POPULATE | REPLACE);
		pthread_barrier_wait(&duel->barrier);
	}
}

static int unmap_it(struct duel *duel)
{
	return as_unmap(duel->asfd, 0, MANY_LEN);
}

static int unmap_part(struct duel *duel)
{
	return as_unmap(duel->asfd, PAGE, (MANY_PAGES / 2 - 1) * PAGE);
}

static int truncate_it(struct duel *duel)
{
	return ftruncate(duel->file, 0) ?: ftruncate(duel->file, MANY_LEN);
}

FIXTURE(populate_race)
{
	struct duel duel;
	pthread_t thread;
	char *mem, *second;
	struct agent child;
};

FIXTURE_VARIANT(populate_race)
{
	int (*take_away)(struct duel *duel);
	bool truncate;
};

FIXTURE_VARIANT_ADD(populate_race, with_unmap) { unmap_it, false };
FIXTURE_VARIANT_ADD(populate_race, with_partial_unmap) { unmap_part, false };
FIXTURE_VARIANT_ADD(populate_race, with_truncate) { truncate_it, true };

FIXTURE_SETUP(populate_race)
{
	struct duel *duel = &self->duel;

	duel->asfd = as_create(MANY_LEN);
	duel->file = memfd_pages("duel", MANY_PAGES, 1);
	ASSERT_LE(0, duel->asfd);
	ASSERT_LE(0, duel->file);
	self->mem = attach(duel->asfd, 0, MANY_LEN, RW);
	self->second = attach(duel->asfd, 0, MANY_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_NE(NULL, self->second);
	ASSERT_EQ(0, agent_start(&self->child));
	pthread_barrier_init(&duel->barrier, NULL, 2);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, map_at_each_signal, duel));
}

FIXTURE_TEARDOWN(populate_race)
{
	self->duel.stop = true;
	pthread_barrier_wait(&self->duel.barrier);
	pthread_join(self->thread, NULL);
	agent_stop(&self->child);
}

/* What @addr shows to both the test and its child, or -1 if they differ. */
static int seen(struct agent *child, char *mem, char *second, unsigned int page)
{
	int value = peek(mem + page * PAGE);

	if (peek(second + page * PAGE) != value)
		return -1;
	return agent_peek(child, mem + page * PAGE) == value ? value : -1;
}

TEST_F_TIMEOUT(populate_race, leaves_no_revoked_page, 120)
{
	static const unsigned int pages[] = { 1, 2, 63, 64, 100, 200, 250 };
	uint64_t until = now_ms() + race_ms();
	struct duel *duel = &self->duel;
	unsigned int rounds, last = 0, i;

	for (rounds = 0; now_ms() < until || rounds < 12; rounds++) {
		unsigned int wait = rounds * 37 % 2000;
		bool shown;

		ASSERT_EQ(0, as_unmap(duel->asfd, 0, MANY_LEN));
		ASSERT_EQ(0, fill_pages(duel->file, MANY_PAGES, 1));
		pthread_barrier_wait(&duel->barrier);
		while (wait--)
			asm volatile("pause");
		ASSERT_EQ(0, variant->take_away(duel));
		pthread_barrier_wait(&duel->barrier);
		ASSERT_EQ(0, duel->ret);
		if (variant->truncate) {
			/* no old page is left, whichever came first */
			for (i = 0; i < ARRAY_SIZE(pages); i++)
				EXPECT_EQ(0, seen(&self->child, self->mem, self->second,
						  pages[i]));
			continue;
		}
		shown = peek(self->mem + PAGE) >= 0;
		last += !shown;
		for (i = 0; i < ARRAY_SIZE(pages); i++)
			EXPECT_EQ(shown ? 1 + (int)pages[i] : -SIGBUS,
				  (seen(&self->child, self->mem, self->second, pages[i])))
				TH_LOG("round %u, page %u", rounds, pages[i]);
	}
	TH_LOG("%u rounds, taken away last in %u", rounds, last);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/* A batch is applied in order, or not at all, and is never visible half applied. */
#include <pthread.h>
#include <sched.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_util.h"

#define REPLACE	ADDRESS_SPACE_MAP_REPLACE

FIXTURE(batch)
{
	struct space s;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(batch)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	self->mem = self->s.mem;
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ('a', peek(self->mem));
}

FIXTURE_TEARDOWN(batch)
{
	space_free(&self->s);
}

TEST_F(batch, applies_in_order)
{
	struct address_space_op ops[] = {
		/* each of these depends on the one before it */
		op_unmap(0, 4 * PAGE),
		op_map(PAGE, self->s.b, 0, 2 * PAGE, RW, 0),
		op_protect(2 * PAGE, PAGE, PROT_READ),
		op_map(40 * PAGE, self->s.b, 0, 4 * PAGE, RW, 0),
		op_map(41 * PAGE, self->s.a, 8 * PAGE, PAGE, RW, REPLACE),
		op_unmap(42 * PAGE, PAGE),
	};
	uint32_t failed;

	ASSERT_EQ(0, as_batch(self->asfd, ops, ARRAY_SIZE(ops), &failed));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ('A', peek(self->mem + PAGE));
	EXPECT_EQ('B', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 2 * PAGE, '!'));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 3 * PAGE));
	EXPECT_EQ('e', peek(self->mem + 4 * PAGE));
	EXPECT_EQ('A', peek(self->mem + 40 * PAGE));
	EXPECT_EQ('i', peek(self->mem + 41 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 42 * PAGE));
	EXPECT_EQ('D', peek(self->mem + 43 * PAGE));
}

TEST_F(batch, reaches_every_attacher)
{
	struct address_space_op ops[] = {
		op_unmap(0, PAGE),
		op_map(PAGE, self->s.b, 0, PAGE, RW, REPLACE),
		op_protect(2 * PAGE, PAGE, PROT_READ),
	};
	int view = as_view(self->asfd, 0, FILE_LEN, RW);
	char *view_mem = attach(view, 0, FILE_LEN, RW);
	struct agent child;
	unsigned int i;

	ASSERT_NE(NULL, view_mem);
	ASSERT_EQ(0, agent_start(&child));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, poke(view_mem + i * PAGE, '!'));
		EXPECT_EQ('!', agent_peek(&child, self->mem + i * PAGE));
	}
	ASSERT_EQ(0, as_batch(self->asfd, ops, ARRAY_SIZE(ops), NULL));
	EXPECT_EQ(-SIGBUS, peek(view_mem));
	EXPECT_EQ(-SIGBUS, agent_peek(&child, self->mem));
	EXPECT_EQ('A', peek(view_mem + PAGE));
	EXPECT_EQ('A', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(-SIGSEGV, poke(view_mem + 2 * PAGE, '?'));
	EXPECT_EQ(-SIGSEGV, agent_poke(&child, self->mem + 2 * PAGE, '?'));
	EXPECT_EQ('!', file_byte(self->s.a, 2 * PAGE));
	EXPECT_EQ(0, agent_stop(&child));
}

/*
 * Whatever the error and its position: nothing changes, and the failed index is
 * reported.
 */
TEST_F(batch, applies_nothing_if_one_operation_fails)
{
	int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
	const struct {
		struct address_space_op op;
		int err;
	} wrong[] = {
		{ op_map(8 * PAGE, self->s.b, 0, PAGE, RW, 0), EEXIST },
		/* mapped by an earlier operation */
		{ op_map(32 * PAGE, self->s.b, 0, PAGE, RW, 0), EEXIST },
		/* unmapped by an earlier operation */
		{ op_protect(0, PAGE, PROT_READ), ENOENT },
		{ op_protect(15 * PAGE, 2 * PAGE, PROT_READ), ENOENT },
		{ op_map(48 * PAGE, closed_fd(), 0, PAGE, RW, 0), EBADF },
		{ op_map(48 * PAGE, dir, 0, PAGE, PROT_READ, 0), ENODEV },
		{ op_map(48 * PAGE, self->asfd, 0, PAGE, RW, 0), ELOOP },
		{ op_map(48 * PAGE, self->s.b, 0, PAGE, PROT_WRITE, 0), EINVAL },
		{ op_map(48 * PAGE, self->s.b, 0, 0, RW, 0), EINVAL },
		{ op_map(48 * PAGE, self->s.b, 1, PAGE, RW, 0), EINVAL },
		{ op_map(SPACE_LEN, self->s.b, 0, PAGE, RW, 0), EINVAL },
		{ op_map(48 * PAGE, self->s.b, -PAGE, PAGE, RW, 0), EOVERFLOW },
		{ op_map(48 * PAGE, self->s.b, 0, PAGE, RW, 1U << 4), EOPNOTSUPP },
		{ op_map(0, self->s.b, 0, PAGE, RW,
			 ADDRESS_SPACE_MAP_ANYWHERE), EOPNOTSUPP },
		{ op_unmap(1, PAGE), EINVAL },
		{ op_unmap(0, SPACE_LEN + PAGE), EINVAL },
		{ op_unmap(PAGE, -PAGE), EOVERFLOW },
		{ op_protect(4 * PAGE, PAGE, PROT_WRITE), EINVAL },
		{ { .opcode = 0, .length = PAGE }, EOPNOTSUPP },
		{ { .opcode = 4, .length = PAGE }, EOPNOTSUPP },
		{ { .opcode = ~0U, .length = PAGE }, EOPNOTSUPP },
		{ { .opcode = ADDRESS_SPACE_OP_MUNMAP, .flags = 1, .length = PAGE },
		  EOPNOTSUPP },
		{ { .opcode = ADDRESS_SPACE_OP_PROTECT, .flags = 1, .length = PAGE },
		  EOPNOTSUPP },
	};
	const struct address_space_op right[] = {
		op_unmap(0, 4 * PAGE),
		op_map(32 * PAGE, self->s.b, 0, 4 * PAGE, RW, 0),
		op_protect(4 * PAGE, 8 * PAGE, PROT_READ),
		op_map(6 * PAGE, self->s.b, 0, PAGE, RW, REPLACE),
	};
	unsigned int i, at;

	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct address_space_op ops[5];
		uint32_t failed = 0;

		/*
		 * after two operations that would change the layout, and after all of
		 * them
		 */
		for (at = 2; at <= 4; at += 2) {
			memcpy(ops, right, at * sizeof(*ops));
			ops[at] = wrong[i].op;
			memcpy(ops + at + 1, right + at, (4 - at) * sizeof(*ops));
			EXPECT_REFUSED(self->asfd, wrong[i].err,
				       as_batch(self->asfd, ops, 5, &failed));
			EXPECT_EQ(at, failed)
				TH_LOG("case %u", i);
		}
		ASSERT_EQ('a', peek(self->mem));
		ASSERT_EQ(0, poke(self->mem + 4 * PAGE, 'e'));
		ASSERT_EQ('g', peek(self->mem + 6 * PAGE));
		ASSERT_EQ(-SIGBUS, peek(self->mem + 32 * PAGE));
	}
	EXPECT_EQ(0, as_batch(self->asfd, right, 4, NULL));
	EXPECT_EQ('A', peek(self->mem + 6 * PAGE));
}

/*
 * So many operations that the layout's lock is let go, and what they had changed is zapped
 * when they are undone; one behind that which failed was never looked at.
 */
TEST_F(batch, that_fails_forgets_no_hole_that_was_absorbed)
{
	enum { MANY = 130, HOLE = MANY + 1 };
	struct address_space_op ops[MANY + 2];
	int asfd = as_create((HOLE + 1) * PAGE);
	int view = as_view_flags(asfd, 0, (HOLE + 1) * PAGE, RW, ADDRESS_SPACE_HOLE_ABSORB);
	char *mem = attach(view, 0, (HOLE + 1) * PAGE, RW);
	uint32_t failed = 0;
	unsigned int i;

	ASSERT_NE(NULL, mem);
	for (i = 0; i < MANY; i++) {
		ops[i] = op_map(i * PAGE, self->s.a, 0, PAGE, RW, ADDRESS_SPACE_MAP_REPLACE);
		ASSERT_EQ(0, as_map(asfd, i * PAGE, self->s.a, 0, PAGE, RW, 0));
		ASSERT_EQ('a', peek(mem + i * PAGE));
	}
	ops[MANY] = op_map(0, self->s.a, 0, PAGE, RW, 0);
	ops[MANY + 1] = op_map(MANY * PAGE, self->s.a, PAGE, 2 * PAGE, RW, 0);
	ASSERT_EQ(0, poke(mem + HOLE * PAGE, 'x'));
	ASSERT_EQ('x', peek(mem + HOLE * PAGE));
	EXPECT_EQ(-EEXIST, as_batch(asfd, ops, MANY + 2, &failed));
	EXPECT_EQ((uint32_t)MANY, failed);
	ASSERT_EQ(0, as_map(asfd, HOLE * PAGE, self->s.a, 2 * PAGE, PAGE, RW, 0));
	EXPECT_EQ('c', peek(mem + HOLE * PAGE));
	EXPECT_EQ(0, poke(mem + HOLE * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 2 * PAGE));
	munmap(mem, (HOLE + 1) * PAGE);
	close(view);
	close(asfd);
}

TEST_F(batch, that_fails_releases_its_files)
{
	struct address_space_op ops[2];
	char dir[64];
	int file = own_tmpfs_file(dir, 4, 'x');

	ASSERT_LE(0, file);
	/* refused because of its file, and because of an existing mapping */
	ops[0] = op_map(32 * PAGE, file, 0, 4 * PAGE, RW, 0);
	ops[1] = op_map(48 * PAGE, closed_fd(), 0, PAGE, RW, 0);
	EXPECT_EQ(-EBADF, as_batch(self->asfd, ops, 2, NULL));
	ops[1] = op_map(0, self->s.b, 0, PAGE, RW, 0);
	EXPECT_EQ(-EEXIST, as_batch(self->asfd, ops, 2, NULL));
	ASSERT_EQ(0, close(file));
	EXPECT_EQ(0, umount_within(dir, WORKER_MS));
}

static int batch_of_size(int asfd, const void *ops, uint32_t n, uint32_t op_size,
			 uint32_t *failed)
{
	struct address_space_batch arg = {
		.size = sizeof(arg), .ops = (uintptr_t)ops, .nr_ops = n,
		.op_size = op_size, .failed = UINT32_MAX,
	};
	int ret = as_ioctl(asfd, ADDRESS_SPACE_BATCH, &arg);

	*failed = arg.failed;
	return ret;
}

TEST_F(batch, accepts_operation_size_of_caller)
{
	struct {
		struct address_space_op op;
		uint64_t tail[2];
	} ops[2] = {
		{ .op = op_unmap(0, PAGE) }, { .op = op_unmap(2 * PAGE, PAGE) },
	};
	uint32_t failed, size;

	for (size = 0; size < sizeof(ops[0].op); size++)
		EXPECT_REFUSED(self->asfd, EINVAL,
			       batch_of_size(self->asfd, ops, 2, size, &failed));
	ops[1].tail[1] = 1;
	EXPECT_REFUSED(self->asfd, E2BIG,
		       batch_of_size(self->asfd, ops, 2, sizeof(ops[0]), &failed));
	EXPECT_EQ(1U, failed);
	EXPECT_EQ('a', peek(self->mem));
	ops[1].tail[1] = 0;
	EXPECT_EQ(0, batch_of_size(self->asfd, ops, 2, sizeof(ops[0]), &failed));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
}

TEST_F(batch, rejects_invalid_operation_count)
{
	const uint32_t most = 65536;
	struct address_space_op *ops = calloc(most + 1, sizeof(*ops));
	uint32_t i, failed;

	ASSERT_NE(NULL, ops);
	for (i = 0; i <= most; i++)
		ops[i] = i % 2 ? op_unmap(40 * PAGE, PAGE) :
				 op_map(40 * PAGE, self->s.b, 0, PAGE, RW, 0);
	EXPECT_REFUSED(self->asfd, EINVAL, as_batch(self->asfd, ops, 0, &failed));
	/* a size that no operation has */
	EXPECT_EQ(UINT32_MAX, failed);
	EXPECT_REFUSED(self->asfd, EINVAL, as_batch(self->asfd, NULL, 0, NULL));
	EXPECT_REFUSED(self->asfd, EINVAL, as_batch(self->asfd, ops, most + 1, NULL));
	EXPECT_REFUSED(self->asfd, EINVAL, as_batch(self->asfd, ops, ~0U, NULL));
	EXPECT_EQ(0, as_batch(self->asfd, ops, most, NULL));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 40 * PAGE));
	EXPECT_EQ(0, as_batch(self->asfd, ops, most - 1, NULL));
	EXPECT_EQ('A', peek(self->mem + 40 * PAGE));
	free(ops);
}

TEST_F(batch, with_unreadable_operations_is_efault)
{
	char *room = mmap(NULL, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct address_space_op *ops = (void *)(room + PAGE - 2 * sizeof(*ops));

	ASSERT_NE(MAP_FAILED, (void *)room);
	ASSERT_EQ(0, munmap(room + PAGE, PAGE));
	ops[0] = op_unmap(0, PAGE);
	ops[1] = op_unmap(2 * PAGE, PAGE);
	EXPECT_REFUSED(self->asfd, EFAULT, as_batch(self->asfd, NULL, 1, NULL));
	EXPECT_REFUSED(self->asfd, EFAULT, as_batch(self->asfd, ops, 3, NULL));
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_batch(self->asfd, (void *)-PAGE, 1, NULL));
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_batch(self->asfd, (void *)-sizeof(*ops), 2, NULL));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(0, as_batch(self->asfd, ops, 2, NULL));
}

/* Creates more pieces than there were, and operates on all of them. */
TEST_F(batch, may_rework_its_own_mappings)
{
	struct address_space_op ops[69];
	unsigned int i;

	ASSERT_EQ(0, as_unmap(self->asfd, 0, SPACE_LEN));
	/* pages of alternating files, so that no mapping merges with the next */
	for (i = 0; i < SPACE_PAGES; i++)
		ops[i] = op_map(i * PAGE, i % 2 ? self->s.a : self->s.b,
				i % FILE_PAGES * PAGE, PAGE, RW, 0);
	for (; i < ARRAY_SIZE(ops); i++)
		ops[i] = op_protect(0, SPACE_LEN, i % 2 ? RW : PROT_READ);
	ASSERT_EQ(0, as_batch(self->asfd, ops, ARRAY_SIZE(ops), NULL));
	for (i = 0; i < SPACE_PAGES; i++) {
		EXPECT_EQ((i % 2 ? 'a' : 'A') + (int)(i % FILE_PAGES),
			  peek(self->mem + i * PAGE));
		EXPECT_EQ(-SIGSEGV, poke(self->mem + i * PAGE, '!'));
	}
}

/*
 * Generations: each one shows the same page of a file at FIRST and at SECOND, far
 * apart, and every page holds its own number. A reader of first FIRST and then SECOND
 * may see a later generation at SECOND, but never an earlier one.
 */
#define GENERATIONS	1024
#define FIRST		0
#define SECOND		(40 * PAGE)

struct reader {
	int asfd;
	char *mem;
	volatile bool stop;
	volatile unsigned long reads, backwards, signals;
};

static void look(struct reader *r, const char *one, const char *then)
{
	uint64_t before, after;

	r->reads++;
	if (peek64(one, &before) || peek64(then, &after))
		r->signals++;
	else if (after < before)
		r->backwards++;
}

static void *read_forever(void *arg)
{
	struct reader *r = arg;

	while (!r->stop) {
		look(r, r->mem + FIRST, r->mem + SECOND);
		look(r, r->mem + SECOND, r->mem + FIRST);
	}
	return NULL;
}

/*
 * One reads through an attachment without page table entries, the other through one
 * that has them.
 */
static void *read_afresh_forever(void *arg)
{
	struct reader *r = arg;

	while (!r->stop) {
		char *first = attach(r->asfd, FIRST, PAGE, RW);
		char *second = attach(r->asfd, SECOND, PAGE, RW);

		look(r, first, r->mem + SECOND);
		look(r, second, r->mem + FIRST);
		munmap(first, PAGE);
		munmap(second, PAGE);
	}
	return NULL;
}

static int run_generations(int asfd, struct reader *r, int file, void *(*fn)(void *))
{
	uint64_t until = now_ms() + race_ms();
	pthread_t threads[2];
	uint64_t i;

	if (pthread_create(&threads[0], NULL, fn, r) ||
	    pthread_create(&threads[1], NULL, fn, r))
		return -EAGAIN;
	for (i = 1; i < GENERATIONS && (i < 200 || now_ms() < until); i++) {
		struct address_space_op ops[] = {
			op_map(SECOND, file, i * PAGE, PAGE, RW, REPLACE),
			op_map(FIRST, file, i * PAGE, PAGE, RW, REPLACE),
		};
		unsigned long seen = r->reads;
		int ret = as_batch(asfd, ops, 2, NULL);

		if (ret)
			return ret;
		while (i % 4 == 0 && r->reads < seen + 2)
			sched_yield();
	}
	r->stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	return i;
}

FIXTURE(generations)
{
	struct space s;
	struct reader r;
	int file;
};

FIXTURE_SETUP(generations)
{
	uint64_t i;

	ASSERT_EQ(0, space_init(&self->s));
	self->file = memfd_pages("generations", GENERATIONS, -1);
	ASSERT_LE(0, self->file);
	for (i = 0; i < GENERATIONS; i++)
		ASSERT_EQ(8, pwrite(self->file, &i, 8, i * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, FIRST, self->file, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, SECOND, self->file, 0, PAGE, RW, 0));
	self->r.asfd = self->s.asfd;
	self->r.mem = self->s.mem;
}

FIXTURE_TEARDOWN(generations)
{
	space_free(&self->s);
}

TEST_F_TIMEOUT(generations, never_go_backwards, 60)
{
	ASSERT_LE(200, run_generations(self->s.asfd, &self->r, self->file,
				       read_forever));
	EXPECT_LT(100UL, self->r.reads);
	EXPECT_EQ(0UL, self->r.signals);
	EXPECT_EQ(0UL, self->r.backwards)
		TH_LOG("of %lu reads", self->r.reads);
}

TEST_F_TIMEOUT(generations, never_go_backwards_for_new_attachment, 60)
{
	ASSERT_LE(200, run_generations(self->s.asfd, &self->r, self->file,
				       read_afresh_forever));
	EXPECT_LT(100UL, self->r.reads);
	EXPECT_EQ(0UL, self->r.signals);
	EXPECT_EQ(0UL, self->r.backwards)
		TH_LOG("of %lu reads", self->r.reads);
}

TEST_HARNESS_MAIN

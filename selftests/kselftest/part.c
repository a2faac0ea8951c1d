// SPDX-License-Identifier: GPL-2.0
/*
 * A view that manages its range: everything can be done there that can be done with an
 * asfd, and nothing elsewhere.
 */
#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_util.h"

#define FIRST		(16 * PAGE)	/* where the part begins */
#define PART_LEN	(8 * PAGE)

FIXTURE(part)
{
	struct space s;
	int fd;
	char *mem;	/* the part, in the window of the whole */
};

FIXTURE_SETUP(part)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->fd = as_part(self->s.asfd, FIRST, PART_LEN, RW);
	ASSERT_LE(0, self->fd);
	self->mem = self->s.mem + FIRST;
	/* on both sides of it, and in it */
	ASSERT_EQ(0, as_map(self->s.asfd, FIRST - PAGE, self->s.b, 0, 10 * PAGE, RW, 0));
	ASSERT_EQ(0, as_unmap(self->s.asfd, FIRST, PART_LEN));
}

FIXTURE_TEARDOWN(part)
{
	close(self->fd);
	space_free(&self->s);
}

TEST_F(part, is_changed_through_its_view)
{
	struct address_space_op ops[] = {
		op_unmap(PAGE, PAGE),
		op_map(4 * PAGE, self->s.a, 4 * PAGE, PAGE, RW, 0),
		op_protect(0, PAGE, PROT_READ),
	};

	ASSERT_EQ(0, as_map(self->fd, 0, self->s.a, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('d', peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, as_batch(self->fd, ops, 3, NULL));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ('e', peek(self->mem + 4 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	ASSERT_EQ(0, as_move(self->fd, 4 * PAGE, PAGE, 5 * PAGE, 0));
	EXPECT_EQ('e', peek(self->mem + 5 * PAGE));
	ASSERT_EQ(0, as_unmap(self->fd, 0, PART_LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 5 * PAGE));
	/* all of which left alone what is beside it */
	EXPECT_EQ('A', peek(self->mem - PAGE));
	EXPECT_EQ('J', peek(self->mem + PART_LEN));
}

TEST_F(part, registers_files)
{
	ASSERT_EQ(0, as_register(self->fd, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "registered"));
	ASSERT_EQ(0, as_map(self->fd, 0, self->s.a, 0, PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(0, as_unregister(self->fd, self->s.a));
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "registered"));
}

/* Of a killed process, whose successor does not have its files; and not those of others. */
TEST_F(part, ends_all_of_its_own_registrations)
{
	int other = as_view_flags(self->s.asfd, 0, PAGE, RW, ADDRESS_SPACE_VIEW_MANAGE);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, as_register(self->s.asfd, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_register(self->fd, self->s.b, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->fd, 0, self->s.b, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_unregister_all(other));
	EXPECT_EQ(2, fdinfo_value(self->s.asfd, "registered"));
	ASSERT_EQ(0, as_unregister_all(self->fd));
	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "registered"));
	EXPECT_EQ(-ENOENT, as_unregister(self->s.asfd, self->s.b));
	EXPECT_EQ('A', peek(self->mem));
	/* the asfd's are of all */
	ASSERT_EQ(0, as_register(self->fd, self->s.b, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_unregister_all(self->s.asfd));
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "registered"));
	close(other);
}

TEST_F(part, has_views_of_its_own)
{
	int view = as_view(self->fd, PAGE, 2 * PAGE, PROT_READ), inner;
	char *mem = attach(view, 0, 2 * PAGE, PROT_READ);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->fd, 0, self->s.a, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('b', peek(mem));
	EXPECT_EQ('c', peek(mem + PAGE));
	EXPECT_EQ(-ENOTTY, as_unmap(view, 0, PAGE));
	/* a part of the part */
	inner = as_part(self->fd, PAGE, 2 * PAGE, PROT_READ);
	ASSERT_LE(0, inner);
	ASSERT_EQ(0, as_unmap(inner, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ('c', peek(mem + PAGE));
	close(inner);
	close(view);
}

TEST_F(part, reaches_nothing_outside)
{
	struct address_space_op op = op_unmap(PART_LEN, PAGE);
	uint32_t failed = 7;

	EXPECT_REFUSED(self->s.asfd, EINVAL, as_unmap(self->fd, PART_LEN, PAGE));
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_unmap(self->fd, 0, PART_LEN + PAGE));
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_unmap(self->fd, -2 * PAGE, PAGE));
	EXPECT_REFUSED(self->s.asfd, EINVAL,
		       as_map(self->fd, PART_LEN - PAGE, self->s.a, 0, 2 * PAGE, RW,
			      ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_REFUSED(self->s.asfd, EINVAL,
		       as_protect(self->fd, PART_LEN, PAGE, PROT_READ));
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_batch(self->fd, &op, 1, &failed));
	EXPECT_EQ(0U, failed);
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_view(self->fd, PART_LEN, PAGE, RW));
	ASSERT_EQ(0, as_map(self->fd, 0, self->s.a, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_move(self->fd, 0, PAGE, PART_LEN, 0));
	EXPECT_REFUSED(self->s.asfd, EINVAL,
		       as_move(self->fd, PART_LEN, PAGE, PAGE, 0));
	EXPECT_EQ('A', peek(self->mem - PAGE));
	EXPECT_EQ('J', peek(self->mem + PART_LEN));
}

/* The kernel has the VMA copy all that is wanted, also where the VMA is shorter. */
TEST_F(part, ends_for_debuggers_where_its_mapping_ends)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	int view = as_view(self->s.asfd, FIRST, PAGE, RW);
	char *room = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page = mmap(room, PAGE, RW, MAP_SHARED | MAP_FIXED, view, 0);
	off_t last = (uintptr_t)page + PAGE - 1;
	char buf[PAGE], *both;

	ASSERT_LE(0, mem);
	ASSERT_EQ(room, page);
	ASSERT_EQ(0, munmap(room + PAGE, PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, FIRST, self->s.a, 0, 2 * PAGE, RW, 0));
	EXPECT_EQ(1, pread(mem, buf, PAGE, last));
	EXPECT_EQ(1, pwrite(mem, "xy", 2, last));
	EXPECT_EQ('x', file_byte(self->s.a, PAGE - 1));
	EXPECT_EQ('b', file_byte(self->s.a, PAGE));

	/* a mapping of which a part is read-only is two */
	both = attach(self->s.asfd, FIRST, 2 * PAGE, RW);
	ASSERT_NE(NULL, both);
	ASSERT_EQ(0, mprotect(both + PAGE, PAGE, PROT_READ));
	last = (uintptr_t)both + PAGE - 1;
	EXPECT_EQ(1, pwrite(mem, "zz", 2, last));
	EXPECT_EQ('z', file_byte(self->s.a, PAGE - 1));
	EXPECT_EQ('b', file_byte(self->s.a, PAGE));
	EXPECT_EQ(PAGE, (unsigned long)pread(mem, buf, PAGE, last));
	EXPECT_EQ('z', buf[0]);
	EXPECT_EQ('b', buf[1]);
}

TEST_F(part, finds_no_room_outside)
{
	EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
		       as_map(self->fd, 0, self->s.a, 0, PAGE, RW,
			      ADDRESS_SPACE_MAP_ANYWHERE));
}

TEST_F(part, gives_no_more_access_than_its_view)
{
	int fd = as_part(self->s.asfd, FIRST, PART_LEN, PROT_READ);
	char *mem;

	ASSERT_LE(0, fd);
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_map(fd, 0, self->s.a, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(fd, 0, self->s.a, 0, PAGE, PROT_READ, 0));
	/* also by mprotect() */
	EXPECT_EQ(NULL, attach(fd, 0, PAGE, RW));
	mem = attach(fd, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-1, mprotect(mem, PAGE, RW));
	EXPECT_EQ('a', peek(mem));
	munmap(mem, PAGE);
	EXPECT_REFUSED(self->s.asfd, EACCES, as_protect(fd, 0, PAGE, RW));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_view(fd, 0, PAGE, RW));
	EXPECT_REFUSED(self->s.asfd, EACCES, as_part(fd, 0, PAGE, RW));
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_register(fd, self->s.a, 0, PAGE, RW, 0));
	close(fd);
}

TEST_F(part, outlives_the_asfd)
{
	ASSERT_EQ(0, close(self->s.asfd));
	ASSERT_EQ(0, as_map(self->fd, 0, self->s.a, 0, PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->mem));
	self->s.asfd = self->fd;
	self->fd = -1;
}

TEST_HARNESS_MAIN

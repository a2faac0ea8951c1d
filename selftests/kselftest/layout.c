// SPDX-License-Identifier: GPL-2.0
/* ADDRESS_SPACE_LAYOUT: what is mapped, as far as there is room for it. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/sysmacros.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(layout)
{
	struct space s;
	struct address_space_range ranges[64];
};

FIXTURE_SETUP(layout)
{
	ASSERT_EQ(0, space_init(&self->s));
}

FIXTURE_TEARDOWN(layout)
{
	space_free(&self->s);
}

TEST_F(layout, tells_place_protection_and_file_of_each_mapping)
{
	struct address_space_range *r = self->ranges;
	uint64_t next = 0;
	struct stat st;
	char *mem;
	int lend;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 2 * PAGE, 4 * PAGE, RW, 0));
	/* what is cut and is the same again is one mapping */
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, PROT_READ));
	ASSERT_EQ(3, as_layout(self->s.asfd, 0, SPACE_LEN, r, 64, NULL));
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, RW));
	ASSERT_EQ(0, as_map(self->s.asfd, 8 * PAGE, self->s.b, 0, PAGE, PROT_READ,
			    ADDRESS_SPACE_MAP_PRIVATE));
	mem = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	lend = as_lend(mem, PAGE, RW);
	ASSERT_LE(0, lend);
	ASSERT_EQ(0, as_map(self->s.asfd, 63 * PAGE, lend, 0, PAGE, RW, 0));

	ASSERT_EQ(3, as_layout(self->s.asfd, 0, SPACE_LEN, r, 64, &next));
	EXPECT_EQ(SPACE_LEN, next);
	EXPECT_EQ(0U, r[0].addr);
	EXPECT_EQ(4 * PAGE, r[0].length);
	EXPECT_EQ(2 * PAGE, r[0].offset);
	EXPECT_EQ((uint32_t)RW, r[0].prot);
	EXPECT_EQ(0U, r[0].flags);
	ASSERT_EQ(0, fstat(self->s.a, &st));
	EXPECT_EQ(st.st_ino, r[0].ino);
	EXPECT_EQ(major(st.st_dev), r[0].dev_major);
	EXPECT_EQ(minor(st.st_dev), r[0].dev_minor);
	EXPECT_EQ(8 * PAGE, r[1].addr);
	EXPECT_EQ((uint32_t)PROT_READ, r[1].prot);
	EXPECT_EQ(ADDRESS_SPACE_RANGE_PRIVATE, r[1].flags);
	EXPECT_EQ(63 * PAGE, r[2].addr);
	EXPECT_EQ(PAGE, r[2].length);
	EXPECT_EQ(ADDRESS_SPACE_RANGE_LENT, r[2].flags);
	EXPECT_EQ(0U, r[2].ino);
	close(lend);
}

TEST_F(layout, is_cut_to_the_range_that_is_asked_for)
{
	struct address_space_range *r = self->ranges;
	uint64_t next = 0;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, 8 * PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 10 * PAGE, self->s.b, 0, 8 * PAGE, RW, 0));
	ASSERT_EQ(2, as_layout(self->s.asfd, 6 * PAGE, 5 * PAGE, r, 64, &next));
	EXPECT_EQ(11 * PAGE, next);
	EXPECT_EQ(6 * PAGE, r[0].addr);
	EXPECT_EQ(2 * PAGE, r[0].length);
	EXPECT_EQ(6 * PAGE, r[0].offset);
	EXPECT_EQ(10 * PAGE, r[1].addr);
	EXPECT_EQ(PAGE, r[1].length);
	ASSERT_EQ(0, as_layout(self->s.asfd, 8 * PAGE, 2 * PAGE, r, 64, &next));
	EXPECT_EQ(10 * PAGE, next);
}

/* whatever the room, each mapping is told once */
TEST_F(layout, goes_on_where_there_was_no_room)
{
	struct address_space_range *r = self->ranges;

	for (unsigned int i = 0; i < SPACE_PAGES; i += 2)
		ASSERT_EQ(0, as_map(self->s.asfd, i * PAGE, self->s.a, 0, PAGE, RW, 0));
	for (unsigned int room = 1; room <= 33; room++) {
		uint64_t addr = 0;
		unsigned int seen = 0, calls = 0;

		while (addr < SPACE_LEN) {
			int count = as_layout(self->s.asfd, addr, SPACE_LEN - addr, r, room, &addr);

			ASSERT_LE(0, count);
			ASSERT_GE(room, (unsigned int)count);
			for (int i = 0; i < count; i++)
				ASSERT_EQ(2 * PAGE * seen++, r[i].addr);
			ASSERT_GE((unsigned int)SPACE_PAGES, ++calls);
		}
		EXPECT_EQ((unsigned int)SPACE_PAGES / 2, seen) TH_LOG("room for %u", room);
	}
	/* without room it only says where it would begin */
	EXPECT_EQ(0, as_layout(self->s.asfd, PAGE, PAGE, r, 0, NULL));
}

TEST_F(layout, of_many_takes_several_steps_and_tells_all)
{
	const unsigned int many = 1000;
	struct address_space_range *r = calloc(many, sizeof(*r));
	int asfd = as_create(2 * many * PAGE);
	uint64_t next = 0;

	ASSERT_NE(NULL, r);
	ASSERT_LE(0, asfd);
	for (unsigned int i = 0; i < many; i++)
		ASSERT_EQ(0, as_map(asfd, 2 * i * PAGE, self->s.a, 0, PAGE, RW, 0));
	ASSERT_EQ((int)many, as_layout(asfd, 0, 2 * many * PAGE, r, many, &next));
	EXPECT_EQ(2 * many * PAGE, next);
	for (unsigned int i = 0; i < many; i++)
		ASSERT_EQ(2 * i * PAGE, r[i].addr);
	free(r);
	close(asfd);
}

TEST_F(layout, of_a_part_begins_with_it_and_ends_with_it)
{
	struct address_space_range *r = self->ranges;
	int part = as_part(self->s.asfd, 4 * PAGE, 4 * PAGE, PROT_READ);
	int view = as_view(self->s.asfd, 4 * PAGE, 4 * PAGE, PROT_READ);
	uint64_t next = 0;

	ASSERT_LE(0, part);
	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(1, as_layout(part, 0, 4 * PAGE, r, 64, &next));
	EXPECT_EQ(4 * PAGE, next);
	EXPECT_EQ(0U, r[0].addr);
	EXPECT_EQ(4 * PAGE, r[0].length);
	EXPECT_EQ(4 * PAGE, r[0].offset);
	EXPECT_EQ(-EINVAL, as_layout(part, 0, 5 * PAGE, r, 64, NULL));
	/* a view that does not manage it learns nothing */
	EXPECT_EQ(-ENOTTY, as_layout(view, 0, PAGE, r, 64, NULL));
	close(part);
	close(view);
}

TEST_F(layout, is_refused_without_a_place_for_it)
{
	struct address_space_layout arg = {
		.size = sizeof(arg), .length = PAGE, .ranges = (uintptr_t)self->ranges,
		.nr_ranges = 1, .range_size = sizeof(self->ranges[0]),
	};

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW, 0));
	arg.range_size--;
	EXPECT_REFUSED(self->s.asfd, EINVAL, as_ioctl(self->s.asfd, ADDRESS_SPACE_LAYOUT, &arg));
	arg.range_size = PAGE + 1;
	EXPECT_REFUSED(self->s.asfd, E2BIG, as_ioctl(self->s.asfd, ADDRESS_SPACE_LAYOUT, &arg));
	arg.range_size = sizeof(self->ranges[0]);
	arg.ranges = 1;
	EXPECT_REFUSED(self->s.asfd, EFAULT, as_ioctl(self->s.asfd, ADDRESS_SPACE_LAYOUT, &arg));
	/* of a longer element the kernel zeroes what it does not know */
	memset(self->ranges, 0xff, sizeof(self->ranges));
	arg.ranges = (uintptr_t)self->ranges;
	arg.range_size = sizeof(self->ranges[0]) + 8;
	ASSERT_EQ(0, as_ioctl(self->s.asfd, ADDRESS_SPACE_LAYOUT, &arg));
	EXPECT_EQ(1U, arg.nr_ranges);
	EXPECT_EQ(0U, self->ranges[1].addr);
	EXPECT_EQ(UINT64_MAX, self->ranges[1].length);
}

struct race {
	int asfd, a, b;
	atomic_bool stop;
};

/* one of two files in all of the first pages, by turns */
static void *replace(void *arg)
{
	struct race *race = arg;

	for (unsigned int i = 0; !atomic_load(&race->stop); i++)
		as_map(race->asfd, 0, i % 2 ? race->a : race->b, 0, FILE_LEN, RW,
		       ADDRESS_SPACE_MAP_REPLACE);
	return NULL;
}

TEST_F(layout, shows_no_change_half_made)
{
	struct race race = { .asfd = self->s.asfd, .a = self->s.a, .b = self->s.b };
	struct address_space_range *r = self->ranges;
	uint64_t until = now_ms() + race_ms(), rounds = 0;
	pthread_t thread;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, replace, &race));
	while (now_ms() < until) {
		ASSERT_EQ(1, as_layout(self->s.asfd, 0, FILE_LEN, r, 64, NULL));
		ASSERT_EQ(FILE_LEN, r[0].length);
		rounds++;
	}
	atomic_store(&race.stop, true);
	pthread_join(thread, NULL);
	TH_LOG("%llu rounds", (unsigned long long)rounds);
}

TEST_HARNESS_MAIN

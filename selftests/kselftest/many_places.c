// SPDX-License-Identifier: GPL-2.0
/*
 * One page in many places of many attachments: so many that what has to be zapped is not
 * zapped place by place any more. All of it is gone all the same, and nothing else.
 */
#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_util.h"

#define PLACES	400U	/* of the page; between any two there is one of another file */
#define WINDOWS	60U	/* of all of them: PLACES * WINDOWS is more than 1 << 14 */
#define LENGTH	(2UL * PLACES * PAGE)

FIXTURE(places)
{
	int asfd, many, beside;
	char *window[WINDOWS];
};

static bool all_read(char *const *windows, unsigned int first, int wanted)
{
	for (unsigned int w = 0; w < WINDOWS; w++)
		for (unsigned int place = 0; place < PLACES; place++) {
			int is = peek(windows[w] + (2 * place + first) * PAGE);

			if (is != wanted) {
				printf("# window %u, place %u: %d\n", w, place, is);
				return false;
			}
		}
	return true;
}

FIXTURE_SETUP(places)
{
	self->asfd = as_create(LENGTH);
	ASSERT_LE(0, self->asfd);
	self->many = memfd_pages("many", 1, 'm');
	self->beside = memfd_pages("beside", 1, 'b');
	for (unsigned int place = 0; place < PLACES; place++) {
		ASSERT_EQ(0, as_map(self->asfd, 2 * place * PAGE, self->many, 0, PAGE, RW, 0));
		ASSERT_EQ(0, as_map(self->asfd, (2 * place + 1) * PAGE, self->beside, 0, PAGE,
				    RW, 0));
	}
	for (unsigned int w = 0; w < WINDOWS; w++) {
		self->window[w] = attach(self->asfd, 0, LENGTH, RW);
		ASSERT_NE(NULL, self->window[w]);
	}
	ASSERT_TRUE(all_read(self->window, 0, 'm'));
	ASSERT_TRUE(all_read(self->window, 1, 'b'));
}

FIXTURE_TEARDOWN(places)
{
	for (unsigned int w = 0; w < WINDOWS; w++)
		munmap(self->window[w], LENGTH);
	close(self->beside);
	close(self->many);
	close(self->asfd);
}

TEST_F(places, truncation_reaches_all)
{
	ASSERT_EQ(0, ftruncate(self->many, 0));
	EXPECT_TRUE(all_read(self->window, 0, -SIGBUS));
	EXPECT_TRUE(all_read(self->window, 1, 'b'));
	ASSERT_EQ(0, ftruncate(self->many, PAGE));
	EXPECT_TRUE(all_read(self->window, 0, 0));
}

TEST_F(places, batch_of_unmaps_reaches_all)
{
	static struct address_space_op ops[PLACES];

	for (unsigned int place = 0; place < PLACES; place++)
		ops[place] = op_unmap(2 * place * PAGE, PAGE);
	ASSERT_EQ(0, as_batch(self->asfd, ops, PLACES, NULL));
	EXPECT_TRUE(all_read(self->window, 0, -SIGBUS));
	EXPECT_TRUE(all_read(self->window, 1, 'b'));
}

TEST_HARNESS_MAIN

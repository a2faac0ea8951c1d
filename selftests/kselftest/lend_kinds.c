// SPDX-License-Identifier: GPL-2.0
/* Which memory of a lender can be shown, and how each kind of it behaves. */
#include <limits.h>

#include "kselftest_harness.h"
#include "lib/lend_fixture.h"

TEST_F(lent, merged_memory_is_shown_and_copied_when_written)
{
	const char *control = "/sys/kernel/mm/ksm/run";
	unsigned int i, tries = 0;

	if (write_text(control, "1"))
		SKIP(return, "no KSM");
	write_text("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	ASSERT_EQ(0, agent_call(&self->lender, lender_merge, NULL));
	while (number_in("/sys/kernel/mm/ksm/pages_sharing", "") < 4 && tries++ < 100) {
		for (i = 0; i < PAGES; i++)
			ASSERT_EQ('k', peek(self->mem + i * PAGE + i));
		sleep_ms(20);
	}
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ('k', peek(self->mem + i * PAGE));
	ASSERT_EQ(0, poke(self->mem + PAGE, 'x'));
	EXPECT_EQ('x', agent_peek(&self->lender, AREA + PAGE));
	EXPECT_EQ('k', agent_peek(&self->lender, AREA + 2 * PAGE));
	EXPECT_EQ('k', peek(self->mem + 2 * PAGE));
	write_text(control, "2");
	EXPECT_EQ('k', peek(self->mem + 3 * PAGE));
	write_text(control, "0");
}

TEST_F(lent, huge_pages_come_and_go)
{
	unsigned long at;
	int fd, asfd;
	char *mem;

	if (!have_huge_pages())
		SKIP(return, "no huge pages in this kernel");
	fd = agent_fd(&self->lender, agent_call(&self->lender, lend_huge, NULL));
	asfd = as_create(HUGE_LEN);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, as_map(asfd, 0, fd, 0, HUGE_LEN, RW, 0));
	mem = attach(asfd, 0, HUGE_LEN, RW);
	ASSERT_NE(NULL, mem);
	/* the huge page of zeroes, and then a page of its own */
	for (at = 0; at < HUGE_LEN; at += 37 * PAGE)
		ASSERT_EQ(0, peek(mem + at));
	for (at = 0; at < HUGE_LEN; at += 37 * PAGE)
		ASSERT_EQ(0, poke(mem + at, at / PAGE));
	for (at = 0; at < HUGE_LEN; at += 37 * PAGE)
		ASSERT_EQ((int)(uint8_t)(at / PAGE), agent_peek(&self->lender, HUGE_AREA + at));
	ASSERT_EQ(0, agent_call(&self->lender, lender_split, (void *)37));
	EXPECT_EQ(-SIGBUS, peek(mem + 37 * PAGE));
	EXPECT_EQ(74, peek(mem + 74 * PAGE));
	/* -ENOMEM, because of the page that is unmapped, but all else is forgotten */
	ASSERT_EQ(-ENOMEM, agent_call(&self->lender, lender_forget_huge, NULL));
	for (at = 0; at < HUGE_LEN; at += 41 * PAGE) {
		ASSERT_EQ(0, agent_poke(&self->lender, HUGE_AREA + at, 5));
		ASSERT_EQ(5, peek(mem + at));
	}
	agent_call(&self->lender, lender_collapse, NULL);
	for (at = 0; at < HUGE_LEN; at += 41 * PAGE)
		ASSERT_EQ(5, peek(mem + at));
	munmap(mem, HUGE_LEN);
	close(asfd);
	close(fd);
}

TEST_F(lent, only_memory_that_can_be_shown_is)
{
	ASSERT_EQ(0, poke(self->mem + PAGE, 1));
	if (agent_call(&self->lender, lender_map_secret, (void *)1) == 0) {
		EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
		EXPECT_EQ(-SIGBUS, poke(self->mem + PAGE, 1));
	}
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_device, (void *)2));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_over, (void *)1));
	EXPECT_EQ(0, peek(self->mem + PAGE));
}

TEST_F(lent, shared_file_is_shown_and_written)
{
	int number = agent_call(&self->lender, lender_map_file, (void *)1);
	int fd = agent_fd(&self->lender, number);

	ASSERT_LE(0, fd);
	EXPECT_EQ('f', peek(self->mem + PAGE));
	ASSERT_EQ(0, poke(self->mem + PAGE, 'w'));
	EXPECT_EQ('w', file_byte(fd, 0));
	ASSERT_EQ(0, file_set(fd, 1, 'x'));
	EXPECT_EQ('x', peek(self->mem + PAGE + 1));
	/* what the lender's file ends before it has not, and what it has again it has */
	ASSERT_EQ(0, ftruncate(fd, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + PAGE, 1));
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	EXPECT_EQ(0, peek(self->mem + PAGE));
	close(fd);
}

TEST_F(lent, private_file_is_copied_by_a_write)
{
	int number = agent_call(&self->lender, lender_map_private, (void *)1);
	int fd = agent_fd(&self->lender, number);

	ASSERT_LE(0, fd);
	EXPECT_EQ('f', peek(self->mem + PAGE));
	ASSERT_EQ(0, file_set(fd, 1, 'x'));
	EXPECT_EQ('x', peek(self->mem + PAGE + 1));
	ASSERT_EQ(0, poke(self->mem + PAGE, 'w'));
	EXPECT_EQ('f', file_byte(fd, 0));
	EXPECT_EQ('w', agent_peek(&self->lender, AREA + PAGE));
	/* truncation takes the copy, too */
	ASSERT_EQ(0, ftruncate(fd, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	close(fd);
}

TEST_F(lent, disk_file_is_written_through)
{
	char dir[PATH_MAX], path[PATH_MAX + 16];
	unsigned int round;

	if (disk_dir(dir, sizeof(dir)))
		SKIP(return, "no disk");
	snprintf(path, sizeof(path), "%s/lent", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	unlink(path);
	int number = agent_take_fd(&self->lender, fd);

	ASSERT_LE(0, number);
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_fd, (void *)(long)number));
	for (round = 1; round < 20; round++) {
		ASSERT_EQ(0, poke(self->mem + PAGE, round));
		ASSERT_EQ(0, fsync(fd));
		ASSERT_EQ((int)round, disk_byte(fd, 0));
		ASSERT_EQ(0, drop_caches());
		ASSERT_EQ((int)round, peek(self->mem + PAGE));
	}
	close(fd);
}

TEST_F(lent, hugetlb_pages_are_shown)
{
	int fd = hugetlb_memfd(2);
	int number, lent, asfd = as_create(2 * HUGE);
	char *mem;

	if (fd < 0)
		SKIP(return, "no huge pages");
	number = agent_take_fd(&self->lender, fd);
	lent = agent_fd(&self->lender, agent_call(&self->lender, lend_hugetlb,
						  (void *)(long)number));
	ASSERT_LE(0, lent);
	ASSERT_EQ(0, as_map(asfd, 0, lent, 0, 2 * HUGE, RW, 0));
	mem = attach(asfd, 0, 2 * HUGE, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, poke(mem + 5 * PAGE, 5));
	EXPECT_EQ(5, agent_peek(&self->lender, HUGE_AREA + 5 * PAGE));
	ASSERT_EQ(0, agent_poke(&self->lender, HUGE_AREA + HUGE + 7 * PAGE, 7));
	EXPECT_EQ(7, peek(mem + HUGE + 7 * PAGE));
	EXPECT_EQ(5, peek(mem + 5 * PAGE));
	ASSERT_EQ(0, ftruncate(fd, HUGE));
	EXPECT_EQ(-SIGBUS, peek(mem + HUGE));
	EXPECT_EQ(5, peek(mem + 5 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap_huge, NULL));
	EXPECT_EQ(-SIGBUS, peek(mem));
	munmap(mem, 2 * HUGE);
	close(asfd);
	close(lent);
	close(fd);
}

TEST_F(lent, private_hugetlb_pages_are_shown)
{
	int fd = hugetlb_memfd(2);
	int lent, asfd = as_create(HUGE);
	char *mem;

	if (fd < 0)
		SKIP(return, "no huge pages");
	close(fd);
	lent = agent_fd(&self->lender, agent_call(&self->lender, lend_hugetlb, (void *)-1L));
	ASSERT_LE(0, lent);
	ASSERT_EQ(0, as_map(asfd, 0, lent, 0, HUGE, RW, 0));
	mem = attach(asfd, 0, HUGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, peek(mem));
	ASSERT_EQ(0, poke(mem + 5 * PAGE, 5));
	EXPECT_EQ(5, agent_peek(&self->lender, HUGE_AREA + 5 * PAGE));
	ASSERT_EQ(0, agent_poke(&self->lender, HUGE_AREA + 6 * PAGE, 6));
	EXPECT_EQ(6, peek(mem + 6 * PAGE));
	munmap(mem, HUGE);
	close(asfd);
	close(lent);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * ADDRESS_SPACE_LEND: an address space shows a range of a process's own memory, whatever
 * that has there at the moment, until the process ends, calls exec or takes it back.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/lend_fixture.h"

TEST_F(lent, is_one_memory_in_both_directions)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, agent_poke(&self->lender, AREA + i * PAGE, i + 1));
		ASSERT_EQ((int)i + 1, peek(self->mem + i * PAGE));
		ASSERT_EQ(0, poke(self->mem + i * PAGE + 1, i + 2));
		ASSERT_EQ((int)i + 2, agent_peek(&self->lender, AREA + i * PAGE + 1));
		/* what is there already, without a fault */
		ASSERT_EQ(0, agent_poke(&self->lender, AREA + i * PAGE, i + 3));
		ASSERT_EQ((int)i + 3, peek(self->mem + i * PAGE));
	}
	EXPECT_EQ(-SIGBUS, peek(self->mem + LEN));
}

TEST_F(lent, untouched_memory_is_zero_and_takes_none)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(0, peek(self->mem + i * PAGE));
	/* and what is read as zero is not that for ever */
	ASSERT_EQ(0, agent_poke(&self->lender, AREA, 1));
	EXPECT_EQ(1, peek(self->mem));
	ASSERT_EQ(0, poke(self->mem + PAGE, 2));
	EXPECT_EQ(2, peek(self->mem + PAGE));
	EXPECT_EQ(2, agent_peek(&self->lender, AREA + PAGE));
}

TEST_F(lent, munmap_is_seen_when_it_returns)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, poke(self->mem + i * PAGE, 1));
		ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)i));
		ASSERT_EQ(-SIGBUS, peek(self->mem + i * PAGE));
		ASSERT_EQ(-SIGBUS, poke(self->mem + i * PAGE, 1));
	}
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_over, (void *)3));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 4 * PAGE));
}

TEST_F(lent, mmap_over_it_is_seen_when_it_returns)
{
	unsigned int round;

	for (round = 0; round < 50; round++) {
		ASSERT_EQ(0, poke(self->mem + 2 * PAGE, 7));
		ASSERT_EQ(0, agent_call(&self->lender, lender_map_over, (void *)2));
		ASSERT_EQ(0, peek(self->mem + 2 * PAGE));
	}
}

TEST_F(lent, mremap_is_seen_when_it_returns)
{
	ASSERT_EQ(0, poke(self->mem, 1));
	ASSERT_EQ(0, poke(self->mem + 5 * PAGE, 5));
	ASSERT_EQ(0, agent_call(&self->lender, lender_move, (void *)5));
	EXPECT_EQ(1, peek(self->mem + 5 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	ASSERT_EQ(0, poke(self->mem + 5 * PAGE, 9));
	EXPECT_EQ(9, agent_peek(&self->lender, AREA + 5 * PAGE));
}

TEST_F(lent, mprotect_is_seen_when_it_returns)
{
	unsigned int round;

	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, poke(self->mem + PAGE, round));
		ASSERT_EQ(0, agent_call(&self->lender, lender_forbid, (void *)1));
		ASSERT_EQ(-SIGSEGV, poke(self->mem + PAGE, 99));
		ASSERT_EQ((int)round, peek(self->mem + PAGE));
		ASSERT_EQ(-SIGSEGV, poke(self->mem + PAGE, 99));
		ASSERT_EQ(0, agent_call(&self->lender, lender_hide, (void *)1));
		ASSERT_EQ(-SIGSEGV, peek(self->mem + PAGE));
		ASSERT_EQ(0, agent_call(&self->lender, lender_allow, (void *)1));
	}
}

TEST_F(lent, what_the_lender_may_only_write_is_refused)
{
	ASSERT_EQ(0, poke(self->mem + PAGE, 1));
	ASSERT_EQ(0, agent_call(&self->lender, lender_only_write, (void *)1));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + PAGE, 99));
	EXPECT_EQ(-SIGSEGV, peek(self->mem + PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_allow, (void *)1));
	EXPECT_EQ(1, peek(self->mem + PAGE));
}

TEST_F(lent, madvise_dontneed_is_seen_when_it_returns)
{
	unsigned int round;

	for (round = 0; round < 50; round++) {
		ASSERT_EQ(0, agent_poke(&self->lender, AREA + PAGE, 7));
		ASSERT_EQ(7, peek(self->mem + PAGE));
		ASSERT_EQ(0, agent_call(&self->lender, lender_forget, (void *)1));
		ASSERT_EQ(0, peek(self->mem + PAGE));
		ASSERT_EQ(0, poke(self->mem + PAGE, 8));
		ASSERT_EQ(0, agent_call(&self->lender, lender_forget, (void *)1));
		ASSERT_EQ(0, agent_peek(&self->lender, AREA + PAGE));
	}
}

TEST_F(lent, written_memory_survives_pageout)
{
	unsigned int round;
	unsigned long i;

	for (round = 1; round < 20; round++) {
		for (i = 0; i < PAGES; i++)
			ASSERT_EQ(0, poke(self->mem + i * PAGE, round + i));
		ASSERT_EQ(0, agent_call(&self->lender, lender_page_out, NULL));
		for (i = 0; i < PAGES; i++) {
			int seen = i % 2 ? peek(self->mem + i * PAGE) :
					   agent_peek(&self->lender, AREA + i * PAGE);

			ASSERT_EQ((int)(round + i), seen);
		}
	}
}

TEST_F(lent, written_memory_survives_madv_free)
{
	/* the window's first write makes the page one that cannot be thrown away */
	ASSERT_EQ(0, poke(self->mem + PAGE, 1));
	ASSERT_EQ(0, agent_call(&self->lender, lender_free, (void *)1));
	ASSERT_EQ(0, poke(self->mem + PAGE, 2));
	ASSERT_EQ(0, agent_call(&self->lender, lender_page_out, NULL));
	EXPECT_EQ(2, peek(self->mem + PAGE));
}

TEST_F(lent, userfaultfd_of_the_lender_serves_it)
{
	unsigned long i;

	ASSERT_EQ(0, agent_call(&self->lender, lender_userfaultfd, (void *)1));
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ('A' + (int)i, peek(self->mem + i * PAGE));
	ASSERT_EQ(0, poke(self->mem, 1));
	EXPECT_EQ(1, agent_peek(&self->lender, AREA));
}

static void *peek_thread(void *addr)
{
	return (void *)(long)peek(addr);
}

TEST_F(lent, fault_that_nobody_serves_keeps_no_dead_lender)
{
	int server = agent_fd(&self->lender,
			      agent_call(&self->lender, lender_userfaultfd, NULL));
	struct pollfd told = { .fd = server, .events = POLLIN };
	pthread_t thread;
	siginfo_t info;
	void *result;

	/* the server lives on, and says nothing */
	ASSERT_LE(0, server);
	ASSERT_EQ(0, pthread_create(&thread, NULL, peek_thread, self->mem + PAGE));
	ASSERT_EQ(1, poll(&told, 1, 10000));
	kill(self->lender.pid, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, self->lender.pid, &info, WEXITED | WNOWAIT));
	ASSERT_EQ(0, pthread_join(thread, &result));
	EXPECT_EQ(-SIGBUS, (long)result);
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	close(server);
}

TEST_F(lent, fault_that_nobody_serves_can_be_killed)
{
	int server = agent_fd(&self->lender,
			      agent_call(&self->lender, lender_userfaultfd, NULL));
	pid_t pid;
	int status;

	ASSERT_LE(0, server);
	pid = fork();
	if (pid == 0)
		_exit(peek(self->mem + PAGE));
	sleep_ms(50);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	kill(pid, SIGKILL);
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	close(server);
}

TEST_F(lent, fork_leaves_it_to_the_parent)
{
	pid_t child;

	ASSERT_EQ(0, poke(self->mem + 2 * PAGE, 2));
	ASSERT_EQ(0, poke(self->mem + 3 * PAGE, 3));
	child = agent_call(&self->lender, lender_fork, NULL);
	ASSERT_LT(0, child);
	sleep_ms(50);
	/* what the child has written is its own */
	EXPECT_EQ(3, peek(self->mem + 3 * PAGE));
	/* what is written here is the parent's and not the child's */
	ASSERT_EQ(0, poke(self->mem + 2 * PAGE, 12));
	EXPECT_EQ(12, agent_peek(&self->lender, AREA + 2 * PAGE));
	ASSERT_EQ(0, agent_poke(&self->lender, AREA + 2 * PAGE, 22));
	EXPECT_EQ(22, peek(self->mem + 2 * PAGE));
	char path[64], byte = 0;

	snprintf(path, sizeof(path), "/proc/%d/mem", child);
	int fd = open(path, O_RDONLY);

	ASSERT_LE(0, fd);
	ASSERT_EQ(1, pread(fd, &byte, 1, (off_t)AREA + 2 * PAGE));
	EXPECT_EQ(2, byte);
	ASSERT_EQ(1, pread(fd, &byte, 1, (off_t)AREA + 3 * PAGE));
	EXPECT_EQ('C', byte);
	close(fd);
	kill(child, SIGKILL);
}

TEST_F(lent, exit_ends_it_when_the_lender_is_gone)
{
	ASSERT_EQ(0, poke(self->mem, 1));
	ASSERT_EQ(0, peek(self->mem + PAGE));
	kill(self->lender.pid, SIGKILL);
	/* a zombie has no memory any more */
	siginfo_t info;

	ASSERT_EQ(0, waitid(P_PID, self->lender.pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, poke(self->mem, 1));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-ESRCH, as_map(self->asfd, LEN, self->fd, 0, PAGE, RW, 0));
}

TEST_F(lent, exec_ends_it)
{
	int tries = 0;

	ASSERT_EQ(0, poke(self->mem, 1));
	/* no answer comes from what it has become */
	struct agent quick = self->lender;

	ASSERT_GT(0, agent_call(&quick, lender_exec, NULL));
	while (peek(self->mem) >= 0 && tries++ < 100)
		sleep_ms(10);
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 5 * PAGE));
}

TEST_F(lent, revoke_takes_it_back_from_all)
{
	struct agent other;
	char *mem;
	int space = as_create(LEN);

	ASSERT_LE(0, space);
	ASSERT_EQ(0, as_map(space, 0, self->fd, 0, LEN, PROT_READ, 0));
	ASSERT_EQ(0, agent_start(&other));
	mem = agent_attach(&other, space, 0, LEN, PROT_READ);
	ASSERT_EQ(0, poke(self->mem, 1));
	ASSERT_EQ(1, agent_peek(&other, mem));
	ASSERT_EQ(0, agent_peek(&other, mem + PAGE));
	/* to close the file descriptor is not enough, and nobody else may */
	EXPECT_EQ(-EPERM, as_lend_revoke(self->fd));
	EXPECT_EQ(-EOPNOTSUPP, as_ioctl(self->fd, ADDRESS_SPACE_LEND_REVOKE, (void *)1));
	EXPECT_EQ(1, peek(self->mem));

	ASSERT_EQ(0, agent_call(&self->lender, lender_revoke, (void *)(long)self->number));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_EQ(-SIGBUS, poke(self->mem + 3 * PAGE, 1));
	EXPECT_EQ(-SIGBUS, agent_peek(&other, mem));
	EXPECT_EQ(-SIGBUS, agent_peek(&other, mem + PAGE));
	EXPECT_EQ(-ESRCH, as_map(space, 0, self->fd, 0, PAGE, PROT_READ,
				 ADDRESS_SPACE_MAP_REPLACE));
	/* the lender has it still */
	EXPECT_EQ(1, agent_peek(&self->lender, AREA));
	agent_stop(&other);
	close(space);
}

TEST_HARNESS_MAIN

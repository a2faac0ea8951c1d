// SPDX-License-Identifier: GPL-2.0
/*
 * ADDRESS_SPACE_LEND: an address space shows a range of a process's own memory, whatever
 * that has there at the moment, until the process ends, calls exec or takes it back.
 */
#include <limits.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/kvm_guest.h"

/* where each lender has what it lends */
#define AREA	((char *)0x200000000000UL)
/* and the test its attachment, when it lends to itself */
#define PAGES	16UL
#define LEN	(PAGES * PAGE)

static long lend_area(void *prot)
{
	void *area = mmap(AREA, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			  -1, 0);

	if (area != AREA)
		return -errno;
	return as_lend(AREA, LEN, (long)prot);
}

static long lender_unmap(void *page)
{
	return munmap(AREA + (long)page * PAGE, PAGE) ? -errno : 0;
}

static long lender_map_over(void *page)
{
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	return mem == MAP_FAILED ? -errno : 0;
}

static long map_at(void *page, int fd, int flags)
{
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, RW, flags | MAP_FIXED, fd, 0);

	return mem == MAP_FAILED ? -errno : fd;
}

/* these return the file descriptor */
static long lender_map_file(void *page)
{
	return map_at(page, memfd_pages("over", 1, 'f'), MAP_SHARED);
}

static long lender_map_private(void *page)
{
	return map_at(page, memfd_pages("over", 1, 'f'), MAP_PRIVATE);
}

static long lender_map_fd(void *fd)
{
	return map_at((void *)1, (long)fd, MAP_SHARED) < 0 ? -errno : 0;
}

static long lender_map_secret(void *page)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd < 0 || ftruncate(fd, PAGE))
		return -errno;
	return map_at(page, fd, MAP_SHARED) < 0 ? -errno : 0;
}

/* memory of a device: video memory, or where a PC has it */
static long lender_map_device(void *page)
{
	int fd = open("/dev/mem", O_RDWR);
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED,
			 fd, 0xa0000);

	close(fd);
	return mem == MAP_FAILED ? -errno : 0;
}

/* the first page over the one that is given */
static long lender_move(void *page)
{
	void *mem = mremap(AREA, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   AREA + (long)page * PAGE);

	return mem == MAP_FAILED ? -errno : 0;
}

static long lender_forbid(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, PROT_READ) ? -errno : 0;
}

static long lender_hide(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, PROT_NONE) ? -errno : 0;
}

static long lender_allow(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, RW) ? -errno : 0;
}

static long lender_forget(void *page)
{
	return madvise(AREA + (long)page * PAGE, PAGE, MADV_DONTNEED) ? -errno : 0;
}

static long lender_page_out(void *unused)
{
	(void)unused;
	return madvise(AREA, LEN, MADV_PAGEOUT) ? -errno : 0;
}

static long lender_revoke(void *fd)
{
	return as_lend_revoke((long)fd);
}

static long lender_exec(void *unused)
{
	(void)unused;
	/* it waits until its input, the agent's socket, ends */
	execl("/bin/cat", "cat", NULL);
	return -errno;
}

/* forks a child that lives until the agent dies, and returns its pid */
static long lender_fork(void *unused)
{
	(void)unused;
	pid_t pid = fork();

	if (pid == 0) {
		/* a copy of what the parent has not yet changed */
		AREA[3 * PAGE] = 'C';
		for (;;)
			pause();
	}
	return pid;
}

static long lender_merge(void *unused)
{
	unsigned int i;

	(void)unused;
	for (i = 0; i < PAGES; i++)
		memset(AREA + i * PAGE, 'k', PAGE);
	return madvise(AREA, LEN, MADV_MERGEABLE) ? -errno : 0;
}

static long lender_free(void *page)
{
	return madvise(AREA + (long)page * PAGE, PAGE, MADV_FREE) ? -errno : 0;
}

/* 4 MiB at twice the area, of huge pages as far as there are any; returns the lend fd */
#define HUGE_AREA	(AREA + (1UL << 30))
#define HUGE_LEN	(2 * HUGE)
static long lend_huge(void *unused)
{
	void *mem = mmap(HUGE_AREA, HUGE_LEN, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	(void)unused;
	if (mem != HUGE_AREA)
		return -errno;
	if (madvise(mem, HUGE_LEN, MADV_HUGEPAGE))
		return -errno;
	return as_lend(mem, HUGE_LEN, RW);
}

static long lend_hugetlb(void *fd)
{
	int number = (long)fd;
	int flags = number < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB : MAP_SHARED;
	void *mem = mmap(HUGE_AREA, 2 * HUGE, RW, flags | MAP_FIXED_NOREPLACE, number, 0);

	return mem != HUGE_AREA ? -errno : as_lend(mem, 2 * HUGE, RW);
}

static long lender_unmap_huge(void *unused)
{
	(void)unused;
	return munmap(HUGE_AREA, 2 * HUGE) ? -errno : 0;
}

static long lender_split(void *page)
{
	return munmap(HUGE_AREA + (long)page * PAGE, PAGE) ? -errno : 0;
}

static long lender_forget_huge(void *unused)
{
	(void)unused;
	return madvise(HUGE_AREA, HUGE_LEN, MADV_DONTNEED) ? -errno : 0;
}

static long lender_collapse(void *unused)
{
	(void)unused;
	return madvise(HUGE_AREA, HUGE_LEN, MADV_COLLAPSE) ? -errno : 0;
}

/* Page i of the area is served with the byte 'u' + i, after a while. */
static int uffd;

static void *serve(void *unused)
{
	static char page[PAGE];
	struct uffd_msg msg;

	(void)unused;
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		uint64_t addr = msg.arg.pagefault.address & ~(PAGE - 1);
		struct uffdio_copy copy = {
			.dst = addr, .src = (uintptr_t)page, .len = PAGE,
		};

		/* longer than a fault waits at a time: it is told again */
		sleep_ms(50);
		memset(page, 'A' + (addr - (uintptr_t)AREA) / PAGE, PAGE);
		ioctl(uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

/* until it is served by a thread, if @served, or never */
static long lender_userfaultfd(void *served)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)AREA, LEN }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return served ? -pthread_create(&thread, NULL, serve, NULL) : uffd;
}

FIXTURE(lent)
{
	struct agent lender;
	int number;	/* the lend fd in the lender */
	int fd;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(lent)
{
	ASSERT_EQ(0, agent_start(&self->lender));
	self->number = agent_call(&self->lender, lend_area, (void *)(long)RW);
	ASSERT_LE(0, self->number);
	self->fd = agent_fd(&self->lender, self->number);
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(2 * LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	self->mem = attach(self->asfd, 0, 2 * LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(lent)
{
	munmap(self->mem, 2 * LEN);
	close(self->asfd);
	close(self->fd);
	agent_stop(&self->lender);
}

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
	int fd = agent_fd(&self->lender, agent_call(&self->lender, lend_huge, NULL));
	int asfd = as_create(HUGE_LEN);
	char *mem;
	unsigned long at;

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

TEST_F(lent, protection_of_the_lend_is_the_most)
{
	int number = agent_call(&self->lender, lend_area, (void *)(long)PROT_READ);

	/* it has been mapped before */
	EXPECT_EQ(-EEXIST, number);
	ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, PAGE, PAGE, PROT_READ, 0));
	ASSERT_EQ(0, agent_poke(&self->lender, AREA + PAGE, 5));
	EXPECT_EQ(5, peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, 6));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
}

TEST_F(lent, system_calls_read_and_write_it)
{
	int pipes[2];
	char text[8] = "";

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(6, write(pipes[1], "hello", 6));
	ASSERT_EQ(6, read(pipes[0], self->mem + 3 * PAGE - 2, 6));
	EXPECT_EQ('h', agent_peek(&self->lender, AREA + 3 * PAGE - 2));
	EXPECT_EQ('l', agent_peek(&self->lender, AREA + 3 * PAGE));
	ASSERT_EQ(6, write(pipes[1], self->mem + 3 * PAGE - 2, 6));
	ASSERT_EQ(6, read(pipes[0], text, 6));
	EXPECT_STREQ("hello", text);
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)3));
	EXPECT_EQ(-1, write(pipes[1], self->mem + 3 * PAGE, 6));
	EXPECT_EQ(EFAULT, errno);
	/* through /proc, with the mmap lock of the attached process */
	int fd = open("/proc/self/mem", O_RDWR);

	ASSERT_LE(0, fd);
	ASSERT_EQ(5, pwrite(fd, "there", 5, (off_t)self->mem + 9 * PAGE));
	EXPECT_EQ('t', agent_peek(&self->lender, AREA + 9 * PAGE));
	ASSERT_EQ(5, pread(fd, text, 5, (off_t)self->mem + 9 * PAGE));
	EXPECT_EQ('e', text[2]);
	EXPECT_EQ(-1, pread(fd, text, 5, (off_t)self->mem + 3 * PAGE));
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F(lent, what_the_lender_has_not_is_absorbed)
{
	int view = as_view_flags(self->asfd, 0, LEN, RW, ADDRESS_SPACE_HOLE_ABSORB);
	char *mem = attach(view, 0, LEN, RW);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, poke(mem + PAGE, 1));
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)1));
	EXPECT_EQ(0, peek(mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	munmap(mem, LEN);
	close(view);
}

TEST_F(lent, fdinfo_hides_the_address_from_others)
{
	char path[64], text[512];

	EXPECT_EQ((long long)LEN, fdinfo_value(self->fd, "length"));
	EXPECT_EQ(-ENOENT, fdinfo_value(self->fd, "address"));
	/* nor does the lender's own, when another process reads it */
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", self->lender.pid, self->number);
	ASSERT_EQ(0, read_text(path, text, sizeof(text)));
	EXPECT_EQ(NULL, strstr(text, "address"));
	char *layout = fdinfo_layout(self->asfd);

	EXPECT_EQ(NULL, strstr(layout, "200000000000"));
	free(layout);
}

TEST_F(lent, register_and_batch_take_it)
{
	struct address_space_op op = {
		.opcode = ADDRESS_SPACE_OP_MMAP, .fd = self->fd, .prot = RW,
		.offset = 2 * PAGE, .length = 2 * PAGE, .addr = LEN,
		.flags = ADDRESS_SPACE_MAP_POPULATE,
	};

	ASSERT_EQ(0, as_register(self->asfd, self->fd, 0, 0, RW,
				 ADDRESS_SPACE_REGISTER_POPULATE));
	ASSERT_EQ(0, as_batch(self->asfd, &op, 1, NULL));
	ASSERT_EQ(0, poke(self->mem + LEN + PAGE, 7));
	EXPECT_EQ(7, agent_peek(&self->lender, AREA + 3 * PAGE));
	EXPECT_EQ(7, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_forget, (void *)3));
	EXPECT_EQ(0, peek(self->mem + LEN + PAGE));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, as_unregister(self->asfd, self->fd));
	EXPECT_EQ(-ENOENT, as_unregister(self->asfd, self->fd));
}

TEST_F(lent, bad_input_is_refused)
{
	struct address_space_lend arg = {
		.size = sizeof(arg), .prot = RW, .addr = (uintptr_t)AREA, .length = LEN,
	};
	int device = open("/dev/address_space", O_RDWR);

	ASSERT_LE(0, device);
#define REFUSED(err, field, value) do {						\
	struct address_space_lend bad = arg;					\
										\
	bad.field = (value);							\
	EXPECT_EQ(-(err), as_ioctl(device, ADDRESS_SPACE_LEND, &bad));		\
} while (0)
	REFUSED(EINVAL, size, sizeof(arg) - 1);
	REFUSED(E2BIG, size, PAGE + 1);
	REFUSED(EOPNOTSUPP, flags, 1);
	REFUSED(EOPNOTSUPP, __reserved, 1);
	REFUSED(EINVAL, prot, PROT_NONE);
	REFUSED(EINVAL, prot, PROT_WRITE);
	REFUSED(EOPNOTSUPP, prot, RX);
	REFUSED(EINVAL, prot, 8 | RW);
	REFUSED(EINVAL, addr, PAGE / 2);
	REFUSED(EINVAL, length, PAGE / 2);
	REFUSED(EINVAL, length, 0);
	REFUSED(EINVAL, length, 1ULL << 56);
	REFUSED(EOVERFLOW, length, ~0ULL - PAGE + 1);
	close(device);

	EXPECT_REFUSED(self->asfd, EINVAL, as_map(self->asfd, LEN, self->fd, PAGE, LEN, RW, 0));
	EXPECT_REFUSED(self->asfd, EACCES, as_map(self->asfd, LEN, self->fd, 0, PAGE, RX, 0));
	EXPECT_REFUSED(self->asfd, ENOTTY, as_ioctl(self->fd, ADDRESS_SPACE_CREATE, NULL));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F(lent, closing_files_in_any_order_is_harmless)
{
	ASSERT_EQ(0, poke(self->mem, 1));
	close(self->fd);
	self->fd = dup(0);
	EXPECT_EQ(1, peek(self->mem));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	sleep_ms(300);
	EXPECT_EQ(1, agent_peek(&self->lender, AREA));
}

/* A guest that has lent memory: it reads and writes that of the lender. */
FIXTURE(guest)
{
	struct agent lender;
	int fd, asfd;
	struct vm vm;
};

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, agent_start(&self->lender));
	self->fd = agent_fd(&self->lender,
			    agent_call(&self->lender, lend_area, (void *)(long)RW));
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(LEN);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	ASSERT_EQ(0, vm_create(&self->vm));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, 0, NULL));
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
	close(self->asfd);
	close(self->fd);
	agent_stop(&self->lender);
}

TEST_F(guest, reads_and_writes_what_the_lender_has)
{
	ASSERT_EQ(0, agent_poke(&self->lender, AREA + PAGE, 'l'));
	EXPECT_EQ('l', guest_read(&self->vm, PAGE));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	/* what was read can be written, though it was the page of zeroes */
	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	EXPECT_EQ('g', agent_peek(&self->lender, AREA + 2 * PAGE));
	EXPECT_EQ(0, guest_read_write(&self->vm, 3 * PAGE, 'h'));
	EXPECT_EQ('h', agent_peek(&self->lender, AREA + 3 * PAGE));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 4 * PAGE));
}

TEST_F(guest, loses_what_the_lender_unmaps)
{
	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)2));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_over, (void *)2));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_forbid, (void *)2));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_allow, (void *)2));
	EXPECT_EQ('x', guest_write(&self->vm, 2 * PAGE, 'x'));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 2 * PAGE));
}

TEST_F(guest, writes_to_the_parent_after_fork)
{
	pid_t child;

	EXPECT_EQ('1', guest_write(&self->vm, 2 * PAGE, '1'));
	child = agent_call(&self->lender, lender_fork, NULL);
	ASSERT_LT(0, child);
	EXPECT_EQ('2', guest_write(&self->vm, 2 * PAGE, '2'));
	EXPECT_EQ('2', agent_peek(&self->lender, AREA + 2 * PAGE));
	kill(child, SIGKILL);
}

TEST_F(guest, loses_all_when_the_lender_exits)
{
	siginfo_t info;

	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	kill(self->lender.pid, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, self->lender.pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 2 * PAGE));
}

/* A process that attaches its own memory. */
FIXTURE(self)
{
	int fd;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(self)
{
	self->fd = lend_area((void *)(long)RW);
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(self)
{
	munmap(self->mem, LEN);
	munmap(AREA, LEN);
	close(self->asfd);
	close(self->fd);
}

TEST_F(self, is_one_memory_at_two_addresses)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, poke(AREA + i * PAGE, i));
		ASSERT_EQ((int)i, peek(self->mem + i * PAGE));
		ASSERT_EQ(0, poke(self->mem + i * PAGE, i + 1));
		ASSERT_EQ((int)i + 1, peek(AREA + i * PAGE));
		ASSERT_EQ(0, lender_forget((void *)i));
		ASSERT_EQ(0, peek(self->mem + i * PAGE));
		ASSERT_EQ(0, lender_unmap((void *)i));
		ASSERT_EQ(-SIGBUS, peek(self->mem + i * PAGE));
	}
}

TEST_F(self, attachment_in_the_range_is_not_shown)
{
	char *over = mmap(AREA, LEN, RW, MAP_SHARED | MAP_FIXED, self->asfd, 0);

	/* an attachment that would show itself */
	ASSERT_EQ(AREA, over);
	EXPECT_EQ(-SIGBUS, peek(over));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + PAGE, 1));
	ASSERT_EQ(0, lender_map_over((void *)1));
	EXPECT_EQ(0, peek(self->mem + PAGE));
	EXPECT_EQ(0, peek(AREA + PAGE));
	EXPECT_EQ(-SIGBUS, peek(AREA + 2 * PAGE));
}

TEST_F(self, copy_between_the_two_is_a_copy)
{
	int fd = open("/proc/self/mem", O_RDWR);
	struct iovec from = { AREA, PAGE }, to = { self->mem + PAGE, PAGE };

	ASSERT_LE(0, fd);
	memset(AREA, 'x', PAGE);
	EXPECT_EQ(6, pwrite(fd, AREA, 6, (off_t)self->mem + 2 * PAGE)) {
		TH_LOG("errno %d", errno);
	}
	ASSERT_EQ((ssize_t)PAGE, pwrite(fd, AREA, PAGE, (off_t)self->mem + 2 * PAGE)) {
		TH_LOG("errno %d", errno);
	}
	EXPECT_EQ('x', AREA[2 * PAGE]);
	ASSERT_EQ((ssize_t)PAGE, pread(fd, self->mem + 3 * PAGE, PAGE, (off_t)self->mem));
	EXPECT_EQ('x', AREA[3 * PAGE]);
	/* the kernel does not pin an attachment */
	EXPECT_EQ(-1, process_vm_readv(getpid(), &to, 1, &to, 1, 0));
	EXPECT_EQ((ssize_t)PAGE, process_vm_writev(getpid(), &to, 1, &from, 1, 0));
	close(fd);
}

TEST_F(self, all_of_the_memory_can_be_lent)
{
	int all = as_lend(NULL, 0, RW);
	int space = as_create(1ULL << 46);
	uint64_t at = (uint64_t)AREA;
	static char here = 's';
	uint64_t page = (uint64_t)&here & ~(PAGE - 1);
	char *mem;

	ASSERT_LE(0, all);
	ASSERT_LE(0, space);
	ASSERT_EQ(0, as_map(space, 0, all, 0, 1ULL << 46, RW, 0));
	mem = attach(space, at, LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, poke(mem, 3));
	EXPECT_EQ(3, peek(AREA));
	munmap(mem, LEN);
	/* a static variable, wherever the program was loaded */
	ASSERT_EQ(0, as_unmap(space, 0, 1ULL << 46));
	ASSERT_EQ(0, as_map(space, 0, all, page, PAGE, RW, 0));
	mem = attach(space, 0, PAGE, RW);
	ASSERT_NE(NULL, mem);
	munmap(mem, PAGE);
	close(space);
	close(all);
}

/* Two processes that lend to each other, each of which shows what the other has. */
static int lend_fd, other_fd;
static char *other_mem;

static long lend_one(void *unused)
{
	(void)unused;
	lend_fd = lend_area((void *)(long)RW);
	return lend_fd;
}

static long show_other(void *number)
{
	int asfd = as_create(LEN);
	int ret;

	other_fd = (long)number;
	if (asfd < 0)
		return asfd;
	ret = as_map(asfd, 0, other_fd, 0, LEN, RW, 0);
	if (ret)
		return ret;
	other_mem = attach(asfd, 0, LEN, RW);
	close(asfd);
	return other_mem ? 0 : -errno;
}

static long peek_other(void *page)
{
	return peek(other_mem + (long)page * PAGE);
}

static long poke_other(void *page)
{
	return poke(other_mem + (long)page * PAGE, (long)page);
}

TEST(two_processes_lend_to_each_other)
{
	struct agent a, b;
	int from_a, from_b;
	unsigned long i;

	ASSERT_EQ(0, agent_start(&a));
	ASSERT_EQ(0, agent_start(&b));
	from_a = agent_fd(&a, agent_call(&a, lend_one, NULL));
	from_b = agent_fd(&b, agent_call(&b, lend_one, NULL));
	ASSERT_LE(0, from_a);
	ASSERT_LE(0, from_b);
	ASSERT_EQ(0, agent_call(&a, show_other, (void *)(long)agent_take_fd(&a, from_b)));
	ASSERT_EQ(0, agent_call(&b, show_other, (void *)(long)agent_take_fd(&b, from_a)));
	close(from_a);
	close(from_b);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, agent_call(&a, poke_other, (void *)i));
		ASSERT_EQ((int)i, agent_peek(&b, AREA + i * PAGE));
		ASSERT_EQ(0, agent_call(&b, peek_other, (void *)i));
		ASSERT_EQ(0, agent_call(&b, lender_unmap, (void *)i));
		ASSERT_EQ(-SIGBUS, agent_call(&a, peek_other, (void *)i));
	}
	siginfo_t info;

	kill(a.pid, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, a.pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(-SIGBUS, agent_call(&b, peek_other, 0));
	agent_stop(&a);
	EXPECT_EQ(0, agent_stop(&b));
}

TEST_HARNESS_MAIN

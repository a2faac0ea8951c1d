// SPDX-License-Identifier: GPL-2.0
/*
 * A lender exits, calls exec, forks, and maps anew while others access what it has lent, and
 * create virtual machines; and one lends while its writes are tracked. Each test runs for
 * race_ms(), and for a minimum of rounds.
 */
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/as_util.h"

#define AREA	((char *)0x200000000000UL)
#define PAGES	8UL
#define LEN	(PAGES * PAGE)
#define LEAST	12	/* minimum of rounds, however slow the machine is */
#define READERS	2

/* What the lender, the accessors and the test agree on. */
struct shared {
	volatile bool stop;
	volatile int fd;	/* the lend fd in the lender, or -errno; 0: not yet */
	/*
	 * The lender writes @stamp + 1 and so on to its pages, never twice the same. What
	 * it has unmapped had no more than @floor: that must not be seen any more.
	 */
	volatile uint64_t stamp, floor;
	volatile uint64_t reads, signals, rounds;
	volatile uint64_t stale, odd;
};

FIXTURE(race)
{
	struct shared *shared;
	int asfd;
	char *mem;
	pid_t accessor[READERS];
	uint64_t until;
};

struct access {
	struct shared *shared;
	char *mem;
};

/* Reads, and writes where nobody minds: the second half of each page. */
static void *access_forever(void *arg)
{
	struct access *a = arg;
	unsigned int seed = getpid();

	while (!a->shared->stop) {
		char *page = a->mem + rand_r(&seed) % PAGES * PAGE;
		uint64_t floor = __atomic_load_n(&a->shared->floor, __ATOMIC_ACQUIRE);
		uint64_t value = 0;
		int ret = peek64(page, &value);

		__atomic_add_fetch(&a->shared->reads, 1, __ATOMIC_RELAXED);
		if (ret == -SIGBUS || ret == -SIGSEGV)
			__atomic_add_fetch(&a->shared->signals, 1, __ATOMIC_RELAXED);
		else if (ret)
			__atomic_add_fetch(&a->shared->odd, 1, __ATOMIC_RELAXED);
		else if (value && value <= floor)
			__atomic_add_fetch(&a->shared->stale, 1, __ATOMIC_RELAXED);
		poke64(page + PAGE / 2, 1);
	}
	return NULL;
}

FIXTURE_SETUP(race)
{
	struct access a;
	unsigned int i;

	self->shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
	a = (struct access) { self->shared, self->mem };
	for (i = 0; i < READERS; i++) {
		self->accessor[i] = start_process(access_forever, &a);
		ASSERT_LT(0, self->accessor[i]);
	}
	self->until = now_ms() + race_ms();
}

FIXTURE_TEARDOWN(race)
{
	unsigned int i;

	self->shared->stop = true;
	for (i = 0; i < READERS; i++)
		EXPECT_EQ(self->accessor[i], waitpid(self->accessor[i], NULL, 0));
	EXPECT_EQ(0ULL, self->shared->stale);
	EXPECT_EQ(0ULL, self->shared->odd);
	TH_LOG("%llu rounds, %llu accesses, %llu of them signals",
	       (unsigned long long)self->shared->rounds,
	       (unsigned long long)self->shared->reads,
	       (unsigned long long)self->shared->signals);
	close(self->asfd);
}

static bool go_on(struct shared *shared, uint64_t until)
{
	return now_ms() < until || shared->rounds < LEAST;
}

static int lend_area(void)
{
	void *mem = mmap(AREA, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			 -1, 0);

	return mem == AREA ? as_lend(AREA, LEN, RW) : -errno;
}

static void stamp(struct shared *shared, unsigned long page)
{
	*(volatile uint64_t *)(AREA + page * PAGE) =
		__atomic_add_fetch(&shared->stamp, 1, __ATOMIC_ACQ_REL);
}

static void *lend_and_stamp(void *arg)
{
	struct shared *shared = arg;
	unsigned long i;
	int fd = lend_area();

	for (i = 0; fd >= 0 && i < PAGES; i++)
		stamp(shared, i);
	__atomic_store_n(&shared->fd, fd, __ATOMIC_RELEASE);
	return NULL;
}

static void *lend_and_wait(void *arg)
{
	lend_and_stamp(arg);
	while (pause())
		;
	return NULL;
}

static void *lend_and_exec(void *arg)
{
	struct shared *shared = arg;

	lend_and_stamp(arg);
	while (shared->fd)
		sched_yield();
	execl("/bin/true", "true", NULL);
	return NULL;
}

/* Starts a lender and shows what it has lent; the pid. */
static pid_t start_lender(struct shared *shared, int asfd, run_fn fn)
{
	pid_t pid;
	int pidfd, fd, ret;

	shared->fd = 0;
	pid = start_process(fn, shared);
	if (pid < 0)
		return pid;
	while (!__atomic_load_n(&shared->fd, __ATOMIC_ACQUIRE))
		sched_yield();
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	fd = syscall(SYS_pidfd_getfd, pidfd, shared->fd, 0);
	close(pidfd);
	if (fd < 0)
		return -errno;
	ret = as_map(asfd, 0, fd, 0, LEN, RW, ADDRESS_SPACE_MAP_REPLACE);
	close(fd);
	return ret ? ret : pid;
}

/* The lender has ended: no page of it is there. */
static int check_gone(char *mem)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		if (peek(mem + i * PAGE) != -SIGBUS)
			return -1;
	return 0;
}

TEST_F_TIMEOUT(race, exit_and_faults, 600)
{
	while (go_on(self->shared, self->until)) {
		pid_t pid = start_lender(self->shared, self->asfd, lend_and_wait);

		ASSERT_LT(0, pid);
		if (self->shared->rounds % 3)
			peek(self->mem);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		/* one that an accessor's fault keeps for a moment goes by a worker */
		int tries = 0;

		while (check_gone(self->mem) && tries++ < 1000)
			sleep_ms(1);
		ASSERT_GT(1000, tries);
		__atomic_store_n(&self->shared->floor, self->shared->stamp, __ATOMIC_RELEASE);
		self->shared->rounds++;
	}
}

TEST_F_TIMEOUT(race, exec_and_faults, 600)
{
	while (go_on(self->shared, self->until)) {
		pid_t pid = start_lender(self->shared, self->asfd, lend_and_exec);

		ASSERT_LT(0, pid);
		peek(self->mem + PAGE);
		__atomic_store_n(&self->shared->fd, 0, __ATOMIC_RELEASE);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		int tries = 0;

		while (check_gone(self->mem) && tries++ < 1000)
			sleep_ms(1);
		ASSERT_GT(1000, tries);
		__atomic_store_n(&self->shared->floor, self->shared->stamp, __ATOMIC_RELEASE);
		self->shared->rounds++;
	}
}

/* Unmaps, maps over, moves, forgets and protects, and says so when it is done. */
static void *lend_and_remap(void *arg)
{
	struct shared *shared = arg;
	unsigned int seed = getpid();

	lend_and_stamp(arg);
	while (!shared->stop) {
		unsigned long page = rand_r(&seed) % PAGES;
		char *at = AREA + page * PAGE;
		/* what this page has now */
		uint64_t old = *(volatile uint64_t *)at;
		unsigned long i;

		switch (rand_r(&seed) % 5) {
		case 0:
			munmap(at, PAGE);
			/* fall through */
		case 1:
			if (mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				 -1, 0) != at)
				shared->odd++;
			break;
		case 2:
			madvise(at, PAGE, MADV_DONTNEED);
			break;
		case 3: {
			char *other = AREA + LEN + PAGE;

			/* it comes back elsewhere, where it is not lent */
			if (mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) != other ||
			    mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				 -1, 0) != at)
				shared->odd++;
			break;
		}
		case 4:
			mprotect(at, PAGE, PROT_READ);
			mprotect(at, PAGE, RW);
			continue;
		}
		/* all others are younger than the one that is gone, or are made so */
		for (i = 0; i < PAGES; i++) {
			if (*(volatile uint64_t *)(AREA + i * PAGE) <= old)
				stamp(shared, i);
		}
		__atomic_store_n(&shared->floor, old, __ATOMIC_RELEASE);
		shared->rounds++;
	}
	return NULL;
}

TEST_F_TIMEOUT(race, remap_and_faults, 600)
{
	pid_t pid = start_lender(self->shared, self->asfd, lend_and_remap);

	ASSERT_LT(0, pid);
	while (go_on(self->shared, self->until))
		sleep_ms(10);
	self->shared->stop = true;
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
}

/*
 * Forks while it is written through the window. A child has its copy, of which nothing
 * may change any more: what accessors write is the parent's.
 */
static void *lend_and_fork(void *arg)
{
	struct shared *shared = arg;

	lend_and_stamp(arg);
	while (!shared->stop) {
		pid_t pid = fork();
		int status = 0;

		if (pid == 0) {
			uint64_t before[PAGES], i, round;

			for (i = 0; i < PAGES; i++)
				before[i] = *(volatile uint64_t *)(AREA + i * PAGE + PAGE / 2);
			for (round = 0; round < 50; round++) {
				for (i = 0; i < PAGES; i++) {
					volatile uint64_t *at = (void *)(AREA + i * PAGE +
									 PAGE / 2);

					if (*at != before[i])
						_exit(1);
					before[i] = *at = round + 100;
				}
			}
			_exit(0);
		}
		/* the parent's own again, without what the accessors have written */
		unsigned long i;

		for (i = 0; i < PAGES; i++)
			*(volatile uint64_t *)(AREA + i * PAGE + PAGE / 2) = 0;
		if (pid > 0)
			waitpid(pid, &status, 0);
		if (status)
			shared->odd++;
		shared->rounds++;
	}
	return NULL;
}

TEST_F_TIMEOUT(race, fork_and_faults, 600)
{
	pid_t pid = start_lender(self->shared, self->asfd, lend_and_fork);

	ASSERT_LT(0, pid);
	while (go_on(self->shared, self->until))
		sleep_ms(10);
	self->shared->stop = true;
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
}

static void *create_vms(void *arg)
{
	struct shared *shared = arg;
	int kvm = open("/dev/kvm", O_RDWR);

	while (!shared->stop) {
		int vm = ioctl(kvm, 0xae01, 0);	/* KVM_CREATE_VM */

		if (vm >= 0)
			close(vm);
		else
			sched_yield();
	}
	close(kvm);
	return NULL;
}

TEST_F_TIMEOUT(race, remap_and_vm_creation, 600)
{
	pid_t pid, creator;

	/* the process that creates them has the attachment, too */
	creator = start_process(create_vms, self->shared);
	ASSERT_LT(0, creator);
	pid = start_lender(self->shared, self->asfd, lend_and_remap);
	ASSERT_LT(0, pid);
	while (go_on(self->shared, self->until))
		sleep_ms(10);
	self->shared->stop = true;
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
	EXPECT_EQ(creator, waitpid(creator, NULL, 0));
}

/* The owner of the space maps and unmaps, and the lender takes back. */
static void *lend_and_revoke(void *arg)
{
	struct shared *shared = arg;
	int fd;

	lend_and_stamp(arg);
	fd = shared->fd;
	while (shared->fd == fd)
		sched_yield();
	if (as_lend_revoke(fd))
		shared->odd++;
	shared->fd = fd;
	while (pause())
		;
	return NULL;
}

TEST_F_TIMEOUT(race, revoke_and_changes, 600)
{
	while (go_on(self->shared, self->until)) {
		pid_t pid = start_lender(self->shared, self->asfd, lend_and_revoke);
		int fd = self->shared->fd;

		ASSERT_LT(0, pid);
		peek(self->mem + PAGE);
		__atomic_store_n(&self->shared->fd, 0, __ATOMIC_RELEASE);
		do {
			as_protect(self->asfd, PAGE, PAGE, PROT_READ);
			as_protect(self->asfd, PAGE, PAGE, RW);
			as_unmap(self->asfd, 2 * PAGE, PAGE);
		} while (!__atomic_load_n(&self->shared->fd, __ATOMIC_ACQUIRE));
		ASSERT_EQ(fd, self->shared->fd);
		/* nothing is left when the call has returned */
		ASSERT_EQ(0, check_gone(self->mem));
		__atomic_store_n(&self->shared->floor, self->shared->stamp, __ATOMIC_RELEASE);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		self->shared->rounds++;
	}
}

/* One process: a range of what it lends is now an attachment of the lend, now memory. */
struct flip {
	int asfd;
	struct shared *shared;
};

static void *flip_forever(void *arg)
{
	struct flip *f = arg;
	unsigned int seed = 1;

	while (!f->shared->stop) {
		unsigned long page = rand_r(&seed) % PAGES;
		char *at = AREA + page * PAGE;
		bool window = rand_r(&seed) % 2;
		void *mem = mmap(at, PAGE, RW,
				 MAP_FIXED | (window ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
				 window ? f->asfd : -1, window ? (page + 1) % PAGES * PAGE : 0);

		if (mem != at)
			f->shared->odd++;
		f->shared->rounds++;
	}
	return NULL;
}

TEST_F_TIMEOUT(race, flips_between_attachment_and_memory, 600)
{
	struct flip f = { self->asfd, self->shared };
	struct access a = { self->shared, AREA };
	pthread_t flipper, reader;
	int fd = lend_area();

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, LEN, RW, 0));
	ASSERT_EQ(0, pthread_create(&flipper, NULL, flip_forever, &f));
	ASSERT_EQ(0, pthread_create(&reader, NULL, access_forever, &a));
	while (go_on(self->shared, self->until))
		peek(self->mem + self->shared->rounds % PAGES * PAGE);
	self->shared->stop = true;
	pthread_join(flipper, NULL);
	pthread_join(reader, NULL);
	munmap(AREA, LEN);
	close(fd);
}

static void *clear_soft_dirty(void *arg)
{
	struct shared *shared = arg;
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	while (!shared->stop)
		if (write(fd, "4", 1) != 1)
			shared->odd++;
	close(fd);
	return NULL;
}

static void *protect_what_was_written(void *arg)
{
	struct shared *shared = arg;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct page_region regions[4];

	while (!shared->stop) {
		struct pm_scan_arg scan = {
			.size = sizeof(scan),
			.flags = PM_SCAN_WP_MATCHING,
			.start = 0,
			.end = (uintptr_t)AREA + LEN,
			.vec = (uintptr_t)regions,
			.vec_len = ARRAY_SIZE(regions),
			.category_mask = PAGE_IS_WRITTEN,
			.return_mask = PAGE_IS_WRITTEN,
		};

		if (ioctl(fd, PAGEMAP_SCAN, &scan) < 0)
			shared->odd++;
	}
	close(fd);
	return NULL;
}

/* Both invalidate all there is from address 0 on, as who checkpoints a process does. */
TEST_F_TIMEOUT(race, lend_and_tracking_of_writes, 600)
{
	pthread_t clears, protects;

	ASSERT_NE(MAP_FAILED, mmap(AREA, LEN, RW,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	ASSERT_EQ(0, pthread_create(&clears, NULL, clear_soft_dirty, self->shared));
	ASSERT_EQ(0, pthread_create(&protects, NULL, protect_what_was_written, self->shared));
	while (go_on(self->shared, self->until)) {
		int fd = as_lend(AREA, LEN, RW);

		ASSERT_LE(0, fd);
		close(fd);
		self->shared->rounds++;
	}
	self->shared->stop = true;
	pthread_join(clears, NULL);
	pthread_join(protects, NULL);
	munmap(AREA, LEN);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/* The order of ends does not matter: fds, files, processes, the creator, the module. */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(space)
{
	struct space s;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(space)
{
	space_free(&self->s);
}

TEST_F(space, attachment_outlives_fds)
{
	EXPECT_EQ('a', peek(self->s.mem));
	ASSERT_EQ(0, close(self->s.a));
	ASSERT_EQ(0, close(self->s.asfd));
	EXPECT_EQ('a', peek(self->s.mem));
	/* including a page that was never accessed before */
	EXPECT_EQ('b', peek(self->s.mem + PAGE));
	EXPECT_EQ(0, poke(self->s.mem + 2 * PAGE, '!'));
	EXPECT_EQ('!', peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + FILE_LEN));
}

TEST_F(space, view_outlives_asfd)
{
	int view = as_view(self->s.asfd, PAGE, 2 * PAGE, RW);
	char *mem;

	ASSERT_LE(0, view);
	ASSERT_EQ(0, munmap(self->s.mem, SPACE_LEN));
	self->s.mem = NULL;
	ASSERT_EQ(0, close(self->s.asfd));
	mem = attach(view, 0, 2 * PAGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('b', peek(mem));
	EXPECT_EQ(0, poke(mem + PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 2 * PAGE));
	/* and its attachment outlives the view */
	ASSERT_EQ(0, close(view));
	EXPECT_EQ('!', peek(mem + PAGE));
}

TEST_F(space, mapped_file_may_be_closed_and_deleted)
{
	char path[] = "/tmp/address_space.XXXXXX";
	int file = mkstemp(path);

	ASSERT_LE(0, file);
	ASSERT_EQ(0, fill_pages(file, 2, 'x'));
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, file, 0, 2 * PAGE, RW, 0));
	ASSERT_EQ(0, close(file));
	ASSERT_EQ(0, unlink(path));
	EXPECT_EQ('x', peek(self->s.mem + FILE_LEN));
	EXPECT_EQ(0, poke(self->s.mem + FILE_LEN + PAGE, '!'));
	EXPECT_EQ('!', peek(self->s.mem + FILE_LEN + PAGE));
}

static long create_and_map(void *arg)
{
	int file = memfd_pages("of a process that is gone", 2, 'p');
	int asfd = as_create(SPACE_LEN);

	(void)arg;
	if (file < 0 || asfd < 0 || as_map(asfd, 0, file, 0, 2 * PAGE, RW, 0))
		return -EIO;
	return asfd;
}

/* The test receives the asfd from a child that exits before it is ever used. */
TEST_F(space, creator_may_exit)
{
	struct agent creator;
	int pidfd, asfd, number;
	char *mem;

	ASSERT_EQ(0, agent_start(&creator));
	number = agent_call(&creator, create_and_map, NULL);
	ASSERT_LE(0, number);
	pidfd = syscall(SYS_pidfd_open, creator.pid, 0);
	ASSERT_LE(0, pidfd);
	asfd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, agent_stop(&creator));
	mem = attach(asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('p', peek(mem));
	/* files can still be mapped, and their pages read in */
	ASSERT_EQ(0, as_map(asfd, FILE_LEN, self->s.b, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('A', peek(mem + FILE_LEN));
	ASSERT_EQ(0, as_unmap(asfd, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ('q', peek(mem + PAGE));
}

TEST_F(space, close_releases_files)
{
	char path[64], *mem;
	int asfd, file = own_tmpfs_file(path, 2, 'x');

	ASSERT_LE(0, file);
	asfd = as_create(SPACE_LEN);
	mem = attach(asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, 2 * PAGE, RW, 0));
	ASSERT_EQ('x', peek(mem));
	ASSERT_EQ(0, close(file));
	ASSERT_EQ(0, close(asfd));
	EXPECT_EQ(-EBUSY, umount_within(path, 0));
	ASSERT_EQ(0, munmap(mem, SPACE_LEN));
	EXPECT_EQ(0, umount_within(path, WORKER_MS));
}

TEST_F(space, unmap_releases_file)
{
	char path[64];
	int file = own_tmpfs_file(path, 2, 'x');

	ASSERT_LE(0, file);
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, file, 0, 2 * PAGE, RW, 0));
	ASSERT_EQ('x', peek(self->s.mem + FILE_LEN));
	ASSERT_EQ(0, close(file));
	EXPECT_EQ(-EBUSY, umount_within(path, 0));
	ASSERT_EQ(0, as_unmap(self->s.asfd, FILE_LEN, 2 * PAGE));
	EXPECT_EQ(0, umount_within(path, WORKER_MS));
	EXPECT_EQ('a', peek(self->s.mem));
}

TEST_F(space, unmap_with_release_lets_go_of_the_file_at_once)
{
	unsigned int round;
	char path[64];
	int file, other;

	ASSERT_EQ(0, own_mounts());
	for (round = 0; round < 50; round++) {
		ASSERT_EQ(0, mount_tmpfs(path, "size=1m"));
		file = file_pages(path, 2, 'x');
		other = file_pages(path, 2, 'y');
		ASSERT_LE(0, file);
		ASSERT_LE(0, other);
		ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, file, 0, 2 * PAGE, RW, 0));
		ASSERT_EQ(0, as_map(self->s.asfd, 2 * FILE_LEN, other, 0, PAGE, RW, 0));
		ASSERT_EQ('x', peek(self->s.mem + FILE_LEN));
		ASSERT_EQ(0, close(other));
		ASSERT_EQ(0, as_unmap_flags(self->s.asfd, 2 * FILE_LEN, PAGE,
					    ADDRESS_SPACE_MUNMAP_RELEASE));
		/* but not of what is mapped */
		ASSERT_EQ(0, as_unmap_flags(self->s.asfd, FILE_LEN, PAGE,
					    ADDRESS_SPACE_MUNMAP_RELEASE));
		ASSERT_EQ('y', peek(self->s.mem + FILE_LEN + PAGE));
		ASSERT_EQ(-EBUSY, umount_within(path, 0));
		ASSERT_EQ(0, as_unmap_flags(self->s.asfd, 0, SPACE_LEN,
					    ADDRESS_SPACE_MUNMAP_RELEASE));
		ASSERT_EQ(0, close(file));
		ASSERT_EQ(0, umount_within(path, 0)) TH_LOG("round %u", round);
	}
}

/*
 * The worker that comes a tenth of a second after an unmap takes what it finds unused: not
 * what a call is about to let go of.
 */
TEST_F(space, release_lets_go_at_once_while_the_worker_is_at_it)
{
	enum { FILES = 150, ROUNDS = 8 };
	int file, asfd = as_create((FILES + 1) * PAGE);
	char path[64], others[64];
	unsigned int round, i;

	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, own_mounts());
	ASSERT_EQ(0, mount_tmpfs(others, "size=4m"));
	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, mount_tmpfs(path, "size=1m"));
		for (i = 0; i <= FILES; i++) {
			file = file_pages(i ? others : path, 1, 'x');
			ASSERT_LE(0, file);
			ASSERT_EQ(0, as_map(asfd, i * PAGE, file, 0, PAGE, RW, 0));
			ASSERT_EQ(0, close(file));
		}
		ASSERT_EQ(0, as_unmap(asfd, PAGE, FILES * PAGE));
		usleep((100 + round % 5) * 1000);
		ASSERT_EQ(0, as_unmap_flags(asfd, 0, PAGE, ADDRESS_SPACE_MUNMAP_RELEASE));
		ASSERT_EQ(0, umount_within(path, 0)) TH_LOG("round %u", round);
	}
	EXPECT_EQ(0, umount_within(others, WORKER_MS));
}

/* A memfd can be sealed unless it is mapped for writing. */
TEST_F(space, file_can_be_sealed_after_unmap_only)
{
	uint64_t until;
	int ret;

	EXPECT_EQ(0, poke(self->s.mem, '!'));
	EXPECT_EQ(-1, fcntl(self->s.a, F_ADD_SEALS, F_SEAL_WRITE));
	EXPECT_EQ(EBUSY, errno);
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	until = now_ms() + WORKER_MS;
	do {
		ret = fcntl(self->s.a, F_ADD_SEALS, F_SEAL_WRITE);
		sleep_ms(10);
	} while (ret && now_ms() < until);
	EXPECT_EQ(0, ret);
	/*
	 * the seal then applies to the space as well, which had the file mapped
	 * before
	 */
	EXPECT_EQ(-EPERM, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ('!', peek(self->s.mem));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem, '?'));
}

static void *touch_forever(void *arg)
{
	struct space *s = arg;
	unsigned int i;

	for (;;) {
		char *mem = attach(s->asfd, 0, SPACE_LEN, RW);

		for (i = 0; i < SPACE_PAGES; i++)
			if (peek(mem + i * PAGE) >= 0)
				poke(mem + i * PAGE, 'a');
		munmap(mem, SPACE_LEN);
	}
	return NULL;
}

static pid_t fork_touchers(struct space *s)
{
	pid_t pid = fork();
	pthread_t thread;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthread_create(&thread, NULL, touch_forever, s);
	pthread_create(&thread, NULL, touch_forever, s);
	touch_forever(s);
	_exit(1);
}

TEST_F(space, process_may_die_during_fault)
{
	unsigned int round;

	for (round = 0; round < 40; round++) {
		pid_t pid = fork_touchers(&self->s);
		int status;

		ASSERT_LT(0, pid);
		/* sometimes what the process accesses is unmapped at the same time */
		while (round % 4 == 0 && rand() % 16) {
			ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
			ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0,
					    FILE_LEN, RW, 0));
		}
		sleep_ms(rand() % 20);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(1, WIFSIGNALED(status));
	}
	EXPECT_EQ('a', peek(self->s.mem));
	/* no dead process is still counted */
	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "attachments"));
}

TEST_F(space, fd_exhaustion_leaves_nothing_behind)
{
	struct rlimit limit = { 0, 0 }, old;
	struct address_space_create arg = {
		.size = sizeof(arg), .length = PAGE,
	};
	int dev = open("/dev/address_space", O_RDWR);
	char before[32], after[32];

	ASSERT_LE(0, dev);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	limit.rlim_max = old.rlim_max;
	ASSERT_EQ(0, read_text("/sys/module/address_space/refcnt", before,
			       sizeof(before)));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(-EMFILE, as_ioctl(dev, ADDRESS_SPACE_CREATE, &arg));
	EXPECT_EQ(-EMFILE, as_view(self->s.asfd, 0, PAGE, PROT_READ));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	ASSERT_EQ(0, read_text("/sys/module/address_space/refcnt", after,
			       sizeof(after)));
	EXPECT_STREQ(before, after);
	EXPECT_LE(0, as_ioctl(dev, ADDRESS_SPACE_CREATE, &arg));
}

TEST_F(space, create_and_close_leak_no_module_reference)
{
	char before[32], after[32];
	unsigned int i;

	ASSERT_EQ(0, read_text("/sys/module/address_space/refcnt", before,
			       sizeof(before)));
	for (i = 0; i < 200; i++) {
		int asfd = as_create(SPACE_LEN);
		char *mem = attach(asfd, 0, SPACE_LEN, RW);

		ASSERT_NE(NULL, mem);
		if (i % 4)
			ASSERT_EQ(0, as_map(asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		if (i % 2)
			ASSERT_EQ('b', peek(mem + PAGE));
		if (i % 3)
			ASSERT_EQ(0, close(asfd));
		ASSERT_EQ(0, munmap(mem, SPACE_LEN));
		if (i % 3 == 0)
			ASSERT_EQ(0, close(asfd));
	}
	ASSERT_EQ(0, read_text("/sys/module/address_space/refcnt", after,
			       sizeof(after)));
	EXPECT_STREQ(before, after);
}

#define MAKERS		8
#define MADE		12

struct maker {
	pthread_t thread;
	int first;	/* what its first file begins with */
	int asfd[MADE], file[MADE];
	char *mem[MADE];
	bool failed;
};

static bool shows_its_files(const struct maker *maker)
{
	for (unsigned int i = 0; i < MADE; i++)
		if (peek(maker->mem[i]) != maker->first + (int)i ||
		    peek(maker->mem[i] + PAGE) != maker->first + (int)i + 1)
			return false;
	return true;
}

static void *make_spaces(void *arg)
{
	struct maker *maker = arg;

	for (unsigned int i = 0; i < MADE; i++) {
		maker->asfd[i] = as_create(2 * PAGE);
		maker->file[i] = memfd_pages("made", 2, maker->first + i);
		maker->mem[i] = attach(maker->asfd[i], 0, 2 * PAGE, RW);
		if (!maker->mem[i] || 
		    as_map(maker->asfd[i], 0, maker->file[i], 0, 2 * PAGE, RW, 0)) {
			maker->failed = true;
			return NULL;
		}
	}
	maker->failed = !shows_its_files(maker);
	return NULL;
}

/* More at once than the module makes at a time. One that had the mm of another would lose it. */
TEST(spaces_made_at_once_are_different_ones)
{
	static struct maker makers[MAKERS];

	for (unsigned int i = 0; i < MAKERS; i++) {
		makers[i].first = 1 + i * MADE;
		ASSERT_EQ(0, pthread_create(&makers[i].thread, NULL, make_spaces, &makers[i]));
	}
	for (unsigned int i = 0; i < MAKERS; i++)
		ASSERT_EQ(0, pthread_join(makers[i].thread, NULL));
	for (unsigned int i = 0; i < MAKERS; i++) {
		ASSERT_FALSE(makers[i].failed);
		/* the others of every second maker go */
		if (i % 2)
			continue;
		for (unsigned int j = 0; j < MADE; j++) {
			ASSERT_EQ(0, munmap(makers[i].mem[j], 2 * PAGE));
			ASSERT_EQ(0, close(makers[i].asfd[j]));
		}
	}
	for (unsigned int i = 1; i < MAKERS; i += 2) {
		for (unsigned int j = 0; j < MADE; j++)
			ASSERT_EQ(0, as_unmap(makers[i].asfd[j], 0, 2 * PAGE));
		for (unsigned int j = 0; j < MADE; j++)
			ASSERT_EQ(0, as_map(makers[i].asfd[j], 0, makers[i].file[j], 0, 2 * PAGE,
					    RW, 0));
		ASSERT_TRUE(shows_its_files(&makers[i]));
	}
}

static void nothing(int sig __attribute__((unused)))
{
}

/* 0, or -errno: handles a signal every so many microseconds; 0 for no more */
static int signals_every(unsigned int us, int flags)
{
	const struct sigaction action = { .sa_handler = nothing, .sa_flags = flags };
	const struct itimerval timer = { .it_interval.tv_usec = us, .it_value.tv_usec = us };

	return sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &timer, NULL) ?
		-errno : 0;
}

/* A helper is waited for meanwhile, longer than it takes until the next signal. */
TEST(space_is_made_while_signals_come)
{
	int fd;

	ASSERT_EQ(0, signals_every(500, 0));
	for (unsigned int i = 0; i < 50; i++) {
		fd = as_create(PAGE);
		ASSERT_LE(0, fd);
		close(fd);
	}
	ASSERT_EQ(0, signals_every(0, 0));
}

static long lend_first(void *arg)
{
	int fd, ret = signals_every(500, SA_RESTART);

	for (unsigned int i = 0; !ret && i < 50; i++) {
		pid_t pid = fork();

		if (!pid) {
			/* timers are not inherited */
			ret = signals_every(500, SA_RESTART);
			fd = ret ?: as_lend(arg, PAGE, RW);
			_exit(fd < 0 ? -fd : 0);
		}
		while (waitpid(pid, &ret, 0) < 0 && errno == EINTR)
			;
		ret = -WEXITSTATUS(ret);
	}
	signals_every(0, 0);
	return ret;
}

TEST(first_lend_is_restarted_when_signals_come)
{
	char *mem = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)mem);
	EXPECT_EQ(0, lend_first(mem));
}

static int try_rmmod(void)
{
	return syscall(SYS_delete_module, "address_space", O_NONBLOCK) ? -errno : 0;
}

TEST_F(space, module_stays_while_anything_is_open)
{
	int view = as_view(self->s.asfd, 0, PAGE, PROT_READ);
	char *mem;
	int dev;

	ASSERT_LE(0, view);
	EXPECT_EQ(-EWOULDBLOCK, try_rmmod());
	/* a view alone */
	ASSERT_EQ(0, munmap(self->s.mem, SPACE_LEN));
	self->s.mem = NULL;
	ASSERT_EQ(0, close(self->s.asfd));
	EXPECT_EQ(-EWOULDBLOCK, try_rmmod());
	/* an attachment alone */
	mem = attach(view, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, close(view));
	EXPECT_EQ(-EWOULDBLOCK, try_rmmod());
	EXPECT_EQ('a', peek(mem));
	/* the device alone */
	dev = open("/dev/address_space", O_RDWR);
	ASSERT_LE(0, dev);
	ASSERT_EQ(0, munmap(mem, PAGE));
	EXPECT_EQ(-EWOULDBLOCK, try_rmmod());
}

TEST_HARNESS_MAIN

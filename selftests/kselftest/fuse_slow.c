// SPDX-License-Identifier: GPL-2.0
/*
 * A slow file, here one of a FUSE server that answers on request. Only the thread
 * that accesses it waits for it: not other memory of the same process, not the owner
 * of the space, and not a signal that kills.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"
#include "lib/slow_access.h"
#include "lib/slow_fs.h"

#define FAST		(SLOW_LEN / PAGE)	/* the page where a memfd begins */
/* Far shorter than the server takes, and long enough for an emulated debug kernel. */
#define SOON_MS		8000

FIXTURE(slow_file)
{
	struct slow_fs fs;
	struct slow_access *touch;
	struct agent toucher;
	int asfd, file, fast;
	char *mem;
};

FIXTURE_SETUP(slow_file)
{
	int ret = slow_fs_start(&self->fs);

	if (ret == -ENODEV)
		SKIP(return, "no /dev/fuse");
	ASSERT_EQ(0, ret);
	self->file = slow_fs_open(&self->fs, O_RDWR);
	ASSERT_LE(0, self->file);
	self->touch = slow_access_new();
	ASSERT_NE(NULL, self->touch);
	self->fast = memfd_pages("fast", 16, 'A');
	self->asfd = as_create(SPACE_LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, SLOW_LEN, PROT_READ, 0));
	ASSERT_EQ(0, as_map(self->asfd, SLOW_LEN, self->fast, 0, 16 * PAGE, RW, 0));
	self->mem = attach(self->asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, agent_start(&self->toucher));
	self->fs.gate->closed = true;
}

FIXTURE_TEARDOWN(slow_file)
{
	self->fs.gate->closed = false;
	if (self->toucher.pid)
		agent_stop(&self->toucher);
	slow_fs_stop(&self->fs);
	/* the test released the server, not the timeout */
	EXPECT_EQ(0, self->fs.gate->given_up);
}

/* The thread waits for the server, which has received the request. */
#define BEGIN_TO_TOUCH(where) do {					\
	ASSERT_EQ(0, slow_access_begin(self->touch, &self->toucher, where)); \
	ASSERT_EQ(0, slow_fs_wait(&self->fs));				\
	ASSERT_EQ(false, self->touch->ended);				\
} while (0)

#define END_OF_THE_WAIT(expected) do {					\
	/* the server was not released during all of this */		\
	ASSERT_EQ(false, self->touch->ended);				\
	self->fs.gate->closed = false;					\
	ASSERT_EQ(0, slow_access_wait(self->touch));			\
	EXPECT_EQ(expected, self->touch->value);			\
} while (0)

TEST_F(slow_file, is_read_when_the_server_answers)
{
	BEGIN_TO_TOUCH(self->mem + 3 * PAGE);
	END_OF_THE_WAIT('d');
	EXPECT_EQ('d', peek(self->mem + 3 * PAGE));
	EXPECT_EQ('p', peek(self->mem + 15 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
}

static long map_and_fault(void *arg)
{
	unsigned int i, j;

	(void)arg;
	for (i = 0; i < 100; i++) {
		char *map = mmap(NULL, 16 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0);

		if (map == MAP_FAILED)
			return -errno;
		for (j = 0; j < 16; j++)
			map[j * PAGE] = j;
		if (mprotect(map, PAGE, PROT_READ) || munmap(map, 16 * PAGE))
			return -errno;
	}
	return 0;
}

static long fork_and_wait(void *arg)
{
	pid_t pid = fork();
	int status;

	(void)arg;
	if (pid == 0)
		_exit(3);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WEXITSTATUS(status);
}

TEST_F(slow_file, does_not_block_other_memory_of_the_process)
{
	uint64_t start;

	BEGIN_TO_TOUCH(self->mem);
	start = now_ms();
	EXPECT_EQ(0, agent_call(&self->toucher, map_and_fault, NULL));
	EXPECT_EQ(3, agent_call(&self->toucher, fork_and_wait, NULL));
	EXPECT_GT(start + SOON_MS, now_ms());
	END_OF_THE_WAIT('a');
}

TEST_F(slow_file, does_not_block_other_segments)
{
	uint64_t start;

	BEGIN_TO_TOUCH(self->mem);
	start = now_ms();
	/* for the same process, and for another one that never accessed it */
	EXPECT_EQ('A', agent_peek(&self->toucher, self->mem + FAST * PAGE));
	EXPECT_EQ(0, agent_poke(&self->toucher, self->mem + (FAST + 1) * PAGE, '!'));
	EXPECT_EQ('C', peek(self->mem + (FAST + 2) * PAGE));
	EXPECT_EQ(0, poke(self->mem + (FAST + 3) * PAGE, '!'));
	EXPECT_GT(start + SOON_MS, now_ms());
	END_OF_THE_WAIT('a');
}

TEST_F(slow_file, does_not_block_the_owner)
{
	int other = memfd_pages("other", 4, '0');
	uint64_t start;

	BEGIN_TO_TOUCH(self->mem);
	start = now_ms();
	/* a file that was never mapped, so that a new segment is needed */
	EXPECT_EQ(0, as_map(self->asfd, 40 * PAGE, other, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('1', peek(self->mem + 41 * PAGE));
	EXPECT_EQ('2', agent_peek(&self->toucher, self->mem + 42 * PAGE));
	EXPECT_EQ(0, as_unmap(self->asfd, 40 * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 40 * PAGE));
	EXPECT_EQ(-SIGBUS, agent_peek(&self->toucher, self->mem + 40 * PAGE));
	/* hole punching calls the notifier */
	EXPECT_EQ(0, fallocate(other, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       PAGE, PAGE));
	EXPECT_EQ(0, peek(self->mem + 41 * PAGE));
	EXPECT_GT(start + SOON_MS, now_ms());
	END_OF_THE_WAIT('a');
}

/* What has nothing to do with the slow file goes on, for the owner and for others. */
static int all_else_goes_on(int asfd, char *mem, struct agent *other)
{
	int file = memfd_pages("other", 4, '0');
	uint64_t start = now_ms();

	/* never mapped before: the arena maps it */
	if (as_map(asfd, 40 * PAGE, file, 0, 4 * PAGE, RW, 0))
		return -1;
	if (peek(mem + 41 * PAGE) != '1' || agent_peek(other, mem + 42 * PAGE) != '2')
		return -2;
	/* in memory, and not touched before */
	if (peek(mem + (FAST + 5) * PAGE) != 'F' || poke(mem + (FAST + 6) * PAGE, '!'))
		return -3;
	if (as_unmap(asfd, 40 * PAGE, 4 * PAGE) || peek(mem + 41 * PAGE) != -SIGBUS)
		return -4;
	close(file);
	return now_ms() - start < SOON_MS ? 0 : -5;
}

static int killed_within(struct agent *a, unsigned int ms)
{
	uint64_t until = now_ms() + ms;
	int status;

	if (kill(a->pid, SIGKILL))
		return -errno;
	while (waitpid(a->pid, &status, WNOHANG) == 0) {
		if (now_ms() > until)
			return -ETIMEDOUT;
		sleep_ms(5);
	}
	a->pid = 0;
	return 0;
}

FIXTURE(waiting)
{
	FIXTURE_DATA(slow_file) slow;
	struct agent other;
	char *at;
};

FIXTURE_VARIANT(waiting)
{
	enum access_way way;
	int value;
};

FIXTURE_VARIANT_ADD(waiting, by_reading) { BY_READING, 'd' };
FIXTURE_VARIANT_ADD(waiting, by_proc_mem) { BY_PROC_MEM, 'd' };
FIXTURE_VARIANT_ADD(waiting, by_a_futex_operation) { BY_FUTEX, 'd' };
/* of a page that is being written back */
FIXTURE_VARIANT_ADD(waiting, by_writing) { BY_WRITING, 0 };

FIXTURE_SETUP(waiting)
{
	FIXTURE_DATA(slow_file) *slow = &self->slow;

	slow_file_setup(_metadata, slow, NULL);
	slow->fs.gate->closed = false;
	self->at = slow->mem + 3 * PAGE;
	ASSERT_EQ(0, as_map(slow->asfd, 0, slow->file, 0, SLOW_LEN, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, agent_start(&self->other));
	slow->touch->way = variant->way;
	if (variant->way == BY_WRITING) {
		ASSERT_EQ(0, poke(self->at, 'v'));
		slow->fs.gate->closed = true;
		/* else the page would be written before the writeback */
		ASSERT_EQ(0, slow_fs_begin_writeback(&slow->fs, slow->file));
	}
	slow->fs.gate->closed = true;
	ASSERT_EQ(0, slow_access_begin(slow->touch, &slow->toucher, self->at));
	ASSERT_EQ(0, slow_fs_wait(&slow->fs));
	/* what waits for the writeback does not tell */
	sleep_ms(200);
	ASSERT_EQ(false, slow->touch->ended);
}

FIXTURE_TEARDOWN(waiting)
{
	agent_stop(&self->other);
	slow_file_teardown(_metadata, &self->slow, NULL);
}

TEST_F(waiting, blocks_nobody_else)
{
	FIXTURE_DATA(slow_file) *slow = &self->slow;

	EXPECT_EQ(0, all_else_goes_on(slow->asfd, slow->mem, &self->other));
	EXPECT_EQ(0, as_unmap(slow->asfd, FAST * PAGE, PAGE));
	ASSERT_EQ(false, slow->touch->ended);
	slow->fs.gate->closed = false;
	ASSERT_EQ(0, slow_access_wait(slow->touch));
	EXPECT_EQ(variant->value, slow->touch->value);
}

TEST_F(waiting, blocks_nobody_else_when_unmapped_meanwhile)
{
	FIXTURE_DATA(slow_file) *slow = &self->slow;

	ASSERT_EQ(0, as_unmap(slow->asfd, 0, SLOW_LEN));
	/* until the segment would be ended */
	sleep_ms(300);
	EXPECT_EQ(0, all_else_goes_on(slow->asfd, slow->mem, &self->other));
	ASSERT_EQ(false, slow->touch->ended);
	slow->fs.gate->closed = false;
	ASSERT_EQ(0, slow_access_wait(slow->touch));
	EXPECT_GT(0, slow->touch->value);
}

TEST_F(waiting, does_not_delay_a_kill)
{
	FIXTURE_DATA(slow_file) *slow = &self->slow;

	/* the file system itself waits for the end of a writeback as long as that takes */
	if (variant->way == BY_WRITING)
		SKIP(return, "FUSE waits");
	EXPECT_EQ(0, killed_within(&slow->toucher, SOON_MS));
	EXPECT_EQ(0, all_else_goes_on(slow->asfd, slow->mem, &self->other));
}

#define WAITERS	1100	/* more than a work queue runs at a time */

static struct { int asfd, file; } waiters;

static void *map_slow(void *arg)
{
	return (void *)(long)as_map(waiters.asfd, (64 + (uintptr_t)arg) * PAGE, waiters.file, 0,
				    PAGE, PROT_READ, 0);
}

/*
 * Where the file system waits in munmap() until what is dirty has been written, nothing else of
 * it can be mapped: however many calls try, those for other files go on. (On the debug
 * kernel, emulated beside something else, a thousand threads take two minutes.)
 */
TEST_F_TIMEOUT(slow_file, does_not_block_others_however_many_wait, 360)
{
	struct agent owner = { 0 };
	pthread_t threads[WAITERS];
	pthread_attr_t attr;
	long i, failed = 0;
	uint64_t start;
	void *ret;
	int other, file = memfd_pages("other", 4, '0');

	self->fs.gate->closed = false;
	ASSERT_EQ(0, as_map(self->asfd, 60 * PAGE, self->file, 0, PAGE, RW, 0));
	waiters.file = slow_fs_open(&self->fs, O_RDONLY);
	waiters.asfd = as_create(4096 * PAGE);
	ASSERT_LE(0, waiters.asfd);
	ASSERT_EQ(0, as_map(waiters.asfd, 0, self->file, 0, SLOW_LEN, RW, 0));
	ASSERT_EQ(0, as_register(waiters.asfd, file, 0, 4 * PAGE, RW, 0));
	ASSERT_EQ(0, poke(self->mem + 60 * PAGE, 'v'));
	self->fs.gate->closed = true;
	ASSERT_EQ(0, slow_fs_begin_writeback(&self->fs, self->file));
	ASSERT_EQ(0, as_unmap(waiters.asfd, 0, SLOW_LEN));
	/* until it is unmapped from the arena */
	sleep_ms(400);

	/*
	 * A caller that waits for the file system can be killed, and what it asked for is undone.
	 * (It shares the files: to close one of FUSE waits for the server as well.)
	 */
	owner.pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	ASSERT_LE(0, owner.pid);
	if (owner.pid == 0) {
		map_slow((void *)(WAITERS + 1L));
		_exit(0);
	}
	sleep_ms(200);
	EXPECT_EQ(0, killed_within(&owner, SOON_MS));

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (i = 0; i < WAITERS; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], &attr, map_slow, (void *)i));
	sleep_ms(200);
	start = now_ms();
	/* other files of that space, and other spaces */
	EXPECT_EQ(0, as_map(waiters.asfd, 0, file, 0, PAGE, RW, 0));
	other = as_create(SPACE_LEN);
	ASSERT_LE(0, other);
	EXPECT_EQ(0, as_map(other, 0, file, 0, 4 * PAGE, RW, 0));
	EXPECT_EQ('1', peek(attach(other, PAGE, PAGE, RW)));
	EXPECT_EQ(0, all_else_goes_on(self->asfd, self->mem, &self->toucher));
	EXPECT_GT(start + SOON_MS, now_ms());
	self->fs.gate->closed = false;
	for (i = 0; i < WAITERS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &ret));
		failed += ret != NULL;
	}
	EXPECT_EQ(0, failed);
	EXPECT_EQ(WAITERS + 1, fdinfo_value(waiters.asfd, "mappings"));
}

/* How many kernel workers wait for FUSE, and how many of them are not the module's. */
static int workers_in_fuse(int *foreign)
{
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	int count = 0;

	*foreign = 0;
	while (proc && (entry = readdir(proc))) {
		char path[300], comm[80] = "", stack[4096] = "";

		if (atoi(entry->d_name) <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		read_text(path, comm, sizeof(comm));
		if (strncmp(comm, "kworker/", 8))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stack", entry->d_name);
		read_text(path, stack, sizeof(stack));
		if (!strstr(stack, "fuse_vma_close") && !strstr(stack, "write_inode_now"))
			continue;
		count++;
		*foreign += !strstr(comm, "address_space_f");
	}
	closedir(proc);
	return count;
}

/* Memory that goes with the last user of a space: a worker waits, on a queue of the module's. */
TEST_F(slow_file, holds_up_no_queue_of_the_kernel_when_its_space_goes)
{
	int space, foreign;
	uint64_t until;

	self->fs.gate->closed = false;
	ASSERT_EQ(0, as_map(self->asfd, 60 * PAGE, self->file, 0, PAGE, RW, 0));
	ASSERT_EQ(0, poke(self->mem + 60 * PAGE, 'v'));
	self->fs.gate->closed = true;
	ASSERT_EQ(0, slow_fs_begin_writeback(&self->fs, self->file));
	space = as_create(SPACE_LEN);
	ASSERT_LE(0, space);
	ASSERT_EQ(0, as_map(space, 0, self->file, 0, SLOW_LEN, RW, 0));
	ASSERT_EQ(0, close(space));
	until = now_ms() + SOON_MS;
	while (workers_in_fuse(&foreign) == 0 && now_ms() < until)
		sleep_ms(20);
	EXPECT_LT(0, workers_in_fuse(&foreign));
	EXPECT_EQ(0, foreign);
	EXPECT_EQ(0, all_else_goes_on(self->asfd, self->mem, &self->toucher));
	self->fs.gate->closed = false;
	for (until = now_ms() + SOON_MS; workers_in_fuse(&foreign) && now_ms() < until;)
		sleep_ms(20);
	EXPECT_EQ(0, workers_in_fuse(&foreign));
}

TEST_F(slow_file, can_be_unmapped_during_a_fault)
{
	uint64_t start;

	BEGIN_TO_TOUCH(self->mem);
	start = now_ms();
	EXPECT_EQ(0, as_unmap(self->asfd, 0, SLOW_LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_GT(start + SOON_MS, now_ms());
	/* an answer that comes too late is not shown */
	END_OF_THE_WAIT(-SIGBUS);
}

TEST_F(slow_file, can_be_replaced_during_a_fault)
{
	uint64_t start;

	BEGIN_TO_TOUCH(self->mem);
	start = now_ms();
	EXPECT_EQ(0, as_map(self->asfd, 0, self->fast, 0, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('A', peek(self->mem));
	EXPECT_EQ('A', agent_peek(&self->toucher, self->mem));
	EXPECT_GT(start + SOON_MS, now_ms());
	END_OF_THE_WAIT('A');
}

TEST_F(slow_file, does_not_delay_a_kill)
{
	BEGIN_TO_TOUCH(self->mem);
	EXPECT_EQ(0, killed_within(&self->toucher, SOON_MS));
	EXPECT_LT(0, self->fs.gate->waiting);
	EXPECT_EQ(1, fdinfo_value(self->asfd, "attachments"));
}

static long populate(void *arg)
{
	FIXTURE_DATA(slow_file) *self = arg;

	return as_map(self->asfd, 48 * PAGE, self->file, 0, SLOW_LEN, PROT_READ,
		      ADDRESS_SPACE_MAP_POPULATE);
}

static void *populate_thread(void *arg)
{
	populate(arg);
	return NULL;
}

static long begin_to_populate(void *arg)
{
	pthread_t thread;

	return -pthread_create(&thread, NULL, populate_thread, arg);
}

TEST_F(slow_file, does_not_delay_a_kill_during_populate)
{
	uint64_t start;

	ASSERT_EQ(0, agent_call(&self->toucher, begin_to_populate, self));
	ASSERT_EQ(0, slow_fs_wait(&self->fs));
	start = now_ms();
	/* meanwhile the space can be used and changed */
	EXPECT_EQ('A', peek(self->mem + FAST * PAGE));
	EXPECT_EQ(0, as_unmap(self->asfd, FAST * PAGE, PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + FAST * PAGE));
	EXPECT_GT(start + SOON_MS, now_ms());
	EXPECT_EQ(0, killed_within(&self->toucher, SOON_MS));
	EXPECT_LT(0, self->fs.gate->waiting);
}

TEST_F(slow_file, with_read_error_is_sigbus)
{
	BEGIN_TO_TOUCH(self->mem);
	self->fs.gate->fail = true;
	END_OF_THE_WAIT(-SIGBUS);
	/* and the next access asks the server again */
	self->fs.gate->fail = false;
	EXPECT_EQ('a', peek(self->mem));
}

TEST_F(slow_file, with_dead_server_is_sigbus)
{
	BEGIN_TO_TOUCH(self->mem);
	ASSERT_EQ(0, kill(self->fs.server, SIGKILL));
	ASSERT_EQ(0, slow_access_wait(self->touch));
	EXPECT_EQ(-SIGBUS, self->touch->value);
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ('A', peek(self->mem + FAST * PAGE));
}

TEST_HARNESS_MAIN

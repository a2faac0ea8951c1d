// SPDX-License-Identifier: GPL-2.0
/*
 * What a hole comes to under ADDRESS_SPACE_HOLE_WAIT: a task waits for as long as the hole
 * is watched, and no wake is lost.
 */
#include <poll.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_parallel.h"
#include "lib/kvm_guest.h"

#define WAIT	ADDRESS_SPACE_HOLE_WAIT
#define SLOT	1
#define LONG_MS	10000

FIXTURE(waiter)
{
	struct space s;
	int view, events;
	char *mem;	/* all of the space, through the view */
};

FIXTURE_SETUP(waiter)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->view = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW, WAIT);
	ASSERT_LE(0, self->view);
	self->events = as_events(self->s.asfd, 0, 0, 0);
	ASSERT_LE(0, self->events);
	self->mem = attach(self->view, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(waiter)
{
	munmap(self->mem, SPACE_LEN);
	close(self->events);
	close(self->view);
	space_free(&self->s);
}

/* Waits until so many tasks wait in the space. */
static bool waiting(int asfd, long long count)
{
	uint64_t end = now_ms() + LONG_MS;

	while (fdinfo_value(asfd, "waiting") != count) {
		if (now_ms() > end)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* A thread that makes one access. */
struct access {
	char *at;
	bool write;
	volatile int result;
	volatile bool ended;
	pthread_t thread;
};

static void *make_access(void *arg)
{
	struct access *a = arg;

	a->result = a->write ? poke(a->at, '!') : peek(a->at);
	a->ended = true;
	return NULL;
}

static int start_access(struct access *a, char *at, bool write)
{
	*a = (struct access) { .at = at, .write = write };
	return -pthread_create(&a->thread, NULL, make_access, a);
}

static int end_access(struct access *a)
{
	uint64_t end = now_ms() + LONG_MS;

	while (!a->ended) {
		if (now_ms() > end)
			return -ETIMEDOUT;
		sleep_ms(1);
	}
	pthread_join(a->thread, NULL);
	return a->result;
}

TEST_F(waiter, goes_on_when_something_is_mapped)
{
	struct access a;

	ASSERT_EQ(0, start_access(&a, self->mem + 3 * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	/* what is mapped elsewhere is not what it waits for */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, 3 * PAGE, RW, 0));
	sleep_ms(20);
	EXPECT_FALSE(a.ended);
	ASSERT_EQ(0, as_map(self->s.asfd, 3 * PAGE, self->s.a, 3 * PAGE, PAGE, RW, 0));
	EXPECT_EQ('d', end_access(&a));
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "waiting"));
	/* through the asfd a hole is what it was */
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 4 * PAGE));
}

TEST_F(waiter, goes_on_by_batch_and_by_move)
{
	struct address_space_op ops[8];
	struct access a, b;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		ops[i] = (struct address_space_op) {
			.opcode = ADDRESS_SPACE_OP_MMAP, .fd = self->s.a, .prot = RW,
			.offset = i * PAGE, .length = PAGE, .addr = 3 * i * PAGE,
		};
	ASSERT_EQ(0, start_access(&a, self->mem + 18 * PAGE, true));
	ASSERT_EQ(0, start_access(&b, self->mem + 40 * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 2));
	ASSERT_EQ(0, as_batch(self->s.asfd, ops, ARRAY_SIZE(ops), NULL));
	EXPECT_EQ(0, end_access(&a));
	EXPECT_EQ('!', file_byte(self->s.a, 6 * PAGE));
	EXPECT_FALSE(b.ended);
	ASSERT_EQ(0, as_move(self->s.asfd, 3 * PAGE, PAGE, 40 * PAGE, 0));
	EXPECT_EQ('b', end_access(&b));
}

TEST_F(waiter, is_one_of_six_on_a_page)
{
	struct access a[6];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(a); i++)
		ASSERT_EQ(0, start_access(&a[i], self->mem + 3 * PAGE, i % 2));
	ASSERT_TRUE(waiting(self->s.asfd, ARRAY_SIZE(a)));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < ARRAY_SIZE(a); i++)
		EXPECT_LE(0, end_access(&a[i]));
	EXPECT_EQ('!', file_byte(self->s.a, 3 * PAGE));
}

TEST_F(waiter, in_another_process_can_be_killed)
{
	static const int signals[] = { SIGTERM, SIGKILL };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		pid_t pid = fork();
		int status;

		ASSERT_LE(0, pid);
		if (pid == 0)
			_exit(peek(self->mem) < 0);
		ASSERT_TRUE(waiting(self->s.asfd, 1));
		ASSERT_EQ(0, kill(pid, signals[i]));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signals[i]);
		EXPECT_EQ(0, fdinfo_value(self->s.asfd, "waiting"));
	}
}

static volatile int handled;

static void on_signal(int signal)
{
	(void)signal;
	handled++;
}

TEST_F(waiter, handles_signals_and_waits_on)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct access a;
	int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, start_access(&a, self->mem, false));
	for (i = 1; i <= 3; i++) {
		uint64_t end = now_ms() + LONG_MS;

		ASSERT_TRUE(waiting(self->s.asfd, 1));
		pthread_kill(a.thread, SIGUSR1);
		while (handled < i)
			ASSERT_GT(end, now_ms());
	}
	EXPECT_FALSE(a.ended);
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', end_access(&a));
}

TEST_F(waiter, ends_when_the_events_are_closed)
{
	struct access a[20];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(a); i++)
		ASSERT_EQ(0, start_access(&a[i], self->mem + i * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, ARRAY_SIZE(a)));
	ASSERT_EQ(0, close(self->events));
	for (i = 0; i < ARRAY_SIZE(a); i++)
		EXPECT_EQ(-SIGBUS, end_access(&a[i]));
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "waiting"));
	/* nobody watches */
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	/* and somebody does again */
	self->events = as_events(self->s.asfd, 0, 0, 0);
	ASSERT_LE(0, self->events);
	ASSERT_EQ(0, start_access(&a[0], self->mem, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', end_access(&a[0]));
}

TEST_F(waiter, ends_when_the_manager_dies)
{
	struct access a;
	pid_t pid;
	int status;

	ASSERT_EQ(0, close(self->events));
	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0) {
		if (as_events(self->s.asfd, 0, 0, 0) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	/* when it watches, something can be poisoned */
	while (as_poison(self->s.asfd, SPACE_LEN - PAGE, PAGE, 0))
		sleep_ms(1);
	ASSERT_EQ(0, start_access(&a, self->mem, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(-SIGBUS, end_access(&a));
	self->events = as_events(self->s.asfd, 0, 0, 0);
}

TEST_F(waiter, ends_after_its_time)
{
	struct access a;
	uint64_t start;

	ASSERT_EQ(0, close(self->events));
	self->events = as_events(self->s.asfd, 0, 0, 100);
	ASSERT_LE(0, self->events);
	start = now_ms();
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	EXPECT_LE(start + 100, now_ms());
	/* what is mapped in time is found */
	ASSERT_EQ(0, start_access(&a, self->mem + PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('b', end_access(&a));
}

TEST_F(waiter, ends_where_the_page_is_poisoned)
{
	struct access a, b;

	ASSERT_EQ(0, start_access(&a, self->mem + 3 * PAGE, false));
	ASSERT_EQ(0, start_access(&b, self->mem + 4 * PAGE, true));
	ASSERT_TRUE(waiting(self->s.asfd, 2));
	ASSERT_EQ(0, as_poison(self->s.asfd, 2 * PAGE, 2 * PAGE, 0));
	EXPECT_EQ(-SIGBUS, end_access(&a));
	EXPECT_FALSE(b.ended);
	/* until it is mapped */
	EXPECT_EQ(-SIGBUS, peek(self->mem + 2 * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 2 * PAGE, self->s.a, 0, PAGE, RW, 0));
	EXPECT_EQ('a', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 2 * PAGE, PAGE));
	ASSERT_EQ(0, start_access(&a, self->mem + 2 * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 2));
	ASSERT_EQ(0, as_poison(self->s.asfd, 0, SPACE_LEN, 0));
	EXPECT_EQ(-SIGBUS, end_access(&a));
	EXPECT_EQ(-SIGBUS, end_access(&b));
	/* or poisoned no longer */
	ASSERT_EQ(0, as_poison(self->s.asfd, 0, SPACE_LEN, ADDRESS_SPACE_POISON_CLEAR));
	ASSERT_EQ(0, start_access(&a, self->mem + 2 * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('c', end_access(&a));
}

/* a batch that maps a page and unmaps it again has mapped nothing */
TEST_F(waiter, stays_poisoned_where_nothing_is_mapped_in_the_end)
{
	const struct address_space_op ops[] = {
		op_map(0, self->s.a, 0, 3 * PAGE, RW, 0),
		op_unmap(PAGE, PAGE),
		op_map(4 * PAGE, self->s.b, 0, PAGE, RW, 0),
		op_unmap(4 * PAGE, PAGE),
	};

	ASSERT_EQ(0, as_poison(self->s.asfd, 0, 8 * PAGE, 0));
	ASSERT_EQ(0, as_batch(self->s.asfd, ops, ARRAY_SIZE(ops), NULL));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	for (unsigned int page = 1; page < 8; page++)
		if (page != 2)
			EXPECT_EQ(-SIGBUS, peek(self->mem + page * PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, PAGE, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ('A', peek(self->mem + PAGE));
}

TEST_F(waiter, waits_in_the_watched_range_only)
{
	struct access a;

	ASSERT_EQ(0, close(self->events));
	self->events = as_events(self->s.asfd, 2 * PAGE, 2 * PAGE, 0);
	ASSERT_LE(0, self->events);
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 4 * PAGE));
	ASSERT_EQ(0, start_access(&a, self->mem + 3 * PAGE, false));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('d', end_access(&a));
}

TEST_F(waiter, waits_for_no_growth_of_a_file)
{
	ASSERT_EQ(0, ftruncate(self->s.a, PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
}

TEST_F(waiter, waits_for_the_protection_with_the_flag_only)
{
	int view = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW,
				 WAIT | ADDRESS_SPACE_HOLE_DENIED);
	char *mem = attach(view, 0, SPACE_LEN, RW);
	struct access a, b;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem));
	ASSERT_EQ(0, start_access(&a, mem, false));
	ASSERT_EQ(0, start_access(&b, mem, true));
	ASSERT_TRUE(waiting(self->s.asfd, 2));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ('a', end_access(&a));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, RW));
	EXPECT_EQ(0, end_access(&b));
	EXPECT_EQ('!', file_byte(self->s.a, 0));
}

/* The kernel may hold locks that others want. */
TEST_F(waiter, in_a_system_call_waits_with_the_flag_only)
{
	int view = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW,
				 WAIT | ADDRESS_SPACE_HOLE_KERNEL);
	int zero = memfd_pages("zero", 1, 'z');
	struct pollfd ready;
	char *mem;
	pid_t pid;
	int status;

	ASSERT_LE(0, view);
	ready = (struct pollfd) { .fd = self->events, .events = POLLIN };
	EXPECT_EQ(-1, pread(zero, self->mem, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	mem = attach(view, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0)
		_exit(pread(zero, mem, 1, 0) == 1 ? 0 : errno);
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	EXPECT_EQ(1, poll(&ready, 1, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ('z', file_byte(self->s.a, 0));
	/* it can be killed there */
	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0)
		_exit(pread(zero, mem + FILE_LEN, 1, 0) == 1 ? 0 : errno);
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
}

/* What cannot be tried again fails. */
TEST_F(waiter, is_no_debugger)
{
	int mem = open("/proc/self/mem", O_RDWR);
	uint8_t byte;

	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pread(mem, &byte, 1, (uintptr_t)self->mem));
	EXPECT_EQ(EIO, errno);
}

/* A thread that goes through the pages, and waits at each. */
struct walker {
	char *mem;
	volatile bool stop;
	volatile unsigned long steps;
	volatile int wrong;
	pthread_t thread;
};

static void *walk(void *arg)
{
	struct walker *w = arg;

	while (!w->stop) {
		unsigned int page = w->steps % FILE_PAGES;
		int byte = peek(w->mem + page * PAGE);

		if (byte != 'a' + (int)page)
			w->wrong = byte;
		w->steps++;
	}
	return NULL;
}

TEST_F(waiter, loses_no_wake_in_a_race_of_maps_and_unmaps)
{
	uint64_t end = now_ms() + race_ms();
	struct walker walkers[3];
	unsigned long rounds = 0, steps = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(walkers); i++) {
		walkers[i] = (struct walker) { .mem = self->mem, .steps = 5 * i };
		ASSERT_EQ(0, pthread_create(&walkers[i].thread, NULL, walk, &walkers[i]));
	}
	for (; now_ms() < end; rounds++) {
		uint64_t late = now_ms() + LONG_MS;
		unsigned long was = walkers[rounds % 3].steps;

		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		/* it goes on each time that something is mapped */
		while (walkers[rounds % 3].steps == was)
			ASSERT_GT(late, now_ms()) TH_LOG("round %lu", rounds);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	}
	for (i = 0; i < ARRAY_SIZE(walkers); i++)
		walkers[i].stop = true;
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < ARRAY_SIZE(walkers); i++) {
		pthread_join(walkers[i].thread, NULL);
		EXPECT_EQ(0, walkers[i].wrong);
		steps += walkers[i].steps;
	}
	TH_LOG("%lu rounds, %lu steps", rounds, steps);
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "waiting"));
}

FIXTURE(guest)
{
	struct space s;
	struct vm vm;
	int events;
	char *mem;
};

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, space_init(&self->s));
	self->events = as_events(self->s.asfd, 0, 0, 0);
	ASSERT_LE(0, self->events);
	ASSERT_EQ(0, vm_create(&self->vm));
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0,
				WAIT, &self->mem));
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
	close(self->events);
	space_free(&self->s);
}

TEST_F(guest, goes_on_when_something_is_mapped)
{
	unsigned int round;
	struct spin spin;

	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	for (round = 0; round < 10; round++) {
		uint32_t word = 0x1000 + round;

		ASSERT_TRUE(waiting(self->s.asfd, 1)) TH_LOG("KVM_RUN: %d", spin.ret);
		ASSERT_EQ((ssize_t)sizeof(word), pwrite(self->s.a, &word, sizeof(word), 0));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		ASSERT_EQ(0, spin_rounds(&spin, 3)) TH_LOG("KVM_RUN: %d", spin.ret);
		ASSERT_EQ(word, vm_mirror(&self->vm)->value);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	}
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(0, spin_stop(&spin));
}

TEST_F(guest, ends_when_poisoned_or_not_watched)
{
	struct spin spin;

	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, as_poison(self->s.asfd, 0, PAGE, 0));
	EXPECT_EQ(-EFAULT, spin_end(&spin, LONG_MS));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, guest_write(&self->vm, 0, 1));
	ASSERT_EQ(0, as_poison(self->s.asfd, 0, PAGE, ADDRESS_SPACE_POISON_CLEAR));
	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, close(self->events));
	EXPECT_EQ(-EFAULT, spin_end(&spin, LONG_MS));
	self->events = as_events(self->s.asfd, 0, 0, 50);
	ASSERT_LE(0, self->events);
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
}

/* KVM reports no more than EFAULT; it can be told from others, and gone on from. */
TEST_F(guest, is_kicked_by_a_signal_and_runs_again)
{
	struct sigaction act = { .sa_handler = on_signal };
	struct address_space_event event;
	bool interrupted = false;
	struct spin spin;

	ASSERT_EQ(0, sigaction(SIGUSR1, &act, NULL));
	ASSERT_EQ(0, fcntl(self->events, F_SETFL, O_NONBLOCK));
	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	pthread_kill(spin.thread, SIGUSR1);
	EXPECT_EQ(-EFAULT, spin_end(&spin, LONG_MS));
	while (read(self->events, &event, sizeof(event)) == sizeof(event))
		interrupted |= event.type == ADDRESS_SPACE_EVENT_INTERRUPTED;
	EXPECT_TRUE(interrupted);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
}

struct removal {
	int asfd, vm;
	volatile bool ended;
	int ret;
};

static void *remove_slot(void *arg)
{
	struct removal *r = arg;

	r->ret = as_kvm_unmap(r->asfd, r->vm, SLOT);
	r->ended = true;
	return NULL;
}

/* KVM waits for the guest; whoever maps must be another thread. */
TEST_F(guest, goes_on_while_its_slot_is_being_removed)
{
	struct removal r = { .asfd = self->s.asfd, .vm = self->vm.vm };
	pthread_t thread;
	struct spin spin;

	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	ASSERT_TRUE(waiting(self->s.asfd, 1));
	ASSERT_EQ(0, pthread_create(&thread, NULL, remove_slot, &r));
	sleep_ms(50);
	TH_LOG("removal %s", r.ended ? "has ended" : "waits");
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, r.ret);
	/* without a slot it leaves KVM_RUN, for a device */
	EXPECT_EQ(KVM_EXIT_MMIO, spin_end(&spin, LONG_MS));
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "waiting"));
}

TEST_HARNESS_MAIN

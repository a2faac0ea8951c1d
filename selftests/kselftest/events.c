// SPDX-License-Identifier: GPL-2.0
/* What is read from an events file descriptor: who accesses what it has not, and why. */
#include <poll.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/kvm_guest.h"

#define ABSORB	ADDRESS_SPACE_HOLE_ABSORB
#define DENIED	ADDRESS_SPACE_HOLE_DENIED
#define WAIT	ADDRESS_SPACE_HOLE_WAIT
#define KEPT	256	/* events */

typedef struct address_space_event event_t;

FIXTURE(events)
{
	struct space s;
	int fd;
};

FIXTURE_SETUP(events)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->fd = as_events(self->s.asfd, 0, 0, 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, O_NONBLOCK));
}

FIXTURE_TEARDOWN(events)
{
	close(self->fd);
	space_free(&self->s);
}

/* The next event; its type is 0 if there is none. */
static event_t next(int fd)
{
	event_t event = { .type = 0 };

	if (read(fd, &event, sizeof(event)) != sizeof(event))
		event.type = 0;
	return event;
}

static uint64_t ino(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

static char *view_of(int asfd, uint32_t flags, int *view)
{
	*view = as_view_flags(asfd, 0, SPACE_LEN, RW, flags);
	return *view < 0 ? NULL : attach(*view, 0, SPACE_LEN, RW);
}

#define EXPECT_EVENT(event, what, at, how, through) do {		\
	event_t __event = event;					\
									\
	EXPECT_EQ((unsigned int)(what), __event.type);			\
	EXPECT_EQ(sizeof(__event), __event.size);			\
	EXPECT_EQ((uint64_t)(at), __event.offset);			\
	EXPECT_EQ((unsigned int)(how), __event.access);			\
	EXPECT_EQ((unsigned int)syscall(SYS_gettid), __event.tid);	\
	EXPECT_EQ(ino(through), __event.view);				\
} while (0)

TEST_F(events, tell_of_each_refusal_and_its_reason)
{
	int view, absorbs, denied;
	char *mem = view_of(self->s.asfd, 0, &view);
	char *sink = view_of(self->s.asfd, ABSORB, &absorbs);
	char *none = view_of(self->s.asfd, ABSORB | DENIED, &denied);

	ASSERT_TRUE(mem && sink && none);
	EXPECT_EQ(0U, next(self->fd).type);
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-SIGBUS, peek(mem + 3 * PAGE + 5));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_HOLE, 3 * PAGE, PROT_READ, view);
	EXPECT_EQ(-SIGBUS, poke(self->s.mem, 1));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_HOLE, 0, PROT_WRITE, self->s.asfd);
	EXPECT_EQ(0, peek(sink + PAGE));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_HOLE, PAGE, PROT_READ, absorbs);
	/* what is there already tells nothing */
	EXPECT_EQ(0, peek(sink + PAGE));
	EXPECT_EQ(0U, next(self->fd).type);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, PROT_READ, 0));
	EXPECT_EQ(-SIGSEGV, poke(sink, 1));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_DENIED, 0, PROT_WRITE, absorbs);
	EXPECT_EQ(0, poke(none + PAGE, 1));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_DENIED, PAGE, PROT_WRITE, denied);
	ASSERT_EQ(0, ftruncate(self->s.a, 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem + 4 * PAGE));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_PAST_END, 4 * PAGE, PROT_READ, view);
	EXPECT_EQ(0, peek(sink + 5 * PAGE));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_PAST_END, 5 * PAGE, PROT_READ, absorbs);
	EXPECT_EQ(0U, next(self->fd).type);
}

TEST_F(events, tell_of_bad_memory)
{
	char *page = mmap(NULL, PAGE, RW, MAP_SHARED, self->s.a, 0);

	ASSERT_NE(MAP_FAILED, (void *)page);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ('a', *(volatile char *)page);
	if (madvise(page, PAGE, MADV_HWPOISON))
		SKIP(return, "no memory errors can be made");
	EXPECT_EQ(-SIGBUS, peek(self->s.mem));
	EXPECT_EQ(BUS_MCEERR_AR, probe_info.si_code);
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_MEMORY_ERROR, 0, PROT_READ,
		     self->s.asfd);
}

struct access {
	char *at;
	volatile int result;
};

static void *make_access(void *arg)
{
	struct access *a = arg;

	a->result = peek(a->at);
	return NULL;
}

TEST_F(events, tell_of_tasks_that_wait_however_many)
{
	struct access a[3 * FILE_PAGES];
	pthread_t threads[3 * FILE_PAGES];
	bool told[3 * FILE_PAGES] = { false };
	struct pollfd ready = { .fd = self->fd, .events = POLLIN };
	unsigned int i, j;
	event_t event;
	char *mem;
	int view;

	mem = view_of(self->s.asfd, WAIT, &view);
	ASSERT_NE(NULL, mem);
	/* the queue is full */
	for (i = 0; i < 2 * KEPT; i++)
		ASSERT_EQ(-SIGBUS, peek(self->s.mem));
	for (i = 0; i < ARRAY_SIZE(a); i++) {
		a[i].at = mem + i * PAGE;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, make_access, &a[i]));
	}
	for (i = 0; i < ARRAY_SIZE(a); ) {
		ASSERT_EQ(1, poll(&ready, 1, 10000));
		event = next(self->fd);
		if (event.type == ADDRESS_SPACE_EVENT_HOLE ||
		    event.type == ADDRESS_SPACE_EVENT_OVERFLOW)
			continue;
		ASSERT_EQ((unsigned int)ADDRESS_SPACE_EVENT_WAIT, event.type);
		EXPECT_EQ(ino(view), event.view);
		ASSERT_FALSE(told[event.offset / PAGE]);
		told[event.offset / PAGE] = true;
		i++;
	}
	/* in any order, and each once */
	for (j = 0; j < 3; j++)
		ASSERT_EQ(0, as_map(self->s.asfd, j * FILE_LEN, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < ARRAY_SIZE(a); i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ('a' + (int)(i % FILE_PAGES), a[i].result);
	}
	while ((event = next(self->fd)).type)
		EXPECT_NE((unsigned int)ADDRESS_SPACE_EVENT_WAIT, event.type);
	EXPECT_EQ(0, poll(&ready, 1, 0));
}

/* What has ended is not told of. */
TEST_F(events, tell_of_no_wait_that_has_ended)
{
	pthread_t thread;
	struct access a;
	int view;

	a.at = view_of(self->s.asfd, WAIT, &view);
	ASSERT_NE(NULL, a.at);
	ASSERT_EQ(0, pthread_create(&thread, NULL, make_access, &a));
	while (fdinfo_value(self->s.asfd, "waiting") != 1)
		sleep_ms(1);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	pthread_join(thread, NULL);
	EXPECT_EQ('a', a.result);
	EXPECT_EQ(0U, next(self->fd).type);
}

/* Two threads read: what one is told the other is not. */
struct reader {
	int fd;
	volatile bool stop;
	volatile unsigned int waits;
};

static void *read_waits(void *arg)
{
	struct reader *r = arg;
	struct pollfd ready = { .fd = r->fd, .events = POLLIN };

	while (!r->stop)
		if (poll(&ready, 1, 10) == 1 && next(r->fd).type == ADDRESS_SPACE_EVENT_WAIT)
			__atomic_add_fetch(&r->waits, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

TEST_F(events, tell_of_a_task_that_waits_to_one_of_two_readers)
{
	uint64_t end = now_ms() + race_ms();
	struct reader r = { .fd = self->fd };
	pthread_t readers[2], thread;
	unsigned int rounds = 0, i;
	struct access a;
	int view;

	a.at = view_of(self->s.asfd, WAIT, &view);
	ASSERT_NE(NULL, a.at);
	for (i = 0; i < ARRAY_SIZE(readers); i++)
		ASSERT_EQ(0, pthread_create(&readers[i], NULL, read_waits, &r));
	while (now_ms() < end || !rounds) {
		uint64_t late = now_ms() + 10000;

		ASSERT_EQ(0, pthread_create(&thread, NULL, make_access, &a));
		rounds++;
		while (r.waits < rounds)
			ASSERT_GT(late, now_ms());
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW, 0));
		pthread_join(thread, NULL);
		ASSERT_EQ('a', a.result);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, PAGE));
	}
	r.stop = true;
	for (i = 0; i < ARRAY_SIZE(readers); i++)
		pthread_join(readers[i], NULL);
	EXPECT_EQ(rounds, r.waits);
	TH_LOG("%u rounds", rounds);
}

TEST_F(events, that_are_lost_are_counted)
{
	unsigned int kept = 0, lost = 0, i;
	int others[8];
	event_t event;
	char *mem;

	for (i = 0; i < 2 * KEPT; i++)
		ASSERT_EQ(-SIGBUS, peek(self->s.mem));
	/* nobody takes the places of all others */
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		unsigned int j;

		mem = view_of(self->s.asfd, 0, &others[i]);
		ASSERT_NE(NULL, mem);
		for (j = 0; i < 3 && j < KEPT; j++)
			ASSERT_EQ(-SIGBUS, peek(mem));
	}
	ASSERT_EQ(-SIGBUS, peek(mem + PAGE));
	while ((event = next(self->fd)).type) {
		if (event.type == ADDRESS_SPACE_EVENT_OVERFLOW) {
			EXPECT_EQ(0U, next(self->fd).type);
			lost = event.offset;
			break;
		}
		kept++;
		if (event.view == ino(others[7]))
			EXPECT_EQ(PAGE, event.offset);
	}
	EXPECT_EQ(ino(others[7]), event.view ?: ino(others[7]));
	EXPECT_LT(0U, kept);
	EXPECT_GE((unsigned int)KEPT, kept);
	EXPECT_EQ(2 * KEPT + 3 * KEPT + 1, (int)(kept + lost));
}

TEST_F(events, of_a_quiet_view_are_not_lost_for_a_loud_one)
{
	unsigned int i;
	event_t event;
	bool told = false;
	char *mem;
	int view;

	for (i = 0; i < 2 * KEPT; i++)
		ASSERT_EQ(-SIGBUS, peek(self->s.mem));
	mem = view_of(self->s.asfd, 0, &view);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(-SIGBUS, peek(mem + PAGE));
	while ((event = next(self->fd)).type)
		told |= event.view == ino(view) && event.offset == PAGE;
	EXPECT_TRUE(told);
}

/* Whoever manages a part can make as many views of it as it likes. */
TEST_F(events, of_a_quiet_view_are_not_lost_for_views_that_a_loud_one_makes)
{
	int part = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW, ADDRESS_SPACE_VIEW_MANAGE);
	unsigned int i, kept = 0;
	bool told = false;
	event_t event;
	char *mem;
	int view;

	ASSERT_LE(0, part);
	for (i = 0; i < 2 * KEPT; i++) {
		mem = view_of(part, 0, &view);
		ASSERT_NE(NULL, mem);
		ASSERT_EQ(-SIGBUS, peek(mem));
		munmap(mem, SPACE_LEN);
		close(view);
	}
	mem = view_of(self->s.asfd, 0, &view);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(-SIGBUS, peek(mem + PAGE));
	while ((event = next(self->fd)).type) {
		kept += event.type == ADDRESS_SPACE_EVENT_HOLE;
		told |= event.view == ino(view) && event.offset == PAGE;
	}
	EXPECT_TRUE(told);
	EXPECT_EQ(KEPT / 2U + 1, kept);
	close(part);
}

/* Somebody may make tasks wait as fast as they are told of. */
TEST_F(events, of_refused_accesses_are_not_held_back_by_waits)
{
	pthread_t threads[4];
	unsigned int i, type;
	struct access a[4];
	char *mem;
	int view;

	mem = view_of(self->s.asfd, WAIT, &view);
	ASSERT_NE(NULL, mem);
	for (i = 0; i < ARRAY_SIZE(a); i++) {
		a[i].at = mem + i * PAGE;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, make_access, &a[i]));
	}
	while (fdinfo_value(self->s.asfd, "waiting") != ARRAY_SIZE(a))
		sleep_ms(1);
	ASSERT_EQ(-SIGBUS, peek(self->s.mem));
	for (i = 0; i < 2; i++) {
		type = next(self->fd).type;
		if (type == ADDRESS_SPACE_EVENT_HOLE)
			break;
		EXPECT_EQ((unsigned int)ADDRESS_SPACE_EVENT_WAIT, type);
	}
	EXPECT_GT(2U, i);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	for (i = 0; i < ARRAY_SIZE(a); i++)
		pthread_join(threads[i], NULL);
	close(view);
}

TEST_F(events, are_read_as_many_as_fit)
{
	void *none = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	event_t events[5];
	unsigned int i;

	for (i = 0; i < 5; i++)
		ASSERT_EQ(-SIGBUS, peek(self->s.mem + i * PAGE));
	EXPECT_EQ(-1, read(self->fd, events, sizeof(events[0]) - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(self->fd, none, sizeof(events)));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(4 * (ssize_t)sizeof(events[0]),
		  read(self->fd, events, sizeof(events) - 1));
	EXPECT_EQ(4 * PAGE, events[3].offset);
	/* what could not be told counts as lost */
	EXPECT_EQ((unsigned int)ADDRESS_SPACE_EVENT_OVERFLOW, next(self->fd).type);
}

static void *blocking_read(void *arg)
{
	static event_t event;

	return read(*(int *)arg, &event, sizeof(event)) == sizeof(event) ? &event : NULL;
}

TEST_F(events, are_waited_for)
{
	struct pollfd ready = { .fd = self->fd, .events = POLLIN };
	event_t *event;
	pthread_t thread;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	EXPECT_EQ(0, poll(&ready, 1, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, blocking_read, &self->fd));
	sleep_ms(20);
	ASSERT_EQ(-SIGBUS, peek(self->s.mem + PAGE));
	pthread_join(thread, (void **)&event);
	ASSERT_NE(NULL, event);
	EXPECT_EQ(PAGE, event->offset);
	EXPECT_EQ(0, poll(&ready, 1, 0));
	ASSERT_EQ(-SIGBUS, peek(self->s.mem + PAGE));
	EXPECT_EQ(1, poll(&ready, 1, 0));
	EXPECT_EQ(POLLIN, ready.revents);
}

TEST_F(events, are_of_the_watched_range)
{
	ASSERT_EQ(0, close(self->fd));
	self->fd = as_events(self->s.asfd, 2 * PAGE, PAGE, 0);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 3 * PAGE));
	EXPECT_EQ(0U, next(self->fd).type);
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ(2 * PAGE, next(self->fd).offset);
}

TEST_F(events, have_one_reader)
{
	EXPECT_REFUSED(self->s.asfd, EBUSY, as_events(self->s.asfd, 0, 0, 0));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_REFUSED(self->s.asfd, ENOENT, as_poison(self->s.asfd, 0, PAGE, 0));
	self->fd = as_events(self->s.asfd, 0, SPACE_LEN, 0);
	EXPECT_LE(0, self->fd);
}

TEST_F(events, refuse_bad_ranges)
{
	unsigned int i;

	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(-EINVAL, as_events(self->s.asfd, SPACE_LEN, 0, 0));
	EXPECT_EQ(-EINVAL, as_events(self->s.asfd, 1, 0, 0));
	EXPECT_EQ(-EINVAL, as_events(self->s.asfd, PAGE, SPACE_LEN, 0));
	EXPECT_EQ(-EOVERFLOW, as_events(self->s.asfd, -PAGE, 2 * PAGE, 0));
	self->fd = as_events(self->s.asfd, 0, 0, 0);
	ASSERT_LE(0, self->fd);
	EXPECT_EQ(-EINVAL, as_poison(self->s.asfd, 0, 0, 0));
	EXPECT_EQ(-EINVAL, as_poison(self->s.asfd, PAGE, SPACE_LEN, 0));
	/* more ranges than are kept, in a larger space */
	i = as_create(1000 * PAGE);
	ASSERT_LE(0, as_events(i, 0, 0, 0));
	for (unsigned int page = 0; page < 64; page++)
		ASSERT_EQ(0, as_poison(i, 2 * page * PAGE, PAGE, 0));
	EXPECT_EQ(-ENOSPC, as_poison(i, 500 * PAGE, PAGE, 0));
	EXPECT_EQ(0, as_poison(i, PAGE, PAGE, 0));
	EXPECT_EQ(0, as_poison(i, 500 * PAGE, PAGE, 0));
}

TEST_F(events, file_cannot_be_mapped)
{
	EXPECT_EQ(-ENODEV, as_map(self->s.asfd, 0, self->fd, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ(NULL, attach(self->fd, 0, PAGE, PROT_READ));
	EXPECT_EQ(-ENOTTY, as_ioctl(self->fd, ADDRESS_SPACE_EVENTS, NULL));
}

/* The space lives as long as they do. */
TEST(events_outlive_the_asfd)
{
	struct space s;
	int fd, view;
	char *mem;

	ASSERT_EQ(0, space_init(&s));
	fd = as_events(s.asfd, 0, 0, 0);
	mem = view_of(s.asfd, 0, &view);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, close(s.asfd));
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ((unsigned int)ADDRESS_SPACE_EVENT_HOLE, next(fd).type);
	munmap(mem, SPACE_LEN);
	munmap(s.mem, SPACE_LEN);
	close(view);
	ASSERT_EQ(0, close(fd));
}

TEST_F(events, tell_of_a_guest_which_slot_and_where)
{
	struct vm vm;
	int view;

	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, vm_create(&vm));
	view = as_view(self->s.asfd, 4 * PAGE, SLOT_LEN, RW);
	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_kvm_map(view, vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, 0, NULL));
	EXPECT_EQ(-EFAULT, guest_read(&vm, PAGE));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_HOLE, 5 * PAGE, PROT_READ, view);
	EXPECT_EQ(-EFAULT, guest_write(&vm, 2 * PAGE, 1));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_HOLE, 6 * PAGE, PROT_WRITE, view);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(-EFAULT, guest_read(&vm, 0));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_DENIED, 4 * PAGE, PROT_READ, view);
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, RW));
	ASSERT_EQ(0, ftruncate(self->s.a, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&vm, 0));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_PAST_END, 4 * PAGE, PROT_READ, view);
	/* each access is told of once */
	EXPECT_EQ(0U, next(self->fd).type);
	ASSERT_EQ(0, as_kvm_unmap(view, vm.vm, 1));
	/* a slot with a policy of its own is told of by the fd that it was made of */
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, ABSORB, NULL));
	EXPECT_EQ(0, guest_read(&vm, PAGE));
	EXPECT_EVENT(next(self->fd), ADDRESS_SPACE_EVENT_PAST_END, PAGE, PROT_READ,
		     self->s.asfd);
	vm_destroy(&vm);
}

TEST_HARNESS_MAIN

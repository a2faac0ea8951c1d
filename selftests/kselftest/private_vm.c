// SPDX-License-Identifier: GPL-2.0
/*
 * Private maps and virtual machines: a guest's read makes a copy, unless the range may only
 * be read; then the VMM allows what the guest writes, page by page, and guests of one
 * snapshot share what they only read.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "lib/kvm_guest.h"

#define PRIVATE	ADDRESS_SPACE_MAP_PRIVATE
#define SLOT	1
#define PAGES	(SLOT_LEN / PAGE)
#define WAITS	(ADDRESS_SPACE_HOLE_WAIT | ADDRESS_SPACE_HOLE_DENIED)

/* A guest whose memory slot is a snapshot, which it sees as its own. */
struct clone {
	struct vm vm;
	int asfd;
	char *window;
};

static int clone_init(struct clone *c, int snapshot, int prot, uint32_t flags)
{
	int ret = vm_create(&c->vm);

	if (ret)
		return ret;
	c->asfd = as_create(SLOT_LEN);
	if (c->asfd < 0)
		return c->asfd;
	ret = as_map(c->asfd, 0, snapshot, 0, SLOT_LEN, RW, PRIVATE);
	if (!ret && prot != RW)
		ret = as_protect(c->asfd, 0, SLOT_LEN, prot);
	return ret ?: as_kvm_map(c->asfd, c->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0, flags,
				 &c->window);
}

static void clone_free(struct clone *c)
{
	as_kvm_unmap(c->asfd, c->vm.vm, SLOT);
	vm_destroy(&c->vm);
	close(c->asfd);
}

static long long copies(const struct clone *c)
{
	return fdinfo_value(c->asfd, "copies") / PAGE;
}

/*
 * What a VMM does when the guest writes where it may not: it allows it there, and does
 * what the guest wanted.
 */
static int clone_write(struct clone *c, unsigned int offset, uint8_t value)
{
	int ret = guest_write(&c->vm, offset, value);
	unsigned int at;

	if (ret != -ENXIO && ret != -EFAULT)
		return ret;
	at = ret == -ENXIO ? c->vm.mmio_gpa - SLOT_GPA : offset;
	if (at != offset)
		return -EPROTO;
	if (as_protect(c->asfd, at / PAGE * PAGE, PAGE, RW))
		return -EPERM;
	if (ret == -EFAULT)
		return guest_write(&c->vm, offset, value);
	return poke(c->window + at, value) ?: value;
}

FIXTURE(guest)
{
	int snapshot;
	struct clone c;
};

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no KVM");
	self->snapshot = memfd_pages("snapshot", PAGES, 'a');
	ASSERT_LE(0, self->snapshot);
}

FIXTURE_TEARDOWN(guest)
{
	unsigned int i;

	if (self->snapshot > 0)
		for (i = 0; i < PAGES; i++)
			EXPECT_EQ('a' + (int)i, file_byte(self->snapshot, i * PAGE));
}

TEST_F(guest, writes_are_its_own)
{
	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, RW, 0));
	EXPECT_EQ('b', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ('1', guest_write(&self->c.vm, PAGE, '1'));
	EXPECT_EQ('1', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ('1', peek(self->c.window + PAGE));
	EXPECT_EQ(0, poke(self->c.window + PAGE, '2'));
	EXPECT_EQ('2', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ('c', guest_read_write(&self->c.vm, 2 * PAGE, '3'));
	EXPECT_EQ('3', peek(self->c.window + 2 * PAGE));
	/* after a read, by an instruction that KVM does not emulate */
	EXPECT_EQ('d', guest_read(&self->c.vm, 3 * PAGE));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->c.vm, 3 * PAGE));
	/* revoked, it is gone for the guest too */
	ASSERT_EQ(0, as_unmap(self->c.asfd, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->c.vm, PAGE));
	clone_free(&self->c);
}

/* KVM must not meet an entry for reading where there may be one for writing. */
TEST_F(guest, read_makes_a_copy_where_it_may_write)
{
	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, RW, 0));
	EXPECT_EQ('a', guest_read(&self->c.vm, 0));
	EXPECT_EQ(1, copies(&self->c));
	clone_free(&self->c);
}

TEST_F(guest, read_makes_no_copy_where_it_may_only_read)
{
	unsigned int i;

	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, 0));
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ('a' + (int)i, guest_read(&self->c.vm, i * PAGE));
	EXPECT_EQ(0, copies(&self->c));
	clone_free(&self->c);
}

TEST_F(guest, write_after_a_read_exits_with_what_is_to_be_written)
{
	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, 0));
	EXPECT_EQ('b', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ(-ENXIO, guest_write(&self->c.vm, PAGE, '1'));
	EXPECT_EQ(SLOT_GPA + PAGE, self->c.vm.mmio_gpa);
	EXPECT_EQ('1', clone_write(&self->c, PAGE, '1'));
	EXPECT_EQ('1', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ(1, copies(&self->c));
	/* from now on without the VMM */
	EXPECT_EQ('2', guest_write(&self->c.vm, PAGE, '2'));
	EXPECT_EQ('2', peek(self->c.window + PAGE));
	/* what was near is installed too */
	EXPECT_EQ(-ENXIO, guest_write(&self->c.vm, 4 * PAGE, '3'));
	EXPECT_EQ('3', clone_write(&self->c, 4 * PAGE, '3'));
	EXPECT_EQ('3', guest_read(&self->c.vm, 4 * PAGE));
	EXPECT_EQ(2, copies(&self->c));
	clone_free(&self->c);
}

TEST_F(guest, write_without_a_read_fails_until_it_is_allowed)
{
	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, 0));
	EXPECT_EQ(-EFAULT, guest_write(&self->c.vm, 4 * PAGE, '1'));
	EXPECT_EQ('1', clone_write(&self->c, 4 * PAGE, '1'));
	EXPECT_EQ('1', guest_read(&self->c.vm, 4 * PAGE));
	EXPECT_EQ(1, copies(&self->c));
	clone_free(&self->c);
}

/* The exception that is to be raised when the vCPU runs again, or -1. */
static int exception(struct clone *c)
{
	struct kvm_vcpu_events events;

	if (ioctl(c->vm.vcpu, KVM_GET_VCPU_EVENTS, &events))
		return -errno;
	return events.exception.injected ? events.exception.nr : -1;
}

/* Where KVM gives up it can go on as soon as the page may be written, if it is told to leave it. */
TEST_F(guest, instruction_that_is_not_emulated_succeeds_when_it_is_run_again)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE,
		.args = { 1 },
	};

	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, 0));
	ASSERT_EQ(0, ioctl(self->c.vm.vm, KVM_ENABLE_CAP, &cap));
	EXPECT_EQ('d', guest_read(&self->c.vm, 3 * PAGE));
	ASSERT_EQ(0, vm_start(&self->c.vm, GUEST_FSTP, 3 * PAGE, 0));
	EXPECT_EQ(KVM_EXIT_INTERNAL_ERROR, vm_run(&self->c.vm));
	EXPECT_EQ(KVM_INTERNAL_ERROR_EMULATION, (int)self->c.vm.run->internal.suberror);
	EXPECT_EQ(-1, exception(&self->c));
	ASSERT_EQ(0, as_protect(self->c.asfd, 0, SLOT_LEN, RW));
	EXPECT_EQ(KVM_EXIT_IO, vm_run(&self->c.vm));
	EXPECT_EQ(FSTP_BYTE, *((uint8_t *)self->c.vm.run + self->c.vm.run->io.data_offset));
	EXPECT_EQ(FSTP_BYTE, peek(self->c.window + 3 * PAGE + 3));
	clone_free(&self->c);
}

/* What the documents warn of: KVM has the guest raise an exception too. */
TEST_F(guest, instruction_that_is_not_emulated_is_an_exception_without_the_capability)
{
	const int invalid_opcode = 6;

	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, 0));
	EXPECT_EQ('d', guest_read(&self->c.vm, 3 * PAGE));
	ASSERT_EQ(0, vm_start(&self->c.vm, GUEST_FSTP, 3 * PAGE, 0));
	EXPECT_EQ(KVM_EXIT_INTERNAL_ERROR, vm_run(&self->c.vm));
	EXPECT_EQ(invalid_opcode, exception(&self->c));
	clone_free(&self->c);
}

/* A manager that allows what is waited for, until the events end. */
struct manager {
	int asfd, events;
	volatile unsigned int allowed;
	pthread_t thread;
};

static void *manage(void *arg)
{
	struct manager *m = arg;
	struct address_space_event event;

	while (read(m->events, &event, sizeof(event)) == sizeof(event)) {
		if (event.type != ADDRESS_SPACE_EVENT_WAIT || event.access != PROT_WRITE)
			continue;
		if (!as_protect(m->asfd, event.offset, PAGE, RW))
			m->allowed++;
		if (m->allowed == 3)
			break;
	}
	return NULL;
}

TEST_F(guest, write_waits_until_it_is_allowed)
{
	struct manager m = {};

	ASSERT_EQ(0, clone_init(&self->c, self->snapshot, PROT_READ, WAITS));
	m.asfd = self->c.asfd;
	m.events = as_events(m.asfd, 0, 0, 0);
	ASSERT_LE(0, m.events);
	ASSERT_EQ(0, pthread_create(&m.thread, NULL, manage, &m));
	EXPECT_EQ('1', guest_write(&self->c.vm, 0, '1'));
	EXPECT_EQ('2', guest_write(&self->c.vm, 5 * PAGE, '2'));
	EXPECT_EQ('b', guest_read(&self->c.vm, PAGE));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->c.vm, 7 * PAGE));
	pthread_join(m.thread, NULL);
	EXPECT_EQ(3U, m.allowed);
	EXPECT_EQ('1', peek(self->c.window));
	EXPECT_EQ('2', guest_read(&self->c.vm, 5 * PAGE));
	EXPECT_EQ(3, copies(&self->c));
	close(m.events);
	clone_free(&self->c);
}

#define CLONES	8

TEST_F(guest, eight_of_one_snapshot_share_what_they_only_read)
{
	static struct clone c[CLONES];
	long long all = 0;
	unsigned int i, page;

	for (i = 0; i < CLONES; i++)
		ASSERT_EQ(0, clone_init(&c[i], self->snapshot, PROT_READ, 0));
	for (i = 0; i < CLONES; i++) {
		for (page = 0; page < PAGES; page++)
			ASSERT_EQ('a' + (int)page, guest_read(&c[i].vm, page * PAGE));
		/* one page that all write, and one that no other does */
		EXPECT_EQ('0' + (int)i, clone_write(&c[i], 0, '0' + i));
		EXPECT_EQ('0' + (int)i, clone_write(&c[i], (1 + i) * PAGE, '0' + i));
	}
	for (i = 0; i < CLONES; i++) {
		EXPECT_EQ('0' + (int)i, guest_read(&c[i].vm, 0));
		for (page = 1; page < PAGES; page++)
			EXPECT_EQ(page == 1 + i ? '0' + (int)i : 'a' + (int)page,
				  guest_read(&c[i].vm, page * PAGE));
		all += copies(&c[i]);
	}
	TH_LOG("%u guests of %lu pages: %lld copies", CLONES, PAGES, all);
	EXPECT_EQ(2 * CLONES, all);
	for (i = 0; i < CLONES; i++)
		clone_free(&c[i]);
}

TEST_HARNESS_MAIN

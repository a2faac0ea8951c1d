// SPDX-License-Identifier: GPL-2.0
/*
 * What a hole comes to under ADDRESS_SPACE_HOLE_ABSORB: an access succeeds on a page that
 * nobody else sees, until there is something else.
 */
#include "kselftest_harness.h"
#include "lib/as_parallel.h"
#include "lib/kvm_guest.h"

#define ABSORB	ADDRESS_SPACE_HOLE_ABSORB
#define DENIED	ADDRESS_SPACE_HOLE_DENIED
#define SLOT	1
/* how long what is absorbed briefly may be there */
#define BRIEF_MS	20

FIXTURE(absorbed)
{
	struct space s;
	int view;
	char *mem;	/* all of the space, through the view */
};

FIXTURE_SETUP(absorbed)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->view = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW, ABSORB);
	ASSERT_LE(0, self->view);
	self->mem = attach(self->view, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(absorbed)
{
	munmap(self->mem, SPACE_LEN);
	close(self->view);
	space_free(&self->s);
}

TEST_F(absorbed, hole_reads_zeroes_and_takes_writes)
{
	uint64_t word = ~0ULL;

	EXPECT_EQ(0, peek64(self->mem + 3 * PAGE, &word));
	EXPECT_EQ(0ULL, word);
	EXPECT_EQ(0, poke(self->mem + 3 * PAGE, 7));
	EXPECT_EQ(7, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 9 * PAGE, 8));
	/* through the asfd a hole is what it was */
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 3 * PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->s.mem + 9 * PAGE, 1));
}

TEST_F(absorbed, hole_is_none_for_a_system_call)
{
	int fd = memfd_pages("data", 1, 'x');

	ASSERT_LE(0, fd);
	EXPECT_EQ((ssize_t)PAGE, pread(fd, self->mem + PAGE, PAGE, 0));
	EXPECT_EQ((ssize_t)PAGE, pwrite(fd, self->mem + 2 * PAGE, PAGE, 0));
}

TEST_F(absorbed, hole_ends_when_something_is_mapped)
{
	unsigned int round;

	for (round = 0; round < 20; round++) {
		unsigned int page = round % 5;

		ASSERT_EQ(0, poke(self->mem + page * PAGE, 7));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		ASSERT_EQ('a' + (int)page, peek(self->mem + page * PAGE));
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	}
	/* what was absorbed has reached no file */
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

TEST_F(absorbed, hole_ends_by_batch_and_by_move)
{
	struct address_space_op ops[12];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		ops[i] = (struct address_space_op) {
			.opcode = ADDRESS_SPACE_OP_MMAP, .fd = self->s.a, .prot = RW,
			.offset = i * PAGE, .length = PAGE, .addr = 3 * i * PAGE,
		};
		ASSERT_EQ(0, peek(self->mem + 3 * i * PAGE));
	}
	/* one that is refused changes nothing */
	ops[11].flags = 1U << 31;
	ASSERT_EQ(-EOPNOTSUPP, as_batch(self->s.asfd, ops, ARRAY_SIZE(ops), NULL));
	EXPECT_EQ(0, peek(self->mem));
	ops[11].flags = 0;
	ASSERT_EQ(0, as_batch(self->s.asfd, ops, ARRAY_SIZE(ops), NULL));
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		EXPECT_EQ('a' + (int)i, peek(self->mem + 3 * i * PAGE));
	ASSERT_EQ(0, peek(self->mem + 40 * PAGE));
	ASSERT_EQ(0, as_move(self->s.asfd, 3 * PAGE, PAGE, 40 * PAGE, 0));
	EXPECT_EQ('b', peek(self->mem + 40 * PAGE));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
}

TEST_F(absorbed, hole_ends_in_child_and_in_every_view)
{
	int other = as_view_flags(self->s.asfd, 2 * PAGE, 8 * PAGE, PROT_READ, ABSORB);
	char *mem = attach(other, 0, 8 * PAGE, PROT_READ);
	struct agent agent;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, agent_start(&agent));
	EXPECT_EQ(0, peek(self->mem + 5 * PAGE));
	EXPECT_EQ(0, peek(mem + 3 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(mem + 3 * PAGE, 1));
	EXPECT_EQ(0, agent_poke(&agent, self->mem + 5 * PAGE, 7));
	EXPECT_EQ(7, agent_peek(&agent, self->mem + 5 * PAGE));
	EXPECT_EQ(0, agent_peek(&agent, mem + 3 * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('f', peek(self->mem + 5 * PAGE));
	EXPECT_EQ('f', peek(mem + 3 * PAGE));
	EXPECT_EQ('f', agent_peek(&agent, self->mem + 5 * PAGE));
	EXPECT_EQ('f', agent_peek(&agent, mem + 3 * PAGE));
	EXPECT_EQ(0, agent_stop(&agent));
}

TEST_F(absorbed, page_is_no_other_process_s_nor_attachment_s)
{
	char *second = attach(self->view, 0, SPACE_LEN, RW);
	struct agent before, after;

	ASSERT_NE(NULL, second);
	ASSERT_EQ(0, agent_start(&before));
	ASSERT_EQ(0, poke(self->mem, 7));
	EXPECT_EQ(0, peek(second));
	/* forked after something was written, and holding a copy of all that can be copied */
	ASSERT_EQ(0, agent_start(&after));
	EXPECT_EQ(0, agent_peek(&before, self->mem));
	EXPECT_EQ(0, agent_peek(&after, self->mem));
	EXPECT_EQ(0, agent_poke(&after, self->mem, 8));
	EXPECT_EQ(7, peek(self->mem));
	EXPECT_EQ(0, agent_peek(&before, self->mem));
	EXPECT_EQ(8, agent_peek(&after, self->mem));
	/* and a grandchild, of one that goes at once */
	EXPECT_LE(0, agent_respawn(&after));
	EXPECT_EQ(0, agent_peek(&after, self->mem));
	EXPECT_EQ(0, agent_stop(&after));
	EXPECT_EQ(0, agent_stop(&before));
}

TEST_F(absorbed, page_outlives_splits_and_moves_of_its_attachment)
{
	char *far;

	ASSERT_EQ(0, poke(self->mem + 10 * PAGE, 7));
	ASSERT_EQ(0, munmap(self->mem + 20 * PAGE, PAGE));
	ASSERT_EQ(0, mprotect(self->mem + 5 * PAGE, PAGE, PROT_READ));
	far = mremap(self->mem + 10 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE |
		     MREMAP_FIXED, self->mem + 20 * PAGE);
	ASSERT_EQ(self->mem + 20 * PAGE, far);
	EXPECT_EQ(7, peek(far));
	ASSERT_EQ(0, munmap(self->mem, 10 * PAGE));
	EXPECT_EQ(7, peek(far + PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('k', peek(far));
}

TEST_F(absorbed, write_after_mprotect_is_absorbed)
{
	EXPECT_EQ(0, peek(self->mem));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, PROT_READ));
	EXPECT_EQ(0, peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, 1));
	ASSERT_EQ(0, mprotect(self->mem, PAGE, RW));
	EXPECT_EQ(0, poke(self->mem, 1));
}

TEST_F(absorbed, hole_is_seen_by_a_debugger)
{
	char path[64];
	uint8_t byte = 1;
	int mem;

	snprintf(path, sizeof(path), "/proc/self/mem");
	mem = open(path, O_RDWR);
	ASSERT_LE(0, mem);
	ASSERT_EQ(1, pread(mem, &byte, 1, (uintptr_t)self->mem));
	EXPECT_EQ(0, byte);
	byte = 7;
	ASSERT_EQ(1, pwrite(mem, &byte, 1, (uintptr_t)self->mem));
	EXPECT_EQ(7, peek(self->mem));
}

/* More pages than can be noted at a time: then a debugger waits a moment, too. */
TEST_F(absorbed, end_of_file_is_seen_by_a_debugger_everywhere)
{
	const unsigned int pages = 512;
	int asfd = as_create_flags(pages * PAGE, ABSORB);
	int fd = memfd_pages("short", 1, 'x');
	int mem = open("/proc/self/mem", O_RDWR);
	char *all = attach(asfd, 0, pages * PAGE, RW);
	unsigned int page;

	ASSERT_NE(NULL, all);
	ASSERT_EQ(0, as_map(asfd, 0, fd, 0, pages * PAGE, RW, 0));
	for (page = 2; page < pages; page += 2) {
		uint8_t byte = 1;

		ASSERT_EQ(1, pread(mem, &byte, 1, (uintptr_t)all + page * PAGE))
			TH_LOG("page %u", page);
		EXPECT_EQ(0, byte);
	}
	close(mem);
	close(asfd);
}

/* What a file does not have it may have soon, and nobody tells. */
TEST_F(absorbed, end_of_file_is_survived_and_its_growth_seen)
{
	unsigned int round;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	for (round = 0; round < 20; round++) {
		uint64_t start;

		EXPECT_EQ(0, poke(self->mem + 3 * PAGE, 7));
		ASSERT_EQ(0, ftruncate(self->s.a, 3 * PAGE));
		EXPECT_EQ(0, poke(self->mem + 3 * PAGE, 8));
		EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
		EXPECT_EQ(-SIGBUS, peek(self->s.mem + 3 * PAGE));
		ASSERT_EQ(0, fill_pages(self->s.a, FILE_PAGES, 'a'));
		start = now_ms();
		while (peek(self->mem + 3 * PAGE) != 'd')
			ASSERT_GT(start + 50 * BRIEF_MS, now_ms());
		/* emulated machines are slow now and then; most rounds are not */
		if (now_ms() - start <= BRIEF_MS)
			break;
	}
	EXPECT_GT(20U, round);
}

TEST_F(absorbed, end_of_file_ends_at_once_by_a_change)
{
	unsigned int round;

	ASSERT_EQ(0, ftruncate(self->s.a, 3 * PAGE));
	for (round = 0; round < 20; round++) {
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		ASSERT_EQ(0, poke(self->mem + 3 * PAGE, 7));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.b, 0, FILE_LEN, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ('D', peek(self->mem + 3 * PAGE));
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	}
}

/* To be absorbed makes nothing writable. */
TEST_F(absorbed, end_of_file_is_as_protected_as_the_file)
{
	ASSERT_EQ(0, ftruncate(self->s.a, 3 * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, PROT_READ, 0));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 3 * PAGE, 1));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + 4 * PAGE, 1));
}

/* More pages than can be noted at a time: then an access waits a moment. */
TEST_F(absorbed, end_of_file_is_survived_everywhere)
{
	int fd = memfd_pages("short", 1, 'x');
	unsigned int page;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, fd, 0, SPACE_LEN, RW, 0));
	for (page = 0; page < SPACE_PAGES; page++) {
		unsigned int at = page * 37 % SPACE_PAGES;

		ASSERT_EQ(at ? 0 : 'x', peek(self->mem + at * PAGE));
	}
}

TEST_F(absorbed, page_that_is_denied_is_not_absorbed_without_the_flag)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, 1));
}

TEST_F(absorbed, access_that_is_denied_does_not_reach_the_file)
{
	int view = as_view_flags(self->s.asfd, 0, SPACE_LEN, RW, ABSORB | DENIED);
	char *mem = attach(view, 0, SPACE_LEN, RW);
	uint64_t start;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(0, poke(mem, 7));
	EXPECT_EQ(0, poke(mem + PAGE, 7));
	EXPECT_EQ('a', file_byte(self->s.a, 0));
	/* and does not hide it for long */
	start = now_ms();
	while (peek(mem) != 'a' || peek(mem + PAGE) != 'b')
		ASSERT_GT(start + 1000, now_ms());
	ASSERT_EQ(0, poke(mem, 7));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, RW));
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(0, poke(mem, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 0));
	/* what was absorbed before */
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(7, peek(mem));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, RW));
	EXPECT_EQ('!', peek(mem));
}

/* @mem and @s are of one space: what is mapped is seen at once, each time. */
struct toucher {
	char *mem;
	volatile bool stop;
	volatile unsigned long touches;
	volatile int wrong;
};

static void *touch(void *arg)
{
	struct toucher *t = arg;
	unsigned int n = 0;

	while (!t->stop) {
		int byte = peek(t->mem + n++ % FILE_PAGES * PAGE);

		t->touches++;
		if (byte < 0)
			t->wrong = byte;
	}
	return NULL;
}

TEST_F(absorbed, hole_ends_in_a_race_of_maps_and_touches)
{
	struct toucher t = { .mem = self->mem };
	uint64_t end = now_ms() + race_ms();
	unsigned long rounds = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &t));
	while (now_ms() < end) {
		unsigned int page = rounds++ % FILE_PAGES;
		int byte;

		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		byte = peek(self->mem + page * PAGE);
		ASSERT_EQ('a' + (int)page, byte) TH_LOG("round %lu", rounds);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
		byte = peek(self->mem + page * PAGE);
		ASSERT_EQ(0, byte) TH_LOG("round %lu", rounds);
	}
	t.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, t.wrong);
	EXPECT_LT(10UL, rounds);
	TH_LOG("%lu rounds, %lu touches", rounds, t.touches);
}

/* A child that is forked while others absorb sees nothing of theirs. */
TEST_F(absorbed, page_is_no_child_s_in_a_race_of_forks_and_writes)
{
	struct toucher t = { .mem = self->mem };
	uint64_t end = now_ms() + race_ms();
	unsigned long rounds = 0;
	pthread_t thread;

	ASSERT_EQ(0, poke(self->mem, 7));
	ASSERT_EQ(0, pthread_create(&thread, NULL, touch, &t));
	for (; now_ms() < end; rounds++) {
		struct agent agent;

		ASSERT_EQ(0, agent_start(&agent));
		ASSERT_EQ(0, agent_peek(&agent, self->mem + rounds % 8 * PAGE));
		ASSERT_EQ(0, poke(self->mem + rounds % 8 * PAGE, 7));
		ASSERT_EQ(0, agent_peek(&agent, self->mem + (rounds + 3) % 8 * PAGE));
		ASSERT_EQ(0, agent_stop(&agent));
	}
	t.stop = true;
	pthread_join(thread, NULL);
	EXPECT_LT(3UL, rounds);
}

TEST(policies_are_those_of_the_flags)
{
	struct space s;
	char word[64];
	int asfd, view;
	char *mem;

	ASSERT_EQ(0, space_init(&s));
	ASSERT_EQ(0, fdinfo_word(s.asfd, "holes", word, sizeof(word)));
	EXPECT_STREQ("signal", word);
	asfd = as_create_flags(SPACE_LEN, ABSORB | DENIED);
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, fdinfo_word(asfd, "holes", word, sizeof(word)));
	EXPECT_STREQ("absorb denied", word);
	mem = attach(asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(0, peek(mem));
	/* a view has that of the asfd, or one of its own */
	view = as_view(asfd, 0, PAGE, RW);
	ASSERT_EQ(0, fdinfo_word(view, "holes", word, sizeof(word)));
	EXPECT_STREQ("absorb denied", word);
	view = as_view_flags(asfd, 0, PAGE, RW, ADDRESS_SPACE_HOLE_SIGNAL);
	ASSERT_EQ(0, fdinfo_word(view, "holes", word, sizeof(word)));
	EXPECT_STREQ("signal", word);
	mem = attach(view, 0, PAGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_REFUSED(asfd, EINVAL, as_view_flags(asfd, 0, PAGE, RW, DENIED));
	EXPECT_REFUSED(asfd, EINVAL, as_view_flags(asfd, 0, PAGE, RW, ABSORB |
						   ADDRESS_SPACE_HOLE_SIGNAL));
	EXPECT_EQ(-EINVAL, as_create_flags(SPACE_LEN, DENIED));
	space_free(&s);
}

FIXTURE(guest)
{
	struct space s;
	struct vm vm;
	char *mem;
};

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, vm_create(&self->vm));
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0,
				ABSORB | DENIED, &self->mem));
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
	space_free(&self->s);
}

TEST_F(guest, lives_at_a_hole_by_any_instruction)
{
	EXPECT_EQ(0, guest_read(&self->vm, 0));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 0));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, PAGE));
	EXPECT_EQ(5, guest_write(&self->vm, 2 * PAGE, 5));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem));
}

TEST_F(guest, sees_what_is_mapped_at_once)
{
	unsigned int round;
	struct spin spin;

	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	for (round = 0; round < 20; round++) {
		uint32_t word = 0x1000 + round;

		ASSERT_EQ(0, spin_rounds(&spin, 3)) TH_LOG("KVM_RUN: %d", spin.ret);
		ASSERT_EQ(0U, vm_mirror(&self->vm)->value);
		ASSERT_EQ((ssize_t)sizeof(word), pwrite(self->s.a, &word, sizeof(word), 0));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
		ASSERT_EQ(0, spin_rounds(&spin, 3)) TH_LOG("KVM_RUN: %d", spin.ret);
		ASSERT_EQ(word, vm_mirror(&self->vm)->value);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
	}
	EXPECT_EQ(0, spin_stop(&spin));
}

TEST_F(guest, lives_when_its_file_is_truncated)
{
	struct spin spin;
	uint64_t start;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	ASSERT_EQ(0, spin_rounds(&spin, 3));
	ASSERT_EQ(0x61616161U, vm_mirror(&self->vm)->value);
	ASSERT_EQ(0, ftruncate(self->s.a, 0));
	ASSERT_EQ(0, spin_rounds(&spin, 3)) TH_LOG("KVM_RUN: %d", spin.ret);
	ASSERT_EQ(0U, vm_mirror(&self->vm)->value);
	ASSERT_EQ(0, fill_pages(self->s.a, FILE_PAGES, 'a'));
	start = now_ms();
	while (vm_mirror(&self->vm)->value != 0x61616161U)
		ASSERT_GT(start + 1000, now_ms()) TH_LOG("KVM_RUN: %d", spin.ret);
	TH_LOG("%d ms", (int)(now_ms() - start));
	EXPECT_EQ(0, spin_stop(&spin));
	/* also where it writes, and reads first */
	ASSERT_EQ(0, ftruncate(self->s.a, 0));
	EXPECT_EQ(0, guest_read_write(&self->vm, PAGE, 9));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 2 * PAGE));
}

TEST_F(guest, lives_where_nothing_is_allowed)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_NONE));
	EXPECT_EQ(0, guest_read(&self->vm, 0));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, PAGE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, FILE_LEN, PROT_READ));
	EXPECT_EQ('c', guest_read(&self->vm, 2 * PAGE));
	EXPECT_EQ('b', file_byte(self->s.a, PAGE));
}

TEST_F(guest, shares_its_page_with_no_other_guest)
{
	struct vm other;

	ASSERT_EQ(0, vm_create(&other));
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, other.vm, SLOT, SLOT_GPA, SLOT_LEN, 0,
				ABSORB, NULL));
	EXPECT_EQ(5, guest_write(&self->vm, 0, 5));
	EXPECT_EQ(0, guest_read(&other, 0));
	EXPECT_EQ(5, guest_read(&self->vm, PAGE));
	vm_destroy(&other);
}

TEST_F(guest, has_the_policy_of_its_view_and_no_other)
{
	int view = as_view(self->s.asfd, 0, SLOT_LEN, RW);

	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_kvm_unmap(self->s.asfd, self->vm.vm, SLOT));
	EXPECT_REFUSED(self->s.asfd, EPERM,
		       as_kvm_map(view, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0, ABSORB, NULL));
	ASSERT_EQ(0, as_kvm_map(view, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0, 0, NULL));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	ASSERT_EQ(0, as_kvm_unmap(view, self->vm.vm, SLOT));
	close(view);
	view = as_view_flags(self->s.asfd, 0, SLOT_LEN, RW, ABSORB);
	ASSERT_EQ(0, as_kvm_map(view, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0, ABSORB, NULL));
	EXPECT_EQ(0, guest_read(&self->vm, 0));
}

TEST_HARNESS_MAIN

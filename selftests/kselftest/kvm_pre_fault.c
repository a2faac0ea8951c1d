// SPDX-License-Identifier: GPL-2.0
/*
 * KVM_PRE_FAULT_MEMORY on a slot of a space: KVM enters what is mapped before the guest touches
 * it, and nothing else, and loses it as it loses what was touched.
 */
#include "kselftest_harness.h"
#include "lib/kvm_guest.h"

#define SLOT	1
#define ROUNDS	100

FIXTURE(pre_fault)
{
	struct space s;
	struct vm vm;
};

FIXTURE_SETUP(pre_fault)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, vm_create(&self->vm));
	if (ioctl(self->vm.vm, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY) <= 0)
		SKIP(return, "no KVM_CAP_PRE_FAULT_MEMORY");
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA, SLOT_LEN, 0, 0, NULL));
	/* so that it has what it needs of its own memory */
	ASSERT_EQ(-EFAULT, guest_read(&self->vm, 0));
}

FIXTURE_TEARDOWN(pre_fault)
{
	vm_destroy(&self->vm);
	space_free(&self->s);
}

/* Of bytes @first to @last of the slot: how many bytes it has entered, or -errno. */
static int64_t pre_fault(struct vm *vm, uint64_t first, uint64_t last)
{
	struct kvm_pre_fault_memory range = { .gpa = SLOT_GPA + first, .size = last - first };

	if (ioctl(vm->vcpu, KVM_PRE_FAULT_MEMORY, &range))
		return -errno;
	return range.gpa - SLOT_GPA - first;
}

/* What KVM counts of the VM, or -1. */
static long counted(struct vm *vm, const char *what)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/%s", getpid(), vm->vm, what);
	return read_text(path, text, sizeof(text)) ? -1 : atol(text);
}

TEST_F(pre_fault, enters_what_is_mapped_and_the_guest_meets_no_fault)
{
	long taken, entries;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	entries = counted(&self->vm, "pages_4k");
	ASSERT_EQ((int64_t)SLOT_LEN, pre_fault(&self->vm, 0, SLOT_LEN));
	EXPECT_EQ(entries + (long)(SLOT_LEN / PAGE), counted(&self->vm, "pages_4k"));

	taken = counted(&self->vm, "pf_taken");
	ASSERT_LE(0, taken);
	for (unsigned int offset = 0; offset < SLOT_LEN; offset += PAGE) {
		EXPECT_EQ((int)('a' + offset / PAGE), guest_read(&self->vm, offset));
		EXPECT_EQ('!', guest_write(&self->vm, offset + 1, '!'));
	}
	EXPECT_EQ(taken, counted(&self->vm, "pf_taken"));
}

TEST_F(pre_fault, ends_where_nothing_is_mapped)
{
	EXPECT_EQ(-EFAULT, pre_fault(&self->vm, 0, PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, PAGE, self->s.a, 0, 2 * PAGE, RW, 0));
	EXPECT_EQ(-EFAULT, pre_fault(&self->vm, 0, SLOT_LEN));
	EXPECT_EQ((int64_t)(2 * PAGE), pre_fault(&self->vm, PAGE, SLOT_LEN));
	EXPECT_EQ('b', guest_read(&self->vm, 2 * PAGE));
}

TEST_F(pre_fault, of_what_absorbs_gives_way_to_a_map)
{
	char *mem;

	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT + 1, SLOT_GPA + SLOT_LEN, SLOT_LEN,
				0, ADDRESS_SPACE_HOLE_ABSORB, &mem));
	ASSERT_EQ((int64_t)SLOT_LEN, pre_fault(&self->vm, SLOT_LEN, 2 * SLOT_LEN));
	EXPECT_EQ(0, peek(mem + PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('b', peek(mem + PAGE));
	EXPECT_EQ((int64_t)SLOT_LEN, pre_fault(&self->vm, SLOT_LEN, 2 * SLOT_LEN));
}

TEST_F(pre_fault, entries_go_with_an_unmap)
{
	const long before = counted(&self->vm, "pages_4k");

	for (unsigned int i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, as_map(self->s.asfd, 0, i % 2 ? self->s.a : self->s.b, 0, SLOT_LEN, RW,
				    0));
		ASSERT_EQ((int64_t)SLOT_LEN, pre_fault(&self->vm, 0, SLOT_LEN));
		ASSERT_EQ(i % 2 ? 'c' : 'C', guest_read(&self->vm, 2 * PAGE));
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SLOT_LEN));
		ASSERT_EQ(before, counted(&self->vm, "pages_4k"));
		ASSERT_EQ(-EFAULT, guest_read(&self->vm, 2 * PAGE));
	}
}

struct owner {
	struct space *s;
	volatile bool stop;
	int ret;
};

static void *change_and_change(void *arg)
{
	struct owner *owner = arg;

	while (!owner->stop && !owner->ret) {
		owner->ret = as_map(owner->s->asfd, 0, owner->s->a, 0, SLOT_LEN, RW, 0);
		if (!owner->ret)
			owner->ret = as_unmap(owner->s->asfd, 0, SLOT_LEN);
	}
	return NULL;
}

/* What it enters while the owner takes it away is gone when the owner's last call has returned. */
TEST_F(pre_fault, beside_a_change_leaves_no_entry)
{
	struct owner owner = { .s = &self->s };
	const long before = counted(&self->vm, "pages_4k");
	unsigned int entered = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, change_and_change, &owner));
	for (uint64_t end = now_ms() + 2000; now_ms() < end;) {
		const int64_t ret = pre_fault(&self->vm, 0, SLOT_LEN);

		entered += ret > 0;
		if (ret < 0)
			ASSERT_EQ(-EFAULT, ret);
	}
	owner.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, owner.ret);
	EXPECT_EQ(before, counted(&self->vm, "pages_4k"));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	TH_LOG("%u times something was entered", entered);
	EXPECT_LT(0U, entered);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Slots and their attachments: how many, for which processes, how they end, and what
 * is refused.
 */
#include "kselftest_harness.h"
#include "lib/kvm_guest.h"

#define SLOT	1

FIXTURE(slot)
{
	struct space s;
	struct vm vm;
	int asfd;
};

FIXTURE_SETUP(slot)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, vm_create(&self->vm));
}

FIXTURE_TEARDOWN(slot)
{
	vm_destroy(&self->vm);
	space_free(&self->s);
}

static int map_slot(int asfd, struct vm *vm, char **mem)
{
	return as_kvm_map(asfd, vm->vm, SLOT, SLOT_GPA, SLOT_LEN, 0, 0, mem);
}

TEST_F(slot, is_removed_with_its_attachment)
{
	char *mem;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(2, fdinfo_value(self->asfd, "attachments"));
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	EXPECT_EQ(1, fdinfo_value(self->asfd, "attachments"));
	EXPECT_EQ(-SIGSEGV, peek(mem));
	/* without a slot KVM exits to the VMM */
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, 0));
	/* and the slot is free again */
	EXPECT_EQ(-ENOENT, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
}

/* The slots of fdinfo, one a line. */
static void slot_lines(int asfd, char *lines, size_t size)
{
	char path[64], line[512];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", asfd);
	file = fopen(path, "re");
	*lines = 0;
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, "slot:", 5))
			strncat(lines, line, size - strlen(lines) - 1);
	if (file)
		fclose(file);
}

TEST_F(slot, is_listed_with_process_machine_and_range)
{
	char lines[1024], expected[1024], *mem;
	int view = as_view(self->asfd, 2 * PAGE, SLOT_LEN, RW);
	struct vm other;

	EXPECT_EQ(0, fdinfo_value(self->asfd, "slots"));
	ASSERT_EQ(0, vm_create(&other));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	ASSERT_EQ(0, map_slot(view, &other, &mem));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 7, 2 * SLOT_GPA + SLOT_LEN, PAGE,
				3 * PAGE, 0, &mem));
	EXPECT_EQ(3, fdinfo_value(self->asfd, "slots"));
	slot_lines(self->asfd, lines, sizeof(lines));
	snprintf(expected, sizeof(expected), "pid %d vm 1 slot %d 00000000-%08lx\n",
		 getpid(), SLOT, SLOT_LEN);
	EXPECT_NE(NULL, strstr(lines, expected))
		TH_LOG("%s", lines);
	/* what a view shows is told as a range of the space */
	snprintf(expected, sizeof(expected), "pid %d vm 2 slot %d %08lx-%08lx\n",
		 getpid(), SLOT, 2 * PAGE, 2 * PAGE + SLOT_LEN);
	EXPECT_NE(NULL, strstr(lines, expected))
		TH_LOG("%s", lines);
	snprintf(expected, sizeof(expected), "pid %d vm 1 slot 7 %08lx-%08lx\n",
		 getpid(), 3 * PAGE, 4 * PAGE);
	EXPECT_NE(NULL, strstr(lines, expected))
		TH_LOG("%s", lines);
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, other.vm, SLOT));
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	ASSERT_EQ(0, munmap(mem, PAGE));
	EXPECT_EQ(0, fdinfo_value(self->asfd, "slots"));
	vm_destroy(&other);
}

TEST_F(slot, shows_its_part_of_the_space)
{
	char *first, *second;

	/* two slots of one space, crosswise, in one VM and one process */
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 1, SLOT_GPA,
				4 * PAGE, 8 * PAGE, 0, &first));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 2, SLOT_GPA + 4 * PAGE,
				4 * PAGE, 6 * PAGE, 0, &second));
	EXPECT_EQ('i', guest_read(&self->vm, 0));
	EXPECT_EQ('g', guest_read(&self->vm, 4 * PAGE));
	/* both slots show page 8 of the space */
	EXPECT_EQ('i', guest_read(&self->vm, 6 * PAGE));
	EXPECT_EQ('!', guest_write(&self->vm, 6 * PAGE, '!'));
	EXPECT_EQ('!', guest_read(&self->vm, 0));
	EXPECT_EQ('!', peek(first));
	EXPECT_EQ('!', peek(second + 2 * PAGE));
	ASSERT_EQ(0, as_unmap(self->asfd, 8 * PAGE, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 6 * PAGE));
	EXPECT_EQ('j', guest_read(&self->vm, 7 * PAGE));
	/* one of the two is removed alone */
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, 1));
	EXPECT_EQ('g', guest_read(&self->vm, 4 * PAGE));
	EXPECT_EQ(-SIGSEGV, peek(first));
	EXPECT_EQ('g', peek(second));
}

TEST_F(slot, shows_one_space_in_two_vms)
{
	struct vm other;
	struct spin spin;

	ASSERT_EQ(0, vm_create(&other));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, NULL));
	ASSERT_EQ(0, map_slot(self->asfd, &other, NULL));
	EXPECT_EQ('!', guest_write(&self->vm, PAGE, '!'));
	EXPECT_EQ('!', guest_read(&other, PAGE));
	ASSERT_EQ(0, spin_start(&spin, &other, GUEST_SPIN_READ, 0));
	ASSERT_EQ(0, spin_rounds(&spin, 100));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, spin_end(&spin, 10000));
	/* the slot of one VM is removed, that of the other stays */
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, PAGE));
	EXPECT_EQ('!', guest_read(&other, PAGE));
	vm_destroy(&other);
}

TEST_F(slot, shows_two_spaces_in_one_vm)
{
	int other = as_create(SPACE_LEN);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, as_map(other, 0, self->s.b, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 1, SLOT_GPA,
				4 * PAGE, 0, 0, NULL));
	ASSERT_EQ(0, as_kvm_map(other, self->vm.vm, 2, SLOT_GPA + 4 * PAGE,
				4 * PAGE, 0, 0, NULL));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('A', guest_read(&self->vm, 4 * PAGE));
	/* the slot of one space does not belong to the other */
	EXPECT_REFUSED(self->asfd, ENOENT, as_kvm_unmap(self->asfd, self->vm.vm, 2));
	EXPECT_REFUSED(self->asfd, ENOENT, as_kvm_unmap(other, self->vm.vm, 1));
	ASSERT_EQ(0, as_unmap(other, 0, SPACE_LEN));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 4 * PAGE));
}

/* An entry for reading would be in the way of the guest's first write. */
TEST_F(slot, faults_once_for_the_neighbours_that_no_guest_may_write)
{
	const uint64_t half = FILE_PAGES / 2;
	long long faults;
	uint64_t page;
	char *mem;

	ASSERT_EQ(0, as_map(self->asfd, 0, self->s.a, 0, half * PAGE, PROT_READ,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	faults = fdinfo_value(self->asfd, "faults");
	for (page = 0; page < half; page++)
		EXPECT_EQ('a' + (int)page, guest_read(&self->vm, page * PAGE));
	/* KVM asks twice: for writing, and then for reading */
	EXPECT_GE(faults + 4, fdinfo_value(self->asfd, "faults"));
	faults = fdinfo_value(self->asfd, "faults");
	EXPECT_EQ('a' + (int)half, peek(mem + half * PAGE));
	EXPECT_LT(faults, fdinfo_value(self->asfd, "faults"));
	EXPECT_EQ('!', guest_write(&self->vm, half * PAGE, '!'));
	EXPECT_EQ('?', guest_write(&self->vm, (half + 1) * PAGE, '?'));
	/* nothing has let it write the rest */
	EXPECT_GT(0, guest_write(&self->vm, 0, '!'));
	EXPECT_EQ('a', peek(mem));
}

TEST_F(slot, has_huge_pages_that_no_guest_may_write)
{
	int huge = hugetlb_memfd(1), asfd;
	long long faults;
	uint64_t page;
	char *mem;

	if (huge < 0)
		SKIP(return, "no huge pages available");
	asfd = as_create(HUGE);
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, as_map(asfd, 0, huge, 0, HUGE, PROT_READ, 0));
	ASSERT_EQ(0, as_kvm_map(asfd, self->vm.vm, SLOT, SLOT_GPA, HUGE, 0, 0, &mem));
	EXPECT_EQ('h', peek(mem + 7 * PAGE));
	faults = fdinfo_value(asfd, "faults");
	for (page = 0; page < HUGE / PAGE; page += 37)
		EXPECT_EQ('h', peek(mem + page * PAGE));
	EXPECT_EQ(faults, fdinfo_value(asfd, "faults"));
	EXPECT_EQ('h', guest_read(&self->vm, 7 * PAGE));
	EXPECT_GT(0, guest_write(&self->vm, 7 * PAGE, '!'));
	/* what it may write it can, though it was there for reading */
	ASSERT_EQ(0, as_map(asfd, 0, huge, 0, HUGE, RW, ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('h', guest_read(&self->vm, 7 * PAGE));
	EXPECT_EQ('!', guest_write(&self->vm, 7 * PAGE, '!'));
	close(asfd);
}

TEST_F(slot, outlives_the_fds)
{
	char *mem;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	ASSERT_EQ(0, close(self->s.a));
	ASSERT_EQ(0, close(self->asfd));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('!', guest_write(&self->vm, PAGE, '!'));
	EXPECT_EQ('!', peek(mem + PAGE));
}

/* KVM may allocate a new VM at the address of the old one. */
TEST_F(slot, of_destroyed_vm_is_not_found_in_the_next)
{
	unsigned int round;

	for (round = 0; round < 10; round++) {
		struct vm vm;

		ASSERT_EQ(0, vm_create(&vm));
		ASSERT_EQ(0, map_slot(self->asfd, &vm, NULL));
		ASSERT_EQ('a', guest_read(&vm, 0));
		vm_destroy(&vm);
		/* its attachment stays, as no call remains to unmap it */
		ASSERT_EQ(0, vm_create(&vm));
		ASSERT_EQ(-ENOENT, as_kvm_unmap(self->asfd, vm.vm, SLOT));
		vm_destroy(&vm);
	}
}

TEST_F(slot, is_released_if_vmm_unmapped_the_attachment)
{
	char *mem;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	ASSERT_EQ(0, munmap(mem, SLOT_LEN));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	/* the unmap must spare whatever is mapped at that address now */
	ASSERT_EQ((void *)mem, mmap(mem, PAGE, RW, MAP_PRIVATE | MAP_FIXED |
				       MAP_ANONYMOUS, -1, 0));
	*mem = 'm';
	as_kvm_unmap(self->asfd, self->vm.vm, SLOT);
	EXPECT_EQ('m', peek(mem));
}

struct unmapper {
	pthread_t thread;
	char *volatile at;
	volatile bool stop;
};

static void *unmap_for_ever(void *arg)
{
	struct unmapper *u = arg;

	while (!u->stop)
		if (u->at)
			munmap(u->at, SLOT_LEN);
	return NULL;
}

/*
 * Another thread unmaps the attachment while the slot is made. Whether the call is still in time
 * or not: a slot without an attachment must not be remembered, as the VM would be held.
 */
TEST_F(slot, raced_by_munmap_is_not_remembered)
{
	struct kvm_userspace_memory_region gone = { .slot = SLOT };
	unsigned int refused = 0, round;
	int stale = 0;
	char *at;
	struct unmapper u = { 0 };
	uint64_t end = now_ms() + 4000;

	/* first, as its stack takes an address */
	ASSERT_EQ(0, pthread_create(&u.thread, NULL, unmap_for_ever, &u));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &at));
	ASSERT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	u.at = at;
	for (round = 0; round < 2000 && now_ms() < end; round++) {
		int ret = map_slot(self->asfd, &self->vm, &at);

		ASSERT_TRUE(!ret || ret == -EFAULT);
		if (!ret)
			ASSERT_EQ((void *)u.at, at);
		refused += !!ret;
		munmap(u.at, SLOT_LEN);
		stale += as_kvm_unmap(self->asfd, self->vm.vm, SLOT) != -ENOENT;
		ioctl(self->vm.vm, KVM_SET_USER_MEMORY_REGION, &gone);
	}
	u.stop = true;
	ASSERT_EQ(0, pthread_join(u.thread, NULL));
	EXPECT_EQ(1, fdinfo_value(self->asfd, "attachments"));
	EXPECT_EQ(0, stale) TH_LOG("%u refused in %u rounds", refused, round);
}

TEST_F(slot, sealed_attachment_stays_with_its_slot)
{
	char *mem;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	if (syscall(__NR_mseal, mem + PAGE, PAGE, 0)) {
		ASSERT_EQ(ENOSYS, errno);
		SKIP(return, "no mseal()");
	}
	EXPECT_REFUSED(self->asfd, EPERM, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('b', peek(mem + PAGE));
	/* it is no shelter from a revocation */
	ASSERT_EQ(0, as_unmap(self->asfd, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem + PAGE));
}

/* Removed by KVM's own call, which the space does not notice. */
TEST_F(slot, is_released_if_vmm_removed_it)
{
	struct kvm_userspace_memory_region gone = { .slot = SLOT };
	char *mem;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	ASSERT_EQ(0, ioctl(self->vm.vm, KVM_SET_USER_MEMORY_REGION, &gone));
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, 0));
	EXPECT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	EXPECT_EQ(-SIGSEGV, peek(mem));
	EXPECT_EQ(-ENOENT, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
}

/* The other mapping need not cover all of the attachment, nor its beginning. */
TEST_F(slot, unmap_spares_memory_mapped_over_the_attachment)
{
	char *mem, *middle;

	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, &mem));
	middle = mem + 4 * PAGE;
	ASSERT_EQ((void *)middle, mmap(middle, PAGE, RW, MAP_PRIVATE | MAP_FIXED |
				       MAP_ANONYMOUS, -1, 0));
	*middle = 'm';
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
	as_kvm_unmap(self->asfd, self->vm.vm, SLOT);
	EXPECT_EQ('m', peek(middle));
}

TEST_F(slot, cannot_be_mapped_twice)
{
	ASSERT_EQ(0, map_slot(self->asfd, &self->vm, NULL));
	EXPECT_REFUSED(self->asfd, EEXIST, map_slot(self->asfd, &self->vm, NULL));
	/* under another number, where it overlaps */
	EXPECT_REFUSED(self->asfd, EEXIST,
		       as_kvm_map(self->asfd, self->vm.vm, 7, SLOT_GPA + PAGE,
				  PAGE, 0, 0, NULL));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	/* nor is one that the VMM created with other memory: KVM gives EINVAL */
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_kvm_map(self->asfd, self->vm.vm, 0, 0, PAGE, 0, 0, NULL));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_kvm_map(self->asfd, self->vm.vm, 0, 1 << 20, LOW_LEN, 0,
				  0, NULL));
	EXPECT_REFUSED(self->asfd, ENOENT, as_kvm_unmap(self->asfd, self->vm.vm, 0));
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
}

TEST_F(slot, of_readonly_view_must_be_readonly)
{
	int view = as_view(self->asfd, 0, SPACE_LEN, PROT_READ);

	ASSERT_LE(0, view);
	EXPECT_REFUSED(self->asfd, EACCES, map_slot(view, &self->vm, NULL));
	EXPECT_REFUSED(self->asfd, EACCES,
		       as_kvm_map(view, self->vm.vm, SLOT, SLOT_GPA, PAGE, 0,
				  KVM_MEM_LOG_DIRTY_PAGES, NULL));
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, 0));
}

TEST_F(slot, requires_fd_of_a_vm)
{
	int null = open("/dev/null", O_RDWR);
	int path = open("/tmp", O_PATH);
	int wrong[] = { null, self->s.a, self->asfd, self->vm.kvm, self->vm.vcpu };
	int bad[] = { -1, closed_fd(), INT32_MAX, INT32_MIN, path };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_REFUSED(self->asfd, EBADF,
			       as_kvm_map(self->asfd, bad[i], SLOT, SLOT_GPA,
					  PAGE, 0, 0, NULL));
		EXPECT_REFUSED(self->asfd, EBADF,
			       as_kvm_unmap(self->asfd, bad[i], SLOT));
	}
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_kvm_map(self->asfd, wrong[i], SLOT, SLOT_GPA,
					  PAGE, 0, 0, NULL));
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_kvm_unmap(self->asfd, wrong[i], SLOT));
	}
}

static long map_in_child(void *arg)
{
	FIXTURE_DATA(slot) *self = arg;

	return as_kvm_map(self->asfd, self->vm.vm, SLOT + 1, SLOT_GPA + 8 * PAGE,
			  PAGE, 0, 0, NULL);
}

static long unmap_in_child(void *arg)
{
	FIXTURE_DATA(slot) *self = arg;

	return as_kvm_unmap(self->asfd, self->vm.vm, SLOT);
}

TEST_F(slot, in_vm_of_another_process_is_refused)
{
	struct agent child;

	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, SLOT, SLOT_GPA,
				4 * PAGE, 0, 0, NULL));
	/* the child has the fd of the VM, and a copy of the attachment */
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(-EIO, agent_call(&child, map_in_child, self));
	EXPECT_EQ(-EIO, agent_call(&child, unmap_in_child, self));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ(0, agent_stop(&child));
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
	EXPECT_EQ(0, as_kvm_unmap(self->asfd, self->vm.vm, SLOT));
}

TEST_F(slot, rejects_invalid_ranges)
{
	static const struct {
		uint64_t gpa, length, offset;
		int err;
	} cases[] = {
		{ SLOT_GPA, 0, 0, EINVAL },
		{ SLOT_GPA, 1, 0, EINVAL },
		{ SLOT_GPA, PAGE + 1, 0, EINVAL },
		{ SLOT_GPA + 1, PAGE, 0, EINVAL },
		{ SLOT_GPA, PAGE, 1, EINVAL },
		{ SLOT_GPA, SPACE_LEN + PAGE, 0, EINVAL },
		{ SLOT_GPA, SPACE_LEN, PAGE, EINVAL },
		{ SLOT_GPA, PAGE, SPACE_LEN, EINVAL },
		{ SLOT_GPA, PAGE, -PAGE, EOVERFLOW },
		{ SLOT_GPA, -PAGE, 2 * PAGE, EOVERFLOW },
		{ -PAGE, PAGE, 0, EOVERFLOW },
		{ -PAGE, 4 * PAGE, 0, EOVERFLOW },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++)
		EXPECT_REFUSED(self->asfd, cases[i].err,
			       as_kvm_map(self->asfd, self->vm.vm, SLOT,
					  cases[i].gpa, cases[i].length,
					  cases[i].offset, 0, NULL));
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, 0));
	EXPECT_EQ(0, map_slot(self->asfd, &self->vm, NULL));
}

TEST_F(slot, follows_common_struct_contract)
{
	union {
		struct kvm_map_address_space map;
		struct kvm_unmap_address_space unmap;
		uint32_t head[2];
		char room[128];
	} arg = { .map = {
		.vmfd = self->vm.vm, .slot = SLOT, .guest_phys_addr = SLOT_GPA,
		.memory_size = SLOT_LEN,
	} };
	uint32_t size, bit;

	for (size = 0; size < sizeof(arg.map); size++) {
		arg.head[0] = size;
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, &arg));
	}
	arg.head[0] = sizeof(arg);
	arg.room[127] = 1;
	EXPECT_REFUSED(self->asfd, E2BIG,
		       as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, &arg));
	arg.room[127] = 0;
	/* KVM knows KVM_MEM_GUEST_MEMFD, but it is not allowed here */
	for (bit = 2; bit < 32; bit++) {
		if (bit >= 16 && bit <= 20)
			continue;	/* ADDRESS_SPACE_HOLE_* */
		arg.head[1] = 1U << bit;
		EXPECT_REFUSED(self->asfd, EOPNOTSUPP,
			       as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, &arg));
	}
	arg.head[1] = 0;
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, NULL));
	EXPECT_EQ(0, as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, &arg));

	memset(arg.room + sizeof(arg.unmap), 0, sizeof(arg) - sizeof(arg.unmap));
	for (size = 0; size < sizeof(arg.unmap); size++) {
		arg.head[0] = size;
		EXPECT_REFUSED(self->asfd, EINVAL,
			       as_ioctl(self->asfd, KVM_UNMAP_ADDRESS_SPACE, &arg));
	}
	arg.head[0] = sizeof(arg.unmap);
	for (bit = 0; bit < 32; bit++) {
		arg.head[1] = 1U << bit;
		EXPECT_REFUSED(self->asfd, EOPNOTSUPP,
			       as_ioctl(self->asfd, KVM_UNMAP_ADDRESS_SPACE, &arg));
	}
	arg.head[1] = 0;
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_ioctl(self->asfd, KVM_UNMAP_ADDRESS_SPACE, NULL));
	arg.head[0] = sizeof(arg.unmap) + 8;
	arg.room[sizeof(arg.unmap)] = 1;
	EXPECT_REFUSED(self->asfd, E2BIG,
		       as_ioctl(self->asfd, KVM_UNMAP_ADDRESS_SPACE, &arg));
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	arg.room[sizeof(arg.unmap)] = 0;
	EXPECT_EQ(0, as_ioctl(self->asfd, KVM_UNMAP_ADDRESS_SPACE, &arg));
}

/* The address of the attachment is written back; if that fails, there is none. */
TEST_F(slot, is_undone_if_result_is_unwritable)
{
	struct kvm_map_address_space *arg;

	arg = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)arg);
	arg->size = sizeof(*arg);
	arg->vmfd = self->vm.vm;
	arg->slot = SLOT;
	arg->guest_phys_addr = SLOT_GPA;
	arg->memory_size = SLOT_LEN;
	ASSERT_EQ(0, mprotect(arg, PAGE, PROT_READ));
	EXPECT_REFUSED(self->asfd, EFAULT,
		       as_ioctl(self->asfd, KVM_MAP_ADDRESS_SPACE, arg));
	EXPECT_EQ(-ENXIO, guest_read(&self->vm, 0));
	EXPECT_EQ(0, map_slot(self->asfd, &self->vm, NULL));
}

TEST_HARNESS_MAIN

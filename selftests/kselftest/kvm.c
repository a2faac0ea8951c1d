// SPDX-License-Identifier: GPL-2.0
/* A guest sees what the space shows, and nothing that the space no longer shows. */
#include "kselftest_harness.h"
#include "lib/kvm_guest.h"

#define SLOT	1

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
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA,
				SLOT_LEN, 0, 0, &self->mem));
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
	space_free(&self->s);
}

/* maps all of 'a', 'b', ... at 0 */
#define MAP_A(prot)	\
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, prot, 0))

TEST_F(guest, reads_what_is_mapped)
{
	MAP_A(RW);
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('d', guest_read(&self->vm, 3 * PAGE + 17));
	EXPECT_EQ('p', guest_read(&self->vm, SLOT_LEN - 1));
	ASSERT_EQ(0, file_set(self->s.a, 5, '!'));
	EXPECT_EQ('!', guest_read(&self->vm, 5));
	/* the caller sees the same in its attachment */
	EXPECT_EQ('!', peek(self->mem + 5));
	EXPECT_EQ('d', peek(self->mem + 3 * PAGE));
}

TEST_F(guest, writes_into_the_file)
{
	MAP_A(RW);
	EXPECT_EQ('1', guest_write(&self->vm, 0, '1'));
	EXPECT_EQ('2', guest_write(&self->vm, PAGE + 9, '2'));
	EXPECT_EQ('1', file_byte(self->s.a, 0));
	EXPECT_EQ('2', file_byte(self->s.a, PAGE + 9));
	EXPECT_EQ('1', peek(self->s.mem));
}

/* A read must not leave an entry that turns a write into an MMIO exit. */
TEST_F(guest, writes_after_reading)
{
	MAP_A(RW);
	EXPECT_EQ('c', guest_read_write(&self->vm, 2 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 2 * PAGE));
	EXPECT_EQ('d', guest_read(&self->vm, 3 * PAGE));
	EXPECT_EQ('!', guest_write(&self->vm, 3 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 3 * PAGE));
	/* nor must a read by the VMM */
	EXPECT_EQ('e', peek(self->mem + 4 * PAGE));
	EXPECT_EQ('!', guest_write(&self->vm, 4 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 4 * PAGE));
	/* nor one by another process */
	EXPECT_EQ('f', peek(self->s.mem + 5 * PAGE));
	EXPECT_EQ('!', guest_write(&self->vm, 5 * PAGE, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 5 * PAGE));
}

/*
 * Reads by the guest and by the VMM while the VMM has write-protected its attachment
 * must leave no entry for reading, which KVM takes for a device: @mem is the attachment
 * that the memslot shows, of pages that nobody has written.
 */
#define EXPECT_FSTP_AFTER_MPROTECT(vm, mem) do {				\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, 0));				\
	EXPECT_EQ('b', guest_read(vm, PAGE));					\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, PAGE));				\
	EXPECT_EQ('c', peek((mem) + 2 * PAGE));					\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, 2 * PAGE));				\
	ASSERT_EQ(0, mprotect(mem, SLOT_LEN, PROT_READ));			\
	EXPECT_EQ('d', guest_read(vm, 3 * PAGE));				\
	EXPECT_EQ('e', peek((mem) + 4 * PAGE));					\
	ASSERT_EQ(0, mprotect(mem, SLOT_LEN, RW));				\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, 0));				\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, 3 * PAGE));				\
	EXPECT_EQ(FSTP_BYTE, guest_fstp(vm, 4 * PAGE));				\
} while (0)

TEST_F(guest, writes_by_any_instruction_after_mprotect)
{
	MAP_A(RW);
	EXPECT_FSTP_AFTER_MPROTECT(&self->vm, self->mem);
}

/* A protection key has all entries made anew, with what was writable before. */
TEST_F(guest, writes_by_any_instruction_after_pkey_mprotect)
{
	int key = pkey_alloc(0, 0);

	if (key < 0)
		SKIP(return, "no protection keys: %s", strerror(errno));
	MAP_A(RW);
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	ASSERT_EQ(0, pkey_mprotect(self->mem, SLOT_LEN, RW, key));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 0));
	EXPECT_EQ('!', guest_write(&self->vm, PAGE, '!'));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 2 * PAGE));
	EXPECT_EQ(0, pkey_free(key));
}

TEST_F(guest, writes_by_any_instruction_after_mprotect_to_disk_file)
{
	char dir[128];
	int file;

	ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
	file = file_pages(dir, FILE_PAGES, 'a');
	ASSERT_LE(0, file);
	ASSERT_EQ(0, fsync(file));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, file, 0, FILE_LEN, RW, 0));
	EXPECT_FSTP_AFTER_MPROTECT(&self->vm, self->mem);
}

/* The VMM may make an attachment a memslot by itself. */
TEST_F(guest, writes_by_any_instruction_in_memslot_set_by_vmm)
{
	struct kvm_userspace_memory_region region = {
		.slot = SLOT,
		.guest_phys_addr = SLOT_GPA,
		.memory_size = SLOT_LEN,
	};
	char dir[128], *mem = attach(self->s.asfd, 0, SLOT_LEN, RW);
	int file;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
	file = file_pages(dir, FILE_PAGES, 'a');
	ASSERT_LE(0, file);
	ASSERT_EQ(0, fsync(file));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, file, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_kvm_unmap(self->s.asfd, self->vm.vm, SLOT));
	region.userspace_addr = (uintptr_t)mem;
	ASSERT_EQ(0, ioctl(self->vm.vm, KVM_SET_USER_MEMORY_REGION, &region));
	EXPECT_FSTP_AFTER_MPROTECT(&self->vm, mem);
}

/* Populating too leaves no entry for reading where a guest may write. */
TEST_F(guest, writes_by_any_instruction_after_populate)
{
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW,
			    ADDRESS_SPACE_MAP_POPULATE));
	EXPECT_FSTP_AFTER_MPROTECT(&self->vm, self->mem);
}

TEST_F(guest, writes_again_after_writeback)
{
	char dir[128];
	int file, round;

	ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
	file = file_pages(dir, FILE_PAGES, 'a');
	ASSERT_LE(0, file);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, file, 0, FILE_LEN, RW, 0));
	for (round = 0; round < 4; round++) {
		EXPECT_EQ('0' + round, guest_write(&self->vm, PAGE, '0' + round));
		ASSERT_EQ(0, fsync(file));
		EXPECT_EQ('0' + round, disk_byte(file, PAGE));
		/* read by all, and then written by the guest */
		EXPECT_EQ('0' + round, peek(self->mem + PAGE));
		EXPECT_EQ('0' + round, guest_read_write(&self->vm, PAGE, 'A' + round));
		ASSERT_EQ(0, fsync(file));
		EXPECT_EQ('A' + round, disk_byte(file, PAGE));
	}
	/* never written before, read first */
	EXPECT_EQ('c', guest_read_write(&self->vm, 2 * PAGE, '!'));
	ASSERT_EQ(0, fsync(file));
	EXPECT_EQ('!', disk_byte(file, 2 * PAGE));
}

TEST_F(guest, gets_efault_at_hole_and_can_continue)
{
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, guest_write(&self->vm, 0, '!'));
	/* the guest repeats the access, now that a page is mapped */
	ASSERT_EQ(0, vm_start(&self->vm, GUEST_READ, PAGE, 0));
	EXPECT_EQ(-EFAULT, vm_run(&self->vm));
	EXPECT_EQ(-EFAULT, vm_run(&self->vm));
	MAP_A(RW);
	EXPECT_EQ(KVM_EXIT_IO, vm_run(&self->vm));
	EXPECT_EQ('b', *((char *)self->vm.run + self->vm.run->io.data_offset));
	ASSERT_EQ(0, as_unmap(self->s.asfd, PAGE, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, PAGE));
	EXPECT_EQ('c', guest_read(&self->vm, 2 * PAGE));
}

static int set_word(int fd, uint32_t value)
{
	return pwrite(fd, &value, sizeof(value), 0) == sizeof(value) ? 0 : -EIO;
}

static uint32_t word(int fd)
{
	uint32_t value = 0;

	return pread(fd, &value, sizeof(value), 0) == sizeof(value) ? value : 0;
}

#define POISON	0xdeadbeef

TEST_F_TIMEOUT(guest, reads_nothing_after_unmap_returns, 90)
{
	unsigned int round;

	for (round = 1; round <= 10; round++) {
		struct spin spin;

		ASSERT_EQ(0, set_word(self->s.a, round));
		MAP_A(RW);
		ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
		ASSERT_EQ(0, spin_rounds(&spin, 1000));
		ASSERT_EQ(round, vm_mirror(&self->vm)->value);
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
		ASSERT_EQ(0, set_word(self->s.a, POISON));
		ASSERT_EQ(-EFAULT, spin_end(&spin, 10000));
		ASSERT_EQ(round, vm_mirror(&self->vm)->value);
	}
}

TEST_F_TIMEOUT(guest, writes_nothing_after_unmap_returns, 90)
{
	unsigned int round;

	for (round = 1; round <= 10; round++) {
		struct spin spin;
		uint32_t last;

		MAP_A(RW);
		ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_WRITE, 0));
		ASSERT_EQ(0, spin_rounds(&spin, 1000));
		ASSERT_EQ(0, as_unmap(self->s.asfd, 0, FILE_LEN));
		last = word(self->s.a);
		ASSERT_EQ(-EFAULT, spin_end(&spin, 10000));
		sleep_ms(2);
		ASSERT_EQ(last, word(self->s.a));
	}
}

/* No call to KVM, no exit: the guest reads the old page and then the new one. */
TEST_F_TIMEOUT(guest, sees_replace_while_running, 90)
{
	unsigned int round;
	struct spin spin;

	ASSERT_EQ(0, set_word(self->s.a, 0));
	MAP_A(RW);
	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	for (round = 1; round <= 50; round++) {
		int file = round % 2 ? self->s.b : self->s.a;

		ASSERT_EQ(0, set_word(file, round));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, file, 0, FILE_LEN, RW,
				    ADDRESS_SPACE_MAP_REPLACE));
		/* from now on the guest reads the new page */
		ASSERT_EQ(0, spin_rounds(&spin, 3))
			TH_LOG("round %u, KVM_RUN: %d", round, spin.ret);
		ASSERT_EQ(round, vm_mirror(&self->vm)->value);
	}
	EXPECT_EQ(0, spin_stop(&spin));
}

TEST_F_TIMEOUT(guest, sees_punched_hole_while_running, 90)
{
	unsigned int round;
	struct spin spin;

	MAP_A(RW);
	ASSERT_EQ(0, spin_start(&spin, &self->vm, GUEST_SPIN_READ, 0));
	for (round = 1; round <= 50; round++) {
		ASSERT_EQ(0, set_word(self->s.a, round));
		ASSERT_EQ(0, spin_rounds(&spin, 3))
			TH_LOG("round %u, KVM_RUN: %d", round, spin.ret);
		ASSERT_EQ(round, vm_mirror(&self->vm)->value);
		ASSERT_EQ(0, fallocate(self->s.a, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, 0, PAGE));
		ASSERT_EQ(0, spin_rounds(&spin, 3))
			TH_LOG("round %u, KVM_RUN: %d", round, spin.ret);
		ASSERT_EQ(0U, vm_mirror(&self->vm)->value);
	}
	ASSERT_EQ(0, ftruncate(self->s.a, 0));
	EXPECT_EQ(-EFAULT, spin_end(&spin, 10000));
}

TEST_F(guest, sees_every_change)
{
	struct address_space_op ops[] = {
		{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .length = PAGE },
		{ .opcode = ADDRESS_SPACE_OP_MMAP, .fd = self->s.b, .prot = RW,
		  .length = PAGE, .addr = PAGE, .flags = ADDRESS_SPACE_MAP_REPLACE },
	};
	int ret;

	MAP_A(RW);
	EXPECT_EQ('d', guest_read_write(&self->vm, 3 * PAGE, '!'));
	ASSERT_EQ(0, as_protect(self->s.asfd, 3 * PAGE, PAGE, PROT_READ));
	ret = guest_write(&self->vm, 3 * PAGE, '?');
	EXPECT_EQ(true, ret == -EFAULT || ret == -ENXIO) TH_LOG("%d", ret);
	EXPECT_EQ('!', guest_read(&self->vm, 3 * PAGE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 3 * PAGE, PAGE, RW));
	EXPECT_EQ('?', guest_write(&self->vm, 3 * PAGE, '?'));
	EXPECT_EQ('?', file_byte(self->s.a, 3 * PAGE));
	/* out of the slot, and into it */
	ASSERT_EQ(0, as_move(self->s.asfd, 3 * PAGE, PAGE, 40 * PAGE, 0));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 3 * PAGE));
	ASSERT_EQ(0, as_move(self->s.asfd, 4 * PAGE, PAGE, 3 * PAGE, 0));
	EXPECT_EQ('e', guest_read(&self->vm, 3 * PAGE));
	EXPECT_EQ('a', guest_read_write(&self->vm, 0, '!'));
	EXPECT_EQ('b', guest_read_write(&self->vm, PAGE, '!'));
	ASSERT_EQ(0, as_batch(self->s.asfd, ops, 2, NULL));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ('A', guest_read(&self->vm, PAGE));
}

TEST_F(guest, cannot_write_readonly_mapping)
{
	int ret;

	MAP_A(PROT_READ);
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	/* any exit, but never a write */
	ret = guest_write(&self->vm, 0, '!');
	EXPECT_EQ(true, ret == -EFAULT || ret == -ENXIO) TH_LOG("%d", ret);
	ret = guest_write(&self->vm, PAGE, '!');
	EXPECT_EQ(true, ret == -EFAULT || ret == -ENXIO) TH_LOG("%d", ret);
	ret = guest_read_write(&self->vm, 2 * PAGE, '!');
	EXPECT_EQ(true, ret == -EFAULT || ret == -ENXIO) TH_LOG("%d", ret);
	EXPECT_EQ('a', file_byte(self->s.a, 0));
	EXPECT_EQ('b', file_byte(self->s.a, PAGE));
	EXPECT_EQ('c', file_byte(self->s.a, 2 * PAGE));
	EXPECT_EQ('b', guest_read(&self->vm, PAGE));
	/* not after it was writable, either */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('a', guest_write(&self->vm, 0, 'a'));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, PROT_READ,
			    ADDRESS_SPACE_MAP_REPLACE));
	ret = guest_write(&self->vm, 0, '!');
	EXPECT_EQ(true, ret == -EFAULT || ret == -ENXIO) TH_LOG("%d", ret);
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

TEST_F(guest, cannot_access_prot_none)
{
	MAP_A(PROT_NONE);
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ(-EFAULT, guest_write(&self->vm, 0, '!'));
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

TEST_F(guest, exits_on_write_to_readonly_slot)
{
	ASSERT_EQ(0, as_kvm_unmap(self->s.asfd, self->vm.vm, SLOT));
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA,
				SLOT_LEN, 0, KVM_MEM_READONLY, &self->mem));
	MAP_A(RW);
	EXPECT_EQ('a', guest_read(&self->vm, 0));
	EXPECT_EQ(-ENXIO, guest_write(&self->vm, 0, '!'));
	EXPECT_EQ((uint64_t)SLOT_GPA, self->vm.mmio_gpa);
	EXPECT_EQ('a', file_byte(self->s.a, 0));
	/* the attachment does not let the VMM write, either */
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
}

TEST_F(guest, has_its_writes_in_dirty_log)
{
	uint8_t bitmap[8] = { 0 };
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bitmap };

	ASSERT_EQ(0, as_kvm_unmap(self->s.asfd, self->vm.vm, SLOT));
	ASSERT_EQ(0, as_kvm_map(self->s.asfd, self->vm.vm, SLOT, SLOT_GPA,
				SLOT_LEN, 0, KVM_MEM_LOG_DIRTY_PAGES, NULL));
	MAP_A(RW);
	/* KVM counts what could have been written, so nothing else is accessed */
	EXPECT_EQ('!', guest_write(&self->vm, 3 * PAGE, '!'));
	ASSERT_EQ(0, ioctl(self->vm.vm, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(8, bitmap[0]);
	EXPECT_EQ(0, bitmap[1]);
	/* and again, after the log was read */
	EXPECT_EQ('!', guest_write(&self->vm, 3 * PAGE, '!'));
	EXPECT_EQ('j', guest_read_write(&self->vm, 9 * PAGE, '!'));
	ASSERT_EQ(0, ioctl(self->vm.vm, KVM_GET_DIRTY_LOG, &log));
	EXPECT_EQ(8, bitmap[0]);
	EXPECT_EQ(2, bitmap[1]);
}

TEST_F(guest, is_revoked_through_view)
{
	int view = as_view(self->s.asfd, 4 * PAGE, 4 * PAGE, RW);
	int readonly = as_view(self->s.asfd, 4 * PAGE, 4 * PAGE, PROT_READ);
	char *mem;

	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_kvm_unmap(self->s.asfd, self->vm.vm, SLOT));
	MAP_A(RW);
	ASSERT_EQ(0, as_kvm_map(view, self->vm.vm, SLOT, SLOT_GPA, 2 * PAGE,
				PAGE, 0, &mem));
	EXPECT_EQ('f', guest_read(&self->vm, 0));
	EXPECT_EQ('g', guest_read(&self->vm, PAGE));
	EXPECT_EQ('f', peek(mem));
	EXPECT_EQ('!', guest_write(&self->vm, 0, '!'));
	EXPECT_EQ('!', file_byte(self->s.a, 5 * PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 5 * PAGE, PAGE));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 0));
	EXPECT_EQ('g', guest_read(&self->vm, PAGE));
	ASSERT_EQ(0, as_kvm_unmap(view, self->vm.vm, SLOT));
	/* a view for reading allows a slot for reading */
	ASSERT_EQ(0, as_kvm_map(readonly, self->vm.vm, SLOT, SLOT_GPA,
				4 * PAGE, 0, KVM_MEM_READONLY, &mem));
	EXPECT_EQ('g', guest_read(&self->vm, 2 * PAGE));
	EXPECT_EQ(-ENXIO, guest_write(&self->vm, 2 * PAGE, '!'));
	EXPECT_EQ(-SIGSEGV, poke(mem + 2 * PAGE, '!'));
	EXPECT_EQ('g', file_byte(self->s.a, 6 * PAGE));
}

TEST_HARNESS_MAIN

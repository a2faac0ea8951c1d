// SPDX-License-Identifier: GPL-2.0
/*
 * What can be done with lent memory: by calls, system calls, guests, the lender itself, and
 * by processes that lend to each other.
 */
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/lend_fixture.h"
#include "lib/kvm_guest.h"

TEST_F(lent, protection_of_the_lend_is_the_most)
{
	int number = agent_call(&self->lender, lend_area, (void *)(long)PROT_READ);

	/* it has been mapped before */
	EXPECT_EQ(-EEXIST, number);
	ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, PAGE, PAGE, PROT_READ, 0));
	ASSERT_EQ(0, agent_poke(&self->lender, AREA + PAGE, 5));
	EXPECT_EQ(5, peek(self->mem));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, 6));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
}

TEST_F(lent, system_calls_read_and_write_it)
{
	int pipes[2];
	char text[8] = "";

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(6, write(pipes[1], "hello", 6));
	ASSERT_EQ(6, read(pipes[0], self->mem + 3 * PAGE - 2, 6));
	EXPECT_EQ('h', agent_peek(&self->lender, AREA + 3 * PAGE - 2));
	EXPECT_EQ('l', agent_peek(&self->lender, AREA + 3 * PAGE));
	ASSERT_EQ(6, write(pipes[1], self->mem + 3 * PAGE - 2, 6));
	ASSERT_EQ(6, read(pipes[0], text, 6));
	EXPECT_STREQ("hello", text);
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)3));
	EXPECT_EQ(-1, write(pipes[1], self->mem + 3 * PAGE, 6));
	EXPECT_EQ(EFAULT, errno);
	/* through /proc, with the mmap lock of the attached process */
	int fd = open("/proc/self/mem", O_RDWR);

	ASSERT_LE(0, fd);
	ASSERT_EQ(5, pwrite(fd, "there", 5, (off_t)self->mem + 9 * PAGE));
	EXPECT_EQ('t', agent_peek(&self->lender, AREA + 9 * PAGE));
	ASSERT_EQ(5, pread(fd, text, 5, (off_t)self->mem + 9 * PAGE));
	EXPECT_EQ('e', text[2]);
	EXPECT_EQ(-1, pread(fd, text, 5, (off_t)self->mem + 3 * PAGE));
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F(lent, syncing_it_does_nothing)
{
	ASSERT_EQ(0, poke(self->mem, 1));
	EXPECT_EQ(0, msync(self->mem, 2 * LEN, MS_SYNC));
	EXPECT_EQ(0, fsync(self->asfd));
	EXPECT_EQ(1, agent_peek(&self->lender, AREA));
}

TEST_F(lent, what_the_lender_has_not_is_absorbed)
{
	int view = as_view_flags(self->asfd, 0, LEN, RW, ADDRESS_SPACE_HOLE_ABSORB);
	char *mem = attach(view, 0, LEN, RW);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, poke(mem + PAGE, 1));
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)1));
	EXPECT_EQ(0, peek(mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	munmap(mem, LEN);
	close(view);
}

TEST_F(lent, fdinfo_hides_the_address_from_others)
{
	char path[64], text[512];

	EXPECT_EQ((long long)LEN, fdinfo_value(self->fd, "length"));
	EXPECT_EQ(-ENOENT, fdinfo_value(self->fd, "address"));
	/* nor does the lender's own, when another process reads it */
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", self->lender.pid, self->number);
	ASSERT_EQ(0, read_text(path, text, sizeof(text)));
	EXPECT_EQ(NULL, strstr(text, "address"));
	char *layout = fdinfo_layout(self->asfd);

	EXPECT_EQ(NULL, strstr(layout, "200000000000"));
	free(layout);
}

TEST_F(lent, register_and_batch_take_it)
{
	struct address_space_op op = {
		.opcode = ADDRESS_SPACE_OP_MMAP, .fd = self->fd, .prot = RW,
		.offset = 2 * PAGE, .length = 2 * PAGE, .addr = LEN,
		.flags = ADDRESS_SPACE_MAP_POPULATE,
	};

	ASSERT_EQ(0, as_register(self->asfd, self->fd, 0, 0, RW,
				 ADDRESS_SPACE_REGISTER_POPULATE));
	ASSERT_EQ(0, as_batch(self->asfd, &op, 1, NULL));
	ASSERT_EQ(0, poke(self->mem + LEN + PAGE, 7));
	EXPECT_EQ(7, agent_peek(&self->lender, AREA + 3 * PAGE));
	EXPECT_EQ(7, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_forget, (void *)3));
	EXPECT_EQ(0, peek(self->mem + LEN + PAGE));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
	ASSERT_EQ(0, as_unregister(self->asfd, self->fd));
	EXPECT_EQ(-ENOENT, as_unregister(self->asfd, self->fd));
}

TEST_F(lent, bad_input_is_refused)
{
	struct address_space_lend arg = {
		.size = sizeof(arg), .prot = RW, .addr = (uintptr_t)AREA, .length = LEN,
	};
	int device = open("/dev/address_space", O_RDWR);

	ASSERT_LE(0, device);
#define REFUSED(err, field, value) do {						\
	struct address_space_lend bad = arg;					\
										\
	bad.field = (value);							\
	EXPECT_EQ(-(err), as_ioctl(device, ADDRESS_SPACE_LEND, &bad));		\
} while (0)
	REFUSED(EINVAL, size, sizeof(arg) - 1);
	REFUSED(E2BIG, size, PAGE + 1);
	REFUSED(EOPNOTSUPP, flags, 1);
	REFUSED(EOPNOTSUPP, __reserved, 1);
	REFUSED(EINVAL, prot, PROT_NONE);
	REFUSED(EINVAL, prot, PROT_WRITE);
	REFUSED(EOPNOTSUPP, prot, RX);
	REFUSED(EINVAL, prot, 8 | RW);
	REFUSED(EINVAL, addr, PAGE / 2);
	REFUSED(EINVAL, length, PAGE / 2);
	REFUSED(EINVAL, length, 0);
	REFUSED(EINVAL, length, 1ULL << 56);
	REFUSED(EOVERFLOW, length, ~0ULL - PAGE + 1);
	close(device);

	EXPECT_REFUSED(self->asfd, EINVAL, as_map(self->asfd, LEN, self->fd, PAGE, LEN, RW, 0));
	EXPECT_REFUSED(self->asfd, EACCES, as_map(self->asfd, LEN, self->fd, 0, PAGE, RX, 0));
	EXPECT_REFUSED(self->asfd, ENOTTY, as_ioctl(self->fd, ADDRESS_SPACE_CREATE, NULL));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F(lent, closing_files_in_any_order_is_harmless)
{
	ASSERT_EQ(0, poke(self->mem, 1));
	close(self->fd);
	self->fd = dup(0);
	EXPECT_EQ(1, peek(self->mem));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, LEN));
	EXPECT_EQ(-SIGBUS, peek(self->mem));
	sleep_ms(300);
	EXPECT_EQ(1, agent_peek(&self->lender, AREA));
}

/* A guest that has lent memory: it reads and writes that of the lender. */
FIXTURE(guest)
{
	struct agent lender;
	int fd, asfd;
	struct vm vm;
};

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, agent_start(&self->lender));
	self->fd = agent_fd(&self->lender,
			    agent_call(&self->lender, lend_area, (void *)(long)RW));
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(LEN);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	ASSERT_EQ(0, vm_create(&self->vm));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, 0, NULL));
}

FIXTURE_TEARDOWN(guest)
{
	vm_destroy(&self->vm);
	close(self->asfd);
	close(self->fd);
	agent_stop(&self->lender);
}

TEST_F(guest, reads_and_writes_what_the_lender_has)
{
	ASSERT_EQ(0, agent_poke(&self->lender, AREA + PAGE, 'l'));
	EXPECT_EQ('l', guest_read(&self->vm, PAGE));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	/* what was read can be written, though it was the page of zeroes */
	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	EXPECT_EQ('g', agent_peek(&self->lender, AREA + 2 * PAGE));
	EXPECT_EQ(0, guest_read_write(&self->vm, 3 * PAGE, 'h'));
	EXPECT_EQ('h', agent_peek(&self->lender, AREA + 3 * PAGE));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 4 * PAGE));
}

TEST_F(guest, loses_what_the_lender_unmaps)
{
	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	ASSERT_EQ(0, agent_call(&self->lender, lender_unmap, (void *)2));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_map_over, (void *)2));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_forbid, (void *)2));
	EXPECT_EQ(0, guest_read(&self->vm, 2 * PAGE));
	ASSERT_EQ(0, agent_call(&self->lender, lender_allow, (void *)2));
	EXPECT_EQ('x', guest_write(&self->vm, 2 * PAGE, 'x'));
	EXPECT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 2 * PAGE));
}

TEST_F(guest, writes_to_the_parent_after_fork)
{
	pid_t child;

	EXPECT_EQ('1', guest_write(&self->vm, 2 * PAGE, '1'));
	child = agent_call(&self->lender, lender_fork, NULL);
	ASSERT_LT(0, child);
	EXPECT_EQ('2', guest_write(&self->vm, 2 * PAGE, '2'));
	EXPECT_EQ('2', agent_peek(&self->lender, AREA + 2 * PAGE));
	kill(child, SIGKILL);
}

TEST_F(guest, loses_all_when_the_lender_exits)
{
	siginfo_t info;

	EXPECT_EQ('g', guest_write(&self->vm, 2 * PAGE, 'g'));
	kill(self->lender.pid, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, self->lender.pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(-EFAULT, guest_read(&self->vm, 2 * PAGE));
}

/* A process that attaches its own memory. */
FIXTURE(self)
{
	int fd;
	int asfd;
	char *mem;
};

FIXTURE_SETUP(self)
{
	self->fd = lend_area((void *)(long)RW);
	ASSERT_LE(0, self->fd);
	self->asfd = as_create(LEN);
	ASSERT_LE(0, self->asfd);
	ASSERT_EQ(0, as_map(self->asfd, 0, self->fd, 0, LEN, RW, 0));
	self->mem = attach(self->asfd, 0, LEN, RW);
	ASSERT_NE(NULL, self->mem);
}

FIXTURE_TEARDOWN(self)
{
	munmap(self->mem, LEN);
	munmap(AREA, LEN);
	close(self->asfd);
	close(self->fd);
}

TEST_F(self, is_one_memory_at_two_addresses)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, poke(AREA + i * PAGE, i));
		ASSERT_EQ((int)i, peek(self->mem + i * PAGE));
		ASSERT_EQ(0, poke(self->mem + i * PAGE, i + 1));
		ASSERT_EQ((int)i + 1, peek(AREA + i * PAGE));
		ASSERT_EQ(0, lender_forget((void *)i));
		ASSERT_EQ(0, peek(self->mem + i * PAGE));
		ASSERT_EQ(0, lender_unmap((void *)i));
		ASSERT_EQ(-SIGBUS, peek(self->mem + i * PAGE));
	}
}

TEST_F(self, attachment_in_the_range_is_not_shown)
{
	char *over = mmap(AREA, LEN, RW, MAP_SHARED | MAP_FIXED, self->asfd, 0);

	/* an attachment that would show itself */
	ASSERT_EQ(AREA, over);
	EXPECT_EQ(-SIGBUS, peek(over));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + PAGE, 1));
	ASSERT_EQ(0, lender_map_over((void *)1));
	EXPECT_EQ(0, peek(self->mem + PAGE));
	EXPECT_EQ(0, peek(AREA + PAGE));
	EXPECT_EQ(-SIGBUS, peek(AREA + 2 * PAGE));
}

TEST_F(self, copy_between_the_two_is_a_copy)
{
	int fd = open("/proc/self/mem", O_RDWR);
	struct iovec from = { AREA, PAGE }, to = { self->mem + PAGE, PAGE };

	ASSERT_LE(0, fd);
	memset(AREA, 'x', PAGE);
	EXPECT_EQ(6, pwrite(fd, AREA, 6, (off_t)self->mem + 2 * PAGE)) {
		TH_LOG("errno %d", errno);
	}
	ASSERT_EQ((ssize_t)PAGE, pwrite(fd, AREA, PAGE, (off_t)self->mem + 2 * PAGE)) {
		TH_LOG("errno %d", errno);
	}
	EXPECT_EQ('x', AREA[2 * PAGE]);
	ASSERT_EQ((ssize_t)PAGE, pread(fd, self->mem + 3 * PAGE, PAGE, (off_t)self->mem));
	EXPECT_EQ('x', AREA[3 * PAGE]);
	/* the kernel does not pin an attachment */
	EXPECT_EQ(-1, process_vm_readv(getpid(), &to, 1, &to, 1, 0));
	EXPECT_EQ((ssize_t)PAGE, process_vm_writev(getpid(), &to, 1, &from, 1, 0));
	close(fd);
}

TEST_F(self, all_of_the_memory_can_be_lent)
{
	int all = as_lend(NULL, 0, RW);
	uint64_t length = fdinfo_value(all, "length");
	int space = as_create(length);
	uint64_t at = (uint64_t)AREA;
	static char here = 's';
	uint64_t page = (uint64_t)&here & ~(PAGE - 1);
	char *mem;

	ASSERT_LE(0, all);
	ASSERT_LE(0, space);
	ASSERT_EQ(0, as_map(space, 0, all, 0, length, RW, 0));
	mem = attach(space, at, LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, poke(mem, 3));
	EXPECT_EQ(3, peek(AREA));
	munmap(mem, LEN);
	/* a static variable, wherever the program was loaded */
	mem = attach(space, page, PAGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('s', peek(mem + ((uint64_t)&here - page)));
	munmap(mem, PAGE);
	close(space);
	close(all);
}

/* Two processes that lend to each other, each of which shows what the other has. */
static int lend_fd, other_fd;
static char *other_mem;

static long lend_one(void *unused)
{
	(void)unused;
	lend_fd = lend_area((void *)(long)RW);
	return lend_fd;
}

static long show_other(void *number)
{
	int asfd = as_create(LEN);
	int ret;

	other_fd = (long)number;
	if (asfd < 0)
		return asfd;
	ret = as_map(asfd, 0, other_fd, 0, LEN, RW, 0);
	if (ret)
		return ret;
	other_mem = attach(asfd, 0, LEN, RW);
	close(asfd);
	return other_mem ? 0 : -errno;
}

static long peek_other(void *page)
{
	return peek(other_mem + (long)page * PAGE);
}

static long poke_other(void *page)
{
	return poke(other_mem + (long)page * PAGE, (long)page);
}

TEST(two_processes_lend_to_each_other)
{
	struct agent a, b;
	int from_a, from_b;
	unsigned long i;

	ASSERT_EQ(0, agent_start(&a));
	ASSERT_EQ(0, agent_start(&b));
	from_a = agent_fd(&a, agent_call(&a, lend_one, NULL));
	from_b = agent_fd(&b, agent_call(&b, lend_one, NULL));
	ASSERT_LE(0, from_a);
	ASSERT_LE(0, from_b);
	ASSERT_EQ(0, agent_call(&a, show_other, (void *)(long)agent_take_fd(&a, from_b)));
	ASSERT_EQ(0, agent_call(&b, show_other, (void *)(long)agent_take_fd(&b, from_a)));
	close(from_a);
	close(from_b);
	for (i = 0; i < PAGES; i++) {
		ASSERT_EQ(0, agent_call(&a, poke_other, (void *)i));
		ASSERT_EQ((int)i, agent_peek(&b, AREA + i * PAGE));
		ASSERT_EQ(0, agent_call(&b, peek_other, (void *)i));
		ASSERT_EQ(0, agent_call(&b, lender_unmap, (void *)i));
		ASSERT_EQ(-SIGBUS, agent_call(&a, peek_other, (void *)i));
	}
	siginfo_t info;

	kill(a.pid, SIGKILL);
	ASSERT_EQ(0, waitid(P_PID, a.pid, &info, WEXITED | WNOWAIT));
	EXPECT_EQ(-SIGBUS, agent_call(&b, peek_other, 0));
	agent_stop(&a);
	EXPECT_EQ(0, agent_stop(&b));
}

TEST_HARNESS_MAIN

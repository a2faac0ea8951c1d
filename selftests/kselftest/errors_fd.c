// SPDX-License-Identifier: GPL-2.0
/* Which files can be mapped, and with which protection: the same as with mmap(). */
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(space)
{
	struct space s;
	int asfd;
};

FIXTURE_SETUP(space)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->asfd = self->s.asfd;
	ASSERT_EQ(0, as_map(self->asfd, 20 * PAGE, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ('a', peek(self->s.mem + 20 * PAGE));
}

FIXTURE_TEARDOWN(space)
{
	EXPECT_EQ('a', peek(self->s.mem + 20 * PAGE));
	EXPECT_EQ('b', peek(self->s.mem + 21 * PAGE));
	space_free(&self->s);
}

/* into a hole, over a mapping, and at any free address */
#define EXPECT_NO_MAP(err, fd, prot) do {				\
	uint64_t __addr;						\
									\
	EXPECT_REFUSED(self->asfd, err,					\
		       as_map(self->asfd, 0, fd, 0, PAGE, prot, 0));	\
	EXPECT_REFUSED(self->asfd, err,					\
		       as_map(self->asfd, 20 * PAGE, fd, 0, PAGE, prot,	\
			      ADDRESS_SPACE_MAP_REPLACE));		\
	EXPECT_REFUSED(self->asfd, err,					\
		       as_map_anywhere(self->asfd, &__addr, fd, 0, PAGE, prot)); \
} while (0)

/* opens the file behind @fd again */
static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

TEST_F(space, closed_fd_is_ebadf)
{
	EXPECT_NO_MAP(EBADF, closed_fd(), PROT_READ);
	EXPECT_NO_MAP(EBADF, -1, PROT_READ);
	EXPECT_NO_MAP(EBADF, AT_FDCWD, PROT_READ);
	EXPECT_NO_MAP(EBADF, INT32_MIN, PROT_READ);
	EXPECT_NO_MAP(EBADF, INT32_MAX, PROT_READ);
}

TEST_F(space, o_path_fd_is_ebadf)
{
	int fd = reopen(self->s.b, O_PATH);

	ASSERT_LE(0, fd);
	EXPECT_NO_MAP(EBADF, fd, PROT_READ);
	EXPECT_NO_MAP(EBADF, fd, PROT_NONE);
}

TEST_F(space, write_only_fd_is_eacces)
{
	int fd = reopen(self->s.b, O_WRONLY);

	ASSERT_LE(0, fd);
	EXPECT_NO_MAP(EACCES, fd, PROT_READ);
	EXPECT_NO_MAP(EACCES, fd, RW);
	EXPECT_NO_MAP(EACCES, fd, PROT_NONE);
}

TEST_F(space, read_only_fd_cannot_be_mapped_writable)
{
	int fd = reopen(self->s.b, O_RDONLY);

	ASSERT_LE(0, fd);
	EXPECT_NO_MAP(EACCES, fd, RW);
	EXPECT_NO_MAP(EACCES, fd, RWX);
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ('A', peek(self->s.mem));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem, '!'));
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, PAGE, PROT_NONE,
			    ADDRESS_SPACE_MAP_REPLACE));
	ASSERT_EQ(0, as_unmap(self->asfd, 0, PAGE));
	/* not even after another fd has mapped the same file for writing */
	ASSERT_EQ(0, as_map(self->asfd, PAGE, self->s.b, 0, PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->s.mem + PAGE, '!'));
	EXPECT_NO_MAP(EACCES, fd, RW);
	ASSERT_EQ(0, as_map(self->asfd, 2 * PAGE, fd, 0, PAGE, PROT_READ, 0));
	EXPECT_EQ('!', peek(self->s.mem + 2 * PAGE));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem + 2 * PAGE, '?'));
	EXPECT_EQ('!', file_byte(self->s.b, 0));
}

TEST_F(space, unmappable_fd_is_enodev)
{
	int pipes[2], sockets[2];
	int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
	int null = open("/dev/null", O_RDWR);
	int event = eventfd(0, 0);
	int epoll = epoll_create1(0);
	int proc = open("/proc/self/status", O_RDONLY);

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	ASSERT_LE(0, dir);
	ASSERT_LE(0, null);
	ASSERT_LE(0, event);
	ASSERT_LE(0, epoll);
	ASSERT_LE(0, proc);
	EXPECT_NO_MAP(ENODEV, dir, PROT_READ);
	EXPECT_NO_MAP(ENODEV, pipes[0], PROT_READ);
	EXPECT_NO_MAP(ENODEV, sockets[0], RW);
	EXPECT_NO_MAP(ENODEV, null, RW);
	EXPECT_NO_MAP(ENODEV, event, RW);
	EXPECT_NO_MAP(ENODEV, epoll, RW);
	EXPECT_NO_MAP(ENODEV, proc, PROT_READ);
}

/* Of these each mmap() makes what it maps: what two calls see must not become one. */
TEST_F(space, device_or_anonymous_file_is_enodev)
{
	int zero = open("/dev/zero", O_RDWR), kvm = open("/dev/kvm", O_RDWR);

	ASSERT_LE(0, zero);
	EXPECT_NO_MAP(ENODEV, zero, PROT_READ);
	EXPECT_NO_MAP(ENODEV, zero, RW);
	EXPECT_REFUSED(self->asfd, ENODEV, as_register(self->asfd, zero, 0, PAGE, RW, 0));
	if (kvm >= 0) {
		int vm = ioctl(kvm, KVM_CREATE_VM, 0), vcpu;

		ASSERT_LE(0, vm);
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
		ASSERT_LE(0, vcpu);
		EXPECT_NO_MAP(ENODEV, vcpu, RW);
	}
}

TEST_F(space, device_memory_is_enodev)
{
	int devmem = open("/dev/mem", O_RDONLY);
	void *addr;

	if (devmem < 0)
		SKIP(return, "no /dev/mem");
	addr = attach(devmem, 0, PAGE, PROT_READ);
	if (!addr)
		SKIP(return, "this kernel shows nothing of /dev/mem");
	munmap(addr, PAGE);
	EXPECT_NO_MAP(ENODEV, devmem, PROT_READ);
}

TEST_F(space, secret_memory_is_enodev)
{
	int secret = syscall(SYS_memfd_secret, 0);
	char *own;

	if (secret < 0)
		SKIP(return, "no memfd_secret(): %s", strerror(errno));
	ASSERT_EQ(0, ftruncate(secret, PAGE));
	own = attach(secret, 0, PAGE, RW);
	ASSERT_NE(NULL, own);
	*own = 's';
	EXPECT_NO_MAP(ENODEV, secret, PROT_READ);
	EXPECT_NO_MAP(ENODEV, secret, RW);
	EXPECT_EQ('s', peek(own));
}

TEST_F(space, space_in_a_space_is_eloop)
{
	int view = as_view(self->asfd, 0, SPACE_LEN, RW);
	int other = as_create(SPACE_LEN);
	int others_view = as_view(other, 0, SPACE_LEN, PROT_READ);

	ASSERT_LE(0, view);
	ASSERT_LE(0, other);
	ASSERT_LE(0, others_view);
	EXPECT_NO_MAP(ELOOP, self->asfd, PROT_READ);
	EXPECT_NO_MAP(ELOOP, view, PROT_READ);
	EXPECT_NO_MAP(ELOOP, other, RW);
	EXPECT_NO_MAP(ELOOP, others_view, PROT_READ);
}

static int sealed(int seals)
{
	int fd = memfd_pages("sealed", FILE_PAGES, 's');

	return fcntl(fd, F_ADD_SEALS, seals) ? -errno : fd;
}

TEST_F(space, write_sealed_file_is_eperm)
{
	static const int seals[] = { F_SEAL_WRITE, F_SEAL_FUTURE_WRITE };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(seals); i++) {
		int fd = sealed(seals[i]);

		ASSERT_LE(0, fd);
		EXPECT_NO_MAP(EPERM, fd, RW);
		EXPECT_NO_MAP(EPERM, fd, RWX);
		ASSERT_EQ(0, as_map(self->asfd, i * PAGE, fd, 0, PAGE, PROT_READ, 0));
		EXPECT_EQ('s', peek(self->s.mem + i * PAGE));
		EXPECT_EQ(-SIGSEGV, poke(self->s.mem + i * PAGE, '!'));
		EXPECT_EQ('s', file_byte(fd, 0));
		ASSERT_EQ(0, as_unmap(self->asfd, 0, 2 * PAGE));
		close(fd);
	}
}

/* A seal that is added after a mapping for reading applies to the next mapping. */
TEST_F(space, later_seal_is_respected)
{
	int fd = memfd_pages("later", 2, 's');

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, as_map(self->asfd, PAGE, fd, 0, PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->s.mem + PAGE, '!'));
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_NO_MAP(EPERM, fd, RW);
	EXPECT_REFUSED(self->asfd, EPERM,
		       as_map(self->asfd, 2 * PAGE, fd, PAGE, PAGE, RW, 0));
	/* the existing mapping stays, as this seal promises */
	EXPECT_EQ(0, poke(self->s.mem + PAGE, '?'));
	EXPECT_EQ('?', file_byte(fd, 0));
}

TEST_F(space, other_seals_are_allowed)
{
	int fd = sealed(F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, PAGE, RW, 0));
	EXPECT_EQ(0, poke(self->s.mem, '!'));
	EXPECT_EQ('!', file_byte(fd, 0));
}

TEST_F(space, code_from_a_noexec_mount_is_eperm)
{
	char dir[64];
	int fd = own_tmpfs_file(dir, 2, 'x');

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, as_map(self->asfd, PAGE, fd, 0, PAGE, RX, 0));
	ASSERT_EQ(0, as_unmap(self->asfd, PAGE, PAGE));
	ASSERT_EQ(0, mount(NULL, dir, NULL, MS_REMOUNT | MS_NOEXEC | MS_BIND, NULL));
	EXPECT_NO_MAP(EPERM, fd, RX);
	EXPECT_NO_MAP(EPERM, fd, RWX);
	ASSERT_EQ(0, as_map(self->asfd, 0, fd, 0, PAGE, RW, 0));
	EXPECT_EQ('x', peek(self->s.mem));
}

TEST_F(space, hugetlb_file_may_be_mapped_by_the_page)
{
	int huge = hugetlb_memfd(1);

	if (huge == -ENOMEM)
		SKIP(return, "no huge pages available");
	ASSERT_LE(0, huge);
	ASSERT_EQ(0, as_map(self->asfd, 0, huge, PAGE, 3 * PAGE, RW, 0));
	EXPECT_EQ('h', peek(self->s.mem + PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 3 * PAGE));
	EXPECT_REFUSED(self->asfd, EINVAL,
		       as_map(self->asfd, 8 * PAGE, huge, 1, PAGE, RW, 0));
}

static const int free_number = 400;

static long map_that_number(void *arg)
{
	const int *asfd = arg;

	return as_map(*asfd, 0, free_number, 0, PAGE, PROT_READ, 0);
}

static long put_there(void *arg)
{
	const int *fd = arg;

	return dup2(*fd, free_number);
}

/* The fd is looked up in the caller, whichever process created the space. */
TEST_F(space, fd_is_looked_up_in_the_caller)
{
	struct agent child;

	ASSERT_EQ(0, agent_start(&child));
	/* the creator has a file under that number, the caller does not */
	ASSERT_EQ(free_number, dup2(self->s.b, free_number));
	EXPECT_EQ(-EBADF, agent_call(&child, map_that_number, &self->asfd));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem));
	/* and the caller has a different file there */
	ASSERT_EQ(free_number, agent_call(&child, put_there, &self->s.a));
	EXPECT_EQ(0, agent_call(&child, map_that_number, &self->asfd));
	EXPECT_EQ('a', peek(self->s.mem));
	EXPECT_EQ(0, agent_stop(&child));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * What a process may do with its own memory does no harm to an attachment: either the
 * call is refused, or the attachment works as before. In each case a revocation
 * reaches all that the process can access afterwards.
 */
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

FIXTURE(attachment)
{
	struct space s;
	int fd;		/* the asfd, or a view of all of it */
	char *mem;
};

FIXTURE_VARIANT(attachment)
{
	bool view;
};

FIXTURE_VARIANT_ADD(attachment, of_the_asfd) { .view = false };
FIXTURE_VARIANT_ADD(attachment, of_a_view) { .view = true };

FIXTURE_SETUP(attachment)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	self->fd = variant->view ? as_view(self->s.asfd, 0, SPACE_LEN, RW) :
				   dup(self->s.asfd);
	ASSERT_LE(0, self->fd);
	self->mem = attach(self->fd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ('a', peek(self->mem));
}

FIXTURE_TEARDOWN(attachment)
{
	close(self->fd);
	space_free(&self->s);
}

/* The attachment still shows the file; then it is revoked, and mapped again. */
static int still_works(struct space *s, char *mem)
{
	if (peek(mem) != 'a' || peek(mem + PAGE) != 'b')
		return -1;
	if (poke(mem + 2 * PAGE, 'c') || file_byte(s->a, 2 * PAGE) != 'c')
		return -2;
	if (peek(mem + FILE_LEN) != -SIGBUS)
		return -3;
	if (as_unmap(s->asfd, 0, FILE_LEN))
		return -4;
	if (peek(mem) != -SIGBUS || poke(mem + 2 * PAGE, '!') != -SIGBUS)
		return -5;
	if (file_byte(s->a, 2 * PAGE) != 'c')
		return -6;
	if (as_map(s->asfd, 0, s->a, 0, FILE_LEN, RW, 0))
		return -7;
	return peek(mem) == 'a' ? 0 : -8;
}

/* Every advice that exists, and every one that may be added. */
TEST_F(attachment, survives_any_madvise)
{
	/* the checks below need the attachment in children of the test */
	static const int others[] = { MADV_DONTFORK };
	int advice;

	for (advice = 0; advice < 128; advice++) {
		if (advice == others[0])
			continue;
		madvise(self->mem, FILE_LEN, advice);
		EXPECT_EQ(0, still_works(&self->s, self->mem))
			TH_LOG("after madvise %d", advice);
	}
}

/* Advice that would take the pages from under the space, or hide what it shows. */
TEST_F(attachment, refuses_madvise_that_drops_or_hides_pages)
{
	static const int refused[] = {
		MADV_DONTNEED, MADV_FREE, MADV_REMOVE, MADV_WIPEONFORK,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLD, MADV_PAGEOUT,
		MADV_GUARD_INSTALL, MADV_HWPOISON, MADV_SOFT_OFFLINE,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(refused); i++)
		EXPECT_EQ(-1, madvise(self->mem, FILE_LEN, refused[i]))
			TH_LOG("madvise %d", refused[i]);
	EXPECT_EQ('a', file_byte(self->s.a, 0));
}

/* A policy would be one for pages that belong to the files. */
TEST_F(attachment, refuses_mbind)
{
	unsigned long nodes = 1;

	if (syscall(__NR_mbind, self->mem, FILE_LEN, 0, NULL, 0, 0) && errno == ENOSYS)
		SKIP(return, "no NUMA");
	EXPECT_EQ(-1, syscall(__NR_mbind, self->mem, FILE_LEN, 2 /* MPOL_BIND */, &nodes, 8, 0));
	EXPECT_EQ(EOPNOTSUPP, errno);
	EXPECT_EQ(0, still_works(&self->s, self->mem));
}

TEST_F(attachment, is_not_inherited_after_dontfork)
{
	struct agent child;

	ASSERT_EQ(0, madvise(self->mem, SPACE_LEN, MADV_DONTFORK));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(-SIGSEGV, agent_peek(&child, self->mem));
	EXPECT_EQ(0, still_works(&self->s, self->mem));
	EXPECT_EQ(0, agent_stop(&child));
	/* As for any PFN map. */
	EXPECT_EQ(-1, madvise(self->mem, SPACE_LEN, MADV_DOFORK));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(attachment, is_revoked_even_if_mlocked)
{
	const struct rlimit no = { RLIM_INFINITY, RLIM_INFINITY };
	char *later;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &no));
	EXPECT_EQ(0, mlock(self->mem, FILE_LEN));
	EXPECT_EQ(0, still_works(&self->s, self->mem));
	EXPECT_EQ(0, mlock2(self->mem, FILE_LEN, MLOCK_ONFAULT));
	EXPECT_EQ(0, still_works(&self->s, self->mem));
	EXPECT_EQ(0, munlock(self->mem, FILE_LEN));
	EXPECT_EQ(0, mlockall(MCL_CURRENT | MCL_FUTURE));
	later = attach(self->fd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, later);
	EXPECT_EQ(0, still_works(&self->s, later));
	EXPECT_EQ(-SIGBUS, peek(later + FILE_LEN));
	EXPECT_EQ(0, munlockall());
	EXPECT_EQ(0, still_works(&self->s, self->mem));
}

TEST_F(attachment, survives_mprotect)
{
	static const int prots[] = { PROT_NONE, PROT_READ, PROT_WRITE, RW, RX };
	unsigned int i;

	for (i = 0; i < 64; i++) {
		/* a part of it, so that the VMA is split and merged */
		char *at = self->mem + i % 7 * PAGE;

		/* the view is one that allows no execution */
		EXPECT_EQ(variant->view && prots[i % 5] == RX ? -1 : 0,
			  mprotect(at, 3 * PAGE, prots[i % 5]));
		EXPECT_EQ(0, mprotect(self->mem, SPACE_LEN, RW));
		EXPECT_EQ(0, still_works(&self->s, self->mem)) TH_LOG("round %u", i);
	}
}

TEST_F(attachment, survives_mremap)
{
	char *room = mmap(NULL, 4 * SPACE_LEN, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *at = self->mem, *copy;
	unsigned int i;

	ASSERT_NE(MAP_FAILED, (void *)room);
	for (i = 0; i < 16; i++) {
		char *to = room + (i % 3 + 1) * PAGE;

		if (i & 1)
			to += 2 * SPACE_LEN;
		ASSERT_EQ((void *)to, mremap(at, SPACE_LEN, SPACE_LEN,
					     MREMAP_MAYMOVE | MREMAP_FIXED, to));
		at = to;
		EXPECT_EQ(0, still_works(&self->s, at)) TH_LOG("move %u", i);
	}
	/* a second attachment, by the old way to ask for one; or refused */
	copy = mremap(at, 0, SPACE_LEN, MREMAP_MAYMOVE);
	if (copy != MAP_FAILED)
		EXPECT_EQ(0, still_works(&self->s, copy));
	/* without removing the old one; or refused */
	copy = mremap(at, SPACE_LEN, SPACE_LEN, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
	if (copy != MAP_FAILED)
		EXPECT_EQ(0, still_works(&self->s, copy));
	EXPECT_EQ(0, still_works(&self->s, at));
	/* shrink and split */
	ASSERT_EQ((void *)at, mremap(at, SPACE_LEN, FILE_LEN + PAGE, 0));
	ASSERT_EQ(0, munmap(at + 4 * PAGE, PAGE));
	EXPECT_EQ(0, still_works(&self->s, at));
	EXPECT_EQ(-SIGSEGV, peek(at + 4 * PAGE));
}

/* The emulation of a removed call, which maps the file again. */
TEST_F(attachment, shows_no_more_by_remap_file_pages)
{
	int part = as_view(self->s.asfd, PAGE, 4 * PAGE, RW);
	char *mem = attach(part, 0, 4 * PAGE, RW);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ('b', peek(mem));
	EXPECT_EQ(0, syscall(SYS_remap_file_pages, mem, PAGE, 0, 2, 0));
	EXPECT_EQ('d', peek(mem));
	/* like any mmap() over a mapping, it may unmap that before it fails */
	EXPECT_EQ(-1, syscall(SYS_remap_file_pages, mem, PAGE, 0, 4, 0));
	EXPECT_NE('f', peek(mem));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	EXPECT_GT(0, peek(mem));
	EXPECT_EQ(-SIGBUS, peek(mem + PAGE));
}

TEST_F(attachment, refuses_userfaultfd)
{
	static const uint64_t modes[] = {
		UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP,
		UFFDIO_REGISTER_MODE_MINOR,
	};
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	unsigned int i;

	if (fd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(0, ioctl(fd, UFFDIO_API, &api));
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		struct uffdio_register reg = {
			.range = { (uintptr_t)self->mem, FILE_LEN },
			.mode = modes[i],
		};

		EXPECT_EQ(-1, ioctl(fd, UFFDIO_REGISTER, &reg));
		EXPECT_EQ(EINVAL, errno);
	}
	EXPECT_EQ(0, still_works(&self->s, self->mem));
}

/* Pages of an attachment cannot be pinned, so they are not used past a revocation. */
TEST_F(attachment, has_no_pinnable_page)
{
	struct iovec here = { self->mem, PAGE }, out;
	struct io_uring_params params = { 0 };
	char dir[128], page[PAGE];
	int ring, disk, pipes[2];

	out = (struct iovec){ page, PAGE };
	EXPECT_EQ(-1, process_vm_readv(getpid(), &out, 1, &here, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, process_vm_writev(getpid(), &out, 1, &here, 1, 0));
	EXPECT_EQ(EFAULT, errno);

	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ(-1, vmsplice(pipes[1], &here, 1, 0));
	EXPECT_EQ(EFAULT, errno);

	ring = syscall(SYS_io_uring_setup, 4, &params);
	if (ring >= 0) {
		EXPECT_EQ(-1, syscall(SYS_io_uring_register, ring,
				      IORING_REGISTER_BUFFERS, &here, 1));
		EXPECT_EQ(EFAULT, errno);
		close(ring);
	} else {
		TH_LOG("no io_uring here");
	}

	ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
	disk = file_pages(dir, 4, 'A');
	ASSERT_LE(0, disk);
	ASSERT_EQ(0, fsync(disk));
	ASSERT_EQ(0, fcntl(disk, F_SETFL, O_DIRECT));
	EXPECT_EQ(-1, pread(disk, self->mem, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, pwrite(disk, self->mem, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	close(disk);
	EXPECT_EQ(0, still_works(&self->s, self->mem));
}

/* Copies are allowed: the kernel makes them like the process itself would. */
TEST_F(attachment, is_accessible_to_system_calls)
{
	char page[PAGE], byte;
	int pipes[2];

	ASSERT_EQ(0, pipe(pipes));
	EXPECT_EQ((ssize_t)PAGE, pread(self->s.b, self->mem + PAGE, PAGE, 0));
	EXPECT_EQ('A', peek(self->mem + PAGE));
	EXPECT_EQ('A', file_byte(self->s.a, PAGE));
	EXPECT_EQ(1, write(pipes[1], self->mem, 1));
	EXPECT_EQ(1, read(pipes[0], &byte, 1));
	EXPECT_EQ('a', byte);
	EXPECT_EQ(-1, pread(self->s.b, self->mem + FILE_LEN, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	/* a copy that has begun ends at the hole */
	EXPECT_EQ((ssize_t)PAGE, pread(self->s.b, self->mem + FILE_LEN - PAGE,
				       2 * PAGE, 0));
	EXPECT_EQ(0, pread(self->s.b, page, PAGE, FILE_LEN));
}

/*
 * A shared futex is identified by its page; one identified by its address would mean
 * nothing.
 */
TEST_F(attachment, has_no_shared_futex)
{
	EXPECT_EQ(-1, syscall(SYS_futex, self->mem, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0));
	EXPECT_EQ(EFAULT, errno);
	/* a private futex is identified by its address */
	EXPECT_EQ(0, syscall(SYS_futex, self->mem, 1 | 128, 1, NULL, NULL, 0));
}

/* Looks for @needle in the file at @path. */
static bool file_has(const char *path, const char *needle)
{
	size_t length = strlen(needle);
	struct stat st;
	bool found;
	void *text;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		return false;
	text = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	found = memmem(text, st.st_size, needle, length);
	munmap(text, st.st_size);
	close(fd);
	return found;
}

TEST_F(attachment, is_not_in_core_dump)
{
	const struct rlimit any = { RLIM_INFINITY, RLIM_INFINITY };
	char dir[] = "/tmp/address-space-core-XXXXXX", path[64], old[128];
	/* assembled at run time, so that the program itself does not contain them */
	char *mem = self->mem + PAGE, *own;
	char hidden[32], dumped[32];
	int status;
	pid_t pid;

	ASSERT_NE(NULL, mkdtemp(dir));
	ASSERT_EQ(0, read_text("/proc/sys/kernel/core_pattern", old, sizeof(old)));
	snprintf(path, sizeof(path), "%s/core", dir);
	if (write_text("/proc/sys/kernel/core_pattern", path))
		SKIP(return, "core dumps are configured elsewhere");
	snprintf(hidden, sizeof(hidden), "%s-%d", "hidden", 4711);
	snprintf(dumped, sizeof(dumped), "%s-%d", "dumped", 4711);
	memcpy(mem, hidden, strlen(hidden));
	own = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)own);
	memcpy(own, dumped, strlen(dumped));

	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0) {
		/* what the fork has copied of them */
		memset(hidden, 0, sizeof(hidden));
		memset(dumped, 0, sizeof(dumped));
		prctl(PR_SET_DUMPABLE, 1);
		setrlimit(RLIMIT_CORE, &any);
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	write_text("/proc/sys/kernel/core_pattern", old);
	ASSERT_TRUE(WIFSIGNALED(status));
	if (access(path, R_OK))	/* kernel.core_uses_pid */
		snprintf(path, sizeof(path), "%s/core.%d", dir, pid);
	EXPECT_TRUE(file_has(path, dumped));
	EXPECT_FALSE(file_has(path, hidden));
	unlink(path);
	rmdir(dir);
}

/* A process that may trace another can get its fds; a view stays a view. */
TEST_F(attachment, of_pidfd_getfd_has_no_more_access)
{
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	int view = as_view(self->s.asfd, PAGE, PAGE, PROT_READ), stolen;
	char *mem;

	ASSERT_LE(0, pidfd);
	stolen = syscall(SYS_pidfd_getfd, pidfd, view, 0);
	ASSERT_LE(0, stolen);
	EXPECT_EQ(NULL, attach(stolen, 0, PAGE, RW));
	EXPECT_EQ(NULL, attach(stolen, 0, 2 * PAGE, PROT_READ));
	mem = attach(stolen, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('b', peek(mem));
	EXPECT_EQ(-ENOTTY, as_unmap(stolen, 0, PAGE));
}

/* Every call on the fd of a view, except those that map it into a VM. */
TEST_F(attachment, of_view_allows_no_ioctl_but_kvm)
{
	static const unsigned int types[] = { 0xb9, 0xae, 'f', 'T', 0x12, 0 };
	int view = as_view(self->s.asfd, 0, PAGE, RW);
	uint64_t arg[16] = { 0 };
	unsigned int i, nr;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		for (nr = 0; nr < 256; nr++) {
			if (types[i] == 0xb9 && (nr == 0x10 || nr == 0x11))
				continue;
			/* answered by the VFS for any file */
			if (_IO(types[i], nr) == FIONBIO || _IO(types[i], nr) == FIOASYNC ||
			    _IO(types[i], nr) == FIOCLEX || _IO(types[i], nr) == FIONCLEX ||
			    _IO(types[i], nr) == FIGETBSZ || _IO(types[i], nr) == FIOQSIZE ||
			    _IO(types[i], nr) == FIONREAD)
				continue;
			EXPECT_EQ(-1, ioctl(view, _IO(types[i], nr), arg))
				TH_LOG("type %#x, number %u", types[i], nr);
		}
	EXPECT_EQ(0, still_works(&self->s, self->mem));
}

/* A debugger reads and writes what the process can, and no more. */
TEST_F(attachment, can_be_debugged)
{
	struct agent child;
	int status;
	long word;

	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('a', agent_peek(&child, self->mem));
	ASSERT_EQ(0, ptrace(PTRACE_ATTACH, child.pid, 0, 0));
	ASSERT_EQ(child.pid, waitpid(child.pid, &status, 0));
	errno = 0;
	word = ptrace(PTRACE_PEEKDATA, child.pid, self->mem, 0);
	EXPECT_EQ(0, errno);
	EXPECT_EQ('a', word & 0xff);
	EXPECT_EQ(0, ptrace(PTRACE_POKEDATA, child.pid, self->mem + 3 * PAGE,
			    (word & ~0xffL) | 'z'));
	EXPECT_EQ('z', file_byte(self->s.a, 3 * PAGE));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	errno = 0;
	ptrace(PTRACE_PEEKDATA, child.pid, self->mem, 0);
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, child.pid, self->mem, 0));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, child.pid, 0, 0));
	EXPECT_EQ(0, agent_stop(&child));
}

/*
 * /proc reports nothing about the files behind the pages of an attachment; map_files has
 * what was attached, for no more than that allows.
 */
TEST_F(attachment, is_opaque_in_proc)
{
	uint64_t entry = ~0ULL;
	struct stat attached, found;
	char path[128];
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	ASSERT_LE(0, fd);
	EXPECT_EQ((ssize_t)sizeof(entry),
		  pread(fd, &entry, sizeof(entry),
			(uintptr_t)self->mem / PAGE * sizeof(entry)));
	close(fd);
	/* present, and not as a page of a file */
	EXPECT_EQ(0, (int)(entry >> 61 & 1));
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx",
		 (unsigned long)self->mem, (unsigned long)self->mem + SPACE_LEN);
	fd = open(path, O_RDWR);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(self->fd, &attached));
	ASSERT_EQ(0, fstat(fd, &found));
	EXPECT_EQ(attached.st_ino, found.st_ino);
	EXPECT_EQ(variant->view ? -ENOTTY : 0, as_unmap(fd, 0, PAGE));
	EXPECT_EQ(NULL, attach(fd, SPACE_LEN, PAGE, RW));
}

TEST_HARNESS_MAIN

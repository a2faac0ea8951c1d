// SPDX-License-Identifier: GPL-2.0
/* What a lender does: functions that an agent calls. */
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "lender.h"

long lend_area(void *prot)
{
	void *area = mmap(AREA, LEN, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			  -1, 0);

	if (area != AREA)
		return -errno;
	return as_lend(AREA, LEN, (long)prot);
}

long lender_unmap(void *page)
{
	return munmap(AREA + (long)page * PAGE, PAGE) ? -errno : 0;
}

long lender_map_over(void *page)
{
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	return mem == MAP_FAILED ? -errno : 0;
}

static long map_at(void *page, int fd, int flags)
{
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, RW, flags | MAP_FIXED, fd, 0);

	return mem == MAP_FAILED ? -errno : fd;
}

/* these return the file descriptor */
long lender_map_file(void *page)
{
	return map_at(page, memfd_pages("over", 1, 'f'), MAP_SHARED);
}

long lender_map_private(void *page)
{
	return map_at(page, memfd_pages("over", 1, 'f'), MAP_PRIVATE);
}

long lender_map_fd(void *fd)
{
	return map_at((void *)1, (long)fd, MAP_SHARED) < 0 ? -errno : 0;
}

long lender_map_secret(void *page)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd < 0 || ftruncate(fd, PAGE))
		return -errno;
	return map_at(page, fd, MAP_SHARED) < 0 ? -errno : 0;
}

/* memory of a device: video memory, or where a PC has it */
long lender_map_device(void *page)
{
	int fd = open("/dev/mem", O_RDWR);
	void *mem = mmap(AREA + (long)page * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED,
			 fd, 0xa0000);

	close(fd);
	return mem == MAP_FAILED ? -errno : 0;
}

/* the first page over the one that is given */
long lender_move(void *page)
{
	void *mem = mremap(AREA, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			   AREA + (long)page * PAGE);

	return mem == MAP_FAILED ? -errno : 0;
}

long lender_forbid(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, PROT_READ) ? -errno : 0;
}

long lender_hide(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, PROT_NONE) ? -errno : 0;
}

long lender_only_write(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, PROT_WRITE) ? -errno : 0;
}

long lender_allow(void *page)
{
	return mprotect(AREA + (long)page * PAGE, PAGE, RW) ? -errno : 0;
}

long lender_forget(void *page)
{
	return madvise(AREA + (long)page * PAGE, PAGE, MADV_DONTNEED) ? -errno : 0;
}

long lender_page_out(void *unused)
{
	(void)unused;
	return madvise(AREA, LEN, MADV_PAGEOUT) ? -errno : 0;
}

long lender_revoke(void *fd)
{
	return as_lend_revoke((long)fd);
}

long lender_exec(void *unused)
{
	(void)unused;
	execl("/bin/sleep", "sleep", "1000", NULL);
	return -errno;
}

/* forks a child that lives until the agent dies, and returns its pid */
long lender_fork(void *unused)
{
	(void)unused;
	pid_t pid = fork();

	if (pid == 0) {
		/* a copy of what the parent has not yet changed */
		AREA[3 * PAGE] = 'C';
		for (;;)
			pause();
	}
	return pid;
}

long lender_merge(void *unused)
{
	unsigned int i;

	(void)unused;
	for (i = 0; i < PAGES; i++)
		memset(AREA + i * PAGE, 'k', PAGE);
	return madvise(AREA, LEN, MADV_MERGEABLE) ? -errno : 0;
}

long lender_free(void *page)
{
	return madvise(AREA + (long)page * PAGE, PAGE, MADV_FREE) ? -errno : 0;
}

/* 4 MiB at twice the area, of huge pages as far as there are any; returns the lend fd */
long lend_huge(void *unused)
{
	void *mem = mmap(HUGE_AREA, HUGE_LEN, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	(void)unused;
	if (mem != HUGE_AREA)
		return -errno;
	if (madvise(mem, HUGE_LEN, MADV_HUGEPAGE))
		return -errno;
	return as_lend(mem, HUGE_LEN, RW);
}

long lend_hugetlb(void *fd)
{
	int number = (long)fd;
	int flags = number < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB : MAP_SHARED;
	void *mem = mmap(HUGE_AREA, 2 * HUGE, RW, flags | MAP_FIXED_NOREPLACE, number, 0);

	return mem != HUGE_AREA ? -errno : as_lend(mem, 2 * HUGE, RW);
}

long lender_unmap_huge(void *unused)
{
	(void)unused;
	return munmap(HUGE_AREA, 2 * HUGE) ? -errno : 0;
}

long lender_split(void *page)
{
	return munmap(HUGE_AREA + (long)page * PAGE, PAGE) ? -errno : 0;
}

long lender_forget_huge(void *unused)
{
	(void)unused;
	return madvise(HUGE_AREA, HUGE_LEN, MADV_DONTNEED) ? -errno : 0;
}

long lender_collapse(void *unused)
{
	(void)unused;
	return madvise(HUGE_AREA, HUGE_LEN, MADV_COLLAPSE) ? -errno : 0;
}

/* Page i of the area is served with the byte 'u' + i, after a while. */
static int uffd;

static void *serve(void *unused)
{
	static char page[PAGE];
	struct uffd_msg msg;

	(void)unused;
	while (read(uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		uint64_t addr = msg.arg.pagefault.address & ~(PAGE - 1);
		struct uffdio_copy copy = {
			.dst = addr, .src = (uintptr_t)page, .len = PAGE,
		};

		/* longer than a fault waits at a time: it is told again */
		sleep_ms(50);
		memset(page, 'A' + (addr - (uintptr_t)AREA) / PAGE, PAGE);
		ioctl(uffd, UFFDIO_COPY, &copy);
	}
	return NULL;
}

/* until it is served by a thread, if @served, or never */
long lender_userfaultfd(void *served)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)AREA, LEN }, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	pthread_t thread;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return served ? -pthread_create(&thread, NULL, serve, NULL) : uffd;
}

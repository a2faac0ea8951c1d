// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * Composes an address space of two files, reads it through an attachment, and takes one
 * file away again.
 *
 *   cc -o compose $(pkgconf --cflags address-space) compose.c
 *   ./compose            # or --wait, to be looked at with asctl until it is killed
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/address_space.h>

#define PAGE	4096UL
#define LENGTH	(16 * PAGE)

static volatile sig_atomic_t hole_met;
static char *attachment;

/* Nothing is mapped where the access was: the handler puts memory there, so that it ends. */
static void on_sigbus(int signal)
{
	(void)signal;
	hole_met = 1;
	mmap(attachment, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int file_with(const char *name, const char *text)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, PAGE) || pwrite(fd, text, strlen(text), 0) < 0)
		err(1, "memfd %s", name);
	return fd;
}

static void map(int asfd, int fd, uint64_t addr)
{
	struct address_space_mmap arg = {
		.size = sizeof(arg),
		.fd = fd,
		.prot = PROT_READ | PROT_WRITE,
		.length = PAGE,
		.addr = addr,
	};

	if (ioctl(asfd, ADDRESS_SPACE_MMAP, &arg))
		err(1, "ADDRESS_SPACE_MMAP at %#lx", (unsigned long)addr);
}

int main(int argc, char **argv)
{
	struct address_space_query query = { .size = sizeof(query) };
	struct address_space_create create = {
		.size = sizeof(create),
		.length = LENGTH,
		.name = (uintptr_t)"compose",
	};
	struct address_space_munmap munmap = {
		.size = sizeof(munmap),
		.length = PAGE,
	};
	int device = open("/dev/address_space", O_RDONLY | O_CLOEXEC), asfd;

	if (device < 0)
		err(1, "/dev/address_space");
	/* What this kernel and module can do; there is no need to try. */
	if (ioctl(device, ADDRESS_SPACE_QUERY, &query))
		err(1, "ADDRESS_SPACE_QUERY");
	if (!(query.features & ADDRESS_SPACE_FEATURE_NAMES))
		create.name = 0;
	asfd = ioctl(device, ADDRESS_SPACE_CREATE, &create);
	if (asfd < 0)
		err(1, "ADDRESS_SPACE_CREATE");

	/* All of it is a hole, and attached so. */
	attachment = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, asfd, 0);
	if (attachment == MAP_FAILED)
		err(1, "mmap");

	/* What is mapped is visible at once. */
	map(asfd, file_with("first", "the first file"), 0);
	map(asfd, file_with("second", "the second file"), 8 * PAGE);
	printf("at 0: %s\n", attachment);
	printf("at %#lx: %s\n", 8 * PAGE, attachment + 8 * PAGE);
	fflush(stdout);
	if (argc > 1 && !strcmp(argv[1], "--wait"))
		pause();

	/* And what is unmapped is gone when the call returns. */
	if (ioctl(asfd, ADDRESS_SPACE_MUNMAP, &munmap))
		err(1, "ADDRESS_SPACE_MUNMAP");
	signal(SIGBUS, on_sigbus);
	(void)*(volatile char *)attachment;
	printf("at 0: %s\n", hole_met ? "a hole" : "still there");
	return !hole_met;
}

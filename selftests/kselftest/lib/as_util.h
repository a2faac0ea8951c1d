/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the address space selftests share. No function here uses the harness: each
 * returns a value, or a negative errno, and the tests check it.
 */
#ifndef AS_UTIL_H
#define AS_UTIL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <linux/address_space.h>
#include <linux/memfd.h>

/*
 * The harness stops a test after 30 s; an emulated machine with a debug kernel may
 * need more. run-in-vm stops a program that hangs.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define RW		(PROT_READ | PROT_WRITE)
#define RX		(PROT_READ | PROT_EXEC)
#define RWX		(PROT_READ | PROT_WRITE | PROT_EXEC)

/* The calls. Each returns what the kernel returned, or -errno. */
int as_ioctl(int fd, unsigned long call, void *arg);
int as_create(uint64_t length);
int as_create_flags(uint64_t length, uint32_t flags);
int as_map(int asfd, uint64_t addr, int fd, uint64_t offset, uint64_t length,
	   int prot, uint32_t flags);
int as_map_anywhere(int asfd, uint64_t *addr, int fd, uint64_t offset,
		    uint64_t length, int prot);
int as_unmap(int asfd, uint64_t addr, uint64_t length);
int as_unmap_flags(int asfd, uint64_t addr, uint64_t length, uint32_t flags);
int as_view(int asfd, uint64_t offset, uint64_t length, int prot);
/* a view that manages its range */
int as_part(int asfd, uint64_t offset, uint64_t length, int prot);
int as_view_flags(int asfd, uint64_t offset, uint64_t length, int prot, uint32_t flags);
int as_register(int asfd, int fd, uint64_t offset, uint64_t length, int prot,
		uint32_t flags);
int as_unregister(int asfd, int fd);
int as_unregister_all(int asfd);
int as_protect(int asfd, uint64_t addr, uint64_t length, int prot);
int as_move(int asfd, uint64_t addr, uint64_t length, uint64_t new_addr,
	    uint32_t flags);
int as_advise(int asfd, uint64_t addr, uint64_t length, uint32_t advice);
/* how many ranges there are in the range, at most @room; @next: where to go on */
int as_layout(int asfd, uint64_t addr, uint64_t length, struct address_space_range *ranges,
	      uint32_t room, uint64_t *next);
int as_events(int asfd, uint64_t addr, uint64_t length, uint32_t timeout_ms);
int as_poison(int asfd, uint64_t addr, uint64_t length, uint32_t flags);
/* a range of the caller's own memory */
int as_lend(const void *addr, uint64_t length, int prot);
int as_lend_revoke(int fd);
/* @failed, if not NULL: what the call stored there, UINT32_MAX if nothing */
int as_batch(int asfd, const struct address_space_op *ops, uint32_t n,
	     uint32_t *failed);

/* mmap(MAP_SHARED), or NULL with errno set */
void *attach(int fd, uint64_t offset, uint64_t length, int prot);

/*
 * Access memory that may not be there. peek() returns the byte and poke() returns 0,
 * or minus the signal that the access raised; probe_info has the details.
 */
extern __thread siginfo_t probe_info;
int peek(const void *addr);
int poke(void *addr, uint8_t value);
int peek64(const void *addr, uint64_t *value);
int poke64(void *addr, uint64_t value);
int execute(void *addr);

/* Files: page i is filled with the byte first + i; first < 0 leaves a hole. */
int memfd_pages(const char *name, unsigned int pages, int first);
int file_pages(const char *dir, unsigned int pages, int first);
int fill_pages(int fd, unsigned int pages, int first);
int file_byte(int fd, uint64_t offset);
int file_set(int fd, uint64_t offset, uint8_t value);
/* the first word of each page */
int file_set_words(int fd, unsigned int pages, uint64_t value);
int hugetlb_memfd(unsigned int pages);
int closed_fd(void);

/*
 * /proc/self/fdinfo: one value by its name (or -ENOENT), and the lines of the layout,
 * to be freed.
 */
long long fdinfo_value(int fd, const char *name);
int fdinfo_word(int fd, const char *name, char *word, size_t size);
char *fdinfo_layout(int fd);

/*
 * All that a failed call must leave unchanged, as text, to be freed: the layout, the
 * attachments, the fds of the caller and its shared mappings.
 */
char *state_of(int asfd);

/* @call returns -@err and changes nothing. Needs @asfd and the harness. */
#define EXPECT_REFUSED(asfd, err, call) do {			\
	char *__before = state_of(asfd), *__after;		\
								\
	EXPECT_EQ(-(err), call);				\
	__after = state_of(asfd);				\
	EXPECT_STREQ(__before, __after);			\
	free(__before);						\
	free(__after);						\
} while (0)

/* What most tests begin with. */
#define SPACE_PAGES	64
#define FILE_PAGES	16
#define SPACE_LEN	(SPACE_PAGES * PAGE)
#define FILE_LEN	(FILE_PAGES * PAGE)

struct space {
	int asfd;
	int a, b;	/* memfds of FILE_PAGES: 'a', 'b', ... and 'A', 'B', ... */
	char *mem;	/* all of the space, RW */
};

int space_init(struct space *s);
void space_free(struct space *s);

/*
 * An agent is a forked child that runs requests: it has what the test had mapped when
 * it was started. A request that is not answered in time returns -ETIMEDOUT. An agent
 * dies with the test.
 */
struct agent {
	pid_t pid;
	int sock;
};

typedef long (*agent_fn)(void *arg);

int agent_start(struct agent *a);
long agent_peek(struct agent *a, const void *addr);
long agent_poke(struct agent *a, void *addr, uint8_t value);
/* passes @fd over the socket; the agent maps it and closes it */
void *agent_attach(struct agent *a, int fd, uint64_t offset, uint64_t length,
		   int prot);
/* passes @fd and returns its number in the agent */
int agent_take_fd(struct agent *a, int fd);
/* a copy of an fd of the agent; the agent keeps its own */
int agent_fd(struct agent *a, int number);
/* calls @fn in the agent, with the memory of the agent */
long agent_call(struct agent *a, agent_fn fn, void *arg);
/* the agent's child takes its place */
long agent_respawn(struct agent *a);
/* its exit status, as from waitpid() */
int agent_stop(struct agent *a);

/* File systems: in a mount namespace of the test, which ends with it. */
int own_mounts(void);

/*
 * Whether memory other than hugetlb, and attachments, can have huge pages: some kernels are
 * configured without, as those for real time.
 */
static inline bool have_huge_pages(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage", F_OK);
}
int mount_tmpfs(char *dir, const char *options);
/* the module's; nothing is left where it fails */
int mount_spaces(char *dir, const char *options);
/* a space of SPACE_LEN with the name @path, in a mount of its own at @dir, which go with it */
int named_space(char *dir, char *path, size_t size);
void end_named_space(int fd, const char *dir);
/* a file on a tmpfs that only the test has, mounted at @dir; file_pages() can make more */
int own_tmpfs_file(char *dir, unsigned int pages, int first);
/*
 * Unmounts the file system when no file of it is held any more; -EBUSY if that takes
 * longer. The worker drops an unused segment a little later.
 */
int umount_within(const char *dir, unsigned int ms);
#define WORKER_MS	5000
/* a directory on ext4: /mnt/ext4, or a fresh image on a loop device */
int disk_dir(char *dir, size_t size);
/* A directory on btrfs, which has a checksum of each block. -ENODEV. */
int btrfs_dir(char *dir, size_t size);
int drop_caches(void);
/* the byte on the disk, not in any cache; < 0 for an error */
int disk_byte(int fd, uint64_t offset);

uint64_t now_ms(void);
/* the duration of a race: RACE_SECONDS, by default 2 */
unsigned int race_ms(void);
void sleep_ms(unsigned int ms);
int write_text(const char *path, const char *text);
int read_text(const char *path, char *text, size_t size);
long number_in(const char *path, const char *name);

/* Control groups of version 2. */
#define CGROUP_ROOT	"/sys/fs/cgroup"
/* enables it for the groups below the root */
bool have_memory_controller(void);
/* One that an earlier run has left is removed before. */
int create_group(const char *group);
/* when the worker has left it, too */
void remove_group(const char *group);
long enter_group(void *group);

#endif

// SPDX-License-Identifier: GPL-2.0
/* The server of slow_fs.h, in a process of its own, and what a test asks of it. */
#define FUSE_USE_VERSION 32
#include <fuse.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "as_parallel.h"
#include "slow_fs.h"

#define ENOUGH_MS	30000	/* then the server answers even without a request */

/* of the server's process */
static struct slow_gate *gate;

static int slow_getattr(const char *path, struct stat *st,
			struct fuse_file_info *info)
{
	(void)info;
	memset(st, 0, sizeof(*st));
	st->st_nlink = 1;
	if (!strcmp(path, "/")) {
		st->st_mode = S_IFDIR | 0755;
		return 0;
	}
	if (strcmp(path, "/slow"))
		return -ENOENT;
	st->st_mode = S_IFREG | 0644;
	st->st_size = SLOW_LEN;
	return 0;
}

static int slow_open(const char *path, struct fuse_file_info *info)
{
	(void)info;
	return strcmp(path, "/slow") ? -ENOENT : 0;
}

static void wait_while_closed(void)
{
	uint64_t until = now_ms() + ENOUGH_MS;

	__atomic_add_fetch(&gate->waiting, 1, __ATOMIC_SEQ_CST);
	while (gate->closed) {
		if (now_ms() > until) {
			gate->given_up = 1;
			break;
		}
		sleep_ms(2);
	}
	__atomic_sub_fetch(&gate->waiting, 1, __ATOMIC_SEQ_CST);
}

static int slow_read(const char *path, char *to, size_t size, off_t offset,
		     struct fuse_file_info *info)
{
	size_t i;

	(void)path;
	(void)info;
	wait_while_closed();
	if (gate->fail)
		return -EIO;
	if (offset >= (off_t)SLOW_LEN)
		return 0;
	if (offset + size > SLOW_LEN)
		size = SLOW_LEN - offset;
	for (i = 0; i < size; i++)
		to[i] = 'a' + (offset + i) / PAGE;
	return size;
}

static int slow_write(const char *path, const char *from, size_t size, off_t offset,
		      struct fuse_file_info *info)
{
	(void)path;
	(void)from;
	(void)offset;
	(void)info;
	wait_while_closed();
	return size;
}

static const struct fuse_operations operations = {
	.getattr = slow_getattr,
	.open = slow_open,
	.read = slow_read,
	.write = slow_write,
};

static void *serve(void *arg)
{
	struct slow_fs *fs = arg;
	char *argv[] = { "slow", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_loop_config config = { .clone_fd = 0, .max_idle_threads = 8 };
	struct fuse *fuse = fuse_new(&args, &operations, sizeof(operations), NULL);

	gate = fs->gate;
	if (fuse && !fuse_mount(fuse, fs->dir))
		fuse_loop_mt(fuse, &config);
	return NULL;
}

int slow_fs_start(struct slow_fs *fs)
{
	uint64_t until = now_ms() + 10000;
	struct statfs mounted;
	int ret;

	if (access("/dev/fuse", R_OK | W_OK))
		return -ENODEV;
	fs->gate = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (fs->gate == MAP_FAILED)
		return -errno;
	ret = own_mounts();
	if (ret)
		return ret;
	strcpy(fs->dir, "/tmp/address_space.XXXXXX");
	if (!mkdtemp(fs->dir))
		return -errno;
	fs->server = start_process(serve, fs);
	if (fs->server < 0)
		return fs->server;
	do {
		sleep_ms(5);
		if (statfs(fs->dir, &mounted))
			return -errno;
		if (now_ms() > until)
			return -ETIMEDOUT;
	} while (mounted.f_type != FUSE_SUPER_MAGIC);
	return 0;
}

void slow_fs_stop(struct slow_fs *fs)
{
	fs->gate->closed = false;
	kill(fs->server, SIGKILL);
	umount2(fs->dir, MNT_DETACH);
	rmdir(fs->dir);
}

int slow_fs_open(const struct slow_fs *fs, int flags)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%s/slow", fs->dir);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int slow_fs_wait(const struct slow_fs *fs)
{
	uint64_t until = now_ms() + 10000;

	while (!fs->gate->waiting)
		if (now_ms() > until)
			return -ETIMEDOUT;
	return 0;
}

static void *write_back(void *file)
{
	fsync((int)(intptr_t)file);
	return NULL;
}

int slow_fs_begin_writeback(const struct slow_fs *fs, int file)
{
	pid_t pid = start_process(write_back, (void *)(intptr_t)file);

	return pid < 0 ? pid : slow_fs_wait(fs);
}

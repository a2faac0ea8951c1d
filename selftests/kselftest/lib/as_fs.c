// SPDX-License-Identifier: GPL-2.0
/* File systems for the tests, in a mount namespace that ends with the test. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/magic.h>

#include "as_util.h"

int own_mounts(void)
{
	if (unshare(CLONE_NEWNS))
		return -errno;
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

static int make_dir(char *dir)
{
	strcpy(dir, "/tmp/address_space.XXXXXX");
	return mkdtemp(dir) ? 0 : -errno;
}

/* @dir has room for a path; the caller has mounts of its own */
int mount_tmpfs(char *dir, const char *options)
{
	int ret = make_dir(dir);

	if (ret)
		return ret;
	if (mount("selftest", dir, "tmpfs", 0, options))
		ret = -errno;
	return ret;
}

int mount_spaces(char *dir, const char *options)
{
	int ret = make_dir(dir);

	if (ret)
		return ret;
	if (!mount("none", dir, "address_space", 0, options))
		return 0;
	ret = -errno;
	rmdir(dir);
	return ret;
}

int named_space(char *dir, char *path, size_t size)
{
	int fd, ret = own_mounts() ?: mount_spaces(dir, "");

	if (ret)
		return ret;
	snprintf(path, size, "%s/ram", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	return fd < 0 || ftruncate(fd, SPACE_LEN) ? -errno : fd;
}

void end_named_space(int fd, const char *dir)
{
	close(fd);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
}

int own_tmpfs_file(char *dir, unsigned int pages, int first)
{
	int ret = own_mounts() ?: mount_tmpfs(dir, "size=1m");

	return ret ?: file_pages(dir, pages, first);
}

int umount_within(const char *dir, unsigned int ms)
{
	uint64_t until = now_ms() + ms;

	for (;;) {
		if (!umount2(dir, 0))
			return 0;
		if (now_ms() > until)
			return -errno;
		sleep_ms(10);
	}
}

static int run(const char *command)
{
	int status = system(command);

	return status == -1 ? -errno : status ? -EIO : 0;
}

/* mkfs on an image in memory, mounted by a loop device, in mounts of the test's own */
static int image_dir(char *dir, size_t size, const char *type)
{
	char image[64], command[256];
	int ret;

	ret = own_mounts();
	if (ret)
		return ret;
	ret = mount_tmpfs(image, "size=300m");
	if (ret)
		return ret;
	snprintf(dir, size, "%s/mnt", image);
	snprintf(command, sizeof(command),
		 "cd %s && mkdir mnt && truncate -s 256M img && mkfs.%s -q img && mount -t %s -o loop img mnt",
		 image, type, type);
	return run(command);
}

int disk_dir(char *dir, size_t size)
{
	struct statfs fs;

	/* ext2 to ext4 have the same magic; no other of them is used here */
	if (!statfs("/mnt/ext4", &fs) && fs.f_type == EXT4_SUPER_MAGIC) {
		snprintf(dir, size, "/mnt/ext4");
		return 0;
	}
	return image_dir(dir, size, "ext4");
}

int btrfs_dir(char *dir, size_t size)
{
	run("modprobe -aq loop btrfs 2>/dev/null");
	if (run("grep -qw btrfs /proc/filesystems") ||
	    run("command -v mkfs.btrfs >/dev/null"))
		return -ENODEV;
	return image_dir(dir, size, "btrfs");
}

int drop_caches(void)
{
	sync();
	return write_text("/proc/sys/vm/drop_caches", "3");
}

/*
 * O_DIRECT writes back what the kernel knows to be dirty and then reads the disk. So
 * a byte that was changed without dirty tracking is missing from the result, whatever
 * the page cache holds.
 */
int disk_byte(int fd, uint64_t offset)
{
	static uint8_t block[PAGE] __attribute__((aligned(PAGE)));
	char path[64];
	int direct, ret;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (direct < 0)
		return -errno;
	ret = pread(direct, block, PAGE, offset & ~(PAGE - 1));
	if (ret < 0)
		ret = -errno;
	close(direct);
	if (ret != (int)PAGE)
		return ret < 0 ? ret : -ENODATA;
	return block[offset & (PAGE - 1)];
}

// SPDX-License-Identifier: GPL-2.0
/* Address spaces with a name, and what a program is told of a layout. */
#include <sys/mount.h>

#include "fail_nth_ops.h"

#define CALL(op, ...)							\
const struct fail_op fail_op_##op = {					\
	.may_give = { ENOMEM, EFAULT }, __VA_ARGS__	\
}

/* a file system that goes with its directory's fd */
static int spaces_mounted(struct fail_ctx *c)
{
	char dir[64];
	int ret = mount_spaces(dir, NULL);

	if (ret)
		return ret;
	c->other = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return c->other < 0 ? -errno : 0;
}

/* to mount another, with options; it goes with its fd */
static int mount_run(struct fail_ctx *c)
{
	int fs = fsopen("address_space", FSOPEN_CLOEXEC), ret = 0;

	if (fs < 0)
		return -errno;
	if (fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0700", 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "holes", "absorb", 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		ret = -errno;
	if (!ret) {
		c->other = fsmount(fs, FSMOUNT_CLOEXEC, 0);
		ret = c->other < 0 ? -errno : 0;
	}
	close(fs);
	return ret;
}

static int name_run(struct fail_ctx *c)
{
	c->fd = openat(c->other, "ram", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return c->fd < 0 ? -errno : 0;
}

static int give_length_run(struct fail_ctx *c)
{
	return ftruncate(c->fd, SPACE_LEN) ? -errno : 0;
}

static int named_works(struct fail_ctx *c)
{
	int value;

	if (ftruncate(c->fd, SPACE_LEN) || as_map(c->fd, 0, c->s.b, 0, PAGE, RW, 0))
		return -EIO;
	c->more_len = PAGE;
	c->more = attach(c->fd, 0, PAGE, RW);
	value = c->more ? peek(c->more) : -errno;
	return value == 'A' ? 0 : -EIO;
}

static int mounted_works(struct fail_ctx *c)
{
	return name_run(c) ?: named_works(c);
}

CALL(mount, .run = mount_run, .verify = mounted_works);
CALL(name, .prepare = spaces_mounted, .run = name_run, .verify = named_works);

static int file_made(struct fail_ctx *c)
{
	return spaces_mounted(c) ?: name_run(c);
}

CALL(give_length, .prepare = file_made, .run = give_length_run, .verify = named_works);

/* the layout of two mappings */

static int layout_run(struct fail_ctx *c)
{
	int count = as_layout(c->s.asfd, 0, SPACE_LEN, (void *)c->text, 8, NULL);

	return count < 0 ? count : 0;
}

static int layout_verify(struct fail_ctx *c)
{
	const struct address_space_range *ranges = (void *)c->text;

	return ranges[0].length == FILE_LEN && ranges[1].addr == SHOWN_RO ? 0 : -EIO;
}

CALL(layout, .run = layout_run, .verify = layout_verify);

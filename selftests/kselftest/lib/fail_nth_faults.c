// SPDX-License-Identifier: GPL-2.0
/*
 * Faults through an attachment, changes of the file behind it, and a guest.
 *
 * The kernel retries a fault that lacks memory for the attachment itself: the process
 * does not notice. A fault that lacks memory for the page of the file is SIGBUS, as
 * it is when the space's creator has reached its limit. A copy by the kernel into the
 * attachment may end in EFAULT.
 */
#include "fail_nth_ops.h"

#define OP(op, ...)	const struct fail_op fail_op_##op = { __VA_ARGS__ }
/* operations that never fail */
#define SURE(op, ...)	OP(op, .may_give = { 0 }, __VA_ARGS__)
#define FAULT(op, ...)	OP(op, .may_give = { SIGBUS }, __VA_ARGS__)
#define CALL(op, ...)	OP(op, .may_give = { ENOMEM, EFAULT }, __VA_ARGS__)

/* b, a file with all pages present or none, mapped at SHOWN_NEW */

static int b_shown(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->s.b, 0, FILE_LEN, RW, 0);
}

static int b_shown_absent(struct fail_ctx *c)
{
	close(c->s.b);
	c->s.b = memfd_pages("sparse", FILE_PAGES, -1);
	return c->s.b < 0 ? c->s.b : b_shown(c);
}

static int touch(struct fail_ctx *c, int wanted)
{
	int value = peek(c->mem + SHOWN_NEW + 3 * PAGE);

	return value == wanted ? 0 : value < 0 ? value : -EIO;
}

static int read_run(struct fail_ctx *c)
{
	return touch(c, 'D');
}

static int absent_read_run(struct fail_ctx *c)
{
	return touch(c, 0);
}

static int write_run(struct fail_ctx *c)
{
	return poke(c->mem + SHOWN_NEW + 3 * PAGE, '!');
}

static int is_written(struct fail_ctx *c)
{
	return file_byte(c->s.b, 3 * PAGE) == '!' ? 0 : -EIO;
}

static int b_shown_and_read(struct fail_ctx *c)
{
	int ret = b_shown(c);

	return ret ?: read_run(c);
}

FAULT(read_fault, .prepare = b_shown, .run = read_run);
FAULT(write_fault, .prepare = b_shown, .run = write_run, .verify = is_written);
FAULT(absent_read_fault, .prepare = b_shown_absent, .run = absent_read_run);
FAULT(absent_write_fault, .prepare = b_shown_absent, .run = write_run,
      .verify = is_written);
FAULT(write_after_read_fault, .prepare = b_shown_and_read, .run = write_run,
      .verify = is_written);

/* the first access to a part of the address space without page tables */

static int far_attachment(struct fail_ctx *c)
{
	c->more_len = 4 * PAGE;
	c->more = mmap((void *)0x200000000000, c->more_len, RW,
		       MAP_SHARED | MAP_FIXED_NOREPLACE, c->s.asfd, 0);
	if (c->more != MAP_FAILED)
		return 0;
	c->more = NULL;
	return -errno;
}

static int far_run(struct fail_ctx *c)
{
	int value = peek(c->more + PAGE);

	return value == 'b' ? 0 : value < 0 ? value : -EIO;
}

SURE(far_fault, .prepare = far_attachment, .run = far_run);

/* a page on disk and not in memory: a file system may turn it into an I/O error */

static int disk_shown(struct fail_ctx *c)
{
	char dir[64];
	int ret = disk_dir(dir, sizeof(dir));

	if (ret)
		return -EOPNOTSUPP;
	close(c->s.b);
	c->s.b = file_pages(dir, FILE_PAGES, 'A');
	if (c->s.b < 0)
		return c->s.b;
	ret = b_shown(c);
	return ret ?: fsync(c->s.b) ? -errno :
	       posix_fadvise(c->s.b, 0, 0, POSIX_FADV_DONTNEED);
}

FAULT(disk_read_fault, .prepare = disk_shown, .run = read_run);

/* a huge page behind an aligned attachment, in a space of its own */

static int huge_shown(struct fail_ctx *c)
{
	int ret;

	c->other = hugetlb_memfd(2);
	if (c->other < 0)
		return -EOPNOTSUPP;
	c->fd = as_create(2 * HUGE);
	if (c->fd < 0)
		return c->fd;
	ret = as_map(c->fd, 0, c->other, 0, 2 * HUGE, RW, 0);
	c->more_len = 2 * HUGE;
	c->more = attach(c->fd, 0, c->more_len, RW);
	return ret ?: c->more ? 0 : -errno;
}

static int huge_run(struct fail_ctx *c)
{
	int value = peek(c->more + HUGE + 5 * PAGE);

	return value == 'h' ? 0 : value < 0 ? value : -EIO;
}

FAULT(huge_fault, .prepare = huge_shown, .run = huge_run);

/* the kernel writes into an attachment: a file is read into it */

static int copy_run(struct fail_ctx *c)
{
	ssize_t n = pread(c->s.a, c->mem + SHOWN_NEW, 4 * PAGE, 0);

	return n < 0 ? -errno : n == 4 * PAGE ? 0 : -EFAULT;
}

static int copy_verify(struct fail_ctx *c)
{
	return file_byte(c->s.b, 3 * PAGE) == 'd' ? 0 : -EIO;
}

/* old and new content are the same, so it does not matter how far the copy got */
static int a_copied(struct fail_ctx *c)
{
	int ret = fill_pages(c->s.b, FILE_PAGES, 'a');

	return ret ?: b_shown(c);
}

CALL(copy_into_attachment, .prepare = a_copied, .run = copy_run, .verify = copy_verify);

/* the file changes behind the attachment: the notifier, which must not fail */

static int punch_run(struct fail_ctx *c)
{
	return fallocate(c->s.a, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE,
			 4 * PAGE) ? -errno : 0;
}

static int truncate_run(struct fail_ctx *c)
{
	return ftruncate(c->s.a, 6 * PAGE) ? -errno : 0;
}

SURE(punch, .run = punch_run);
SURE(truncate, .run = truncate_run);

/* a guest that has run before, so that KVM has made its one-time allocations */

static int vm_made(struct fail_ctx *c)
{
	int ret = vm_create(&c->vm);

	c->has_vm = !ret;
	return ret;
}

static int kvm_map_run(struct fail_ctx *c)
{
	char *mem;
	int ret = as_kvm_map(c->s.asfd, c->vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, 0,
			     &mem);

	if (!ret) {
		c->more = mem;
		c->more_len = SLOT_LEN;
	}
	return ret;
}

static int kvm_unmap_run(struct fail_ctx *c)
{
	int ret = as_kvm_unmap(c->s.asfd, c->vm.vm, 1);

	if (!ret)
		c->more = NULL;	/* the attachment was removed with the slot */
	return ret;
}

static int guest_value(struct fail_ctx *c, unsigned int offset, int wanted)
{
	int value = guest_read(&c->vm, offset);

	return value == wanted ? 0 : value < 0 ? value : -EIO;
}

static int guest_shows_b(struct fail_ctx *c)
{
	return guest_value(c, PAGE, 'b');
}

static int guest_shows_nothing(struct fail_ctx *c)
{
	/* without a slot KVM exits to the VMM */
	return guest_read(&c->vm, PAGE) == -ENXIO ? 0 : -EIO;
}

static int slot_made(struct fail_ctx *c)
{
	int ret = vm_made(c);

	ret = ret ?: kvm_map_run(c);
	return ret ?: guest_value(c, 0, 'a');
}

/* the page is neither in the guest's page tables nor in those of the attachment */
static int slot_made_absent(struct fail_ctx *c)
{
	int ret = slot_made(c);

	close(c->s.b);
	c->s.b = memfd_pages("sparse", FILE_PAGES, -1);
	return ret ?: as_map(c->s.asfd, 4 * PAGE, c->s.b, 0, 4 * PAGE, RW,
			     ADDRESS_SPACE_MAP_REPLACE);
}

static int guest_read_run(struct fail_ctx *c)
{
	return guest_value(c, 5 * PAGE, 0);
}

static int guest_write_run(struct fail_ctx *c)
{
	int ret = guest_write(&c->vm, 5 * PAGE, '!');

	return ret == '!' ? 0 : ret < 0 ? ret : -EIO;
}

static int guest_has_written(struct fail_ctx *c)
{
	return file_byte(c->s.b, PAGE) == '!' ? 0 : -EIO;
}

CALL(kvm_map, .needs_kvm = true, .prepare = vm_made, .run = kvm_map_run,
     .verify = guest_shows_b);
CALL(kvm_unmap, .needs_kvm = true, .prepare = slot_made, .run = kvm_unmap_run,
     .verify = guest_shows_nothing);
CALL(guest_read, .needs_kvm = true, .prepare = slot_made_absent, .run = guest_read_run);
CALL(guest_write, .needs_kvm = true, .prepare = slot_made_absent,
     .run = guest_write_run, .verify = guest_has_written);

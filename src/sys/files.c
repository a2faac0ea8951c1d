// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel has only as inline functions, macros or tables for files, inodes and file
 * systems: those that are mapped, and the module's own. See helpers.h.
 */
#include <linux/backing-dev.h>
#include <linux/hugetlb.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/pseudo_fs.h>
#include <linux/seq_file.h>
#include <linux/shmem_fs.h>
#include <linux/xattr.h>

#include <linux/address_space.h>

#include "helpers.h"

/* A file system of regular files. A range is executable if the file that it shows is. */
int address_space_helper_init_fs_context(struct fs_context *context)
{
	if (!init_pseudo(context, ADDRESS_SPACE_MAGIC))
		return -ENOMEM;
	context->s_iflags &= ~SB_I_NOEXEC;
	return 0;
}

void address_space_helper_set_file_size(struct file *file, loff_t size)
{
	i_size_write(file_inode(file), size);
}

void address_space_helper_lock_inode(struct inode *inode)
{
	inode_lock(inode);
}

void address_space_helper_unlock_inode(struct inode *inode)
{
	inode_unlock(inode);
}

loff_t address_space_helper_inode_size(struct inode *inode)
{
	return i_size_read(inode);
}

void address_space_helper_set_inode_size(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void address_space_helper_touch_inode(struct inode *inode)
{
	inode_set_mtime_to_ts(inode, inode_set_ctime_current(inode));
}

void address_space_helper_posix_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}

static bool is_there(struct posix_acl *acl)
{
	return acl && !is_uncached_acl(acl);
}

static bool has_access_acl(struct dentry *dentry)
{
	return is_there(READ_ONCE(d_inode(dentry)->i_acl));
}

static bool has_default_acl(struct dentry *dentry)
{
	return is_there(READ_ONCE(d_inode(dentry)->i_default_acl));
}

static const struct xattr_handler access_acl = {
	.name = XATTR_NAME_POSIX_ACL_ACCESS,
	.list = has_access_acl,
};

static const struct xattr_handler default_acl = {
	.name = XATTR_NAME_POSIX_ACL_DEFAULT,
	.list = has_default_acl,
};

/* For generic_listxattr() alone: the kernel gets and sets ACLs without them. */
const struct xattr_handler *const address_space_helper_acls[] = {
	&access_acl, &default_acl, NULL
};

/* That of a block device is that of the device, and not of its node. */
loff_t address_space_helper_file_size(struct file *file)
{
	return i_size_read(file->f_mapping->host);
}

unsigned long address_space_helper_file_ino(struct file *file)
{
	return file_inode(file)->i_ino;
}

unsigned int address_space_helper_file_device(struct file *file)
{
	return file_inode(file)->i_sb->s_dev;
}

unsigned long address_space_helper_huge_page_size(struct file *file)
{
	return is_file_hugepages(file) ? huge_page_size(hstate_file(file)) : 0;
}

bool address_space_helper_is_noexec(struct file *file)
{
	return READ_ONCE(file->f_path.mnt->mnt_flags) & MNT_NOEXEC;
}

/*
 * What mmap() looks at and what can change while a file is open: seals, and whether
 * it may be executed.
 */
unsigned int address_space_helper_mmap_limits(struct file *file)
{
	struct inode *inode = file_inode(file);
	unsigned int limits = 0;

	if (shmem_mapping(file->f_mapping))
		limits = READ_ONCE(SHMEM_I(inode)->seals);
#ifdef CONFIG_HUGETLBFS
	else if (is_file_hugepages(file))
		limits = READ_ONCE(HUGETLBFS_I(inode)->seals);
#endif
	if (address_space_helper_is_noexec(file))
		limits |= 1U << 31;
	return limits;
}

/*
 * Whether mapping the page means no I/O: it is memory, it is there, and it is not being read
 * or written.
 */
bool address_space_helper_is_resident(struct file *file, pgoff_t index)
{
	struct folio *folio;
	bool there;

	if (!shmem_mapping(file->f_mapping))
		return false;
	folio = filemap_get_folio(file->f_mapping, index);
	if (IS_ERR(folio))
		return false;
	there = folio_test_uptodate(folio) && !folio_test_locked(folio);
	folio_put(folio);
	return there;
}

/*
 * What is neither a regular file nor a block device decides at each mmap() what it maps: two
 * mappings of one /dev/zero show two memories, where the module would show one. Secret
 * memory is not in the kernel's direct map, DAX has no page cache whose pages could be held,
 * and a mapping marked inaccessible (guest_memfd) must not be touched.
 */
bool address_space_helper_is_unmappable(struct file *file)
{
	struct inode *inode = file_inode(file);

	if ((!S_ISREG(inode->i_mode) && !S_ISBLK(inode->i_mode)) || IS_ANON_FILE(inode))
		return true;
	return inode->i_sb->s_magic == SECRETMEM_MAGIC || IS_DAX(inode) ||
	       mapping_inaccessible(file->f_mapping);
}

/*
 * Memory has nothing to wait for. What has a block device does no I/O in mmap() and
 * munmap(); FUSE, which may have one too, does.
 */
bool address_space_helper_is_mapped_at_once(struct file *file)
{
	const struct super_block *sb = file_inode(file)->i_sb;

	if (shmem_mapping(file->f_mapping) || is_file_hugepages(file) ||
	    sb->s_magic == RAMFS_MAGIC)
		return true;
	return (sb->s_type->fs_flags & (FS_REQUIRES_DEV | FS_USERNS_MOUNT)) == FS_REQUIRES_DEV &&
	       sb->s_magic != FUSE_SUPER_MAGIC;
}

bool address_space_helper_is_written_back(struct file *file)
{
	return mapping_can_writeback(file->f_mapping);
}

unsigned long address_space_helper_get_unmapped_area(struct file *file, unsigned long addr,
						     unsigned long len, unsigned long pgoff,
						     unsigned long flags)
{
	/* A kernel without huge pages has not even the function. */
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	return thp_get_unmapped_area(file, addr, len, pgoff, flags);
#else
	return mm_get_unmapped_area(file, addr, len, pgoff, flags);
#endif
}

unsigned long address_space_helper_filesystem(struct file *file)
{
	return (unsigned long)file_inode(file)->i_sb;
}

/* Only the kernel and its modules name anonymous inodes. */
bool address_space_helper_is_anon_file(struct file *file, const char *name)
{
	return file_inode(file)->i_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp(file->f_path.dentry->d_name.name, name);
}

bool address_space_helper_seq_is_full(struct seq_file *out)
{
	return seq_has_overflowed(out);
}

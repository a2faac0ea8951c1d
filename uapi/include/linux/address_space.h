/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Address spaces as file descriptors.
 *
 * The calls on /dev/address_space and on the file descriptors it gives out.
 * The objects (asfd, view, layout, attachment) are explained in
 * Documentation/userspace-api/address_space.rst; read that first.
 *
 * The contract of every call, after that of iommufd:
 *
 *  - The argument is a pointer to a struct that begins with its own size, as
 *    the caller knows it. A size below that of the first published version of
 *    the struct is EINVAL. Bytes past what the kernel knows must be zero, else
 *    E2BIG.
 *  - An unknown call is ENOTTY. A known call with an unknown flag or a reserved
 *    field that is not zero is EOPNOTSUPP. A wrong value is EINVAL. A sum that
 *    does not fit 64 bits is EOVERFLOW.
 *  - Addresses, offsets and lengths are in bytes and multiples of the page
 *    size, else EINVAL.
 *  - A call that fails has changed nothing.
 */
#ifndef _UAPI_LINUX_ADDRESS_SPACE_H
#define _UAPI_LINUX_ADDRESS_SPACE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ADDRESS_SPACE_TYPE	0xB9

/**
 * struct address_space_create - ioctl(ADDRESS_SPACE_CREATE)
 * @size: sizeof(struct address_space_create)
 * @flags: Must be 0
 * @length: Length of the address space in bytes, a multiple of the page size,
 *          not 0 and at most 2^46
 *
 * Called on /dev/address_space. Makes an address space of @length bytes in
 * which nothing is mapped and returns an asfd, a file descriptor with all
 * rights to it, close-on-exec. The asfd can stand where a memfd is only mapped:
 * fstat() and lseek(SEEK_END) tell its length, mmap() with MAP_SHARED attaches
 * it.
 *
 * Errors: EINVAL for @length, ENOMEM, EMFILE and ENFILE as for open(), EBUSY
 * while the system is going to sleep, ENODEV where the kernel cannot start a
 * usermode helper, from which the module borrows an mm on kernels that do not
 * export mm_alloc().
 */
struct address_space_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_CREATE	_IO(ADDRESS_SPACE_TYPE, 0x00)

/**
 * DOC: flags of struct address_space_mmap
 *
 * ADDRESS_SPACE_MAP_REPLACE - What is mapped in the range gives way, all at
 * once: an attacher sees the old or the new, never a hole. Without it a range
 * where something is mapped is EEXIST.
 *
 * ADDRESS_SPACE_MAP_ANYWHERE - The kernel chooses the address, aligned so that
 * huge pages can be used where the file has them. @addr must be 0 and is
 * written back. Excludes ADDRESS_SPACE_MAP_REPLACE.
 *
 * ADDRESS_SPACE_MAP_POPULATE - As MAP_POPULATE does, bring the file's pages into
 * memory before returning, and enter them in the windows that there are, so that
 * who touches them next has no page fault. As far as that is possible: the map
 * stands whatever becomes of this, a signal ends it early, and what cannot be
 * entered without waiting for an attached process is left to page faults. So are
 * windows of virtual machines, and all windows but some (128).
 */
#define ADDRESS_SPACE_MAP_REPLACE	(1U << 0)
#define ADDRESS_SPACE_MAP_ANYWHERE	(1U << 1)
#define ADDRESS_SPACE_MAP_POPULATE	(1U << 2)

/**
 * struct address_space_mmap - ioctl(ADDRESS_SPACE_MMAP)
 * @size: sizeof(struct address_space_mmap)
 * @flags: ADDRESS_SPACE_MAP_*
 * @fd: The file to map, open for reading, and for writing if @prot has
 *      PROT_WRITE
 * @prot: PROT_NONE, or PROT_READ with any of PROT_WRITE and PROT_EXEC: the most
 *        that anyone may do to the range through this address space. (The kernel
 *        lets no process map an asfd or a view with PROT_EXEC today, since
 *        anonymous inodes are noexec: EPERM.)
 * @offset: Where in the file
 * @length: How much, not 0. It may reach past the end of the file: as with
 *          mmap(), touching what the file does not have is SIGBUS.
 * @addr: Where in the address space; out with ADDRESS_SPACE_MAP_ANYWHERE
 *
 * Maps a range of a file into the address space. It shows at once in everything
 * that has the address space attached. The same checks are made as for a shared
 * mmap() by the caller: file mode, seals, mount options, security modules.
 *
 * Errors: EBADF for @fd; EACCES where the file's mode does not allow @prot;
 * EPERM for a sealed file, or PROT_EXEC on a noexec mount; ENODEV for a file
 * that cannot be mapped (a directory, a pipe) or whose memory cannot be shown
 * (device memory, secret memory, DAX); ELOOP for an asfd or a view; EEXIST;
 * EINVAL where the range leaves the address space; ENOSPC where no hole is large
 * enough for ADDRESS_SPACE_MAP_ANYWHERE; ENOMEM.
 */
struct address_space_mmap {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 prot;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 addr;
};
#define ADDRESS_SPACE_MMAP	_IO(ADDRESS_SPACE_TYPE, 0x01)

/**
 * struct address_space_munmap - ioctl(ADDRESS_SPACE_MUNMAP)
 * @size: sizeof(struct address_space_munmap)
 * @flags: Must be 0
 * @addr: Where in the address space
 * @length: How much, not 0
 *
 * Empties the range. Holes in it are fine; mappings that reach past it are cut.
 * When the call returns, no process and no virtual machine reaches what was
 * mapped there: their next access meets a hole.
 *
 * Errors: EINVAL where the range leaves the address space; ENOMEM.
 */
struct address_space_munmap {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_MUNMAP	_IO(ADDRESS_SPACE_TYPE, 0x02)

/**
 * struct address_space_view - ioctl(ADDRESS_SPACE_VIEW)
 * @size: sizeof(struct address_space_view)
 * @flags: Must be 0
 * @prot: PROT_READ with any of PROT_WRITE and PROT_EXEC
 * @__reserved: Must be 0
 * @offset: Where in the address space the view begins
 * @length: How much it shows, not 0
 *
 * Returns a view, a file descriptor, close-on-exec, that can only be mapped or
 * given to KVM, and only so much of it. Offset 0 of the view is @offset of the
 * address space. A view is live: what is mapped and unmapped in the address
 * space shows through it, never beyond @prot.
 *
 * Errors: EINVAL where the range leaves the address space; ENOMEM, EMFILE,
 * ENFILE.
 */
struct address_space_view {
	__u32 size;
	__u32 flags;
	__u32 prot;
	__u32 __reserved;
	__aligned_u64 offset;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_VIEW	_IO(ADDRESS_SPACE_TYPE, 0x03)

/**
 * struct address_space_register - ioctl(ADDRESS_SPACE_REGISTER)
 * @size: sizeof(struct address_space_register)
 * @flags: ADDRESS_SPACE_REGISTER_POPULATE: bring the pages into memory, as far as
 *         that is possible
 * @fd: The file, open as for a map with @prot
 * @prot: The most that maps of it will ask for; as for a map
 * @offset: Where in the file
 * @length: How much; 0: to the end of the file as it is now
 *
 * Makes ready a part of a file that is going to be mapped again and again, and
 * keeps it ready. Maps that lie within it, of the same open file, by a caller with
 * the same credentials, are then changes of the layout and nothing else. Nothing
 * shows before it is mapped.
 *
 * Errors: as for ADDRESS_SPACE_MMAP; EINVAL where @length is 0 and the file ends
 * before @offset.
 */
struct address_space_register {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 prot;
	__aligned_u64 offset;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_REGISTER	_IO(ADDRESS_SPACE_TYPE, 0x04)
#define ADDRESS_SPACE_REGISTER_POPULATE	(1U << 0)

/**
 * struct address_space_unregister - ioctl(ADDRESS_SPACE_UNREGISTER)
 * @size: sizeof(struct address_space_unregister)
 * @flags: Must be 0
 * @fd: The file, the same open file as was registered
 * @__reserved: Must be 0
 *
 * Ends all registrations of the file. What is mapped of it stays mapped.
 *
 * Errors: EBADF; ENOENT where it is not registered in this address space.
 */
struct address_space_unregister {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 __reserved;
};
#define ADDRESS_SPACE_UNREGISTER	_IO(ADDRESS_SPACE_TYPE, 0x05)

/* Opcodes of struct address_space_op. */
#define ADDRESS_SPACE_OP_MMAP		1
#define ADDRESS_SPACE_OP_MUNMAP		2
#define ADDRESS_SPACE_OP_PROTECT	3

/**
 * struct address_space_op - one operation of a batch
 * @opcode: ADDRESS_SPACE_OP_*; others are EOPNOTSUPP
 * @flags: ADDRESS_SPACE_MAP_REPLACE and ADDRESS_SPACE_MAP_POPULATE for a map; else 0
 * @fd: For a map: the file
 * @prot: For a map and a protect
 * @offset: For a map: where in the file
 * @length: How much
 * @addr: Where in the address space
 *
 * Fields that an operation does not use are not looked at.
 */
struct address_space_op {
	__u32 opcode;
	__u32 flags;
	__s32 fd;
	__u32 prot;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 addr;
};

/**
 * struct address_space_batch - ioctl(ADDRESS_SPACE_BATCH)
 * @size: sizeof(struct address_space_batch)
 * @flags: Must be 0
 * @ops: Address of an array of struct address_space_op
 * @nr_ops: How many there are, 1 to 65536
 * @op_size: sizeof(struct address_space_op), as the caller knows it; the contract
 *           for structs holds for each
 * @failed: Out, where the call failed for one of them: its index; else left alone
 * @__reserved: Must be 0
 *
 * Does all of the operations, in their order, or none: everything that has the
 * address space attached sees it as it was before or as it is after, never between,
 * and nobody who has seen what is after sees what was before. When the call returns, what was unmapped or replaced has been revoked everywhere.
 *
 * Errors: EINVAL for @nr_ops; ENOMEM; those of the operations.
 */
struct address_space_batch {
	__u32 size;
	__u32 flags;
	__aligned_u64 ops;
	__u32 nr_ops;
	__u32 op_size;
	__u32 failed;
	__u32 __reserved;
};
#define ADDRESS_SPACE_BATCH	_IO(ADDRESS_SPACE_TYPE, 0x06)

/**
 * struct address_space_protect - ioctl(ADDRESS_SPACE_PROTECT)
 * @size: sizeof(struct address_space_protect)
 * @flags: Must be 0
 * @addr: Where in the address space
 * @length: How much, not 0
 * @prot: As for a map
 * @__reserved: Must be 0
 *
 * Changes what anyone may do to what is mapped in the range. When the call
 * returns, nobody can do more any longer.
 *
 * Errors: ENOENT where there is a hole in the range; EACCES for more than what was
 * checked when the file's range was first mapped or registered by this caller
 * through this open file; EINVAL where the range leaves the address space; ENOMEM.
 */
struct address_space_protect {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__u32 prot;
	__u32 __reserved;
};
#define ADDRESS_SPACE_PROTECT	_IO(ADDRESS_SPACE_TYPE, 0x07)

/**
 * struct address_space_move - ioctl(ADDRESS_SPACE_MOVE)
 * @size: sizeof(struct address_space_move)
 * @flags: ADDRESS_SPACE_MAP_REPLACE: what is mapped where it goes gives way
 * @addr: Where in the address space
 * @length: How much, not 0
 * @new_addr: Where it goes; the two ranges must not overlap
 *
 * Shows at @new_addr what was shown at @addr, and nothing at @addr any more, at
 * once.
 *
 * Errors: ENOENT where there is a hole in the range; EEXIST where something is
 * mapped at @new_addr; EINVAL where a range leaves the address space, or they
 * overlap; ENOMEM.
 */
struct address_space_move {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 new_addr;
};
#define ADDRESS_SPACE_MOVE	_IO(ADDRESS_SPACE_TYPE, 0x08)

/**
 * struct kvm_map_address_space - ioctl(KVM_MAP_ADDRESS_SPACE)
 * @size: sizeof(struct kvm_map_address_space)
 * @flags: KVM_MEM_READONLY and KVM_MEM_LOG_DIRTY_PAGES, as for
 *         KVM_SET_USER_MEMORY_REGION
 * @vmfd: A KVM virtual machine that the calling process made
 * @slot: The memory slot to use, not in use; KVM's address space id in the
 *        upper 16 bits
 * @guest_phys_addr: Where the guest finds it
 * @memory_size: How much of the address space or view the guest is shown, not 0
 * @offset: From where in the address space or view
 * @window: Out: where the caller finds the same memory in its own address space,
 *          readable, and writable unless KVM_MEM_READONLY is set. As long as it is
 *          there the virtual machine is held open.
 *
 * Called on an asfd or a view. Attaches a window of it to the caller and makes
 * it a memory slot of the virtual machine. The slot follows the address space
 * with no further call: what is mapped in it shows in the guest, what is
 * unmapped is gone from it. An access of the guest to a hole ends KVM_RUN with
 * EFAULT.
 *
 * Errors: EBADF for @vmfd; EINVAL where it is no virtual machine; EIO where it
 * is another process's; EACCES where a view does not allow writing and
 * KVM_MEM_READONLY is not set; EINVAL where the window leaves the address space
 * or view, or KVM does not take the slot, one that has other memory for example;
 * EEXIST where the slot shows this address space already, or overlaps another
 * slot; ENOMEM.
 */
struct kvm_map_address_space {
	__u32 size;
	__u32 flags;
	__s32 vmfd;
	__u32 slot;
	__aligned_u64 guest_phys_addr;
	__aligned_u64 memory_size;
	__aligned_u64 offset;
	__aligned_u64 window;
};
#define KVM_MAP_ADDRESS_SPACE	_IO(ADDRESS_SPACE_TYPE, 0x10)

/**
 * struct kvm_unmap_address_space - ioctl(KVM_UNMAP_ADDRESS_SPACE)
 * @size: sizeof(struct kvm_unmap_address_space)
 * @flags: Must be 0
 * @vmfd: The virtual machine
 * @slot: A slot made by KVM_MAP_ADDRESS_SPACE on any fd of this address space
 *
 * Removes the memory slot and the caller's window. Where the slot was removed with
 * KVM_SET_USER_MEMORY_REGION already, only the window; where it was made anew for
 * other memory since, which nobody can tell, that is removed.
 *
 * Errors: EBADF, EINVAL and EIO for @vmfd as for KVM_MAP_ADDRESS_SPACE; ENOENT
 * where the slot is none of this address space.
 */
struct kvm_unmap_address_space {
	__u32 size;
	__u32 flags;
	__s32 vmfd;
	__u32 slot;
};
#define KVM_UNMAP_ADDRESS_SPACE	_IO(ADDRESS_SPACE_TYPE, 0x11)

#endif /* _UAPI_LINUX_ADDRESS_SPACE_H */

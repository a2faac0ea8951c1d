/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Address spaces as file descriptors.
 *
 * The ioctls of /dev/address_space and of the file descriptors it returns.
 * Documentation/userspace-api/address_space.rst defines the terms used here
 * (asfd, view, layout, attachment); read it first.
 *
 * These rules hold for every ioctl, after the model of iommufd:
 *
 *  - The argument is a pointer to a struct. Its first member is @size, the
 *    size of the struct in bytes as the caller was compiled with it. EINVAL:
 *    @size is less than the size in the first published version. E2BIG: @size
 *    is more than the size of a page, or a byte beyond the part that the
 *    kernel knows is not zero. EFAULT: the struct cannot be read, or a result
 *    cannot be written to it.
 *  - ENOTTY: the ioctl is unknown, or does not exist for this kind of file.
 *    EOPNOTSUPP: an unknown flag is set, or a reserved member is not zero.
 *    EINVAL: a value is not valid. EOVERFLOW: the sum of start and length does
 *    not fit in 64 bits.
 *  - Addresses, offsets and lengths are in bytes. EINVAL: one of them is not a
 *    multiple of the page size, or a length is 0 where this file does not say
 *    that it may be.
 *  - A protection is PROT_NONE, or PROT_READ with any of PROT_WRITE and
 *    PROT_EXEC, with the values of <sys/mman.h>. EINVAL: an unknown bit is
 *    set, or PROT_WRITE or PROT_EXEC without PROT_READ.
 *  - An ioctl that fails has changed nothing.
 *  - EBADF: the ioctl would change something, and the file descriptor that it
 *    is issued on is not open for writing (see ADDRESS_SPACE_CREATE).
 *
 * The errors above are not repeated below.
 */
#ifndef _UAPI_LINUX_ADDRESS_SPACE_H
#define _UAPI_LINUX_ADDRESS_SPACE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define ADDRESS_SPACE_TYPE	0xB9

/*
 * What fstatfs() and statfs() return as f_type for asfds, for views, and for the
 * files of a mounted file system of type "address_space".
 */
#define ADDRESS_SPACE_MAGIC	0x61736664

/**
 * DOC: flags of struct address_space_create, _view and _kvm_map: holes
 *
 * What becomes of an access to a page that the address space does not have:
 * where nothing is mapped, and where the file that is mapped ends before. Each
 * asfd and each view has a policy, which its attachments keep. One policy flag
 * can be set. Without any, an address space is created with
 * ADDRESS_SPACE_HOLE_SIGNAL, and a view or a memory slot has the policy of the
 * file descriptor that it is made of.
 *
 * ADDRESS_SPACE_HOLE_SIGNAL - The access raises SIGBUS; in a system call it
 * fails with EFAULT, and in a virtual machine KVM_RUN does.
 *
 * ADDRESS_SPACE_HOLE_ABSORB - The access succeeds, on a page that is the
 * attachment's own: it is zeroed, no other process and no other attachment
 * ever sees it (a child that is forked gets one of its own), and all that the
 * attachment absorbs is absorbed by this one page. So reads return zeroes
 * until something is written to any hole, and may return that afterwards.
 * As soon as something is mapped there, that is what an access meets: when
 * the ioctl that maps it returns, in all processes and virtual machines. A
 * page that a file does not have is absorbed for a hundredth of a second at a
 * time, since nobody tells when a file grows; what the file has then is seen
 * after that. The page is charged to the task that first needs it. Where there
 * is no memory for it, the access is refused as with ADDRESS_SPACE_HOLE_SIGNAL;
 * and so are those of a forked attachment for which there was no memory.
 *
 * ADDRESS_SPACE_HOLE_WAIT - The task waits until something is mapped there,
 * if there is an events file descriptor (ADDRESS_SPACE_EVENTS) that watches
 * the page. It can be killed, and signals are handled meanwhile. The wait ends
 * as with ADDRESS_SPACE_HOLE_SIGNAL when the events file descriptor is closed,
 * when its timeout has passed, and where the page is poisoned
 * (ADDRESS_SPACE_POISON); so does an access to what is not watched. What a file
 * does not have is not waited for, since nobody tells when it grows. In a
 * virtual machine KVM_RUN waits. A signal ends that as EFAULT, and not as
 * EINTR, since KVM reports nothing else: KVM_RUN can simply be called again.
 * (The event ADDRESS_SPACE_EVENT_INTERRUPTED tells this EFAULT from others.)
 *
 * An access that the kernel makes, in a system call, does not wait but fails
 * with EFAULT, since the kernel may hold locks meanwhile that others want;
 * unless ADDRESS_SPACE_HOLE_KERNEL is set. What the kernel does not try again
 * never waits: some futex operations, ptrace and /proc/PID/mem.
 *
 * ADDRESS_SPACE_HOLE_DENIED - With ADDRESS_SPACE_HOLE_ABSORB and
 * ADDRESS_SPACE_HOLE_WAIT: what is mapped with a protection that does not allow
 * the access is treated as a hole, too. It is absorbed for a hundredth of a
 * second at a time, in which reads of the page by the same attachment may
 * return what was absorbed; or waited for until the protection allows it. (In
 * a virtual machine, a write to a page that the guest has read exits with
 * KVM_EXIT_MMIO, as in a memory slot with KVM_MEM_READONLY.) Without this flag
 * such an access raises SIGSEGV. Accesses that the view or the attachment
 * itself does not allow always do.
 *
 * ADDRESS_SPACE_HOLE_KERNEL - With ADDRESS_SPACE_HOLE_WAIT: accesses by the
 * kernel wait, too, until a fatal signal comes. The caller must have
 * CAP_SYS_PTRACE.
 *
 * EINVAL: more than one policy flag is set, or ADDRESS_SPACE_HOLE_DENIED or
 * ADDRESS_SPACE_HOLE_KERNEL without one that it goes with. EPERM:
 * ADDRESS_SPACE_HOLE_KERNEL without CAP_SYS_PTRACE.
 */
#define ADDRESS_SPACE_HOLE_SIGNAL	(1U << 16)
#define ADDRESS_SPACE_HOLE_ABSORB	(1U << 17)
#define ADDRESS_SPACE_HOLE_WAIT		(1U << 18)
#define ADDRESS_SPACE_HOLE_DENIED	(1U << 19)
#define ADDRESS_SPACE_HOLE_KERNEL	(1U << 20)

/* The longest name of an asfd or a view, in bytes without the terminating NUL. */
#define ADDRESS_SPACE_NAME_MAX	200

/**
 * struct address_space_create - ioctl(ADDRESS_SPACE_CREATE)
 * @size: sizeof(struct address_space_create)
 * @flags: ADDRESS_SPACE_HOLE_*: the policy of the asfd
 * @length: Length of the address space in bytes, a multiple of the page size,
 *          not 0 and at most 2^47
 * @name: Address of a name of at most ADDRESS_SPACE_NAME_MAX bytes before its
 *        terminating NUL, or 0 for none
 *
 * Issued on /dev/address_space. Creates an address space of @length bytes in
 * which nothing is mapped, and returns an asfd: a file descriptor with all
 * rights to the address space, close-on-exec. The asfd can replace a memfd in
 * a program that only maps it: it is a regular file, of which fstat() and
 * lseek(SEEK_END) return the length, and mmap() with MAP_SHARED attaches the
 * address space to the calling process. Its size cannot change: ftruncate() to
 * another size is EPERM, as for a memfd that is sealed.
 *
 * In /proc the file is called address_space:NAME, after @name, which serves
 * for nothing else. /proc/PID/fd/N can be opened to have another open file of
 * it, which has its rights or fewer: what is open for reading only can be
 * mapped for reading only, and be made views of for reading; what would change
 * something is EBADF. It can be opened by the user who created it, as a file
 * whose mode is 0600, which fchmod() can change; and no longer (ENXIO) when it
 * is neither open nor attached anywhere.
 *
 * Errors:
 *  - EINVAL: @length is 0 or more than 2^47, or @name is too long.
 *  - EMFILE, ENFILE: the process or the system has too many open files.
 *  - EBUSY: the system is being suspended.
 *  - ENODEV: the kernel cannot start a usermode helper. The module needs one
 *    to obtain an mm on kernels that do not export mm_alloc().
 *  - ENOMEM: there is not enough memory.
 */
struct address_space_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 length;
	__aligned_u64 name;
};
#define ADDRESS_SPACE_CREATE	_IO(ADDRESS_SPACE_TYPE, 0x00)

/**
 * struct address_space_lend - ioctl(ADDRESS_SPACE_LEND)
 * @size: sizeof(struct address_space_lend)
 * @flags: Must be 0
 * @prot: The most that others may do with the memory: PROT_READ, alone or with
 *        PROT_WRITE
 * @__reserved: Must be 0
 * @addr: Start of the range of the caller's memory, an address that is a
 *        multiple of the page size
 * @length: Length of the range in bytes, a multiple of the page size; 0, with
 *          @addr 0, for all that the caller can ever map
 *
 * Issued on /dev/address_space. Lends memory of the calling process, the
 * lender: returns a lend file descriptor, close-on-exec, that
 * ADDRESS_SPACE_MMAP, ADDRESS_SPACE_REGISTER and the maps of a batch take in
 * place of a file. Offset 0 is @addr. Whoever gets the file descriptor can map
 * the range in its own address spaces; to whom the lender passes it decides who
 * may.
 *
 * What is lent is the range, and not what is mapped in it at the time. Address
 * spaces show whatever the lender has there, live and in both directions: what
 * the lender writes, and what is written through an attachment, is one memory;
 * and what the lender does with munmap(), mmap(), mremap(), mprotect(),
 * madvise() and the like has reached every process and every virtual machine
 * when it returns. After fork() the lender is the parent. When the lender exits
 * or calls exec(), or the last of the threads and processes that share its
 * memory does, the memory is gone for all.
 *
 * An access where the lender has nothing, or nothing that can be shown, raises
 * SIGBUS; where the lender itself may not access it so, SIGSEGV. It does so
 * whatever the policy for holes is, except that what the lender does not have
 * is absorbed, as is what a file does not have. What can be shown is anonymous
 * memory and mappings of files that could be mapped themselves, but no device
 * memory, secret memory, DAX, shadow stacks and attachments. Shared mappings of
 * FUSE and network file systems cannot be written. Memory protection keys do not
 * count.
 *
 * An access through an attachment is to the lender's memory as one by the
 * lender: it allocates pages, breaks copy-on-write, and brings in what is
 * swapped out, all of it charged to the lender's memory cgroup.
 *
 * Errors:
 *  - EINVAL: @prot is PROT_NONE; @length is 0 and @addr is not; or the range is
 *    beyond what a process can map.
 *  - EOPNOTSUPP: @prot contains PROT_EXEC.
 *  - EMFILE, ENFILE: the process or the system has too many open files.
 *  - ENOMEM: there is not enough memory.
 *  - EINTR: a signal came whose handler has no SA_RESTART, at the first lend of
 *    a process.
 * Of ADDRESS_SPACE_MMAP, ADDRESS_SPACE_REGISTER and ADDRESS_SPACE_BATCH, with a
 * lend file descriptor:
 *  - EINVAL: the range of the file descriptor is not within @length.
 *  - EACCES: the protection contains more than @prot.
 *  - ESRCH: the memory is no longer lent: the lender has ended, called exec(),
 *    or taken it back.
 */
struct address_space_lend {
	__u32 size;
	__u32 flags;
	__u32 prot;
	__u32 __reserved;
	__aligned_u64 addr;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_LEND	_IO(ADDRESS_SPACE_TYPE, 0x0A)

/*
 * ioctl(ADDRESS_SPACE_LEND_REVOKE)
 *
 * Issued on a lend file descriptor, by the lender; the argument is 0. Takes the
 * memory back: when the ioctl returns, no process and no virtual machine can
 * reach it through any address space, and the file descriptor, whoever has a
 * copy of it, can no longer be mapped. (To close it is not enough for that.)
 * What address spaces show of it stays mapped there, and an access raises
 * SIGBUS.
 *
 * Errors:
 *  - EOPNOTSUPP: the argument is not 0.
 *  - EPERM: the caller is not the lender, and the memory is still lent.
 */
#define ADDRESS_SPACE_LEND_REVOKE	_IO(ADDRESS_SPACE_TYPE, 0x0B)

/**
 * DOC: features of struct address_space_query
 *
 * What an interface of version 1 may have or not, so that no program needs to try
 * a call to find out. Bits that are not listed here are 0.
 *
 * ADDRESS_SPACE_FEATURE_NAMES - @name of ADDRESS_SPACE_CREATE and
 * ADDRESS_SPACE_VIEW.
 * ADDRESS_SPACE_FEATURE_REOPEN - An asfd or view can be opened through
 * /proc/PID/fd.
 * ADDRESS_SPACE_FEATURE_EXEC - What is mapped with PROT_EXEC can be executed in
 * an attachment.
 * ADDRESS_SPACE_FEATURE_MANAGE - ADDRESS_SPACE_VIEW_MANAGE.
 * ADDRESS_SPACE_FEATURE_HOLES - ADDRESS_SPACE_HOLE_*, ADDRESS_SPACE_EVENTS and
 * ADDRESS_SPACE_POISON.
 * ADDRESS_SPACE_FEATURE_RELEASE - ADDRESS_SPACE_MUNMAP_RELEASE.
 * ADDRESS_SPACE_FEATURE_UNREGISTER_ALL - ADDRESS_SPACE_UNREGISTER_ALL.
 * ADDRESS_SPACE_FEATURE_KVM - The kernel was built with KVM, which may be a
 * module that is not loaded: ADDRESS_SPACE_KVM_MAP.
 * ADDRESS_SPACE_FEATURE_HUGE_PAGES - The kernel was built with transparent huge
 * pages, and attachments have huge pages where files have them.
 * ADDRESS_SPACE_FEATURE_LEND - ADDRESS_SPACE_LEND and ADDRESS_SPACE_LEND_REVOKE.
 * ADDRESS_SPACE_FEATURE_PRIVATE - ADDRESS_SPACE_MAP_PRIVATE and
 * ADDRESS_SPACE_REGISTER_PRIVATE.
 * ADDRESS_SPACE_FEATURE_ADVISE - ADDRESS_SPACE_ADVISE.
 * ADDRESS_SPACE_FEATURE_LAYOUT - ADDRESS_SPACE_LAYOUT.
 * ADDRESS_SPACE_FEATURE_MOUNT - The file system "address_space" can be mounted.
 */
#define ADDRESS_SPACE_FEATURE_NAMES		(1ULL << 0)
#define ADDRESS_SPACE_FEATURE_REOPEN		(1ULL << 1)
#define ADDRESS_SPACE_FEATURE_EXEC		(1ULL << 2)
#define ADDRESS_SPACE_FEATURE_MANAGE		(1ULL << 3)
#define ADDRESS_SPACE_FEATURE_HOLES		(1ULL << 4)
#define ADDRESS_SPACE_FEATURE_RELEASE		(1ULL << 5)
#define ADDRESS_SPACE_FEATURE_UNREGISTER_ALL	(1ULL << 6)
#define ADDRESS_SPACE_FEATURE_KVM		(1ULL << 7)
#define ADDRESS_SPACE_FEATURE_HUGE_PAGES	(1ULL << 8)
#define ADDRESS_SPACE_FEATURE_LEND		(1ULL << 9)
#define ADDRESS_SPACE_FEATURE_PRIVATE		(1ULL << 10)
#define ADDRESS_SPACE_FEATURE_ADVISE		(1ULL << 11)
#define ADDRESS_SPACE_FEATURE_LAYOUT		(1ULL << 12)
#define ADDRESS_SPACE_FEATURE_MOUNT		(1ULL << 13)

/* The version of the interface that this file describes. */
#define ADDRESS_SPACE_VERSION	1

/**
 * struct address_space_query - ioctl(ADDRESS_SPACE_QUERY)
 * @size: sizeof(struct address_space_query)
 * @flags: Must be 0
 * @version: Output: version of the interface, as ADDRESS_SPACE_VERSION. It is
 *           counted up only for what programs of an earlier version cannot use.
 * @__reserved: Must be 0
 * @features: Output: ADDRESS_SPACE_FEATURE_*
 * @max_length: Output: the longest address space in bytes
 * @max_name: Output: the longest name of an asfd or view, in bytes without the
 *            terminating NUL
 * @max_ops: Output: the most operations of a batch
 * @max_poisoned: Output: the most separate ranges that are poisoned
 * @max_events: Output: how many events are kept until they are read
 *
 * Issued on /dev/address_space, which may be open for reading only. Says what
 * this kernel and this version of the module can do. The kernel writes no more
 * than @size bytes. Members that it does not know stay as they are, which is 0:
 * anything else is E2BIG.
 */
struct address_space_query {
	__u32 size;
	__u32 flags;
	__u32 version;
	__u32 __reserved;
	__aligned_u64 features;
	__aligned_u64 max_length;
	__u32 max_name;
	__u32 max_ops;
	__u32 max_poisoned;
	__u32 max_events;
};
#define ADDRESS_SPACE_QUERY	_IO(ADDRESS_SPACE_TYPE, 0x0F)

/**
 * DOC: flags of struct address_space_mmap
 *
 * ADDRESS_SPACE_MAP_REPLACE - The new mapping replaces whatever is mapped in
 * the range, atomically: an access meets the old page or the new one, never a
 * hole. Without this flag EEXIST is returned if anything is mapped in the
 * range. ADDRESS_SPACE_MOVE takes this flag too, for its destination, and so
 * does a map in a batch.
 *
 * ADDRESS_SPACE_MAP_ANYWHERE - The kernel chooses the address, aligned for
 * huge pages if possible, and writes it to @addr, which must be 0 on input.
 * Cannot be combined with ADDRESS_SPACE_MAP_REPLACE.
 *
 * ADDRESS_SPACE_MAP_POPULATE - Brings the pages of the file into memory, as
 * MAP_POPULATE does, and installs them in the existing attachments, so that
 * the next access to them causes no page fault. This is done on a best-effort
 * basis before the ioctl returns, and does not affect its result. A signal
 * ends it early. It never waits for a process that has attached the address
 * space: an attachment whose process holds its mmap lock is left to page
 * faults. So are the attachments of virtual machines, and all attachments
 * beyond the first 128. With ADDRESS_SPACE_MAP_PRIVATE no copies are made so:
 * see ADDRESS_SPACE_ADVISE for that.
 *
 * ADDRESS_SPACE_MAP_PRIVATE - What is written is not written to the file, but
 * to copies that belong to this mapping, as with MAP_PRIVATE of mmap(). So the
 * file need only be open for reading, and may be sealed against writing.
 *
 * A page is copied when it is first written. All attachments and virtual
 * machines that use the address space see the one copy; nobody else does. Where
 * nothing has been written, what others write to the file later shows; and what
 * a truncation of the file takes away, it takes away of the copies too. The
 * copies stay with the pages when these are moved or protected. They are given
 * back when their page is unmapped or replaced, before that ioctl returns. They
 * are charged to the memory cgroup of the creator of the address space, whoever
 * writes. fsync() does not write them anywhere.
 *
 * Two maps never share copies, with one exception: a range that is registered
 * with ADDRESS_SPACE_REGISTER_PRIVATE.
 *
 * A virtual machine makes a copy of each page that it accesses, even if it only
 * reads: KVM must not meet a page that can only be read where it may be
 * written. To share what is only read, map the file for reading and writing,
 * and ADDRESS_SPACE_PROTECT the range for reading; then the VMM allows to write
 * what the guest writes, page by page. Where the guest has read the page, or
 * one near it, a write exits with KVM_EXIT_MMIO, which has what is to be
 * written; else KVM_RUN returns EFAULT or, with ADDRESS_SPACE_HOLE_WAIT and
 * ADDRESS_SPACE_HOLE_DENIED, waits until the protection is changed. An
 * instruction that KVM cannot emulate is KVM_EXIT_INTERNAL_ERROR; it succeeds
 * when it is run again, if the page may be written then and the VM has
 * KVM_CAP_EXIT_ON_EMULATION_FAILURE. Without that it is an invalid opcode
 * exception in the guest.
 */
#define ADDRESS_SPACE_MAP_REPLACE	(1U << 0)
#define ADDRESS_SPACE_MAP_ANYWHERE	(1U << 1)
#define ADDRESS_SPACE_MAP_POPULATE	(1U << 2)
#define ADDRESS_SPACE_MAP_PRIVATE	(1U << 3)

/**
 * struct address_space_mmap - ioctl(ADDRESS_SPACE_MMAP)
 * @size: sizeof(struct address_space_mmap)
 * @flags: ADDRESS_SPACE_MAP_*
 * @fd: The file to map. It must be open for reading, and for writing too if
 *      @prot contains PROT_WRITE, unless ADDRESS_SPACE_MAP_PRIVATE is set.
 * @prot: The protection: the most that any access to the range through this
 *        address space may do. To execute it, a process also attaches the asfd
 *        or view with PROT_EXEC.
 * @offset: Start of the range of the file, in bytes, a multiple of the page
 *          size
 * @length: Length of the range in bytes, a multiple of the page size, not 0.
 *          The range may extend beyond the end of the file; as with mmap(), an
 *          access to a page that the file does not have raises SIGBUS.
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size. With ADDRESS_SPACE_MAP_ANYWHERE: 0 on input, the chosen
 *        address on output.
 *
 * Issued on an asfd. Maps a range of a file into the address space. All
 * attachments and virtual machines that use the address space see the mapping
 * at once. The kernel makes the same checks as for a MAP_SHARED mmap() by the
 * caller (MAP_PRIVATE, with ADDRESS_SPACE_MAP_PRIVATE): file mode, seals, mount
 * options, security modules.
 *
 * Errors:
 *  - EBADF: @fd is not open, or was opened with O_PATH.
 *  - EACCES: the file is not open for the access that @prot requires.
 *  - EPERM: the file is sealed against writing; @prot contains PROT_EXEC and
 *    the file is on a noexec mount; or a security module denies the mapping.
 *  - ENODEV: the file cannot be mapped (a directory, a pipe, a socket), or its
 *    pages cannot be shown (secret memory, DAX, guest_memfd), or it is neither
 *    a regular file nor a block device: what a character device or an
 *    anonymous file maps is different for each mmap().
 *  - ELOOP: the file is an asfd or a view.
 *  - EEXIST: something is mapped in the range, and ADDRESS_SPACE_MAP_REPLACE
 *    is not set.
 *  - EINVAL: the range is not within the address space; or
 *    ADDRESS_SPACE_MAP_ANYWHERE with @addr not 0 or with
 *    ADDRESS_SPACE_MAP_REPLACE.
 *  - EOPNOTSUPP: ADDRESS_SPACE_MAP_PRIVATE for a file of hugetlbfs, or for
 *    memory that was lent.
 *  - EOVERFLOW: @offset + @length is beyond the largest possible file.
 *  - ENOSPC: no hole is large enough for ADDRESS_SPACE_MAP_ANYWHERE.
 *  - ENOMEM: there is not enough memory, or the address space shows too many
 *    different ranges of files (vm.max_map_count).
 *  Other errors of mmap() of the file are passed on.
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
 * DOC: flags of struct address_space_munmap
 *
 * ADDRESS_SPACE_MUNMAP_RELEASE - Also lets go of files of which the ioctl
 * unmaps the last and which are not registered: without this flag that happens
 * about a tenth of a second later, in case they are mapped again. When the
 * ioctl returns, the address space does not keep such a file from being
 * executed, leased or sealed, or its file system from being unmounted. (For
 * FUSE and network file systems this only begins before the ioctl returns; and
 * so it may for files that were unmapped without the flag before.)
 */
#define ADDRESS_SPACE_MUNMAP_RELEASE	(1U << 0)

/**
 * struct address_space_munmap - ioctl(ADDRESS_SPACE_MUNMAP)
 * @size: sizeof(struct address_space_munmap)
 * @flags: ADDRESS_SPACE_MUNMAP_*
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 *
 * Issued on an asfd. Removes all mappings from the range. The range may
 * contain holes; a mapping that extends beyond the range is cut. When the
 * ioctl returns, no process and no virtual machine can reach what was mapped
 * there: the next access meets a hole.
 *
 * Errors:
 *  - EINVAL: the range is not within the address space.
 *  - ENOMEM: there is not enough memory to cut a mapping in two.
 */
struct address_space_munmap {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_MUNMAP	_IO(ADDRESS_SPACE_TYPE, 0x02)

/**
 * DOC: flags of struct address_space_view
 *
 * ADDRESS_SPACE_VIEW_MANAGE - The view can also be used to change what is
 * mapped in its range, and to make views of it: all ioctls of an asfd can be
 * issued on it but ADDRESS_SPACE_EVENTS and ADDRESS_SPACE_POISON (ENOTTY).
 * @addr and @offset of their arguments are relative to the start of the view,
 * what is beyond its range is EINVAL, and a protection that the view does not
 * allow is EACCES. ADDRESS_SPACE_MAP_ANYWHERE is EOPNOTSUPP, unless the view
 * has the whole address space.
 */
#define ADDRESS_SPACE_VIEW_MANAGE	(1U << 0)

/**
 * struct address_space_view - ioctl(ADDRESS_SPACE_VIEW)
 * @size: sizeof(struct address_space_view)
 * @flags: ADDRESS_SPACE_VIEW_MANAGE, and ADDRESS_SPACE_HOLE_*: the policy of the
 *         view; without any of these that of the asfd
 * @prot: The protection of the view, not PROT_NONE
 * @__reserved: Must be 0
 * @offset: Start of the range of the address space that the view shows, in
 *          bytes, a multiple of the page size
 * @length: Length of that range in bytes, a multiple of the page size, not 0
 * @name: Address of a name, as for ADDRESS_SPACE_CREATE, or 0 for none
 *
 * Issued on an asfd. Returns a view: a file descriptor, close-on-exec, that
 * can be mapped and used as a KVM memory slot, and nothing else without
 * ADDRESS_SPACE_VIEW_MANAGE. Offset 0 of the view is @offset of the address
 * space. The view is live: mappings that are added to or removed from the range
 * later appear in it or disappear from it. No access through the view can do
 * more than @prot allows. In /proc it is called address_space_view:NAME; opened
 * again there, it is never more than it was: for writing that is EACCES,
 * whoever opens it, where @prot has no PROT_WRITE and the view does not manage
 * its range.
 *
 * Errors:
 *  - EINVAL: @prot is PROT_NONE, the range is not within the address space, or
 *    @name is too long.
 *  - EACCES: issued on a view that does not allow @prot, or on a file
 *    descriptor that is not open for it.
 *  - EPERM: @prot contains PROT_EXEC and the file descriptor is of a mount that
 *    is noexec, as for mmap(); or ADDRESS_SPACE_HOLE_KERNEL without
 *    CAP_SYS_PTRACE.
 *  - EMFILE, ENFILE: the process or the system has too many open files.
 *  - ENOMEM: there is not enough memory.
 */
struct address_space_view {
	__u32 size;
	__u32 flags;
	__u32 prot;
	__u32 __reserved;
	__aligned_u64 offset;
	__aligned_u64 length;
	__aligned_u64 name;
};
#define ADDRESS_SPACE_VIEW	_IO(ADDRESS_SPACE_TYPE, 0x03)

/**
 * struct address_space_register - ioctl(ADDRESS_SPACE_REGISTER)
 * @size: sizeof(struct address_space_register)
 * @flags: ADDRESS_SPACE_REGISTER_POPULATE: bring the pages into memory before
 *         the ioctl returns, on a best-effort basis.
 *         ADDRESS_SPACE_REGISTER_PRIVATE: see below.
 * @fd: The file. It must be open for reading, and for writing too if @prot
 *      contains PROT_WRITE, unless ADDRESS_SPACE_REGISTER_PRIVATE is set.
 * @prot: The protection: the most that later maps of the range will ask for
 * @offset: Start of the range of the file, in bytes, a multiple of the page
 *          size
 * @length: Length of the range in bytes, a multiple of the page size; 0 for
 *          the range from @offset to the present end of the file
 *
 * Issued on an asfd. Prepares a range of a file that will be mapped many
 * times, and keeps it prepared until ADDRESS_SPACE_UNREGISTER, also after the
 * process has ended. A later map
 * that lies within the range, of the same open file, by a caller with the same
 * credentials, only changes the layout. A registered range is not visible
 * until it is mapped.
 *
 * With ADDRESS_SPACE_REGISTER_PRIVATE the range has one set of private copies,
 * which belong to the registration: all later maps with
 * ADDRESS_SPACE_MAP_PRIVATE that lie within it, of the same open file and so
 * on, share them, and they stay when what is mapped is unmapped. (Maps without
 * that flag, and other open files, do not share them.) When the registration
 * ends, the copies of pages that are mapped stay mapped, and are given back as
 * described there; all others are given back at once.
 *
 * Errors:
 *  - EINVAL: @length is 0 and the file ends at or before @offset.
 *  - EBADF, EACCES, EPERM, ENODEV, ELOOP, EOPNOTSUPP, EOVERFLOW, ENOMEM: as for
 *    ADDRESS_SPACE_MMAP.
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
#define ADDRESS_SPACE_REGISTER_PRIVATE	(1U << 1)

/**
 * struct address_space_unregister - ioctl(ADDRESS_SPACE_UNREGISTER)
 * @size: sizeof(struct address_space_unregister)
 * @flags: ADDRESS_SPACE_UNREGISTER_ALL: all files, which may be none
 * @fd: The file: the open file that was registered, or a duplicate of its file
 *      descriptor. With ADDRESS_SPACE_UNREGISTER_ALL: -1.
 * @__reserved: Must be 0
 *
 * Issued on an asfd. Ends all registrations of the open file. Existing
 * mappings of the file remain.
 *
 * With ADDRESS_SPACE_UNREGISTER_ALL, ends all registrations in this address
 * space: for a process that takes over from one that was killed, and does not
 * have its open files. On a view that manages its range these are the
 * registrations made through that view, whichever process made them.
 *
 * Errors:
 *  - EBADF: @fd is not open, or was opened with O_PATH.
 *  - EINVAL: ADDRESS_SPACE_UNREGISTER_ALL, and @fd is not -1.
 *  - ENOENT: the open file is not registered in this address space.
 */
struct address_space_unregister {
	__u32 size;
	__u32 flags;
	__s32 fd;
	__u32 __reserved;
};
#define ADDRESS_SPACE_UNREGISTER	_IO(ADDRESS_SPACE_TYPE, 0x05)
#define ADDRESS_SPACE_UNREGISTER_ALL	(1U << 0)

/* Opcodes of struct address_space_op. */
#define ADDRESS_SPACE_OP_MMAP		1
#define ADDRESS_SPACE_OP_MUNMAP		2
#define ADDRESS_SPACE_OP_PROTECT	3

/**
 * struct address_space_op - one operation of a batch
 * @opcode: ADDRESS_SPACE_OP_*. Other values are EOPNOTSUPP.
 * @flags: For ADDRESS_SPACE_OP_MMAP: ADDRESS_SPACE_MAP_REPLACE,
 *         ADDRESS_SPACE_MAP_POPULATE and ADDRESS_SPACE_MAP_PRIVATE. For others:
 *         must be 0.
 * @fd: For ADDRESS_SPACE_OP_MMAP: the file to map
 * @prot: For ADDRESS_SPACE_OP_MMAP and ADDRESS_SPACE_OP_PROTECT: the
 *        protection
 * @offset: For ADDRESS_SPACE_OP_MMAP: start of the range of the file, in
 *          bytes, a multiple of the page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size
 *
 * The kernel ignores members that an operation does not use.
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
 * @ops: Address of an array of struct address_space_op in the caller's memory
 * @nr_ops: Number of elements of the array, 1 to 65536
 * @op_size: sizeof(struct address_space_op), as the caller was compiled with
 *           it. The rules for the size of a struct hold for each element.
 * @failed: Output: the index of the operation that failed, if the ioctl failed
 *          because of one. Not written otherwise.
 * @__reserved: Must be 0
 *
 * Issued on an asfd. Performs all operations in order, or none of them. Nobody
 * sees a layout in which only some of the operations are done: every access
 * meets the layout before the batch or the layout after it, and a reader that
 * has seen the layout after the batch does not see the layout before it again.
 * When the ioctl returns, everything that the batch unmapped or replaced is
 * revoked from all processes and virtual machines.
 *
 * Errors:
 *  - EINVAL: @nr_ops is 0 or more than 65536.
 *  - ENOMEM: there is not enough memory.
 *  - Errors of the operations, with the index in @failed: as for
 *    ADDRESS_SPACE_MMAP, ADDRESS_SPACE_MUNMAP and ADDRESS_SPACE_PROTECT; and
 *    EOPNOTSUPP for an unknown @opcode.
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
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 * @prot: The new protection
 * @__reserved: Must be 0
 *
 * Issued on an asfd. Sets the protection of all mappings in the range;
 * mappings that extend beyond it are cut. When the ioctl returns, no process
 * and no virtual machine can do more than @prot allows.
 *
 * Errors:
 *  - ENOENT: there is a hole in the range.
 *  - EACCES: @prot allows more than was checked when this range of the file
 *    was first mapped or registered, by this caller, through this open file.
 *  - EINVAL: the range is not within the address space.
 *  - ENOMEM: there is not enough memory.
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
 * @flags: ADDRESS_SPACE_MAP_REPLACE: replace what is mapped at the destination
 * @addr: Start of the source range, in bytes, a multiple of the page size
 * @length: Length of both ranges in bytes, a multiple of the page size, not 0
 * @new_addr: Start of the destination range, in bytes, a multiple of the page
 *            size. The two ranges must not overlap.
 *
 * Issued on an asfd. Moves what is mapped at @addr to @new_addr, with its
 * protections, and leaves a hole at @addr, as one change.
 *
 * Errors:
 *  - ENOENT: there is a hole in the source range.
 *  - EEXIST: something is mapped in the destination range, and
 *    ADDRESS_SPACE_MAP_REPLACE is not set.
 *  - EINVAL: one of the ranges is not within the address space, or they
 *    overlap.
 *  - ENOMEM: there is not enough memory.
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
 * struct address_space_advise - ioctl(ADDRESS_SPACE_ADVISE)
 * @size: sizeof(struct address_space_advise)
 * @flags: Must be 0
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 * @advice: ADDRESS_SPACE_*: what is wanted of the pages. The values are those
 *          of madvise(); others are EOPNOTSUPP.
 * @__reserved: Must be 0
 *
 * Issued on an asfd, or a view that manages its range. All of the range must be
 * mapped. It stays mapped; what the advice is about is the memory.
 *
 * ADDRESS_SPACE_DONTNEED - The address space lets go of its pages: no
 * attachment has them installed any more, and the address space holds no
 * reference to them, which would keep a memfd from being sealed. Private copies
 * are given back: the next access meets the file. The pages of the file are not
 * changed.
 *
 * ADDRESS_SPACE_REMOVE - Makes a hole in the file, as MADV_REMOVE does, as the
 * caller: pages read as zeroes afterwards, by everybody who has the file. The
 * range must be mapped for writing, and not private.
 *
 * ADDRESS_SPACE_WILLNEED - The kernel begins to read from the files what is not
 * in memory.
 *
 * ADDRESS_SPACE_POPULATE_READ - When the ioctl returns, all pages have been
 * brought into memory; and they have been installed in the attachments as far
 * as ADDRESS_SPACE_MAP_POPULATE does that.
 *
 * ADDRESS_SPACE_POPULATE_WRITE - The same, to be written: private pages are
 * copied, file systems have been asked for space.
 *
 * What is done takes one mapping after another, and may have been done for a
 * part of the range if the ioctl fails with an error of a file or a page
 * (EPERM, EFAULT, EHWPOISON and others), with EINTR, EAGAIN or ENOMEM, or if
 * another call changes the range meanwhile. ENOENT and EACCES are found before.
 *
 * The other values of madvise() mean nothing here: the kernel does not let a
 * module age or write out pages of its choice (MADV_COLD, MADV_PAGEOUT), or
 * choose huge pages for a range (MADV_HUGEPAGE: it is the file that has huge
 * pages, see the mount options of tmpfs).
 *
 * Errors:
 *  - ENOENT: there is a hole in the range.
 *  - EACCES: the protection of the range, or that of the view, does not allow
 *    the access that ADDRESS_SPACE_POPULATE_READ and _WRITE are for, or writing
 *    for ADDRESS_SPACE_REMOVE; ADDRESS_SPACE_REMOVE of a private mapping; or
 *    ADDRESS_SPACE_DONTNEED of a private mapping through a view without
 *    PROT_WRITE.
 *  - EOPNOTSUPP: another @advice; ADDRESS_SPACE_REMOVE of lent memory, or of a
 *    file that can have no holes.
 *  - EPERM: ADDRESS_SPACE_REMOVE of a file that is sealed against writing.
 *  - EFAULT: a page cannot be populated: the file ends before it or cannot
 *    provide it, or the creator's memory cgroup has no room for it.
 *  - EHWPOISON: the memory of a page is bad.
 *  - EINTR: a signal came.
 *  - EAGAIN: the memory is busy.
 *  - EINVAL: the range is not within the address space.
 *  - ENOMEM: there is not enough memory.
 */
struct address_space_advise {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__u32 advice;
	__u32 __reserved;
};
#define ADDRESS_SPACE_ADVISE	_IO(ADDRESS_SPACE_TYPE, 0x0C)

/**
 * struct address_space_range - what ADDRESS_SPACE_LAYOUT writes
 * @addr: Start of the range of the address space, in bytes
 * @length: Length of the range in bytes
 * @offset: Start of the range in the file, or in what was lent, in bytes
 * @ino: Inode number of the file; 0 of lent memory
 * @dev_major: Device of its file system, as /proc/PID/maps has it; 0 of lent
 *             memory
 * @dev_minor: As above
 * @prot: Protection
 * @flags: ADDRESS_SPACE_RANGE_*
 *
 * ADDRESS_SPACE_RANGE_PRIVATE - It was mapped with ADDRESS_SPACE_MAP_PRIVATE.
 * ADDRESS_SPACE_RANGE_LENT - It is memory that a process has lent.
 */
struct address_space_range {
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 offset;
	__aligned_u64 ino;
	__u32 dev_major;
	__u32 dev_minor;
	__u32 prot;
	__u32 flags;
};
#define ADDRESS_SPACE_RANGE_PRIVATE	(1U << 0)
#define ADDRESS_SPACE_RANGE_LENT	(1U << 1)

/**
 * struct address_space_layout - ioctl(ADDRESS_SPACE_LAYOUT)
 * @size: sizeof(struct address_space_layout)
 * @flags: Must be 0
 * @addr: Start of the range of the address space to look at, in bytes, a
 *        multiple of the page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 * @ranges: Address of an array, which the kernel writes to
 * @nr_ranges: How many elements it has room for; output: how many were written
 * @range_size: sizeof(struct address_space_range). What the kernel does not know
 *              of a longer one is set to 0.
 * @next: Output: the address from which to go on: @addr + @length if all has been
 *        written
 *
 * Issued on an asfd, or a view that manages its range, which may be open for
 * reading only. Writes what is mapped in a range, in the order of addresses, as
 * far as there is room: one element for each mapping, cut to the range.
 * Neighbours that continue each other are one. Of up to 256 elements in sequence
 * all were so at one moment; other calls may change the layout between these.
 * What a change that is under way has half done is not seen: it is waited for.
 *
 * Errors:
 *  - EINVAL: the range is not within the address space; or @range_size is less
 *    than in the first published version.
 *  - E2BIG: @range_size is more than the size of a page.
 *  - EFAULT: the array cannot be written.
 *  - EINTR: a fatal signal came.
 */
struct address_space_layout {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 ranges;
	__u32 nr_ranges;
	__u32 range_size;
	__aligned_u64 next;
};
#define ADDRESS_SPACE_LAYOUT	_IO(ADDRESS_SPACE_TYPE, 0x09)
#define ADDRESS_SPACE_WILLNEED		3
#define ADDRESS_SPACE_DONTNEED		4
#define ADDRESS_SPACE_REMOVE		9
#define ADDRESS_SPACE_POPULATE_READ	22
#define ADDRESS_SPACE_POPULATE_WRITE	23

/**
 * struct address_space_events - ioctl(ADDRESS_SPACE_EVENTS)
 * @size: sizeof(struct address_space_events)
 * @flags: Must be 0
 * @timeout_ms: How long a task waits at a hole, in milliseconds; 0 for as long
 *              as it takes
 * @__reserved: Must be 0
 * @addr: Start of the range of the address space that is watched, in bytes, a
 *        multiple of the page size
 * @length: Length of that range in bytes, a multiple of the page size; 0 for
 *          all from @addr on
 *
 * Issued on an asfd. Watches a range, and returns an events file descriptor,
 * close-on-exec, from which struct address_space_event can be read. As long as
 * it is open, accesses with ADDRESS_SPACE_HOLE_WAIT wait in the range. When it
 * is closed, which it also is when the process that has it dies, they are all
 * refused. There can be one of an address space at a time.
 *
 * The file descriptor supports poll() (POLLIN) and O_NONBLOCK. read() returns
 * as many events as fit. EINVAL: not one fits. EAGAIN: there is none, and
 * O_NONBLOCK is set.
 *
 * Errors:
 *  - EBUSY: the address space is watched already.
 *  - EINVAL: the range is not within the address space.
 *  - EMFILE, ENFILE: the process or the system has too many open files.
 *  - ENOMEM: there is not enough memory.
 */
struct address_space_events {
	__u32 size;
	__u32 flags;
	__u32 timeout_ms;
	__u32 __reserved;
	__aligned_u64 addr;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_EVENTS	_IO(ADDRESS_SPACE_TYPE, 0x0D)

/**
 * DOC: types of struct address_space_event
 *
 * ADDRESS_SPACE_EVENT_WAIT - A task waits, as ADDRESS_SPACE_HOLE_WAIT has it,
 * for something to be mapped at the offset. No such event is lost, and none is
 * read after its wait has ended. A task that is interrupted by a signal and
 * accesses the page again is told of again; and so may be one of whose page
 * the neighbours were changed.
 *
 * The others tell of accesses that were refused, or absorbed where the policy
 * is ADDRESS_SPACE_HOLE_ABSORB, and why:
 *
 * ADDRESS_SPACE_EVENT_HOLE - Nothing was mapped there.
 * ADDRESS_SPACE_EVENT_DENIED - The protection did not allow the access.
 * ADDRESS_SPACE_EVENT_PAST_END - The file ends before that page.
 * ADDRESS_SPACE_EVENT_MEMORY_ERROR - The memory is bad (hwpoison).
 * ADDRESS_SPACE_EVENT_IO_ERROR - The file could not provide the page.
 * ADDRESS_SPACE_EVENT_NO_MEMORY - There was no memory.
 * ADDRESS_SPACE_EVENT_POISONED - ADDRESS_SPACE_POISON.
 * ADDRESS_SPACE_EVENT_TIMED_OUT - The task has waited for @timeout_ms.
 * ADDRESS_SPACE_EVENT_INTERRUPTED - A signal has ended a wait in KVM_RUN.
 *
 * ADDRESS_SPACE_EVENT_OVERFLOW - @offset events were lost. 256 are kept, and no
 * asfd or view can take the places of all others by many events of its own, or
 * of views that are made through it.
 */
#define ADDRESS_SPACE_EVENT_WAIT		1
#define ADDRESS_SPACE_EVENT_HOLE		2
#define ADDRESS_SPACE_EVENT_DENIED		3
#define ADDRESS_SPACE_EVENT_PAST_END		4
#define ADDRESS_SPACE_EVENT_MEMORY_ERROR	5
#define ADDRESS_SPACE_EVENT_IO_ERROR		6
#define ADDRESS_SPACE_EVENT_NO_MEMORY		7
#define ADDRESS_SPACE_EVENT_POISONED		8
#define ADDRESS_SPACE_EVENT_TIMED_OUT		9
#define ADDRESS_SPACE_EVENT_INTERRUPTED		10
#define ADDRESS_SPACE_EVENT_OVERFLOW		11

/**
 * struct address_space_event - what is read from an events file descriptor
 * @size: sizeof(struct address_space_event), as the kernel was compiled with
 *        it: the next event begins there
 * @type: ADDRESS_SPACE_EVENT_*. There may be new ones in the future.
 * @offset: The page that was accessed: offset in the address space, in bytes
 * @access: How: PROT_READ, PROT_WRITE or PROT_EXEC
 * @tid: Thread id of the task, in the PID namespace of that task
 * @view: The asfd or view through which it was accessed: its inode number, as
 *        fstat() returns it, and fdinfo in the line "ino". For a memory slot:
 *        the one on which ADDRESS_SPACE_KVM_MAP was issued.
 */
struct address_space_event {
	__u32 size;
	__u32 type;
	__aligned_u64 offset;
	__u32 access;
	__u32 tid;
	__aligned_u64 view;
};

/**
 * struct address_space_poison - ioctl(ADDRESS_SPACE_POISON)
 * @size: sizeof(struct address_space_poison)
 * @flags: ADDRESS_SPACE_POISON_CLEAR: end that the range is poisoned
 * @addr: Start of the range of the address space, in bytes, a multiple of the
 *        page size
 * @length: Length of the range in bytes, a multiple of the page size, not 0
 *
 * Issued on an asfd. Ends all waits in the range: the accesses are refused, as
 * with ADDRESS_SPACE_HOLE_SIGNAL, and so are those that would wait there, until
 * something is mapped over it, or the events file descriptor is closed. For
 * what a manager cannot provide. (Where a map in the middle of a poisoned range
 * would leave more than 64 separate ones, all of the range stays poisoned.)
 *
 * Errors:
 *  - ENOENT: there is no events file descriptor.
 *  - ENOSPC: more than 64 separate ranges would be poisoned.
 *  - EINVAL: the range is not within the address space.
 */
struct address_space_poison {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
};
#define ADDRESS_SPACE_POISON	_IO(ADDRESS_SPACE_TYPE, 0x0E)
#define ADDRESS_SPACE_POISON_CLEAR	(1U << 0)

/**
 * struct address_space_kvm_map - ioctl(ADDRESS_SPACE_KVM_MAP)
 * @size: sizeof(struct address_space_kvm_map)
 * @flags: KVM_MEM_READONLY and KVM_MEM_LOG_DIRTY_PAGES, as for
 *         KVM_SET_USER_MEMORY_REGION; and ADDRESS_SPACE_HOLE_*: the policy of
 *         the memory slot. Without one of these it has that of the asfd or
 *         view.
 * @vmfd: File descriptor of a KVM virtual machine that the calling process
 *        created
 * @slot: Number of the memory slot, which must not be in use. The upper 16
 *        bits are KVM's address space id.
 * @guest_phys_addr: Guest physical address of the memory slot, in bytes, a
 *                   multiple of the page size
 * @memory_size: Length of the memory slot in bytes, a multiple of the page
 *               size, not 0
 * @offset: Start of the range of the asfd or view that the memory slot shows,
 *          in bytes, a multiple of the page size
 * @window: Output: the address in the caller's memory at which the same range
 *          is attached, readable, and writable unless KVM_MEM_READONLY is set.
 *          The attachment keeps the virtual machine open.
 *
 * Issued on an asfd or a view. Attaches the range to the calling process and
 * makes the attachment a memory slot of the virtual machine. From then on the
 * memory slot follows the address space without further calls: the guest sees
 * what is mapped there and loses what is unmapped. If the guest accesses a
 * hole, KVM_RUN returns EFAULT, unless the policy says otherwise.
 *
 * Errors:
 *  - EBADF: @vmfd is not open.
 *  - EINVAL: @vmfd is not a virtual machine; the range is not within the asfd
 *    or view; or KVM refuses the memory slot, for example because it is in use
 *    for other memory.
 *  - EIO: another process created the virtual machine.
 *  - EPERM: on a view, @flags name a policy that is not the view's.
 *  - EFAULT, in addition to the above: another thread unmapped the attachment
 *    while the call was being made.
 *  - EACCES: the view does not allow writing, and KVM_MEM_READONLY is not set.
 *  - EEXIST: the memory slot shows this address space already, or its guest
 *    physical range overlaps that of another memory slot.
 *  - ENOMEM: there is not enough memory, or not enough address space in the
 *    calling process.
 */
struct address_space_kvm_map {
	__u32 size;
	__u32 flags;
	__s32 vmfd;
	__u32 slot;
	__aligned_u64 guest_phys_addr;
	__aligned_u64 memory_size;
	__aligned_u64 offset;
	__aligned_u64 window;
};
#define ADDRESS_SPACE_KVM_MAP	_IO(ADDRESS_SPACE_TYPE, 0x10)

/**
 * struct address_space_kvm_unmap - ioctl(ADDRESS_SPACE_KVM_UNMAP)
 * @size: sizeof(struct address_space_kvm_unmap)
 * @flags: Must be 0
 * @vmfd: File descriptor of the virtual machine
 * @slot: Number of a memory slot that ADDRESS_SPACE_KVM_MAP made, on any asfd
 *        or view of this address space; with KVM's address space id in the
 *        upper 16 bits, as there
 *
 * Issued on an asfd or a view. Removes the memory slot and the attachment that
 * belongs to it. If the caller has already removed the memory slot with
 * KVM_SET_USER_MEMORY_REGION, only the attachment is removed. If the caller
 * has since used the slot number for other memory, the kernel cannot know
 * that, and removes that memory slot.
 *
 * Errors:
 *  - EBADF, EINVAL, EIO: for @vmfd, as for ADDRESS_SPACE_KVM_MAP.
 *  - ENOENT: the memory slot does not show this address space, or the
 *    attachment that belongs to it is gone.
 *  - EPERM: the attachment is sealed (mseal()). The memory slot stays too.
 */
struct address_space_kvm_unmap {
	__u32 size;
	__u32 flags;
	__s32 vmfd;
	__u32 slot;
};
#define ADDRESS_SPACE_KVM_UNMAP	_IO(ADDRESS_SPACE_TYPE, 0x11)

/*
 * Aliases, with the names from the mailing list discussion that the interface
 * comes from.
 */
#define KVM_MAP_ADDRESS_SPACE	ADDRESS_SPACE_KVM_MAP
#define KVM_UNMAP_ADDRESS_SPACE	ADDRESS_SPACE_KVM_UNMAP
#define kvm_map_address_space	address_space_kvm_map
#define kvm_unmap_address_space	address_space_kvm_unmap

#endif /* _UAPI_LINUX_ADDRESS_SPACE_H */

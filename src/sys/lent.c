// SPDX-License-Identifier: GPL-2.0
/*
 * Looks at the memory that a process has lent, and page faults in it. In C because page
 * tables and the locks of VMAs are inline functions in the kernel.
 *
 * The lender goes on changing what it maps, so the VMA is checked at every look and at every
 * fault, under the lock with which it is used: only memory whose pages the kernel maps
 * anywhere, and has unmapped when they go, is let through. Above all no attachment: a fault
 * in one would come back here, without an end. (An attachment is a VM_PFNMAP.)
 *
 * A user of the lender's mm keeps its memory, also after its death. So nothing is waited for
 * with one held that the lender, or somebody whom it chose, may keep from ending: whoever
 * serves page faults of the lender by userfaultfd, or its files. (What it takes to have the
 * lender's own locks is another matter: who holds them for writing is a task of the lender,
 * which keeps its memory anyhow.)
 *
 * Locks: the lender's mmap lock, or the lock of one of its VMAs. They are waited for only if
 * the caller says so, which then holds no other.
 */
#include <linux/file.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/timer.h>
#include <linux/userfaultfd_k.h>

#include "helpers.h"

/* How long userfaultfd may take at a time: then it is told again. */
#define SERVED	msecs_to_jiffies(20)

/* Whether bringing in a page of the VMA may wait for whoever serves its file. */
static bool is_slow(struct vm_area_struct *vma)
{
	return !vma_is_anonymous(vma) && !address_space_helper_is_mapped_at_once(vma->vm_file);
}

/*
 * Whether the pages of @vma can be shown, and @vma allows what is wanted of them now: 0,
 * -EFAULT or -EACCES. To write to a shared file is to ask its file system, which may take as
 * long as it likes.
 */
static int check(struct vm_area_struct *vma, bool write)
{
	if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP | VM_SHADOW_STACK))
		return -EFAULT;
	if (!vma_is_anonymous(vma) &&
	    (!vma->vm_file || address_space_helper_is_unmappable(vma->vm_file)))
		return -EFAULT;
	/* What may be written but not read is looked at by nobody, however often it is written. */
	if (!(vma->vm_flags & VM_READ) || (write && !(vma->vm_flags & VM_WRITE)))
		return -EACCES;
	if (write && (vma->vm_flags & VM_SHARED) && is_slow(vma))
		return -EFAULT;
	return 0;
}

int address_space_helper_look_at_lent(struct mm_struct *mm, unsigned long addr,
				      unsigned long first, unsigned long *frames,
				      unsigned long count, bool wait)
{
	struct vm_area_struct *vma = address_space_helper_lock_vma(mm, addr, VM_NONE, wait);
	unsigned long start, end;
	int ret;

	if (IS_ERR(vma))
		return PTR_ERR(vma);
	ret = check(vma, false);
	if (!ret && is_vm_hugetlb_page(vma)) {
		ret = ADDRESS_SPACE_SEEN_NOTHING;
	} else if (!ret) {
		/* What lies in other VMAs is not known to be of this kind. */
		start = max(first, vma->vm_start);
		end = min(first + count * PAGE_SIZE, vma->vm_end);
		memset(frames, 0, count * sizeof(*frames));
		ret = address_space_helper_read_lent(vma, start, end,
						     frames + ((start - first) >> PAGE_SHIFT));
	}
	vma_end_read(vma);
	return ret;
}

/* Wakes a task every now and then. */
struct waker {
	struct timer_list timer;
	struct task_struct *task;
};

static void wake(struct timer_list *timer)
{
	struct waker *waker = timer_container_of(waker, timer, timer);

	wake_up_process(waker->task);
	/* it may not have slept yet */
	mod_timer(timer, jiffies + SERVED);
}

/*
 * A fault that whoever serves userfaultfd is told of, which is not so with one that waits for
 * nothing. What waits for userfaultfd sleeps once, and gives up whatever it was woken by. The
 * mmap lock, with which it is called, is released if the result says so.
 */
static vm_fault_t fault_served(struct vm_area_struct *vma, unsigned long addr,
			       unsigned int flags)
{
	struct waker waker = { .task = current };
	vm_fault_t fault;

	timer_setup_on_stack(&waker.timer, wake, 0);
	mod_timer(&waker.timer, jiffies + SERVED);
	fault = handle_mm_fault(vma, addr, flags, NULL);
	timer_delete_sync(&waker.timer);
	timer_destroy_on_stack(&waker.timer);
	return fault;
}

/* Whether a page of a slow file is in memory, or the file ends before it. */
static bool has_page(struct file *file, pgoff_t index)
{
	struct folio *folio;
	bool there;

	if (index >= DIV_ROUND_UP(i_size_read(file->f_mapping->host), PAGE_SIZE))
		return true;
	folio = filemap_get_folio(file->f_mapping, index);
	if (IS_ERR(folio))
		return false;
	there = folio_test_uptodate(folio);
	folio_put(folio);
	return there;
}

/* The lender's part of it; @file is to be read at @index before another try, if it is set. */
static int fault_in(struct mm_struct *mm, unsigned long addr, bool write, bool wait,
		    struct file **file, pgoff_t *index)
{
	const unsigned int flags = FAULT_FLAG_REMOTE | FAULT_FLAG_ALLOW_RETRY |
				   (write ? FAULT_FLAG_WRITE : 0);
	struct vm_area_struct *vma;
	vm_fault_t fault;
	int ret;

	if (wait) {
		if (mmap_read_lock_killable(mm))
			return -EINTR;
	} else if (!mmap_read_trylock(mm)) {
		return -EAGAIN;
	}
	vma = vma_lookup(mm, addr);
	ret = vma ? check(vma, write) : -EFAULT;
	if (!ret && is_slow(vma)) {
		*index = linear_page_index(vma, addr);
		if (has_page(vma->vm_file, *index)) {
			/* the fault finds it, or that the file has ended */
		} else if (vma->vm_file->f_mapping->a_ops->read_folio) {
			*file = get_file(vma->vm_file);
			ret = -EBUSY;
		} else {
			/* its pages come from elsewhere, as those of selinuxfs do */
			ret = -EFAULT;
		}
	}
	if (!ret) {
		/* So the lock is never released, and no page is waited for. */
		fault = handle_mm_fault(vma, addr, flags | FAULT_FLAG_RETRY_NOWAIT, NULL);
		if ((fault & VM_FAULT_RETRY) && userfaultfd_armed(vma)) {
			fault = fault_served(vma, addr, flags | FAULT_FLAG_KILLABLE |
							FAULT_FLAG_INTERRUPTIBLE);
			if (fault & VM_FAULT_COMPLETED)
				return 0;
			if (fault & VM_FAULT_RETRY)
				return -EBUSY;
		}
		if (fault & VM_FAULT_ERROR)
			ret = fault & (VM_FAULT_ERROR | VM_FAULT_HINDEX_MASK);
		else if (fault & VM_FAULT_RETRY)
			ret = -EBUSY;
	}
	mmap_read_unlock(mm);
	return ret;
}

/*
 * All of it is charged to the lender's memory cgroup, as if the lender had touched the page.
 * The last user of an mm takes down all of its memory: that is left to the kernel's worker.
 */
int address_space_helper_fault_in_lent(struct mm_struct *mm, unsigned long addr, bool write,
				       bool wait)
{
	struct mem_cgroup *lender, *own;
	struct file *file = NULL;
	struct folio *folio;
	pgoff_t index;
	int ret;

	if (!mmget_not_zero(mm))
		return -ESRCH;
	lender = get_mem_cgroup_from_mm(mm);
	own = set_active_memcg(lender);
	ret = fault_in(mm, addr, write, wait, &file, &index);
	mmput_async(mm);
	if (file) {
		/* as long as it takes, with nothing of the lender's but its file */
		folio = read_mapping_folio(file->f_mapping, index, file);
		if (IS_ERR(folio))
			ret = PTR_ERR(folio) == -EINTR ? -EINTR : (int)VM_FAULT_SIGBUS;
		else
			folio_put(folio);
		fput(file);
	}
	set_active_memcg(own);
	mem_cgroup_put(lender);
	return ret;
}

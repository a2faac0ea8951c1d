// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel interfaces that exist only as inline functions or macros. See
 * helpers.h.
 */
#include <linux/backing-dev.h>
#include <linux/highmem.h>
#include <linux/interval_tree_generic.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/swap.h>

#include "helpers.h"

#define CREATE_TRACE_POINTS
#include "events.h"

/* The module! macro of the kernel crate has no place for it. */
MODULE_VERSION(ADDRESS_SPACE_VERSION_TEXT);

/*
 * Before 7.3 the operations of the kernel crate's devices have no owner, so that the module
 * could be unloaded while the device is open. misc_mtx is held, which an unload waits for before
 * it takes the device away: all write the same here. The file of anybody else is -EINVAL.
 */
int address_space_helper_own_device(struct file *file)
{
	static struct file_operations owned;

	if (file->f_op->owner)
		return 0;
	if (!within_module((unsigned long)file->f_op, THIS_MODULE))
		return -EINVAL;
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	owned = *file->f_op;
	owned.owner = THIS_MODULE;
	replace_fops(file, &owned);
	return 0;
}

void address_space_helper_init_rwlock(rwlock_t *lock)
{
	rwlock_init(lock);
}

void address_space_helper_read_lock(rwlock_t *lock)
{
	read_lock(lock);
}

void address_space_helper_read_unlock(rwlock_t *lock)
{
	read_unlock(lock);
}

void address_space_helper_write_lock(rwlock_t *lock)
{
	write_lock(lock);
}

void address_space_helper_write_unlock(rwlock_t *lock)
{
	write_unlock(lock);
}

int address_space_helper_mmap_read_lock_killable(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}

/*
 * The VMA of @addr, with its lock held for reading, if it has any of the flags @need. If the
 * lock cannot be tried, it is acquired under the mmap lock, which is waited for only if @wait.
 */
struct vm_area_struct *address_space_helper_lock_vma(struct mm_struct *mm, unsigned long addr,
						     vm_flags_t need, bool wait)
{
	struct vm_area_struct *vma = lock_vma_under_rcu(mm, addr);

	if (!vma) {
		if (!wait)
			return ERR_PTR(-EAGAIN);
		if (mmap_read_lock_killable(mm))
			return ERR_PTR(-EINTR);
		vma = vma_lookup(mm, addr);
		if (vma && !vma_start_read_locked(vma))
			vma = NULL;
		mmap_read_unlock(mm);
	}
	if (!vma)
		return ERR_PTR(-EFAULT);
	if (need && !(vma->vm_flags & need)) {
		vma_end_read(vma);
		return ERR_PTR(-EFAULT);
	}
	return vma;
}

/* What is in no page table is faulted in when it is touched, copies of a file from the file. */
bool address_space_helper_zap(struct mm_struct *mm, unsigned long addr, unsigned long length)
{
	struct vm_area_struct *vma = lock_vma_under_rcu(mm, addr);

	if (!vma)
		return false;
	/* parts of huge pages cannot be zapped, and need not be: they are all the file's */
	if (!is_vm_hugetlb_page(vma))
		zap_vma_range(vma, addr, min(length, vma->vm_end - addr));
	vma_end_read(vma);
	return true;
}

/*
 * Five words of the caller's memory. copy_from_user() checks what it copies to, where the
 * compiler cannot, and copies by an instruction that has to be started.
 */
int address_space_helper_read_five(u64 *to, unsigned long from)
{
	const u64 __user *words = (const u64 __user *)from;

	if (!user_read_access_begin(words, 5 * sizeof(*words)))
		return -EFAULT;
	unsafe_get_user(to[0], &words[0], fault);
	unsafe_get_user(to[1], &words[1], fault);
	unsafe_get_user(to[2], &words[2], fault);
	unsafe_get_user(to[3], &words[3], fault);
	unsafe_get_user(to[4], &words[4], fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

unsigned long address_space_helper_anonymous_pages(struct mm_struct *mm)
{
	return get_mm_counter_sum(mm, MM_ANONPAGES);
}

unsigned long address_space_helper_pages_in_memory(struct mm_struct *mm)
{
	return get_mm_rss_sum(mm);
}

void address_space_helper_i_mmap_lock_read(struct address_space *mapping)
{
	i_mmap_lock_read(mapping);
}

bool address_space_helper_i_mmap_trylock_read(struct address_space *mapping)
{
	return i_mmap_trylock_read(mapping);
}

void address_space_helper_i_mmap_unlock_read(struct address_space *mapping)
{
	i_mmap_unlock_read(mapping);
}

bool address_space_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

pid_t address_space_helper_current_tid(void)
{
	return task_pid_vnr(current);
}

void address_space_helper_prepare_sleep(bool killable)
{
	set_current_state(killable ? TASK_KILLABLE : TASK_INTERRUPTIBLE);
}

void address_space_helper_finish_sleep(void)
{
	__set_current_state(TASK_RUNNING);
}

void address_space_helper_lockdep_off(void)
{
	lockdep_off();
}

void address_space_helper_lockdep_on(void)
{
	lockdep_on();
}

static bool minds_nothing(struct mmu_interval_notifier *notifier,
			  const struct mmu_notifier_range *range, unsigned long seq)
{
	return true;
}

/*
 * The first interval notifier of an mm takes its mmap lock, and nothing ends the wait for
 * that: have it done where that may be waited for. A lender's mm is in use, and some calls
 * invalidate all of it, also where nothing is mapped.
 */
int address_space_helper_prepare_notifiers(struct mm_struct *mm)
{
	static const struct mmu_interval_notifier_ops none = { .invalidate = minds_nothing };
	struct mmu_interval_notifier first = {};
	const int err = mmu_interval_notifier_insert(&first, mm, 0, PAGE_SIZE, &none);

	if (!err)
		mmu_interval_notifier_remove(&first);
	return err;
}

/*
 * An mm that exec has not finished has no layout yet: say where a search for
 * free addresses begins, or it would begin at 0, below mmap_min_addr.
 */
void address_space_helper_adopt_mm(struct mm_struct *mm, struct task_struct *owner)
{
	mm->mmap_base = SZ_4G;
	mm->mmap_legacy_base = SZ_4G;
	mm->task_size = TASK_SIZE_MAX;
#ifdef CONFIG_MEMCG
	rcu_assign_pointer(mm->owner, owner);
#endif
}

unsigned long address_space_helper_task_size(void)
{
	return TASK_SIZE_MAX;
}

unsigned long address_space_helper_find_room(unsigned long length)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr;

	mmap_read_lock(mm);
	addr = mm_get_unmapped_area(NULL, 0, length, 0, 0);
	mmap_read_unlock(mm);
	return addr;
}

void address_space_helper_disown_mm(struct mm_struct *mm)
{
#ifdef CONFIG_MEMCG
	rcu_assign_pointer(mm->owner, NULL);
#endif
}

const struct cred *address_space_helper_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

void address_space_helper_revert_creds(const struct cred *cred)
{
	revert_creds(cred);
}

struct mem_cgroup *address_space_helper_set_active_memcg(struct mem_cgroup *memcg)
{
	return set_active_memcg(memcg);
}

struct mem_cgroup *address_space_helper_mm_memcg(struct mm_struct *mm)
{
	return get_mem_cgroup_from_mm(mm);
}

void address_space_helper_mem_cgroup_put(struct mem_cgroup *memcg)
{
	mem_cgroup_put(memcg);
}

struct workqueue_struct *address_space_helper_alloc_workqueue(const char *name)
{
	return alloc_workqueue("%s", WQ_UNBOUND | WQ_MEM_RECLAIM, 0, name);
}

unsigned long address_space_helper_interval_seq(struct mmu_interval_notifier *sub)
{
	return READ_ONCE(sub->invalidate_seq);
}

void address_space_helper_interval_set_seq(struct mmu_interval_notifier *sub, unsigned long seq)
{
	mmu_interval_set_seq(sub, seq);
}

bool address_space_helper_interval_read_retry(struct mmu_interval_notifier *sub, unsigned long seq)
{
	return mmu_interval_read_retry(sub, seq);
}

bool address_space_helper_range_blockable(const struct mmu_notifier_range *range)
{
	return mmu_notifier_range_blockable(range);
}

/*
 * The page of zeroes, which a lender maps where it has written nothing, is never freed, and so
 * often shown that references to it would be more than it can count.
 */
void address_space_helper_frame_get(unsigned long pfn)
{
	if (!is_zero_pfn(pfn))
		folio_get(page_folio(pfn_to_page(pfn)));
}

void address_space_helper_frames_get(const unsigned long *frames, unsigned long count)
{
	const unsigned long *end = frames + count;

	for (; frames != end; frames++)
		if (*frames)
			address_space_helper_frame_get(*frames >> ADDRESS_SPACE_FRAME_SHIFT);
}

/*
 * Whether the file system must be asked before the folio is made dirty: it writes
 * folios back, and has to have a place for them. With RCU held: of lent memory nobody here
 * has the file, whose inode may go at any time, and stays as long.
 */
static bool is_written_back(struct folio *folio)
{
	struct address_space *mapping = folio_mapping(folio);

	return mapping && mapping_can_writeback(mapping);
}

bool address_space_helper_frame_is_clean(unsigned long pfn)
{
	struct folio *folio = page_folio(pfn_to_page(pfn));

	guard(rcu)();
	return is_written_back(folio) && !folio_test_dirty(folio);
}

void address_space_helper_frame_put(unsigned long pfn, bool dirty)
{
	struct folio *folio = page_folio(pfn_to_page(pfn));

	if (is_zero_pfn(pfn))
		return;
	/* What hugetlb has is never cleaned, and on no list to be aged. */
	if (!folio_test_hugetlb(folio)) {
		scoped_guard(rcu) {
			/* where nothing is written back this sets a bit, and does not sleep */
			if (dirty && !is_written_back(folio))
				folio_mark_dirty(folio);
		}
		folio_mark_accessed(folio);
	}
	folio_put(folio);
}

unsigned long address_space_helper_page_pfn(struct page *page)
{
	return page_to_pfn(page);
}

void address_space_helper_frame_copy(unsigned long pfn, unsigned long offset, void *buf,
				     unsigned long len, bool write)
{
	if (write)
		memcpy_to_page(pfn_to_page(pfn), offset, buf, len);
	else
		memcpy_from_page(buf, pfn_to_page(pfn), offset, len);
}

void address_space_helper_init_pfn_vma(struct vm_area_struct *vma, pgoff_t pgoff,
				       vm_flags_t set, vm_flags_t clear)
{
	vma->vm_pgoff = pgoff;
	vm_flags_mod(vma, set, clear);
}

/* The kernel's own searches of i_mmap are not exported; the tree is an ordinary one. */
static unsigned long first_page(struct vm_area_struct *vma)
{
	return vma->vm_pgoff;
}

static unsigned long last_page(struct vm_area_struct *vma)
{
	return vma->vm_pgoff + vma_pages(vma) - 1;
}

INTERVAL_TREE_DEFINE(struct vm_area_struct, shared.rb, unsigned long, shared.rb_subtree_last,
		     first_page, last_page, static __maybe_unused, i_mmap)

struct vm_area_struct *address_space_helper_first_vma(struct address_space *mapping,
						      unsigned long first, unsigned long last)
{
	return i_mmap_iter_first(&mapping->i_mmap, first, last);
}

struct vm_area_struct *address_space_helper_next_vma(struct vm_area_struct *vma,
						     unsigned long first, unsigned long last)
{
	return i_mmap_iter_next(vma, first, last);
}

/*
 * @copy is a VMA that is about to get the entries of another one, or a part of one: zaps
 * the huge ones before, or in fork() @all. fork() has the same addresses in another mm;
 * mremap() has a VMA of the same mm, which it has write-locked, and @copy is not in that
 * yet. But a part that is split off, which keeps its entries, is at an address that the mm
 * has.
 */
void address_space_helper_zap_original(struct vm_area_struct *copy, bool all)
{
	unsigned long first = first_page(copy), last = last_page(copy);
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma = vma_lookup(mm, copy->vm_start);

	if (copy->vm_mm != mm) {
		if (WARN_ON_ONCE(!vma))
			return;
		vma_assert_write_locked(vma);
		if (all)
			zap_special_vma_range(vma, vma->vm_start, vma->vm_end - vma->vm_start);
		else
			address_space_helper_zap_huge(vma, vma->vm_start, vma->vm_end);
	} else if (!vma) {
		struct address_space *mapping = copy->vm_file->f_mapping;

		i_mmap_lock_read(mapping);
		for (vma = i_mmap_iter_first(&mapping->i_mmap, first, last); vma;
		     vma = i_mmap_iter_next(vma, first, last)) {
			unsigned long from = max(first, first_page(vma)) - first_page(vma);
			unsigned long to = min(last, last_page(vma)) + 1 - first_page(vma);

			if (vma->vm_mm == mm && __is_vma_write_locked(vma))
				address_space_helper_zap_huge(vma,
							      vma->vm_start + from * PAGE_SIZE,
							      vma->vm_start + to * PAGE_SIZE);
		}
		i_mmap_unlock_read(mapping);
	}
}

void address_space_helper_vma_start_write(struct vm_area_struct *vma)
{
	vma_start_write(vma);
}

bool address_space_helper_mm_has_notifiers(struct mm_struct *mm)
{
	return mm_has_notifiers(mm);
}

void address_space_helper_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

bool address_space_helper_trace_change_enabled(void)
{
	return trace_address_space_change_enabled();
}

void address_space_helper_trace_change(unsigned long ino, u64 start, u64 end,
				       unsigned int prot, bool revoked)
{
	trace_address_space_change(ino, start, end, prot, revoked);
}

void address_space_helper_trace_fault(unsigned long ino, u64 view, u64 page,
				      unsigned int access, unsigned int ret)
{
	trace_address_space_fault(ino, view, page, access, ret);
}

void address_space_helper_trace_invalidate(unsigned long ino, u64 segment, u64 start, u64 end,
					   bool deferred)
{
	trace_address_space_invalidate(ino, segment, start, end, deferred);
}

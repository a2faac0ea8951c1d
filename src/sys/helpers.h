/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel interfaces that exist only as inline functions or macros, given a
 * symbol each so that Rust can call them; and a few questions about files and
 * folios that only such functions answer. Each is documented where it is used.
 */
#ifndef ADDRESS_SPACE_HELPERS_H
#define ADDRESS_SPACE_HELPERS_H

#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/workqueue.h>

/* The module. */
int address_space_helper_own_device(struct file *file);

/* Locks. */
void address_space_helper_init_rwlock(rwlock_t *lock);
void address_space_helper_read_lock(rwlock_t *lock);
void address_space_helper_read_unlock(rwlock_t *lock);
void address_space_helper_write_lock(rwlock_t *lock);
void address_space_helper_write_unlock(rwlock_t *lock);
int address_space_helper_mmap_read_lock_killable(struct mm_struct *mm);
bool address_space_helper_zap(struct mm_struct *mm, unsigned long addr, unsigned long length);
int address_space_helper_read_five(u64 *to, unsigned long from);
unsigned long address_space_helper_anonymous_pages(struct mm_struct *mm);
unsigned long address_space_helper_pages_in_memory(struct mm_struct *mm);
struct vm_area_struct *address_space_helper_lock_vma(struct mm_struct *mm, unsigned long addr,
						     vm_flags_t need, bool wait);
void address_space_helper_i_mmap_lock_read(struct address_space *mapping);
bool address_space_helper_i_mmap_trylock_read(struct address_space *mapping);
void address_space_helper_i_mmap_unlock_read(struct address_space *mapping);
bool address_space_helper_fatal_signal_pending(void);
pid_t address_space_helper_current_tid(void);
void address_space_helper_prepare_sleep(bool killable);
void address_space_helper_finish_sleep(void);
void address_space_helper_lockdep_off(void);
void address_space_helper_lockdep_on(void);

/* The arena's mm. */
int address_space_helper_prepare_notifiers(struct mm_struct *mm);
void address_space_helper_adopt_mm(struct mm_struct *mm, struct task_struct *owner);
unsigned long address_space_helper_task_size(void);
unsigned long address_space_helper_find_room(unsigned long length);
void address_space_helper_disown_mm(struct mm_struct *mm);
const struct cred *address_space_helper_override_creds(const struct cred *cred);
void address_space_helper_revert_creds(const struct cred *cred);
struct mem_cgroup *address_space_helper_set_active_memcg(struct mem_cgroup *memcg);
struct mem_cgroup *address_space_helper_mm_memcg(struct mm_struct *mm);
void address_space_helper_mem_cgroup_put(struct mem_cgroup *memcg);
struct workqueue_struct *address_space_helper_alloc_workqueue(const char *name);

/* The file system. */
int address_space_helper_init_fs_context(struct fs_context *context);
loff_t address_space_helper_inode_size(struct inode *inode);
void address_space_helper_set_inode_size(struct inode *inode, loff_t size);
void address_space_helper_touch_inode(struct inode *inode);
void address_space_helper_posix_acl_release(struct posix_acl *acl);
extern const struct xattr_handler *const address_space_helper_acls[];

/* The mmu notifier and HMM. */
unsigned long address_space_helper_interval_seq(struct mmu_interval_notifier *sub);
void address_space_helper_interval_set_seq(struct mmu_interval_notifier *sub, unsigned long seq);
bool address_space_helper_interval_read_retry(struct mmu_interval_notifier *sub, unsigned long seq);
bool address_space_helper_range_blockable(const struct mmu_notifier_range *range);

/* Page tables; in page_table.c. */
enum address_space_seen {
	ADDRESS_SPACE_SEEN_NOTHING,	/* HMM must be asked */
	ADDRESS_SPACE_SEEN_SINGLES,	/* single pages */
	ADDRESS_SPACE_SEEN_HUGE,	/* huge pages too */
};
enum address_space_seen address_space_helper_read_page_table(struct vm_area_struct *vma,
							     unsigned long addr,
							     unsigned long *frames,
							     unsigned long count);
enum address_space_seen address_space_helper_read_lent(struct vm_area_struct *vma,
						       unsigned long start,
						       unsigned long end,
						       unsigned long *frames);
bool address_space_helper_map_pages(struct vm_area_struct *vma, unsigned long addr,
				    unsigned long before, unsigned long after);
bool address_space_helper_pmd_none(struct vm_fault *vmf);
bool address_space_helper_make_page_table(struct vm_fault *vmf);
pmd_t *address_space_helper_find_page_table(struct mm_struct *mm, unsigned long addr);
unsigned long address_space_helper_zap_spanning(struct vm_area_struct *vma, unsigned long addr,
						unsigned long size);
void address_space_helper_zap_huge(struct vm_area_struct *vma, unsigned long start,
				   unsigned long end);
bool address_space_helper_install_huge(struct vm_fault *vmf, unsigned long pfn, pgprot_t prot);
void address_space_helper_install_frames(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
					 const unsigned long *frames, unsigned long count,
					 pgprot_t readable, pgprot_t writable);

/* Lent memory; in lent.c. */
int address_space_helper_look_at_lent(struct mm_struct *mm, unsigned long addr,
				      unsigned long first, unsigned long *frames,
				      unsigned long count, bool wait);
int address_space_helper_fault_in_lent(struct mm_struct *mm, unsigned long addr, bool write,
				       bool wait);

/*
 * A frame as a word, which the frame table has and which page tables are read as and
 * written from: its number and these flags; 0 for none. Only what was read says that the
 * frame is part of a huge page.
 */
#define ADDRESS_SPACE_FRAME_PRESENT	1
#define ADDRESS_SPACE_FRAME_WRITABLE	2
#define ADDRESS_SPACE_FRAME_HUGE	4
#define ADDRESS_SPACE_FRAME_SHIFT	3

/* Frames: one by its number, many as words. */
void address_space_helper_frame_get(unsigned long pfn);
void address_space_helper_frames_get(const unsigned long *frames, unsigned long count);
bool address_space_helper_frame_is_clean(unsigned long pfn);
void address_space_helper_frame_put(unsigned long pfn, bool dirty);
unsigned long address_space_helper_page_pfn(struct page *page);
void address_space_helper_frame_copy(unsigned long pfn, unsigned long offset, void *buf,
				     unsigned long len, bool write);

/* Attachments. */
void address_space_helper_zap_original(struct vm_area_struct *copy, bool all);
void address_space_helper_vma_start_write(struct vm_area_struct *vma);
bool address_space_helper_mm_has_notifiers(struct mm_struct *mm);
void address_space_helper_init_pfn_vma(struct vm_area_struct *vma, pgoff_t pgoff,
				       vm_flags_t set, vm_flags_t clear);
struct vm_area_struct *address_space_helper_first_vma(struct address_space *mapping,
						      unsigned long first, unsigned long last);
struct vm_area_struct *address_space_helper_next_vma(struct vm_area_struct *vma,
						     unsigned long first, unsigned long last);
void address_space_helper_release_fault_lock(struct vm_fault *vmf);

/* Files. */
void address_space_helper_lock_inode(struct inode *inode);
void address_space_helper_unlock_inode(struct inode *inode);
void address_space_helper_set_file_size(struct file *file, loff_t size);
loff_t address_space_helper_file_size(struct file *file);
unsigned long address_space_helper_file_ino(struct file *file);
unsigned int address_space_helper_file_device(struct file *file);
unsigned long address_space_helper_huge_page_size(struct file *file);
bool address_space_helper_is_noexec(struct file *file);
unsigned int address_space_helper_mmap_limits(struct file *file);
bool address_space_helper_is_resident(struct file *file, pgoff_t index);
bool address_space_helper_is_unmappable(struct file *file);
bool address_space_helper_is_mapped_at_once(struct file *file);
bool address_space_helper_is_written_back(struct file *file);
unsigned long address_space_helper_filesystem(struct file *file);
unsigned long address_space_helper_get_unmapped_area(struct file *file, unsigned long addr,
						     unsigned long len, unsigned long pgoff,
						     unsigned long flags);
bool address_space_helper_seq_is_full(struct seq_file *out);
bool address_space_helper_is_anon_file(struct file *file, const char *name);

/* Tracepoints; see events.h. */
bool address_space_helper_trace_change_enabled(void);
void address_space_helper_trace_change(unsigned long ino, u64 start, u64 end,
				       unsigned int prot, bool revoked);
void address_space_helper_trace_fault(unsigned long ino, u64 view, u64 page,
				      unsigned int access, unsigned int ret);
void address_space_helper_trace_invalidate(unsigned long ino, u64 segment, u64 start, u64 end,
					   bool deferred);

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Page tables: those of the arena and of lenders are read here, those of attached processes
 * written. In C because the kernel has all of it as inline functions and macros, and an
 * entry of a page table is too little to be worth a call.
 *
 * Nothing is allocated, and nothing decided: the callers (segment/notifier.rs,
 * segment/arena.rs, sys/lent.c, sys/mapping.rs, attachment/install.rs, attachment/vma.rs)
 * say which pages, with what rights, and know that they still may be installed.
 *
 * Locks: the callers hold the mm's mmap lock for reading, or the VMA's, and the install lock
 * where something is installed. A zap of many entries has the i_mmap lock, and tries the mmap
 * lock. The lock of a page table is acquired here where it is written. Frames are words as
 * helpers.h defines them.
 */
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <asm/pgalloc.h>

#include "helpers.h"

/* The entry that leads to the page table of @addr; or NULL. The mmap lock is held. */
static pmd_t *find_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t pgd = READ_ONCE(*pgd_offset(mm, addr));
	p4d_t p4d, *p4dp;
	pud_t pud, *pudp;

	if (pgd_none(pgd))
		return NULL;
	p4dp = p4d_offset_lockless(pgd_offset(mm, addr), pgd, addr);
	p4d = READ_ONCE(*p4dp);
	if (!p4d_present(p4d))
		return NULL;
	pudp = pud_offset_lockless(p4dp, p4d, addr);
	pud = READ_ONCE(*pudp);
	if (!pud_present(pud) || pud_leaf(pud))
		return NULL;
	return pmd_offset_lockless(pudp, pud, addr);
}

static bool is_table(pmd_t pmd)
{
	return pmd_present(pmd) && !pmd_leaf(pmd) && !pmd_bad(pmd);
}

static unsigned long frame_word(unsigned long pfn, bool writable)
{
	return pfn << ADDRESS_SPACE_FRAME_SHIFT | ADDRESS_SPACE_FRAME_PRESENT |
	       (writable ? ADDRESS_SPACE_FRAME_WRITABLE : 0);
}

/*
 * A table that goes meanwhile is freed by RCU, as pte_offset_map() relies on; but those of
 * hugetlb may be shared, and go under another lock.
 */
enum address_space_seen address_space_helper_read_page_table(struct vm_area_struct *vma,
							     unsigned long addr,
							     unsigned long *frames,
							     unsigned long count)
{
	const unsigned long end = addr + (count << PAGE_SHIFT);
	enum address_space_seen seen = ADDRESS_SPACE_SEEN_SINGLES;
	/* a variable of the kernel's: read once, and not for each entry */
	const pteval_t pfn_mask = PTE_PFN_MASK;

	static_assert(_PAGE_PRESENT == ADDRESS_SPACE_FRAME_PRESENT);
	static_assert(_PAGE_RW == ADDRESS_SPACE_FRAME_WRITABLE);
	if (is_vm_hugetlb_page(vma) || end > vma->vm_end)
		return ADDRESS_SPACE_SEEN_NOTHING;
	while (addr != end) {
		const unsigned long next = pmd_addr_end(addr, end);
		pmd_t *pmdp = find_pmd(vma->vm_mm, addr);
		pmd_t pmd;
		pte_t *pte;

		if (!pmdp || pmd_none(pmdp_get_lockless(pmdp))) {
			for (; addr != next; addr += PAGE_SIZE, frames++)
				*frames = 0;
			continue;
		}
		rcu_read_lock();
		pmd = pmdp_get_lockless(pmdp);
		if (pmd_present(pmd) && pmd_leaf(pmd) && !pmd_special(pmd)) {
			unsigned long pfn = pmd_pfn(pmd) + ((addr & ~PMD_MASK) >> PAGE_SHIFT);

			rcu_read_unlock();
			for (; addr != next; addr += PAGE_SIZE, frames++)
				*frames = frame_word(pfn++, pmd_write(pmd)) |
					  ADDRESS_SPACE_FRAME_HUGE;
			seen = ADDRESS_SPACE_SEEN_HUGE;
			continue;
		}
		if (!is_table(pmd)) {
			rcu_read_unlock();
			return ADDRESS_SPACE_SEEN_NOTHING;
		}
		pte = pte_offset_kernel(&pmd, addr);
		for (; addr != next; addr += PAGE_SIZE, pte++, frames++) {
			/* neither PROT_NONE is present so, nor what is no page */
			const pteval_t entry = pte_val(ptep_get(pte));
			const pteval_t flags = entry & (_PAGE_PRESENT | _PAGE_SPECIAL | _PAGE_RW);

			if ((flags & ~_PAGE_RW) == _PAGE_PRESENT)
				*frames = (entry & pfn_mask) >> (PAGE_SHIFT -
					   ADDRESS_SPACE_FRAME_SHIFT) | flags;
			else
				*frames = 0;
		}
		rcu_read_unlock();
	}
	return seen;
}

/*
 * Whether what is a huge entry in the page table of a lender may be one in another. Page table
 * check counts the entries that map anonymous memory for writing, and has no exception for
 * special ones if they are huge: a second one is a bug to it.
 */
static bool may_be_huge(unsigned long pfn)
{
	return !IS_ENABLED(CONFIG_PAGE_TABLE_CHECK) ||
	       !folio_test_anon(page_folio(pfn_to_page(pfn)));
}

/*
 * The same for memory that a process has lent: bytes @start to @end of the VMA, which is none
 * of hugetlb. What is zero because nobody has written it yet is not huge, but the one page of
 * zeroes: a huge entry of zeroes would be taken for a page's when it is zapped.
 */
enum address_space_seen address_space_helper_read_lent(struct vm_area_struct *vma,
						       unsigned long start,
						       unsigned long end,
						       unsigned long *frames)
{
	const unsigned long zero = frame_word(zero_pfn(start), false);
	enum address_space_seen seen = ADDRESS_SPACE_SEEN_SINGLES;
	unsigned long addr = start;

	while (addr < end) {
		const unsigned long next = pmd_addr_end(addr, end);
		pmd_t *pmdp = find_pmd(vma->vm_mm, addr);
		pmd_t pmd = __pmd(0);
		pte_t *pte;

		rcu_read_lock();
		if (pmdp)
			pmd = pmdp_get_lockless(pmdp);
		if (pmd_present(pmd) && pmd_leaf(pmd) && !pmd_protnone(pmd)) {
			unsigned long pfn = pmd_pfn(pmd) + ((addr & ~PMD_MASK) >> PAGE_SHIFT);
			unsigned long huge = 0;

			if (!pmd_special(pmd) && may_be_huge(pfn)) {
				huge = ADDRESS_SPACE_FRAME_HUGE;
				seen = ADDRESS_SPACE_SEEN_HUGE;
			}
			for (; addr != next; addr += PAGE_SIZE, pfn++)
				*frames++ = pmd_special(pmd) ? zero :
					    frame_word(pfn, pmd_write(pmd)) | huge;
		} else if (!is_table(pmd)) {
			for (; addr != next; addr += PAGE_SIZE)
				*frames++ = 0;
		} else {
			pte = pte_offset_kernel(&pmd, addr);
			for (; addr != next; addr += PAGE_SIZE, pte++) {
				const pte_t entry = ptep_get(pte);

				if (!pte_present(entry) || pte_protnone(entry))
					*frames++ = 0;
				else if (is_zero_pfn(pte_pfn(entry)))
					*frames++ = zero;
				else if (pte_special(entry))
					*frames++ = 0;
				else
					*frames++ = frame_word(pte_pfn(entry), pte_write(entry));
			}
		}
		rcu_read_unlock();
	}
	return seen;
}

/*
 * As do_fault_around() does it, but for as many pages as are asked for, which must lie in
 * one page table.
 */
bool address_space_helper_map_pages(struct vm_area_struct *vma, unsigned long addr,
				    unsigned long before, unsigned long after)
{
	pmd_t *pmd = find_pmd(vma->vm_mm, addr);
	pgoff_t first, last;
	vm_fault_t ret;

	if (!vma->vm_ops || !vma->vm_ops->map_pages || !pmd ||
	    !is_table(pmdp_get_lockless(pmd)))
		return false;

	struct vm_fault vmf = {
		.vma = vma,
		.address = addr,
		.real_address = addr,
		.pgoff = linear_page_index(vma, addr),
		.gfp_mask = GFP_NOWAIT,
		.flags = FAULT_FLAG_REMOTE,
		.pmd = pmd,
	};

	/* What the caller knows of the VMA may be true of an earlier one at this address. */
	first = vmf.pgoff - min(before, vmf.pgoff - vma->vm_pgoff);
	last = min(vmf.pgoff + after, vma->vm_pgoff + vma_pages(vma)) - 1;
	rcu_read_lock();
	ret = vma->vm_ops->map_pages(&vmf, first, last);
	rcu_read_unlock();
	return ret & VM_FAULT_NOPAGE;
}

bool address_space_helper_pmd_none(struct vm_fault *vmf)
{
	return pmd_none(pmdp_get_lockless(vmf->pmd));
}

bool address_space_helper_make_page_table(struct vm_fault *vmf)
{
	pmd_t pmd;

	if (vmf->prealloc_pte) {
		struct mm_struct *mm = vmf->vma->vm_mm;
		spinlock_t *ptl = pmd_lock(mm, vmf->pmd);

		if (pmd_none(*vmf->pmd)) {
			mm_inc_nr_ptes(mm);
			/* the empty table before what leads to it: others walk without locks */
			smp_wmb();
			pmd_populate(mm, vmf->pmd, vmf->prealloc_pte);
			vmf->prealloc_pte = NULL;
		}
		spin_unlock(ptl);
	}
	pmd = pmdp_get_lockless(vmf->pmd);
	return pmd_present(pmd) && !pmd_leaf(pmd);
}

pmd_t *address_space_helper_find_page_table(struct mm_struct *mm, unsigned long addr)
{
	pmd_t *pmd = find_pmd(mm, addr);

	return pmd && is_table(pmdp_get_lockless(pmd)) ? pmd : NULL;
}

void address_space_helper_install_frames(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
					 const unsigned long *frames, unsigned long count,
					 pgprot_t readable, pgprot_t writable)
{
	/* what maps frame 0 */
	const pte_t may_read = pte_mkspecial(pfn_pte(0, readable));
	const pte_t may_write = pte_mkspecial(pfn_pte(0, writable));
	const unsigned long *end = frames + count;
	spinlock_t *ptl = pte_lockptr(mm, pmd);
	pte_t *pte = pte_offset_kernel(pmd, addr);

	spin_lock(ptl);
	for (; frames != end; frames++, pte++, addr += PAGE_SIZE) {
		/* what another fault has installed first, under the same lock, is as good */
		if (*frames && pte_none(ptep_get(pte)))
			set_pte_at(mm, addr, pte,
				   pte_advance_pfn(*frames & ADDRESS_SPACE_FRAME_WRITABLE ?
						   may_write : may_read,
						   *frames >> ADDRESS_SPACE_FRAME_SHIFT));
	}
	spin_unlock(ptl);
}

/* A cache line of entries. */
#define LINE (SMP_CACHE_BYTES / sizeof(pte_t))

static bool is_empty(const pte_t *line)
{
	pteval_t all = 0;

	for (unsigned int i = 0; i < LINE; i++)
		all |= READ_ONCE(line[i].pte);
	return !all;
}

static bool begins_line(const pte_t *pte)
{
	return IS_ALIGNED((unsigned long)pte, LINE * sizeof(pte_t));
}

/* The first entry of @pte to before @stop that there is, or @stop. */
static pte_t *first_entry(pte_t *pte, pte_t *stop)
{
	while (pte < stop) {
		if (begins_line(pte) && stop - pte >= LINE && is_empty(pte))
			pte += LINE;
		else if (pte_none(ptep_get(pte)))
			pte++;
		else
			break;
	}
	return pte;
}

/* The last one, of which there is one. */
static pte_t *last_entry(pte_t *stop)
{
	for (;;) {
		if (begins_line(stop) && is_empty(stop - LINE))
			stop -= LINE;
		else if (!pte_none(ptep_get(--stop)))
			return stop;
	}
}

/* So many page tables are done with at a time, for those who want the locks. */
#define TABLES 16

/*
 * Bytes *@start to *@end: widened to what there is in a page table, which is cleared between.
 */
static void clear_between(struct mm_struct *mm, pmd_t *pmd, unsigned long addr,
			  unsigned long next, unsigned long *start, unsigned long *end)
{
	spinlock_t *ptl = pte_lockptr(mm, pmd);
	pte_t *const table = pte_offset_kernel(pmd, addr);
	pte_t *const stop = table + ((next - addr) >> PAGE_SHIFT);
	pte_t *first, *last, *pte;

	spin_lock(ptl);
	first = first_entry(table, stop);
	if (first < stop) {
		const unsigned long first_addr = addr + (first - table) * PAGE_SIZE;

		last = last_entry(stop);
		for (pte = first + 1; pte < last; pte++)
			if (READ_ONCE(pte->pte))
				ptep_get_and_clear(mm, first_addr + (pte - first) * PAGE_SIZE,
						   pte);
		if (*start == *end)
			*start = first_addr;
		*end = first_addr + (last - first + 1) * PAGE_SIZE;
	}
	spin_unlock(ptl);
}

/* Looks at so many entries, to guess how many there are. */
#define SAMPLES 8

/* Whether there are many entries in the page table in the middle of a range. */
static bool has_many(struct mm_struct *mm, unsigned long addr, unsigned long size)
{
	const unsigned long end = addr + size, table = (addr + size / 2) & PMD_MASK;
	const unsigned long from = max(addr, table), to = min(end, table + PMD_SIZE);
	const unsigned long step = max((to - from) / SAMPLES >> PAGE_SHIFT, 1UL);
	const pte_t *pte, *stop;
	unsigned int seen = 0;
	pmd_t *pmd, entry;

	pmd = find_pmd(mm, from);
	entry = pmd ? pmdp_get_lockless(pmd) : __pmd(0);
	if (!is_table(entry))
		return false;
	pte = pte_offset_kernel(&entry, from);
	stop = pte + ((to - from) >> PAGE_SHIFT);
	for (; pte < stop; pte += step)
		seen += !!READ_ONCE(pte->pte);
	return seen > 1;
}

/*
 * Of a PFN map that is linked into a locked i_mmap, so that no page table goes. A zap takes some
 * 180 instructions for an entry, most of them to find that there is no page to be told. So where
 * there are many it gets two entries of each page table, and what is between in all, which has to
 * be flushed.
 *
 * That holds only where nobody else takes out what this has seen, and flushes no more than that,
 * or has taken out what this has not seen, and is yet to flush it. A munmap() would: but that has
 * the mmap lock, or has detached the VMA. (In an exit nobody is left whom a flush would tell.)
 * Nobody waits for that lock here. The module's own zaps the caller keeps out (sys/zaps.rs).
 *
 * Returns the address from which on there is more to do, for which the caller comes back.
 */
unsigned long address_space_helper_zap_spanning(struct vm_area_struct *vma, unsigned long addr,
						unsigned long size)
{
	struct mm_struct *mm = vma->vm_mm;
	unsigned long stop = addr + size, start = addr, end = addr, next;
	unsigned int tables = 0;

	if (!has_many(mm, addr, size) || !mmap_read_trylock(mm)) {
		zap_special_vma_range(vma, addr, size);
		return stop;
	}
	if (vma_lookup(mm, addr) != vma) {
		addr = end = stop;
	} else {
		for (; addr != stop && tables < TABLES; addr = next) {
			pmd_t *pmd = find_pmd(mm, addr);
			pmd_t entry = pmd ? pmdp_get_lockless(pmd) : __pmd(0);

			next = pmd ? pmd_addr_end(addr, stop) : pud_addr_end(addr, stop);
			if (is_table(entry)) {
				clear_between(mm, pmd, addr, next, &start, &end);
				tables++;
			} else if (!pmd_none(entry)) {
				if (start == end)
					start = addr;
				end = next;
			}
		}
	}
	if (start != end)
		zap_special_vma_range(vma, start, end - start);
	mmap_read_unlock(mm);
	return addr;
}

/*
 * Zaps the huge entries in a range of a PFN map. Its mmap lock is held for writing, and the
 * VMA's too, so that nothing installs others meanwhile.
 */
void address_space_helper_zap_huge(struct vm_area_struct *vma, unsigned long start,
				   unsigned long end)
{
	unsigned long addr = ALIGN(start, PMD_SIZE);

	vma_assert_write_locked(vma);
	while (addr < end && end - addr >= PMD_SIZE) {
		pmd_t *pmd = find_pmd(vma->vm_mm, addr);

		if (!pmd) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (pmd_leaf(pmdp_get(pmd)))
			zap_special_vma_range(vma, addr, PMD_SIZE);
		addr += PMD_SIZE;
	}
}

/*
 * As vmf_insert_pfn_pmd() does, but with a protection of the caller's, and nothing is done,
 * and false returned, where another fault has installed something meanwhile: what that is
 * can only be looked at under the lock.
 */
bool address_space_helper_install_huge(struct vm_fault *vmf, unsigned long pfn, pgprot_t prot)
{
	struct vm_area_struct *vma = vmf->vma;
	spinlock_t *ptl = pmd_lock(vma->vm_mm, vmf->pmd);
	const bool empty = pmd_none(*vmf->pmd);

	if (empty)
		set_pmd_at(vma->vm_mm, vmf->address & PMD_MASK, vmf->pmd,
			   pmd_mkspecial(pmd_mkhuge(pfn_pmd(pfn, prot))));
	spin_unlock(ptl);
	return empty;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: slows down how fork() copies the page table entries of one VMA of one
 * process, and how mremap() moves them, so that another CPU can do much in between.
 *
 * The functions that copy and move are searched for calls of what takes or releases a page
 * table lock, or comes right before an entry is set. A kprobe on such a call has it go to
 * a function here, which waits and then does what was to be called. It is not the kprobe's
 * handler that waits: interrupts are off there, and a zap on another CPU, which waits for
 * this one to flush its TLB, would not get on.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/page_table_check.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/stringify.h>
#include <linux/unaligned.h>
#include <linux/wait_bit.h>
#include <asm/text-patching.h>

static int pid;
module_param(pid, int, 0600);
MODULE_PARM_DESC(pid, "the process; 0: none");

static unsigned long addr;
module_param(addr, ulong, 0600);
MODULE_PARM_DESC(addr, "an address in the VMA that fork() copies slowly");

static unsigned int us;
module_param(us, uint, 0600);
MODULE_PARM_DESC(us, "microseconds to wait where a zap can come in; elsewhere an eighth of it");

static unsigned long waits;
module_param(waits, ulong, 0400);
MODULE_PARM_DESC(waits, "how often it waited");

/* The process is copying another VMA; changed with its mmap lock held for writing. */
static bool elsewhere;

/* How many tasks are in a function of this module, which must not go away then. */
static atomic_t inside = ATOMIC_INIT(0);

static bool is_slow(void)
{
	int slow = READ_ONCE(pid);

	return slow && slow == task_tgid_vnr(current);
}

/* Whatever locks are held: interrupts are on. */
static void wait_for(unsigned int time)
{
	u64 until = ktime_get_ns() + (u64)time * NSEC_PER_USEC;

	if (!is_slow() || elsewhere)
		return;
	WRITE_ONCE(waits, waits + 1);
	while (ktime_get_ns() < until)
		cpu_relax();
}

static void enter(void)
{
	atomic_inc(&inside);
}

static void leave(void)
{
	if (atomic_dec_and_test(&inside))
		wake_up_var(&inside);
}

static void wait_long(void)
{
	enter();
	wait_for(READ_ONCE(us));
	leave();
}

/* Where a zap would wait for the lock, or for many entries. */
static void wait_briefly(void)
{
	enter();
	wait_for(READ_ONCE(us) / 8);
	leave();
}

#ifdef CONFIG_PREEMPT_RT
/* There the lock of a page table is one that sleeps. */
typedef spinlock_t table_lock_t;
#define LOCK	rt_spin_lock
#define UNLOCK	rt_spin_unlock
#else
typedef raw_spinlock_t table_lock_t;
#define LOCK	_raw_spin_lock
#define UNLOCK	_raw_spin_unlock
#endif

static void slow_lock(table_lock_t *lock)
{
	wait_long();
	LOCK(lock);
}

static void slow_unlock(table_lock_t *lock)
{
	wait_briefly();
	UNLOCK(lock);
}

#ifdef CONFIG_DEBUG_LOCK_ALLOC
static void slow_lock_nested(raw_spinlock_t *lock, int subclass)
{
	wait_long();
	_raw_spin_lock_nested(lock, subclass);
}
#endif

#ifdef CONFIG_PAGE_TABLE_CHECK
static void slow_ptes_set(struct mm_struct *mm, unsigned long at, pte_t *ptep, pte_t pte,
			  unsigned int nr)
{
	wait_briefly();
	__page_table_check_ptes_set(mm, at, ptep, pte, nr);
}

/* A zap looks at huge entries without a lock first, and waits for none where it sees none. */
static void slow_pmds_set(struct mm_struct *mm, unsigned long at, pmd_t *pmdp, pmd_t pmd,
			  unsigned int nr)
{
	wait_long();
	__page_table_check_pmds_set(mm, at, pmdp, pmd, nr);
}
#endif

/* copy_page_range(), which is not exported. */
static int (*copy)(struct vm_area_struct *dst, struct vm_area_struct *src);

static int slow_copy(struct vm_area_struct *dst, struct vm_area_struct *src)
{
	bool slow = is_slow();
	int ret;

	enter();
	if (slow)
		elsewhere = addr < src->vm_start || addr >= src->vm_end;
	wait_for(READ_ONCE(us));
	ret = copy(dst, src);
	if (slow)
		elsewhere = false;
	leave();
	return ret;
}

/* move_page_tables(), which is not exported, nor what its argument is. */
static unsigned long (*move)(void *pmc);

static unsigned long slow_move(void *pmc)
{
	unsigned long ret;

	enter();
	wait_for(READ_ONCE(us));
	ret = move(pmc);
	leave();
	return ret;
}

/* A call of @callee goes to @to. */
struct detour {
	const char *callee;
	void *to;
	void *callee_is_at;	/* where to note that, or NULL */
};

static const struct detour starts[] = {
	{ "copy_page_range", slow_copy, &copy },
	{ "move_page_tables", slow_move, &move },
	{}
};

static const struct detour steps[] = {
	{ __stringify(LOCK), slow_lock },
	{ __stringify(UNLOCK), slow_unlock },
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	{ "_raw_spin_lock_nested", slow_lock_nested },
#endif
#ifdef CONFIG_PAGE_TABLE_CHECK
	{ "__page_table_check_ptes_set", slow_ptes_set },
	{ "__page_table_check_pmds_set", slow_pmds_set },
#endif
	{}
};

/* What the compiler has inlined is not found, and its calls are in the caller. */
static const struct {
	const char *name;
	const struct detour *detours;
	bool inlined;	/* perhaps, or not in this kernel */
} functions[] = {
	{ "dup_mmap", starts },
	{ "copy_vma_and_data", starts, true },
	{ "move_vma", starts, true },
	{ "mremap_to", starts, true },
	{ "do_mremap", starts, true },
	{ "copy_page_range", steps, true },
	{ "copy_pmd_range", steps, true },
	{ "copy_pte_range", steps, true },
	{ "copy_huge_pmd", steps, !IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) },
	{ "move_page_tables", steps, true },
	{ "move_pgt_entry", steps, true },
	{ "move_normal_pmd", steps, true },
	{ "move_ptes", steps, true },
	{ "move_huge_pmd", steps, !IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) },
	{ "__pmd_trans_huge_lock", steps, true },
};

struct call {
	struct kprobe probe;
	void *to;
};

static struct call calls[96];
static struct kprobe *probes[ARRAY_SIZE(calls)];
static int count;

static int call_detour(struct kprobe *probe, struct pt_regs *regs)
{
	struct call *call = container_of(probe, struct call, probe);

	int3_emulate_call(regs, (unsigned long)probe->addr + CALL_INSN_SIZE,
			  (unsigned long)call->to);
	return 1;
}

/* A probe that has this is not replaced by a jump, from which no call can be emulated. */
static void not_optimized(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

/* Finds where @name begins, and its length. */
static int find_function(const char *name, unsigned long *start, unsigned long *length)
{
	struct kprobe probe = { .symbol_name = name };
	char text[KSYM_SYMBOL_LEN], *plus;
	unsigned long offset;
	int ret = register_kprobe(&probe);

	if (ret)
		return ret;
	unregister_kprobe(&probe);
	sprint_symbol(text, (unsigned long)probe.addr);
	plus = strrchr(text, '+');
	if (!plus || sscanf(plus, "+%lx/%lx", &offset, length) != 2)
		return -EINVAL;
	*start = (unsigned long)probe.addr - offset;
	return 0;
}

/* What bytes that look like a call would call, if it is one of @detours. */
static const struct detour *detour_of(const struct detour *detours, unsigned long at)
{
	const u8 *code = (const u8 *)at;
	char callee[KSYM_SYMBOL_LEN], *offset;
	unsigned long target;

	if (*code != CALL_INSN_OPCODE)
		return NULL;
	target = at + CALL_INSN_SIZE + (s32)get_unaligned_le32(code + 1);
	sprint_symbol(callee, target);
	offset = strstr(callee, "+0x0/");
	if (!offset)
		return NULL;
	*offset = '\0';
	for (; detours->callee; detours++) {
		if (!strcmp(callee, detours->callee)) {
			if (detours->callee_is_at)
				*(unsigned long *)detours->callee_is_at = target;
			return detours;
		}
	}
	return NULL;
}

/* @name is a function; how many calls there are detours for. */
static int detour_calls(const char *name, const struct detour *detours)
{
	unsigned long start, length, at;
	int ret = find_function(name, &start, &length), found = 0;

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	for (at = start; at + CALL_INSN_SIZE <= start + length; at++) {
		const struct detour *detour = detour_of(detours, at);
		struct call *call = &calls[count];

		if (!detour)
			continue;
		if (count == ARRAY_SIZE(calls))
			return -E2BIG;
		call->to = detour->to;
		call->probe.addr = (kprobe_opcode_t *)at;
		call->probe.pre_handler = call_detour;
		call->probe.post_handler = not_optimized;
		ret = register_kprobe(&call->probe);
		if (ret == -EILSEQ)	/* in the middle of an instruction */
			continue;
		if (ret)
			return ret;
		probes[count++] = &call->probe;
		found++;
	}
	return found;
}

static void remove_detours(void)
{
	unregister_kprobes(probes, count);
	wait_var_event(&inside, !atomic_read(&inside));
	/* whoever is before enter() or after leave() does not sleep there */
	synchronize_rcu_tasks();
}

static int __init slow_copy_init(void)
{
	int i, ret = 0;

	for (i = 0; i < ARRAY_SIZE(functions) && ret >= 0; i++) {
		ret = detour_calls(functions[i].name, functions[i].detours);
		if (!ret && !functions[i].inlined)
			ret = -ENXIO;
	}
	if (ret >= 0 && !move)
		ret = -ENXIO;
	if (ret < 0) {
		remove_detours();
		return ret;
	}
	pr_info("waits at %d calls\n", count);
	return 0;
}

static void __exit slow_copy_exit(void)
{
	remove_detours();
}

module_init(slow_copy_init);
module_exit(slow_copy_exit);
MODULE_DESCRIPTION("Slows down fork() and mremap(), for tests");
MODULE_LICENSE("GPL");

// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU: counts the executed instructions between two marks, by address.
 *
 * A program in the guest marks the counted part with two instructions that do
 * nothing: "xchg %bx,%bx" begins, "xchg %cx,%cx" ends (selftests/bench/src/clock.rs).
 * At the end the file of the option "out" has a line for each executed run of
 * instructions: its address, its number of instructions, and how often it began.
 *
 * The interface is declared here, as far as it is used: Debian ships no header for it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef uint64_t qemu_plugin_id_t;
enum { CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
	void (*cb)(unsigned int cpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
	void (*cb)(unsigned int cpu, void *data), int flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t idx);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

/* Translated code: never freed, since the same address may be translated again. */
struct run {
	struct run *next;
	uint64_t addr;
	uint64_t length;
	uint64_t times;
};

static struct run *runs;
static int counting;
static FILE *out;

static void begin(unsigned int cpu, void *data)
{
	counting = 1;
}

static void end(unsigned int cpu, void *data)
{
	counting = 0;
}

static void executed(unsigned int cpu, void *data)
{
	struct run *run = data;

	run->times += counting;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	struct run *run = calloc(1, sizeof(*run));
	size_t i;

	if (!run)
		abort();
	run->addr = qemu_plugin_tb_vaddr(tb);
	run->length = qemu_plugin_tb_n_insns(tb);
	run->next = runs;
	runs = run;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, CB_NO_REGS, run);

	for (i = 0; i < run->length; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		unsigned char bytes[3];

		if (qemu_plugin_insn_size(insn) != sizeof(bytes))
			continue;
		qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
		if (!memcmp(bytes, "\x66\x87\xdb", sizeof(bytes)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, CB_NO_REGS, NULL);
		else if (!memcmp(bytes, "\x66\x87\xc9", sizeof(bytes)))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, CB_NO_REGS, NULL);
	}
}

static void finish(qemu_plugin_id_t id, void *data)
{
	struct run *run;

	for (run = runs; run; run = run->next)
		if (run->times)
			fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n",
				run->addr, run->length, run->times);
	fclose(out);
}

__attribute__((visibility("default")))
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	if (argc != 1 || strncmp(argv[0], "out=", 4))
		return -1;
	out = fopen(argv[0] + 4, "w");
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	qemu_plugin_register_atexit_cb(id, finish, NULL);
	return 0;
}

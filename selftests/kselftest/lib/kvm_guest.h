/* SPDX-License-Identifier: GPL-2.0 */
/* A guest of a few bytes in real mode, which accesses a memslot at 64 KiB. */
#ifndef KVM_GUEST_H
#define KVM_GUEST_H

#include <linux/kvm.h>
#include <pthread.h>

#include "as_util.h"

#define LOW_LEN		0x10000UL	/* ordinary memory, slot 0 */
#define SLOT_GPA	0x10000UL	/* the memslot of the tests, 64 KiB */
#define SLOT_LEN	0x10000UL
#define MIRROR		0x2000		/* results of a spinning guest */

struct vm {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_len;
	char *low;
	uint64_t mmio_gpa;	/* of the last exit for an address without memory */
};

/* what a guest that never ends writes into its own memory */
struct mirror {
	volatile uint32_t value;	/* the last value that it has read */
	volatile uint32_t rounds;
};

enum program {
	GUEST_READ,		/* al = [bx], outputs al, halts */
	GUEST_WRITE,		/* [bx] = al, outputs al, halts */
	GUEST_READ_WRITE,	/* dl = [bx], [bx] = al, outputs dl, halts */
	GUEST_FSTP,		/* [bx] = 1.0f, outputs its last byte, halts */
	GUEST_SPIN_READ,	/* forever: mirror.value = [bx], mirror.rounds++ */
	GUEST_SPIN_WRITE,	/* forever: [bx]++, mirror.rounds++ */
};

bool have_kvm(void);
int vm_create(struct vm *vm);
void vm_destroy(struct vm *vm);

/* The result of one KVM_RUN: KVM_EXIT_*, or -errno. */
int vm_run(struct vm *vm);
/* @offset in the memslot is bx; @value is al */
int vm_start(struct vm *vm, enum program program, unsigned int offset,
	     uint8_t value);

/*
 * Runs a program to its end: the byte that it outputs, or -errno; an exit to the VMM
 * for an address without memory is -ENXIO, any other is -EPROTO.
 */
int guest_read(struct vm *vm, unsigned int offset);
int guest_write(struct vm *vm, unsigned int offset, uint8_t value);
int guest_read_write(struct vm *vm, unsigned int offset, uint8_t value);
/*
 * Writes with an instruction that KVM does not emulate: where it takes the page for a
 * device the VM cannot go on. FSTP_BYTE if the write succeeds.
 */
int guest_fstp(struct vm *vm, unsigned int offset);
#define FSTP_BYTE	0x3f

struct mirror *vm_mirror(struct vm *vm);

/* A vCPU that runs in a thread of its own until it cannot, or is stopped. */
struct spin {
	struct vm *vm;
	pthread_t thread;
	volatile bool stop, ended;
	volatile int ret;
};

int spin_start(struct spin *s, struct vm *vm, enum program program,
	       unsigned int offset);
/* until the guest has made @n more rounds: 0 or -ETIMEDOUT, -ECANCELED */
int spin_rounds(struct spin *s, unsigned int n);
/* until it has ended by itself, or -ETIMEDOUT; returns its result */
int spin_end(struct spin *s, unsigned int ms);
int spin_stop(struct spin *s);

/* Maps @length from @offset of @fd at @gpa as @slot; 0 or -errno. */
int as_kvm_map(int fd, int vm, uint32_t slot, uint64_t gpa, uint64_t length,
	       uint64_t offset, uint32_t flags, char **mem);
int as_kvm_unmap(int fd, int vm, uint32_t slot);

#endif

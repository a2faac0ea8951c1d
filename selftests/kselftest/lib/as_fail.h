/* SPDX-License-Identifier: GPL-2.0 */
/* Allocations and copies that fail on demand: the nth of a task. */
#ifndef AS_FAIL_H
#define AS_FAIL_H

#include "as_util.h"

/* Whose allocations are meant. */
enum target {
	CALLER,		/* the calling thread's: all of them */
	WORKERS,	/* those that the module makes on kernel workers */
};

/* 0, or -errno where this kernel does not let anything fail on demand */
int fail_prepare(void);

/* The @nth allocation from now on, one for each target, fails. */
int fail_arm(enum target target, unsigned int nth);

/*
 * Ends it. 1: one has failed; 0: the target made less than that many; or -errno,
 * -EAGAIN where a worker had a hand in it that was not there when it was armed.
 */
int fail_disarm(enum target target);

/* Of allocations below [@start, @end) only; all of them with 0, ~0 */
int fail_only_below(uint64_t start, uint64_t end);

/* Where functions whose line in kallsyms contains @what are: 0 or -ENOENT */
int kernel_text(const char *what, uint64_t *start, uint64_t *end);

#endif

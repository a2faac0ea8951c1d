/* SPDX-License-Identifier: GPL-2.0 */
/* Allocations and copies that fail on demand: the nth of a task. */
#ifndef AS_FAIL_H
#define AS_FAIL_H

#include "as_util.h"

/* Which allocations fail. */
enum target {
	CALLER,		/* all those of the calling thread */
	WORKERS,	/* those that the module makes on kernel workers */
};

/* 0, or -errno if this kernel has no fault injection */
int fail_prepare(void);

/* The @nth allocation from now on, one for each target, fails. */
int fail_arm(enum target target, unsigned int nth);

/*
 * Ends it. 1: one has failed; 0: the target made less than that many; or -errno,
 * -EAGAIN if a worker was involved that did not exist when the others were armed.
 */
int fail_disarm(enum target target);

/* Only allocations below [@start, @end) fail; all of them with 0, ~0 */
int fail_only_below(uint64_t start, uint64_t end);

/* The range of functions whose line in kallsyms contains @what: 0 or -ENOENT */
int kernel_text(const char *what, uint64_t *start, uint64_t *end);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* An access that may take long, in one of the ways in which a process can make it. */
#ifndef SLOW_ACCESS_H
#define SLOW_ACCESS_H

#include "as_util.h"

enum access_way { BY_READING, BY_WRITING, BY_PROC_MEM, BY_FUTEX };

/* Shared by the test and the process that accesses the memory. */
struct slow_access {
	volatile enum access_way way;
	volatile bool ended;
	/* the byte; 0 for a write; or -errno, or minus the signal that was raised */
	volatile int value;
	void *at;
};

/* In memory that processes that are forked share. NULL with errno set. */
struct slow_access *slow_access_new(void);
/*
 * In the agent, a thread accesses @at. The agent itself goes on, and so does the caller:
 * what it waits for is to be seen elsewhere.
 */
int slow_access_begin(struct slow_access *a, struct agent *agent, void *at);
int slow_access_wait(const struct slow_access *a);

#endif

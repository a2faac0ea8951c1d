/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A file system with one file, which is as slow as a test wants: a FUSE server that
 * answers on request.
 */
#ifndef SLOW_FS_H
#define SLOW_FS_H

#include "as_util.h"

/* Page i reads as 'a' + i. What is written is forgotten. */
#define SLOW_LEN	(16 * PAGE)

/* Shared with the server. */
struct slow_gate {
	volatile bool closed;		/* reads and writes wait */
	volatile bool fail;		/* reads fail */
	volatile int waiting;		/* how many requests do */
	volatile int given_up;		/* the server has answered without a request */
};

struct slow_fs {
	struct slow_gate *gate;		/* open at first */
	pid_t server;
	char dir[64];
};

/* Mounts it, in mounts of the test's own. -ENODEV without FUSE. */
int slow_fs_start(struct slow_fs *fs);
void slow_fs_stop(struct slow_fs *fs);
/* the file */
int slow_fs_open(const struct slow_fs *fs, int flags);
/* until the server has received a request that waits at the gate */
int slow_fs_wait(const struct slow_fs *fs);
/* a child writes back what is dirty of @file; returns when the server has been asked to */
int slow_fs_begin_writeback(const struct slow_fs *fs, int file);

#endif

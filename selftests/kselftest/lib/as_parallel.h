/* SPDX-License-Identifier: GPL-2.0 */
/* What goes on beside a test: child processes, and threads that access memory. */
#ifndef AS_PARALLEL_H
#define AS_PARALLEL_H

#include <pthread.h>

#include "as_util.h"

typedef void *(*run_fn)(void *arg);

/*
 * Runs @fn in a child, of which it is the only thread, and which dies with the caller.
 * Returns its pid, or -errno.
 */
pid_t start_process(run_fn fn, void *arg);

/* A thread and a child process, for a race. They end when the test has told them to. */
struct pair {
	pthread_t thread;
	pid_t pid;
};

int pair_start(struct pair *p, run_fn thread, void *thread_arg,
	       run_fn process, void *process_arg);
void pair_join(struct pair *p);

/* A thread that counts in the word @at, and never pauses. */
struct writer {
	char *at;
	volatile bool stop;
	volatile unsigned long writes;	/* attempts */
	volatile unsigned long signals;	/* those that raised one */
	pthread_t thread;
};

int writer_start(struct writer *w, char *at);
/* until it has made @n more attempts */
void writer_wait(const struct writer *w, unsigned long n);
void writer_stop(struct writer *w);

#endif

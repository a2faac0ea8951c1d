// SPDX-License-Identifier: GPL-2.0
/* Child processes and threads that run while the test goes on. */
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "as_parallel.h"

pid_t start_process(run_fn fn, void *arg)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(arg);
		_exit(0);
	}
	return pid;
}

int pair_start(struct pair *p, run_fn thread, void *thread_arg,
	       run_fn process, void *process_arg)
{
	p->pid = start_process(process, process_arg);
	if (p->pid < 0)
		return p->pid;
	return -pthread_create(&p->thread, NULL, thread, thread_arg);
}

void pair_join(struct pair *p)
{
	pthread_join(p->thread, NULL);
	waitpid(p->pid, NULL, 0);
}

static void *write_forever(void *arg)
{
	struct writer *w = arg;
	uint64_t i;

	for (i = 1; !w->stop; i++) {
		if (poke64(w->at, i))
			w->signals++;
		w->writes++;
	}
	return NULL;
}

int writer_start(struct writer *w, char *at)
{
	*w = (struct writer) { .at = at };
	return -pthread_create(&w->thread, NULL, write_forever, w);
}

void writer_wait(const struct writer *w, unsigned long n)
{
	unsigned long seen = w->writes;

	while (w->writes < seen + n)
		sched_yield();
}

void writer_stop(struct writer *w)
{
	w->stop = true;
	pthread_join(w->thread, NULL);
}

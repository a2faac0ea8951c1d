// SPDX-License-Identifier: GPL-2.0
/* The ways to access, and the thread in another process that uses one of them. */
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "slow_access.h"

struct slow_access *slow_access_new(void)
{
	void *page = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return page == MAP_FAILED ? NULL : page;
}

static int peek_proc_mem(const void *at)
{
	int mem = open("/proc/self/mem", O_RDONLY);
	char c;

	if (mem < 0 || pread(mem, &c, 1, (uintptr_t)at) != 1)
		return -errno;
	close(mem);
	return c;
}

/* FUTEX_OP_ADD 0: reads and writes the word, and may not let go of its lock meanwhile. */
static int touch_by_futex(void *at)
{
	static int word;
	long ret = syscall(SYS_futex, &word, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1,
			   (void *)1UL, at, FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0));

	return ret < 0 ? -errno : *(char *)at;
}

static void *access_it(void *arg)
{
	struct slow_access *a = arg;

	switch (a->way) {
	case BY_READING: a->value = peek(a->at); break;
	case BY_WRITING: a->value = poke(a->at, 'w'); break;
	case BY_PROC_MEM: a->value = peek_proc_mem(a->at); break;
	case BY_FUTEX: a->value = touch_by_futex(a->at); break;
	}
	a->ended = true;
	return NULL;
}

/* runs in the agent */
static long begin(void *arg)
{
	pthread_t thread;

	return -pthread_create(&thread, NULL, access_it, arg);
}

int slow_access_begin(struct slow_access *a, struct agent *agent, void *at)
{
	a->at = at;
	a->ended = false;
	return agent_call(agent, begin, a);
}

int slow_access_wait(const struct slow_access *a)
{
	uint64_t until = now_ms() + 10000;

	while (!a->ended)
		if (now_ms() > until)
			return -ETIMEDOUT;
	return 0;
}

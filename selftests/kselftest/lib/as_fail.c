// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection by /proc/PID/task/TID/fail-nth: the task's nth allocation, or copy
 * from or to user space, fails, and no other.
 *
 * What the module does on a worker, it does in one of the kernel's worker threads,
 * and it is unknown in which: so all of them are armed, for allocations below the
 * module's own functions only, since other work of the kernel runs there too.
 */
#include <dirent.h>
#include <sys/syscall.h>

#include "as_fail.h"

#define KNOBS		"/sys/kernel/debug/"
#define WORKERS_MAX	256

static const char *const kinds[] = { "failslab", "fail_page_alloc", "fail_usercopy" };
#define KINDS	(sizeof(kinds) / sizeof(kinds[0]))

static int own = -1;

static struct worker {
	pid_t pid;
	int fd;
} workers[WORKERS_MAX];
static unsigned int workers_count, armed;

static int set_knob(const char *kind, const char *knob, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), KNOBS "%s/%s", kind, knob);
	return write_text(path, value);
}

/* which is "require" or "reject": allocations below [@start, @end) */
static int set_filter(const char *which, uint64_t start, uint64_t end)
{
	char knob[32], text[32];
	unsigned int i;
	int ret = 0;

	for (i = 0; i < KINDS && !ret; i++) {
		snprintf(knob, sizeof(knob), "%s-start", which);
		snprintf(text, sizeof(text), "%#llx", (unsigned long long)start);
		ret = set_knob(kinds[i], knob, text);
		snprintf(knob, sizeof(knob), "%s-end", which);
		snprintf(text, sizeof(text), "%#llx", (unsigned long long)end);
		ret = ret ?: set_knob(kinds[i], knob, text);
	}
	return ret;
}

int fail_only_below(uint64_t start, uint64_t end)
{
	return set_filter("require", start, end);
}

int kernel_text(const char *what, uint64_t *start, uint64_t *end)
{
	FILE *file = fopen("/proc/kallsyms", "re");
	unsigned long long address;
	char line[1024], type;
	uint64_t last = 0;

	if (!file)
		return -errno;
	*start = UINT64_MAX;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%llx %c", &address, &type) != 2 ||
		    !strchr("tT", type) || !strstr(line, what))
			continue;
		if (address < *start)
			*start = address;
		if (address > last)
			last = address;
	}
	/* the last function ends where another begins, or within a page */
	*end = last + PAGE;
	rewind(file);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%llx %c", &address, &type) == 2 &&
		    strchr("tT", type) && address > last && address < *end)
			*end = address;
	fclose(file);
	return last ? 0 : -ENOENT;
}

int fail_prepare(void)
{
	uint64_t start, end;
	char path[64];
	unsigned int i;
	int ret;

	snprintf(path, sizeof(path), "/proc/self/task/%ld/fail-nth",
		 syscall(SYS_gettid));
	if (own >= 0)
		close(own);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own < 0)
		return -errno;
	for (i = 0; i < KINDS; i++) {
		ret = set_knob(kinds[i], "verbose", "0");
		if (ret)
			return ret;
	}
	/* also allocations that may wait, which most may; and single pages */
	ret = set_knob("failslab", "ignore-gfp-wait", "N");
	ret = ret ?: set_knob("fail_page_alloc", "ignore-gfp-wait", "N");
	ret = ret ?: set_knob("fail_page_alloc", "ignore-gfp-highmem", "N");
	ret = ret ?: set_knob("fail_page_alloc", "min-order", "0");
	ret = ret ?: fail_only_below(0, UINT64_MAX);
	/*
	 * kmemleak tracks each allocation in an allocation of its own, from a pool if
	 * necessary: to make those fail would double the work and test nothing, and
	 * once the pool is empty kmemleak stops.
	 */
	if (!ret && !kernel_text(" __alloc_object\n", &start, &end))
		ret = set_filter("reject", start, end);
	return ret;
}

static int set_nth(int fd, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	return pwrite(fd, text, len, 0) == len ? 0 : -errno;
}

/* the remaining count, or -errno */
static long get_nth(int fd)
{
	char text[16];
	ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

	if (len < 0)
		return -errno;
	text[len] = 0;
	return strtol(text, NULL, 10);
}

static bool is_worker(pid_t pid)
{
	char path[64], comm[64];

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	return !read_text(path, comm, sizeof(comm)) && !strncmp(comm, "kworker/", 8);
}

/* Opens the fail-nth of new workers; returns their number. */
static int find_workers(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char path[64];
	unsigned int i;
	int found = 0;
	pid_t pid;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir)) != NULL) {
		pid = atoi(entry->d_name);
		if (pid <= 0 || workers_count == WORKERS_MAX)
			continue;
		for (i = 0; i < workers_count && workers[i].pid != pid; i++)
			;
		if (i < workers_count || !is_worker(pid))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%d/fail-nth", pid, pid);
		workers[i].fd = open(path, O_RDWR | O_CLOEXEC);
		if (workers[i].fd < 0)
			continue;	/* the worker has ended */
		workers[i].pid = pid;
		workers_count++;
		found++;
	}
	closedir(dir);
	return found;
}

static int arm_workers(unsigned int nth)
{
	static uint64_t start, end;
	unsigned int i;
	int ret;

	ret = find_workers();
	if (ret < 0)
		return ret;
	ret = end ? 0 : kernel_text("[address_space]", &start, &end);
	ret = ret ?: fail_only_below(start, end);
	if (ret)
		return ret;
	for (i = 0; i < workers_count; i++) {
		ret = set_nth(workers[i].fd, nth);
		if (ret == -ESRCH) {
			close(workers[i].fd);
			workers[i--] = workers[--workers_count];
		} else if (ret) {
			return ret;
		}
	}
	armed = nth;
	return 0;
}

static int disarm_workers(void)
{
	bool fired = false, touched = false;
	unsigned int i;
	long left;
	int ret;

	for (i = 0; i < workers_count; i++) {
		left = get_nth(workers[i].fd);
		fired |= left == 0;
		touched |= left >= 0 && left < armed;
		set_nth(workers[i].fd, 0);
	}
	ret = fail_only_below(0, UINT64_MAX);
	if (ret)
		return ret;
	if (fired)
		return 1;
	return !touched && find_workers() > 0 ? -EAGAIN : 0;
}

int fail_arm(enum target target, unsigned int nth)
{
	return target == WORKERS ? arm_workers(nth) : set_nth(own, nth);
}

int fail_disarm(enum target target)
{
	long left;

	if (target == WORKERS)
		return disarm_workers();
	/* Reading and writing copy too: such an error comes from a late failure. */
	left = get_nth(own);
	if (left > 0)
		set_nth(own, 0);
	return left == 0;
}

// SPDX-License-Identifier: GPL-2.0
/* Control groups, and numbers in the kernel's text files. */
#include "as_util.h"

bool have_memory_controller(void)
{
	write_text(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
	return !access(CGROUP_ROOT "/memory.stat", R_OK);
}

int create_group(const char *group)
{
	rmdir(group);
	return mkdir(group, 0755) ? -errno : 0;
}

void remove_group(const char *group)
{
	uint64_t until = now_ms() + WORKER_MS;

	while (rmdir(group) && errno == EBUSY && now_ms() < until)
		sleep_ms(10);
}

/* for agent_call(): moves the caller into @group */
long enter_group(void *group)
{
	char path[128], pid[16];

	snprintf(path, sizeof(path), "%s/cgroup.procs", (char *)group);
	snprintf(pid, sizeof(pid), "%d", getpid());
	return write_text(path, pid);
}

/* the number after @name in @path, or the first one; -1 if there is none */
long number_in(const char *path, const char *name)
{
	static char text[1 << 16];
	char *at = text;

	if (read_text(path, text, sizeof(text)))
		return -1;
	if (name) {
		at = strstr(text, name);
		if (!at)
			return -1;
		at += strlen(name);
	}
	return atol(at + strspn(at, " \t"));
}

// SPDX-License-Identifier: GPL-2.0
/* Control groups, and numbers in the kernel's text files. */
#include "as_util.h"

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

// SPDX-License-Identifier: GPL-2.0
/*
 * Use without root: a process that may open the device, or was given an fd, can use
 * all of it without any capability; no other process can.
 */
#include <grp.h>
#include <sys/prctl.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define DEVICE	"/dev/address_space"
#define USER	4242
#define GROUP	4243

static long become_user(void *arg)
{
	gid_t group = GROUP;

	if (setgroups(arg ? 1 : 0, &group) || setgid(USER) || setuid(USER))
		return -errno;
	/* irreversible */
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

/* an ordinary use; returns what the first page shows */
static long use_it(void *arg)
{
	struct space s;
	int view, ret;

	(void)arg;
	ret = space_init(&s);
	if (ret)
		return ret;
	ret = as_register(s.asfd, s.a, 0, 0, RW, 0) ?:
	      as_map(s.asfd, 0, s.a, 0, FILE_LEN, RW, ADDRESS_SPACE_MAP_POPULATE);
	if (ret)
		return ret;
	view = as_view(s.asfd, 0, SPACE_LEN, PROT_READ);
	if (view < 0)
		return view;
	if (peek(s.mem + PAGE) != 'b' || as_unmap(s.asfd, PAGE, PAGE) ||
	    peek(s.mem + PAGE) != -SIGBUS)
		return -EPROTO;
	ret = peek(s.mem);
	space_free(&s);
	return ret;
}

static long map_given(void *arg)
{
	int asfd = (int)(uintptr_t)arg & 0xffff, file = (uintptr_t)arg >> 16;

	return as_map(asfd, 0, file, 0, FILE_LEN, RW, 0);
}

FIXTURE(user)
{
	struct agent agent;
	struct stat device;
};

FIXTURE_SETUP(user)
{
	ASSERT_EQ(0, stat(DEVICE, &self->device));
	ASSERT_EQ(0, agent_start(&self->agent));
}

FIXTURE_TEARDOWN(user)
{
	/* as it was */
	chmod(DEVICE, self->device.st_mode & 07777);
	if (chown(DEVICE, self->device.st_uid, self->device.st_gid))
		TH_LOG("chown: %s", strerror(errno));
	EXPECT_EQ(0, agent_stop(&self->agent));
}

TEST_F(user, cannot_open_device_by_default)
{
	EXPECT_EQ(0600, (int)self->device.st_mode & 07777);
	EXPECT_EQ(0, (int)self->device.st_uid);
	ASSERT_EQ(0, agent_call(&self->agent, become_user, NULL));
	EXPECT_EQ(-EACCES, agent_call(&self->agent, use_it, NULL));
}

/* what a rule for udev does */
TEST_F(user, in_device_group_needs_no_capability)
{
	ASSERT_EQ(0, chown(DEVICE, 0, GROUP));
	ASSERT_EQ(0, chmod(DEVICE, 0660));
	ASSERT_EQ(0, agent_call(&self->agent, become_user, (void *)1));
	EXPECT_EQ('a', agent_call(&self->agent, use_it, NULL));
}

TEST_F(user, outside_device_group_is_refused)
{
	ASSERT_EQ(0, chown(DEVICE, 0, GROUP));
	ASSERT_EQ(0, chmod(DEVICE, 0660));
	ASSERT_EQ(0, agent_call(&self->agent, become_user, NULL));
	EXPECT_EQ(-EACCES, agent_call(&self->agent, use_it, NULL));
}

/* The checks apply to the process that maps, although root created the space. */
TEST_F(user, maps_only_what_it_may_mmap)
{
	struct space s;
	long given;
	int fd, ro;

	ASSERT_EQ(0, space_init(&s));
	ASSERT_EQ(0, agent_call(&self->agent, become_user, NULL));
	fd = agent_take_fd(&self->agent, s.asfd);
	ASSERT_LE(0, fd);
	given = agent_take_fd(&self->agent, s.a);
	ASSERT_LE(0, given);
	EXPECT_EQ(0, agent_call(&self->agent, map_given, (void *)(given << 16 | fd)));
	EXPECT_EQ('a', peek(s.mem));
	ASSERT_EQ(0, as_unmap(s.asfd, 0, SPACE_LEN));

	/* open for reading only, although root could open it for more */
	ro = open("/proc/self/exe", O_RDONLY);
	given = agent_take_fd(&self->agent, ro);
	ASSERT_LE(0, given);
	EXPECT_EQ(-EACCES, agent_call(&self->agent, map_given, (void *)(given << 16 | fd)));
	EXPECT_EQ(-SIGBUS, peek(s.mem));
	close(ro);
	space_free(&s);
}

TEST_HARNESS_MAIN

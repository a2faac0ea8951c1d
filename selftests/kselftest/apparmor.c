// SPDX-License-Identifier: GPL-2.0
/*
 * A security module judges a map as a call of the caller, although a kernel worker
 * makes the mapping. A process confined by AppArmor can map into an address space
 * what it may mmap(), and no other file, even if the file is already open.
 */
#include "kselftest_harness.h"
#include "lib/as_util.h"

#define OPENER	"address_space_opener"
#define PROFILE	"address_space_selftest"
#define OPEN	"/tmp/address_space_open"
#define CLOSED	"/tmp/address_space_closed"

/* AppArmor does not check a file again that an unconfined process opened. */
static const char profile[] =
	"profile " OPENER " flags=(attach_disconnected) {\n"
	"	file, capability, signal, unix, ptrace,\n"
	"	change_profile -> " PROFILE ",\n"
	"}\n"
	"profile " PROFILE " flags=(attach_disconnected) {\n"
	"	file, capability, signal, unix, ptrace,\n"
	"	deny " CLOSED " rwm,\n"
	"}\n";

static int make_file(const char *path)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	int ret = fd < 0 ? -errno : fill_pages(fd, FILE_PAGES, 'a');

	close(fd);
	return ret;
}

/* The parser takes "r" to load and "R" to remove. */
static int parser(char action)
{
	char command[64];
	FILE *in;

	snprintf(command, sizeof(command), "apparmor_parser -%cKq", action);
	in = popen(command, "w");
	if (!in)
		return -errno;
	fputs(profile, in);
	return pclose(in) ? -EIO : 0;
}

FIXTURE(confined)
{
	struct space s;
	struct agent agent;
};

/* What the agent works on; it was forked with the address space. */
static int asfd, open_file, closed_file;

static long confine(void *arg)
{
	static const char path[] = "/proc/self/attr/apparmor/current";
	int err = write_text(path, "changeprofile " OPENER);

	(void)arg;
	if (err)
		return err;
	open_file = open(OPEN, O_RDWR);
	closed_file = open(CLOSED, O_RDWR);
	if (open_file < 0 || closed_file < 0)
		return -errno;
	return write_text(path, "changeprofile " PROFILE);
}

static long mmap_open(void *arg)
{
	(void)arg;
	return attach(open_file, 0, PAGE, RW) ? 0 : -errno;
}

static long mmap_closed(void *arg)
{
	(void)arg;
	return attach(closed_file, 0, PAGE, RW) ? 0 : -errno;
}

static long map_open(void *arg)
{
	(void)arg;
	return as_map(asfd, 0, open_file, 0, FILE_LEN, RW, 0);
}

static long map_closed(void *arg)
{
	(void)arg;
	return as_map(asfd, FILE_LEN, closed_file, 0, FILE_LEN, RW, 0);
}

static long register_closed(void *arg)
{
	(void)arg;
	return as_register(asfd, closed_file, 0, 0, RW, 0);
}

FIXTURE_SETUP(confined)
{
	char enabled[8] = "";

	read_text("/sys/module/apparmor/parameters/enabled", enabled, sizeof(enabled));
	if (enabled[0] != 'Y')
		SKIP(return, "no AppArmor");
	if (!access("/sys/kernel/security/apparmor", F_OK) ||
	    system("mount -t securityfs none /sys/kernel/security") == 0)
		ASSERT_EQ(0, access("/sys/kernel/security/apparmor", F_OK));
	if (system("command -v apparmor_parser >/dev/null"))
		SKIP(return, "no apparmor_parser");
	ASSERT_EQ(0, parser('r'));
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, make_file(OPEN));
	ASSERT_EQ(0, make_file(CLOSED));
	asfd = self->s.asfd;
	ASSERT_EQ(0, agent_start(&self->agent));
	ASSERT_EQ(0, agent_call(&self->agent, confine, NULL));
}

FIXTURE_TEARDOWN(confined)
{
	agent_stop(&self->agent);
	space_free(&self->s);
	unlink(OPEN);
	unlink(CLOSED);
	parser('R');
}

TEST_F(confined, maps_what_it_may_mmap)
{
	EXPECT_EQ(0, agent_call(&self->agent, mmap_open, NULL));
	EXPECT_EQ(0, agent_call(&self->agent, map_open, NULL));
	EXPECT_EQ('b', peek(self->s.mem + PAGE));
}

TEST_F(confined, maps_nothing_else)
{
	EXPECT_EQ(-EACCES, agent_call(&self->agent, mmap_closed, NULL));
	EXPECT_EQ(-EACCES, agent_call(&self->agent, map_closed, NULL));
	EXPECT_EQ(-EACCES, agent_call(&self->agent, register_closed, NULL));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + FILE_LEN));
}

/* The rights of another process do not bypass the check. */
TEST_F(confined, gains_nothing_from_unconfined_process)
{
	int fd = open(CLOSED, O_RDWR | O_CLOEXEC);

	ASSERT_EQ(0, as_register(self->s.asfd, fd, 0, 0, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 2 * FILE_LEN, fd, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(-EACCES, agent_call(&self->agent, map_closed, NULL));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + FILE_LEN));
	EXPECT_EQ('a', peek(self->s.mem + 2 * FILE_LEN));
}

TEST_HARNESS_MAIN

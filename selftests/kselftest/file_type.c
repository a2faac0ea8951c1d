// SPDX-License-Identifier: GPL-2.0
/*
 * An asfd and a view are regular files: they have a size, a name and an owner, and can be
 * opened again through /proc, never for more than they allow.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define USER	4242

static int reopen(int fd, int flags)
{
	char path[64];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, flags | O_CLOEXEC);
	return again < 0 ? -errno : again;
}

static int create_named(uint64_t length, const char *name)
{
	struct address_space_create arg = {
		.size = sizeof(arg), .length = length, .name = (uintptr_t)name,
	};
	int dev = open("/dev/address_space", O_RDWR | O_CLOEXEC);
	int ret = as_ioctl(dev, ADDRESS_SPACE_CREATE, &arg);

	close(dev);
	return ret;
}

static int view_named(int asfd, const char *name)
{
	struct address_space_view arg = {
		.size = sizeof(arg), .length = PAGE, .prot = PROT_READ,
		.name = (uintptr_t)name,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_VIEW, &arg);
}

/* what /proc says the file is called */
static const char *path_of(int fd)
{
	static char target[512];
	char path[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof(target) - 1);
	target[len < 0 ? 0 : len] = 0;
	return target;
}

FIXTURE(type)
{
	struct space s;
};

FIXTURE_SETUP(type)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(type)
{
	space_free(&self->s);
}

TEST_F(type, is_that_of_a_regular_file)
{
	int view = as_view(self->s.asfd, PAGE, 2 * PAGE, PROT_READ);
	struct stat st;
	struct statfs fs;

	ASSERT_EQ(0, fstat(self->s.asfd, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(0600, (int)st.st_mode & 07777);
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
	/* what is mapped, and not what of it is in memory */
	EXPECT_EQ((blkcnt_t)(FILE_LEN / 512), st.st_blocks);
	EXPECT_EQ(geteuid(), (unsigned int)st.st_uid);
	ASSERT_EQ(0, fstat(view, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(0400, (int)st.st_mode & 07777);
	EXPECT_EQ((off_t)(2 * PAGE), st.st_size);
	EXPECT_EQ((blkcnt_t)0, st.st_blocks);
	ASSERT_EQ(0, fstatfs(view, &fs));
	EXPECT_EQ((long)PAGE, (long)fs.f_bsize);
	close(view);
}

TEST_F(type, opened_again_is_the_same_space)
{
	int again = reopen(self->s.asfd, O_RDWR);
	char *mem;

	ASSERT_LE(0, again);
	mem = attach(again, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('a', peek(mem));
	ASSERT_EQ(0, as_map(again, 0, self->s.b, 0, PAGE, RW, ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('A', peek(mem));
	EXPECT_EQ('A', peek(self->s.mem));
	/* which it keeps, without the file that it was opened by */
	ASSERT_EQ(0, munmap(self->s.mem, SPACE_LEN));
	close(self->s.asfd);
	EXPECT_EQ('b', peek(mem + PAGE));
	ASSERT_EQ(0, as_unmap(again, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ(1, fdinfo_value(again, "attachments"));
	self->s.asfd = again;
}

TEST_F(type, opened_for_reading_changes_nothing)
{
	int file = reopen(self->s.asfd, O_RDONLY), view;
	struct address_space_op op = { .opcode = ADDRESS_SPACE_OP_MUNMAP, .length = PAGE };
	char *mem;

	ASSERT_LE(0, file);
	EXPECT_REFUSED(self->s.asfd, EBADF, as_map(file, 0, self->s.b, 0, PAGE, RW,
						   ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_unmap(file, 0, PAGE));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_protect(file, 0, PAGE, PROT_READ));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_move(file, 0, PAGE, 20 * PAGE, 0));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_register(file, self->s.b, 0, PAGE, RW, 0));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_unregister(file, self->s.a));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_batch(file, &op, 1, NULL));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_events(file, 0, 0, 0));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_poison(file, 0, PAGE, 0));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_part(file, 0, PAGE, PROT_READ));
	/* nor does what can be had of it */
	EXPECT_EQ(NULL, attach(file, 0, PAGE, RW));
	EXPECT_EQ(EACCES, errno);
	EXPECT_REFUSED(self->s.asfd, EACCES, as_view(file, 0, PAGE, RW));
	view = as_view(file, 0, PAGE, PROT_READ);
	ASSERT_LE(0, view);
	mem = attach(file, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(-1, mprotect(mem, PAGE, RW));
	EXPECT_EQ(-SIGSEGV, poke(mem, '!'));
	/* but it can be opened again for more by whoever may */
	close(view);
	view = reopen(file, O_RDWR);
	EXPECT_LE(0, view);
	EXPECT_EQ(0, as_unmap(view, 0, PAGE));
	close(view);
	close(file);
}

TEST_F(type, opened_for_writing_only_shows_nothing)
{
	int file = reopen(self->s.asfd, O_WRONLY);

	ASSERT_LE(0, file);
	EXPECT_EQ(NULL, attach(file, 0, PAGE, PROT_READ));
	EXPECT_EQ(EACCES, errno);
	EXPECT_REFUSED(self->s.asfd, EACCES, as_view(file, 0, PAGE, PROT_READ));
	EXPECT_EQ(0, as_unmap(file, 0, PAGE));
	close(file);
}

TEST_F(type, view_is_never_opened_for_more)
{
	int view = as_view(self->s.asfd, 0, PAGE, PROT_READ), again;

	/* not even with all capabilities, or when its mode allows it */
	ASSERT_EQ(0U, geteuid());
	EXPECT_EQ(-EACCES, reopen(view, O_RDWR));
	EXPECT_EQ(-EACCES, reopen(view, O_WRONLY));
	ASSERT_EQ(0, fchmod(view, 0777));
	EXPECT_EQ(-EACCES, reopen(view, O_RDWR));
	again = reopen(view, O_RDONLY);
	ASSERT_LE(0, again);
	EXPECT_EQ(NULL, attach(again, 0, PAGE, RW));
	EXPECT_EQ(-ENOTTY, as_unmap(again, 0, PAGE));
	EXPECT_NE(NULL, attach(again, 0, PAGE, PROT_READ));
	close(again);
	close(view);
	/* one for writing can be */
	view = as_view(self->s.asfd, 0, PAGE, RW);
	again = reopen(view, O_RDWR);
	EXPECT_NE(NULL, attach(again, 0, PAGE, RW));
	EXPECT_EQ(NULL, attach(again, 0, PAGE, RX));
	close(again);
	close(view);
}

static long as_other_user(void *arg)
{
	int fd = (int)(intptr_t)arg, flags = fd & O_ACCMODE;

	if (setgid(USER) || setuid(USER))
		return -errno;
	/* or /proc would be closed to it */
	prctl(PR_SET_DUMPABLE, 1);
	return reopen(fd >> 2, flags);
}

TEST_F(type, opened_again_is_checked_as_any_file)
{
	int asfd = self->s.asfd, view = as_view(asfd, 0, PAGE, PROT_READ);
	struct {
		int fd, mode, flags;
		long expected;
	} *c, cases[] = {
		{ asfd, 0600, O_RDWR, -EACCES }, { asfd, 0600, O_RDONLY, -EACCES },
		{ asfd, 0644, O_RDWR, -EACCES }, { asfd, 0644, O_RDONLY, 0 },
		{ asfd, 0666, O_RDWR, 0 },
		{ view, 0400, O_RDONLY, -EACCES }, { view, 0444, O_RDONLY, 0 },
		{ view, 0666, O_RDWR, -EACCES },
	};

	for (c = cases; c < cases + sizeof(cases) / sizeof(cases[0]); c++) {
		struct agent agent;
		long ret;

		ASSERT_EQ(0, fchmod(c->fd, c->mode));
		ASSERT_EQ(0, agent_start(&agent));
		ret = agent_call(&agent, as_other_user,
				 (void *)(intptr_t)(c->fd << 2 | c->flags));
		EXPECT_EQ(c->expected, ret < 0 ? ret : 0) TH_LOG("case %zd", c - cases);
		agent_stop(&agent);
	}
	close(view);
}

TEST_F(type, has_a_size_that_does_not_change)
{
	EXPECT_EQ(-1, ftruncate(self->s.asfd, PAGE));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, ftruncate(self->s.asfd, 2 * SPACE_LEN));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, ftruncate(self->s.asfd, SPACE_LEN));
	EXPECT_EQ(-EPERM, reopen(self->s.asfd, O_RDWR | O_TRUNC));
	EXPECT_EQ(-1, fallocate(self->s.asfd, 0, 0, PAGE));
	EXPECT_EQ((off_t)SPACE_LEN, lseek(self->s.asfd, 0, SEEK_END));
	EXPECT_EQ('a', peek(self->s.mem));
}

TEST_F(type, has_the_name_that_was_given)
{
	char longest[ADDRESS_SPACE_NAME_MAX + 2], line[1024];
	FILE *maps;
	bool found = false;
	int fd = create_named(PAGE, "ram"), view;

	ASSERT_LE(0, fd);
	EXPECT_STREQ("/address_space:ram (deleted)", path_of(fd));
	ASSERT_NE(NULL, attach(fd, 0, PAGE, RW));
	maps = fopen("/proc/self/maps", "r");
	ASSERT_NE(NULL, maps);
	while (fgets(line, sizeof(line), maps))
		found |= !!strstr(line, " /address_space:ram (deleted)");
	fclose(maps);
	EXPECT_TRUE(found);
	view = view_named(fd, "of the device");
	EXPECT_STREQ("/address_space_view:of the device (deleted)", path_of(view));
	close(view);
	view = view_named(fd, NULL);
	EXPECT_STREQ("/address_space_view (deleted)", path_of(view));
	close(view);
	EXPECT_STREQ("/address_space (deleted)", path_of(self->s.asfd));
	close(fd);

	memset(longest, 'x', sizeof(longest));
	longest[ADDRESS_SPACE_NAME_MAX] = 0;
	fd = create_named(PAGE, longest);
	EXPECT_LE(0, fd);
	EXPECT_NE(NULL, strstr(path_of(fd), longest));
	close(fd);
	longest[ADDRESS_SPACE_NAME_MAX] = 'x';
	longest[ADDRESS_SPACE_NAME_MAX + 1] = 0;
	EXPECT_REFUSED(self->s.asfd, EINVAL, create_named(PAGE, longest));
	EXPECT_REFUSED(self->s.asfd, EINVAL, view_named(self->s.asfd, longest));
	EXPECT_REFUSED(self->s.asfd, EFAULT, create_named(PAGE, (char *)8));
	EXPECT_REFUSED(self->s.asfd, EFAULT, view_named(self->s.asfd, (char *)-8));
}

TEST(is_not_opened_again_when_it_has_gone)
{
	int asfd = as_create(SPACE_LEN), path = reopen(asfd, O_PATH), again;

	ASSERT_LE(0, path);
	again = reopen(path, O_RDWR);
	ASSERT_LE(0, again);
	close(asfd);
	asfd = reopen(path, O_RDWR);
	ASSERT_LE(0, asfd);
	close(asfd);
	close(again);
	EXPECT_EQ(-ENXIO, reopen(path, O_RDWR));
	close(path);
}

struct race {
	int path;
	atomic_bool done;
	atomic_ulong opened, gone, wrong;
};

static void *open_again(void *arg)
{
	struct race *race = arg;

	while (!race->done) {
		int fd = reopen(race->path, O_RDWR);
		void *mem;

		if (fd == -ENXIO || fd == -ENOENT) {
			race->gone++;
			continue;
		}
		mem = fd < 0 ? NULL : attach(fd, 0, PAGE, RW);
		if (!mem || peek(mem) != -SIGBUS || munmap(mem, PAGE))
			race->wrong++;
		race->opened++;
		if (fd >= 0)
			close(fd);
	}
	return NULL;
}

/* Its last file is closed while others open it. */
TEST(opened_while_it_goes_is_whole_or_gone)
{
	uint64_t end = now_ms() + race_ms();
	struct race race = {};
	pthread_t threads[2];
	unsigned long rounds = 0;
	int i;

	while (now_ms() < end) {
		int asfd = as_create(PAGE);

		race.path = reopen(asfd, O_PATH);
		ASSERT_LE(0, race.path);
		race.done = false;
		for (i = 0; i < 2; i++)
			ASSERT_EQ(0, pthread_create(&threads[i], NULL, open_again, &race));
		sleep_ms(rounds % 5);
		close(asfd);
		sleep_ms(rounds % 3);
		race.done = true;
		for (i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		close(race.path);
		rounds++;
	}
	EXPECT_EQ(0UL, race.wrong);
	EXPECT_NE(0UL, race.opened);
	EXPECT_NE(0UL, race.gone);
	TH_LOG("%lu rounds, %lu opened, %lu gone", rounds, race.opened, race.gone);
}

TEST_HARNESS_MAIN

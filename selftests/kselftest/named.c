// SPDX-License-Identifier: GPL-2.0
/*
 * A mounted file system has files that are address spaces: what opens a path opens the
 * space. As far as it is allowed to: see named_rights.c.
 */
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

FIXTURE(named)
{
	char dir[64], path[80];
	int fd;		/* read and write, of SPACE_LEN */
	int a;		/* memfd of FILE_PAGES: 'a', 'b', ... */
};

FIXTURE_SETUP(named)
{
	self->fd = named_space(self->dir, self->path, sizeof(self->path));
	ASSERT_LE(0, self->fd);
	self->a = memfd_pages("a", FILE_PAGES, 'a');
	ASSERT_LE(0, self->a);
}

FIXTURE_TEARDOWN(named)
{
	end_named_space(self->fd, self->dir);
	close(self->a);
}

TEST_F(named, file_is_a_space)
{
	int again = open(self->path, O_RDWR | O_CLOEXEC), view;
	struct statfs fs;
	struct stat st;
	char *mem, *other;

	ASSERT_LE(0, again);
	mem = attach(self->fd, 0, SPACE_LEN, RW);
	other = attach(again, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_NE(NULL, other);
	EXPECT_EQ(-SIGBUS, peek(mem));
	ASSERT_EQ(0, as_map(again, 0, self->a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ('b', peek(other + PAGE));
	ASSERT_EQ(0, poke(mem, '!'));
	EXPECT_EQ('!', file_byte(self->a, 0));
	view = as_view(self->fd, PAGE, PAGE, PROT_READ);
	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_unmap(self->fd, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ(-SIGBUS, peek(other));
	EXPECT_EQ(2, fdinfo_value(again, "attachments"));
	ASSERT_EQ(0, fstat(again, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
	EXPECT_EQ((blkcnt_t)((FILE_LEN - PAGE) / 512), st.st_blocks);
	EXPECT_EQ((long long)st.st_ino, fdinfo_value(self->fd, "space"));
	EXPECT_EQ((long long)st.st_ino, fdinfo_value(view, "space"));
	ASSERT_EQ(0, statfs(self->path, &fs));
	EXPECT_EQ(ADDRESS_SPACE_MAGIC, fs.f_type);
	EXPECT_EQ((off_t)PAGE, lseek(again, 0, SEEK_DATA));
	close(view);
	close(again);
}

/* each mmap() of the same file, by whichever open file, is reached by one revocation */
TEST_F(named, file_that_was_opened_before_it_had_a_length_shows_the_space)
{
	char path[80];
	int early, late;
	char *mem;

	snprintf(path, sizeof(path), "%s/early", self->dir);
	early = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	late = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, early);
	ASSERT_LE(0, late);
	EXPECT_EQ(-ENODATA, as_map(early, 0, self->a, 0, PAGE, RW, 0));
	EXPECT_EQ(-ENODATA, as_view(early, 0, PAGE, PROT_READ));
	EXPECT_EQ(NULL, attach(early, 0, PAGE, RW));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, lseek(early, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(0, fsync(early));
	/* lengths that no space can have leave it without one */
	EXPECT_EQ(-1, ftruncate(late, PAGE + 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, truncate(path, 1LL << 60));
	EXPECT_EQ(EINVAL, errno);
	ASSERT_EQ(0, ftruncate(late, 0));
	ASSERT_EQ(0, ftruncate(late, FILE_LEN));
	mem = attach(early, 0, FILE_LEN, RW);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(early, 0, self->a, 0, PAGE, RW, 0));
	EXPECT_EQ('a', peek(mem));
	ASSERT_EQ(0, as_unmap(late, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	close(early);
	close(late);
}

TEST_F(named, length_is_given_once)
{
	struct stat st;

	EXPECT_EQ(0, ftruncate(self->fd, SPACE_LEN));
	EXPECT_EQ(-1, ftruncate(self->fd, PAGE));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, truncate(self->path, 2 * SPACE_LEN));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-1, open(self->path, O_RDWR | O_TRUNC | O_CLOEXEC));
	EXPECT_EQ(EPERM, errno);
	ASSERT_EQ(0, stat(self->path, &st));
	EXPECT_EQ((off_t)SPACE_LEN, st.st_size);
}

/* the space holds what it maps as long as anybody has it, and no longer */
TEST_F(named, unlinked_space_goes_with_its_last_user)
{
	char dir[64];
	char *mem;
	int file;

	ASSERT_EQ(0, mount_tmpfs(dir, "size=1m"));
	file = file_pages(dir, FILE_PAGES, 'x');
	ASSERT_LE(0, file);
	ASSERT_EQ(0, as_map(self->fd, 0, file, 0, FILE_LEN, RW, 0));
	close(file);
	mem = attach(self->fd, 0, PAGE, RW);
	ASSERT_NE(NULL, mem);
	close(self->fd);
	EXPECT_EQ('x', peek(mem));
	EXPECT_EQ(-1, umount2(dir, 0));
	/* nobody has it open or attached: it stays, since it has a name */
	ASSERT_EQ(0, munmap(mem, PAGE));
	self->fd = open(self->path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->fd);
	mem = attach(self->fd, 0, PAGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('x', peek(mem));
	ASSERT_EQ(0, unlink(self->path));
	close(self->fd);
	EXPECT_EQ('x', peek(mem));
	EXPECT_EQ(-1, umount2(dir, 0));
	ASSERT_EQ(0, munmap(mem, PAGE));
	EXPECT_EQ(0, umount_within(dir, WORKER_MS));
	rmdir(dir);
	self->fd = -1;
}

TEST_F(named, view_outlives_the_file)
{
	int view = as_view(self->fd, 0, SPACE_LEN, PROT_READ);
	char *mem;

	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_map(self->fd, 0, self->a, 0, FILE_LEN, RW, 0));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, unlink(self->path));
	ASSERT_EQ(0, umount2(self->dir, 0));
	mem = attach(view, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('a', peek(mem));
	close(view);
}

TEST_F(named, names_change_as_in_any_directory)
{
	char dir[80], path[96], proc[64];
	struct stat st, other;
	int fd;

	snprintf(dir, sizeof(dir), "%s/sub", self->dir);
	ASSERT_EQ(0, mkdir(dir, 0700));
	snprintf(path, sizeof(path), "%s/renamed", dir);
	ASSERT_EQ(0, fstat(self->fd, &st));
	ASSERT_EQ(0, rename(self->path, path));
	ASSERT_EQ(0, link(path, self->path));
	ASSERT_EQ(0, stat(path, &other));
	EXPECT_EQ(st.st_ino, other.st_ino);
	EXPECT_EQ(2U, (unsigned int)other.st_nlink);
	EXPECT_EQ(-1, rmdir(dir));
	EXPECT_EQ(ENOTEMPTY, errno);
	/* one space takes the other's place, whose last user it had not been */
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_EQ(0, unlink(path));
	ASSERT_EQ(0, rmdir(dir));
	ASSERT_EQ(0, fstat(fd, &other));
	EXPECT_EQ(1U, (unsigned int)other.st_nlink);
	close(fd);
	/* a nameless one gets a name */
	fd = open(self->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, PAGE));
	ASSERT_EQ(0, as_map(fd, 0, self->a, 0, PAGE, RW, 0));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	snprintf(path, sizeof(path), "%s/was_nameless", self->dir);
	ASSERT_EQ(0, linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
	close(fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(1, fdinfo_value(fd, "mappings"));
	close(fd);
	/* and nothing else is kept there */
	EXPECT_EQ(-1, symlink("x", path));
	EXPECT_EQ(-1, mknod(path, S_IFIFO | 0600, 0));
}

/* overlayfs shows the file as one of its own, with other operations */
TEST_F(named, space_behind_an_overlay_cannot_be_mapped)
{
	char dir[64], options[256], path[96];
	int other, over;
	char *mem;

	if (system("modprobe -aq overlay; grep -qw overlay /proc/filesystems"))
		SKIP(return, "no overlayfs");
	ASSERT_EQ(0, mount_tmpfs(dir, "size=1m"));
	snprintf(path, sizeof(path), "%s/up", dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	snprintf(path, sizeof(path), "%s/work", dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	snprintf(path, sizeof(path), "%s/over", dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s/up,workdir=%s/work",
		 self->dir, dir, dir);
	ASSERT_EQ(0, mount("overlay", path, "overlay", 0, options));
	strcat(path, "/ram");
	over = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, over);
	/* it can be attached, as below */
	mem = attach(over, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->fd, 0, self->a, 0, PAGE, RW, 0));
	EXPECT_EQ('a', peek(mem));
	ASSERT_EQ(0, as_unmap(self->fd, 0, PAGE));
	EXPECT_EQ(-SIGBUS, peek(mem));
	ASSERT_EQ(0, munmap(mem, PAGE));
	/* but not in another space, nor in itself */
	other = as_create(SPACE_LEN);
	ASSERT_LE(0, other);
	EXPECT_REFUSED(other, ENODEV, as_map(other, 0, over, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(self->fd, ENODEV, as_map(self->fd, 0, over, 0, PAGE, PROT_READ, 0));
	EXPECT_REFUSED(other, ENODEV, as_register(other, over, 0, PAGE, PROT_READ, 0));
	close(other);
	close(over);
	snprintf(path, sizeof(path), "%s/over", dir);
	ASSERT_EQ(0, umount2(path, 0));
	ASSERT_EQ(0, umount_within(dir, WORKER_MS));
}

struct race {
	char path[96];
	int file;
};

/* opens, lengthens, maps and attaches for as long as it runs; whatever fails, fails cleanly */
static long work(void *arg)
{
	struct race *race = arg;
	uint64_t until = now_ms() + race_ms();
	long rounds = 0;

	while (now_ms() < until) {
		int fd = open(race->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		char *mem;
		int byte;

		if (fd < 0)
			return -errno;
		/* one gives it its length; to the others it has it */
		if (ftruncate(fd, FILE_LEN))
			return -errno;
		mem = attach(fd, 0, FILE_LEN, PROT_READ);
		if (!mem)
			return -errno;
		as_map(fd, 0, race->file, 0, PAGE, RW, ADDRESS_SPACE_MAP_REPLACE);
		byte = peek(mem);
		if (byte != 'a')
			return -EIO;
		munmap(mem, FILE_LEN);
		if (rounds % 3 == 0)
			unlink(race->path);
		close(fd);
		rounds++;
	}
	return rounds;
}

/* creating, giving a length, unlinking and the last close, all at once */
TEST_F(named, creators_and_unlinkers_race)
{
	struct race race = { .file = self->a };
	pid_t pids[4];
	int status;

	snprintf(race.path, sizeof(race.path), "%s/race", self->dir);
	for (unsigned int i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			long rounds = work(&race);

			if (rounds > 0)
				TH_LOG("%ld rounds", rounds);
			_exit(rounds > 0 ? 0 : -rounds ?: 255);
		}
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(pids); i++) {
		ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
		EXPECT_EQ(0, status);
	}
	unlink(race.path);
	close(self->fd);
	self->fd = -1;
	/* nothing holds the file system any more */
	EXPECT_EQ(0, umount_within(self->dir, WORKER_MS));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * A mounted file system has files that are address spaces: what opens a path opens the
 * space, as far as the file's mode, owner and ACL allow.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define USER	4242

FIXTURE(named)
{
	char dir[64], path[80];
	int fd;		/* read and write, of SPACE_LEN */
	int a;		/* memfd of FILE_PAGES: 'a', 'b', ... */
};

FIXTURE_SETUP(named)
{
	ASSERT_EQ(0, own_mounts());
	ASSERT_EQ(0, mount_spaces(self->dir, ""));
	snprintf(self->path, sizeof(self->path), "%s/ram", self->dir);
	self->fd = open(self->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, SPACE_LEN));
	self->a = memfd_pages("a", FILE_PAGES, 'a');
	ASSERT_LE(0, self->a);
}

FIXTURE_TEARDOWN(named)
{
	close(self->fd);
	close(self->a);
	umount2(self->dir, MNT_DETACH);
	rmdir(self->dir);
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

static long open_as_user(const char *path, int flags)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		int fd = -1;

		if (!setgid(USER) && !setuid(USER))
			fd = open(path, flags | O_CLOEXEC, 0600);
		_exit(fd < 0 ? errno : 0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -EIO;
	return -WEXITSTATUS(status);
}

/* user::rw-, user:USER:@perm, group::---, mask::rwx, other::--- */
static int allow_user(const char *path, const char *name, uint16_t perm)
{
	struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entries[5];
	} acl = { 2, {
		{ 0x01, 6, UINT32_MAX }, { 0x02, perm, USER }, { 0x04, 0, UINT32_MAX },
		{ 0x10, 7, UINT32_MAX }, { 0x20, 0, UINT32_MAX },
	} };

	return setxattr(path, name, &acl, sizeof(acl), 0) ? -errno : 0;
}

TEST_F(named, mode_owner_and_acl_decide_who_may_open_it)
{
	char path[80], acl[256];
	struct stat st;
	int fd;

	ASSERT_EQ(0, chmod(self->dir, 0777));
	EXPECT_EQ(-EACCES, open_as_user(self->path, O_RDONLY));
	ASSERT_EQ(0, chmod(self->path, 0644));
	EXPECT_EQ(0, open_as_user(self->path, O_RDONLY));
	EXPECT_EQ(-EACCES, open_as_user(self->path, O_RDWR));
	ASSERT_EQ(0, chmod(self->path, 0600));
	ASSERT_EQ(0, allow_user(self->path, "system.posix_acl_access", 6));
	EXPECT_EQ(0, open_as_user(self->path, O_RDWR));
	EXPECT_EQ(44, getxattr(self->path, "system.posix_acl_access", acl, sizeof(acl)));
	/* chmod() cuts the mask */
	ASSERT_EQ(0, chmod(self->path, 0640));
	EXPECT_EQ(-EACCES, open_as_user(self->path, O_RDWR));
	EXPECT_EQ(0, open_as_user(self->path, O_RDONLY));
	ASSERT_EQ(0, removexattr(self->path, "system.posix_acl_access"));
	EXPECT_EQ(-EACCES, open_as_user(self->path, O_RDONLY));
	ASSERT_EQ(0, chown(self->path, USER, USER));
	EXPECT_EQ(0, open_as_user(self->path, O_RDWR));
	/* what a directory gives to its files */
	ASSERT_EQ(0, allow_user(self->dir, "system.posix_acl_default", 4));
	snprintf(path, sizeof(path), "%s/inherits", self->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
	ASSERT_LE(0, fd);
	close(fd);
	EXPECT_EQ(0, open_as_user(path, O_RDONLY));
	EXPECT_EQ(-EACCES, open_as_user(path, O_RDWR));
	ASSERT_EQ(0, removexattr(self->dir, "system.posix_acl_default"));
	/* and where it gives nothing, the umask holds */
	umask(027);
	snprintf(path, sizeof(path), "%s/umask", self->dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(0640, (int)st.st_mode & 07777);
	close(fd);
}

static bool lists(const char *path, const char *name)
{
	char names[256];
	ssize_t len = listxattr(path, names, sizeof(names));

	for (ssize_t at = 0; at < len; at += strlen(names + at) + 1)
		if (!strcmp(names + at, name))
			return true;
	return false;
}

/* as programs find it that copy or show a directory */
TEST_F(named, acl_is_listed_if_there_is_one)
{
	EXPECT_FALSE(lists(self->path, "system.posix_acl_access"));
	ASSERT_EQ(0, allow_user(self->path, "system.posix_acl_access", 6));
	EXPECT_TRUE(lists(self->path, "system.posix_acl_access"));
	EXPECT_FALSE(lists(self->dir, "system.posix_acl_default"));
	ASSERT_EQ(0, allow_user(self->dir, "system.posix_acl_default", 6));
	EXPECT_TRUE(lists(self->dir, "system.posix_acl_default"));
	ASSERT_EQ(0, removexattr(self->path, "system.posix_acl_access"));
	EXPECT_FALSE(lists(self->path, "system.posix_acl_access"));
}

/* a user namespace in which @user is user @inside */
static int user_namespace(unsigned int inside, unsigned int user)
{
	char path[64], map[64];
	int ready[2], fd = -EIO, maps;
	pid_t pid;
	char byte;

	if (pipe(ready))
		return -errno;
	pid = fork();
	if (!pid) {
		byte = unshare(CLONE_NEWUSER) ? 'n' : 'y';
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(0);
	}
	snprintf(map, sizeof(map), "%u %u 1", inside, user);
	if (read(ready[0], &byte, 1) == 1 && byte == 'y') {
		fd = 0;
		for (unsigned int i = 0; i < 2 && !fd; i++) {
			snprintf(path, sizeof(path), "/proc/%d/%cid_map", pid, "ug"[i]);
			maps = open(path, O_WRONLY | O_CLOEXEC);
			if (maps < 0 || write(maps, map, strlen(map)) < 0)
				fd = -errno;
			close(maps);
		}
		snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
		if (!fd)
			fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	return fd;
}

/* what root owns is the user's there, and what the user makes there is root's */
TEST_F(named, mount_with_mapped_ids_has_other_owners)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_IDMAP,
	};
	char dir[] = "/tmp/mapped.XXXXXX", path[80];
	struct stat st;
	int tree, ns = user_namespace(0, USER);

	ASSERT_LE(0, ns);
	attr.userns_fd = (unsigned int)ns;
	ASSERT_NE(NULL, mkdtemp(dir));
	tree = open_tree(AT_FDCWD, self->dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	ASSERT_LE(0, tree);
	ASSERT_EQ(0, mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
	ASSERT_EQ(0, move_mount(tree, "", AT_FDCWD, dir, MOVE_MOUNT_F_EMPTY_PATH));

	snprintf(path, sizeof(path), "%s/ram", dir);
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ((uid_t)USER, st.st_uid);
	EXPECT_EQ(0, open_as_user(path, O_RDWR));
	EXPECT_EQ(-EACCES, open_as_user(self->path, O_RDWR));
	/* who is nobody there makes nothing */
	snprintf(path, sizeof(path), "%s/of-root", dir);
	EXPECT_EQ(-1, open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	EXPECT_EQ(EOVERFLOW, errno);
	snprintf(path, sizeof(path), "%s/of-user", dir);
	EXPECT_EQ(0, open_as_user(path, O_RDWR | O_CREAT));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ((uid_t)USER, st.st_uid);
	snprintf(path, sizeof(path), "%s/of-user", self->dir);
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ(0U, st.st_uid);

	close(tree);
	ASSERT_EQ(0, umount2(dir, 0));
	rmdir(dir);
	close(ns);
}

TEST_F(named, opened_for_reading_changes_nothing)
{
	int file = open(self->path, O_RDONLY | O_CLOEXEC);
	char *mem;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, as_map(self->fd, 0, self->a, 0, FILE_LEN, RW, 0));
	EXPECT_REFUSED(self->fd, EBADF, as_unmap(file, 0, PAGE));
	EXPECT_REFUSED(self->fd, EBADF, as_map(file, 0, self->a, 0, PAGE, RW,
					       ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_REFUSED(self->fd, EACCES, as_view(file, 0, PAGE, RW));
	EXPECT_EQ(NULL, attach(file, 0, PAGE, RW));
	EXPECT_EQ(EACCES, errno);
	mem = attach(file, 0, PAGE, PROT_READ);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(-1, mprotect(mem, PAGE, RW));
	close(file);
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

static bool in_mounts(const char *dir, const char *options)
{
	char line[512], want[256];
	FILE *mounts = fopen("/proc/self/mounts", "r");
	bool found = false;

	snprintf(want, sizeof(want), "none %s address_space rw,relatime%s 0 0\n", dir, options);
	while (!found && fgets(line, sizeof(line), mounts))
		found = !strcmp(line, want);
	fclose(mounts);
	return found;
}

TEST(mount_says_what_holes_answer_and_who_may_use_the_root)
{
	const struct {
		const char *options;
		int on_hole;
	} cases[] = {
		{ "", -SIGBUS },
		{ ",holes=signal", -SIGBUS },
		{ ",mode=770,uid=4242,gid=4243,holes=absorb", 0 },
		{ ",holes=absorb,denied", 0 },
		/* nobody watches */
		{ ",holes=wait", -SIGBUS },
	};
	char dir[64], path[80];
	struct stat st;
	char *mem;
	int fd;

	ASSERT_EQ(0, own_mounts());
	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *options = cases[i].options;

		ASSERT_EQ(0, mount_spaces(dir, *options ? options + 1 : options));
		EXPECT_TRUE(in_mounts(dir, options)) TH_LOG("%s", options);
		ASSERT_EQ(0, stat(dir, &st));
		EXPECT_EQ(strstr(options, "mode") ? 0770 : 0755, (int)st.st_mode & 07777);
		EXPECT_EQ(strstr(options, "uid") ? 4242U : 0U, (unsigned int)st.st_uid);
		EXPECT_EQ(strstr(options, "gid") ? 4243U : 0U, (unsigned int)st.st_gid);
		snprintf(path, sizeof(path), "%s/x", dir);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		ASSERT_LE(0, fd);
		ASSERT_EQ(0, ftruncate(fd, PAGE));
		mem = attach(fd, 0, PAGE, RW);
		ASSERT_NE(NULL, mem);
		EXPECT_EQ(cases[i].on_hole, peek(mem)) TH_LOG("%s", options);
		munmap(mem, PAGE);
		close(fd);
		ASSERT_EQ(0, umount2(dir, 0));
		rmdir(dir);
	}
	EXPECT_EQ(-EINVAL, mount_spaces(dir, "holes=maybe"));
	EXPECT_EQ(-EINVAL, mount_spaces(dir, "size=1m"));
	EXPECT_EQ(-EINVAL, mount_spaces(dir, "mode=9"));
}

/* to mount takes privilege in the initial user namespace, as for most file systems */
TEST(mount_in_a_user_namespace_is_eperm)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		char dir[64];

		if (setgid(USER) || setuid(USER) || prctl(PR_SET_DUMPABLE, 1) ||
		    unshare(CLONE_NEWUSER | CLONE_NEWNS))
			_exit(200);
		_exit(-mount_spaces(dir, ""));
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(EPERM, WEXITSTATUS(status));
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

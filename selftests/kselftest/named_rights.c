// SPDX-License-Identifier: GPL-2.0
/*
 * Who may open, make and mount address spaces with a name, and what the mount says of all
 * of them: as for any file system, by mode, owner, ACL, and the IDs of the mount.
 */
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"
#include "lib/kvm_guest.h"

#define USER	4242

FIXTURE(named_rights)
{
	char dir[64], path[80];
	int fd;		/* read and write, of SPACE_LEN */
	int a;		/* memfd of FILE_PAGES: 'a', 'b', ... */
};

FIXTURE_SETUP(named_rights)
{
	self->fd = named_space(self->dir, self->path, sizeof(self->path));
	ASSERT_LE(0, self->fd);
	self->a = memfd_pages("a", FILE_PAGES, 'a');
	ASSERT_LE(0, self->a);
}

FIXTURE_TEARDOWN(named_rights)
{
	end_named_space(self->fd, self->dir);
	close(self->a);
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

TEST_F(named_rights, mode_owner_and_acl_decide_who_may_open_it)
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
TEST_F(named_rights, acl_is_listed_if_there_is_one)
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
TEST_F(named_rights, mount_with_mapped_ids_has_other_owners)
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

TEST_F(named_rights, opened_for_reading_changes_nothing)
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

/* A view is no file of the mount, so it would not be asked when the view is mapped. */
TEST_F(named_rights, noexec_mount_has_no_views_for_executing)
{
	const int rx = PROT_READ | PROT_EXEC;
	int reader = open(self->path, O_RDONLY | O_CLOEXEC);
	int view = as_view(self->fd, 0, PAGE, rx);

	ASSERT_LE(0, reader);
	ASSERT_LE(0, view);
	ASSERT_EQ(0, mount(NULL, self->dir, NULL, MS_REMOUNT | MS_NOEXEC | MS_BIND, NULL));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE, rx, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(-EPERM, as_view(self->fd, 0, PAGE, rx));
	EXPECT_EQ(-EPERM, as_view(reader, 0, PAGE, rx));
	/* one that was made before is what it was, and so are views for anything else */
	EXPECT_NE(NULL, attach(view, 0, PAGE, rx));
	EXPECT_LE(0, as_view(reader, 0, PAGE, PROT_READ));
	close(reader);
	close(view);
}

/* a policy of its own, for which the module makes a file that is on no mount */
TEST_F(named_rights, noexec_mount_has_no_slots_for_executing)
{
	char *same, *other;
	struct vm vm;

	if (!have_kvm())
		SKIP(return, "no KVM");
	ASSERT_EQ(0, mount(NULL, self->dir, NULL, MS_REMOUNT | MS_NOEXEC | MS_BIND, NULL));
	ASSERT_EQ(0, vm_create(&vm));
	ASSERT_EQ(0, as_kvm_map(self->fd, vm.vm, 1, SLOT_GPA, PAGE, 0, 0, &same));
	ASSERT_EQ(0, as_kvm_map(self->fd, vm.vm, 2, SLOT_GPA + SLOT_LEN, PAGE, 0,
				ADDRESS_SPACE_HOLE_ABSORB, &other));
	EXPECT_EQ(-1, mprotect(same, PAGE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(other, PAGE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	vm_destroy(&vm);
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
	EXPECT_EQ(-EINVAL, mount_spaces(dir, "denied"));
	EXPECT_EQ(-EINVAL, mount_spaces(dir, "denied,holes=signal"));
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

TEST_HARNESS_MAIN

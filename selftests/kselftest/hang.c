// SPDX-License-Identifier: GPL-2.0
/*
 * No mix of calls hangs the machine. The creation of a virtual machine takes the lock
 * of every file that the process maps, one after another; a hole punch holds the lock
 * of its file while the notifier runs. If the notifier then waited for a lock of the
 * space, both would wait forever, and could not even be killed. (See section "why the
 * notifier may not wait" of the design.)
 */
#include <dirent.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/prctl.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define FILES		300
#define PATIENCE_MS	60000ULL
#define MAX_WORKERS	12

/* In memory shared by the watchdog, which is the test itself, and its child. */
struct shared {
	volatile bool stop;
	/* revocations by changes of the file, and those deferred to the worker */
	volatile long long invalidations, deferred;
	struct {
		const char *name;
		volatile uint64_t done, failed;
	} worker[MAX_WORKERS];
};

struct machine {
	struct shared *shared;
	int asfd, kvm;
	int files[FILES];
	char *maps[FILES];
	char *mem;
};

struct worker {
	struct machine *m;
	unsigned int seed;
	/* 0 or an errno */
	int (*fn)(struct machine *m, unsigned int *seed);
	volatile uint64_t *done, *failed;
};

static int make_vm(struct machine *m, unsigned int *seed)
{
	int vm = ioctl(m->kvm, KVM_CREATE_VM, 0);

	(void)seed;
	if (vm < 0)
		return errno;
	close(vm);
	return 0;
}

static int punch(struct machine *m, unsigned int *seed)
{
	return fallocate(m->files[rand_r(seed) % FILES], FALLOC_FL_PUNCH_HOLE |
			 FALLOC_FL_KEEP_SIZE, 0, PAGE) ? errno : 0;
}

static int truncate_and_extend(struct machine *m, unsigned int *seed)
{
	int file = m->files[rand_r(seed) % FILES];

	return ftruncate(file, 0) || ftruncate(file, 2 * PAGE) ? errno : 0;
}

static int attach_and_touch(struct machine *m, unsigned int *seed)
{
	char *mem = attach(m->asfd, 0, FILES * 2 * PAGE, RW);
	unsigned int i;

	if (!mem)
		return errno;
	for (i = 0; i < 32; i++)
		poke(mem + rand_r(seed) % (FILES * 2) * PAGE, i);
	return munmap(mem, FILES * 2 * PAGE) ? errno : 0;
}

static int touch(struct machine *m, unsigned int *seed)
{
	unsigned int i;

	for (i = 0; i < 32; i++)
		poke(m->mem + rand_r(seed) % (FILES * 2) * PAGE, i);
	return 0;
}

static int fork_and_touch(struct machine *m, unsigned int *seed)
{
	pid_t pid = fork();

	if (pid == 0) {
		touch(m, seed);
		_exit(0);
	}
	return pid < 0 || waitpid(pid, NULL, 0) < 0 ? errno : 0;
}

static int unmap_and_map(struct machine *m, unsigned int *seed)
{
	unsigned int i = rand_r(seed) % FILES;
	int ret = as_unmap(m->asfd, i * 2 * PAGE, 2 * PAGE);

	ret = ret ?: as_map(m->asfd, i * 2 * PAGE, m->files[i], 0, 2 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE);
	return -ret;
}

static int map_the_file(struct machine *m, unsigned int *seed)
{
	unsigned int i = rand_r(seed) % FILES;
	char *map = attach(m->files[i], 0, 2 * PAGE, RW);

	if (!map)
		return errno;
	poke(map, 1);
	return munmap(map, 2 * PAGE) ? errno : 0;
}

static int write_back(struct machine *m, unsigned int *seed)
{
	int file = m->files[rand_r(seed) % FILES];

	return pwrite(file, "w", 1, 0) != 1 || fsync(file) ? errno : 0;
}

/* Drops segments that are unused at the moment, mapped or not. */
static int reclaim(struct machine *m, unsigned int *seed)
{
	(void)m;
	(void)seed;
	/* it does not matter if less was reclaimable */
	write_text("/sys/fs/cgroup/memory.reclaim", "4M");
	return write_text("/proc/sys/vm/drop_caches", "1") ? EIO : 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!w->m->shared->stop) {
		if (w->fn(w->m, &w->seed))
			++*w->failed;
		++*w->done;
	}
	return NULL;
}

/* @dir: the disk directory for the files, or NULL for memory */
static int set_up(struct machine *m, const char *dir)
{
	unsigned int i;
	int ret;

	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	m->asfd = as_create(FILES * 2 * PAGE);
	if (m->asfd < 0)
		return m->asfd;
	for (i = 0; i < FILES; i++) {
		m->files[i] = dir ? file_pages(dir, 2, 'h') :
				    memfd_pages("hang", 2, 'h');
		if (m->files[i] < 0)
			return m->files[i];
		m->maps[i] = attach(m->files[i], 0, 2 * PAGE, RW);
		if (!m->maps[i])
			return -errno;
		ret = as_map(m->asfd, i * 2 * PAGE, m->files[i], 0, 2 * PAGE, RW, 0);
		if (ret)
			return ret;
	}
	m->mem = attach(m->asfd, 0, FILES * 2 * PAGE, RW);
	return m->mem ? 0 : -errno;
}

/* Everything at once, in a process that may not return. */
static int run_all(struct shared *shared, bool with_kvm, const char *dir)
{
	static struct machine m;
	static const struct {
		int (*fn)(struct machine *m, unsigned int *seed);
		const char *name;
		enum { ALWAYS, ON_DISK, WITH_KVM } when;
	} all[] = {
		{ punch, "punch", ALWAYS },
		{ truncate_and_extend, "truncate", ALWAYS },
		{ attach_and_touch, "attach", ALWAYS },
		{ touch, "touch", ALWAYS },
		{ fork_and_touch, "fork", ALWAYS },
		{ unmap_and_map, "unmap", ALWAYS },
		{ map_the_file, "mmap", ALWAYS },
		{ write_back, "write back", ON_DISK },
		{ reclaim, "reclaim", ON_DISK },
		{ make_vm, "kvm", WITH_KVM },
		{ make_vm, "kvm", WITH_KVM },
	};
	struct worker workers[ARRAY_SIZE(all)];
	unsigned int n = 0, i;
	pthread_t threads[ARRAY_SIZE(all)];
	int ret;

	m.shared = shared;
	ret = set_up(&m, dir);
	if (ret) {
		fprintf(stderr, "# set up: %s\n", strerror(-ret));
		return 1;
	}
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if ((all[i].when == ON_DISK && !dir) ||
		    (all[i].when == WITH_KVM && !with_kvm))
			continue;
		workers[n] = (struct worker){
			.m = &m,
			.seed = i,
			.fn = all[i].fn,
			.done = &shared->worker[n].done,
			.failed = &shared->worker[n].failed,
		};
		shared->worker[n].name = all[i].name;
		if (pthread_create(&threads[n], NULL, work, &workers[n]))
			return 1;
		n++;
	}
	for (i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	shared->invalidations = fdinfo_value(m.asfd, "invalidations");
	shared->deferred = fdinfo_value(m.asfd, "deferred");
	return 0;
}

/* Prints the stack of every task of @pid and its children to the log. */
static void dump_stacks(pid_t group)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	char command[256];

	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid <= 0 || getpgid(pid) != group || pid == getpid())
			continue;
		snprintf(command, sizeof(command),
			 "for t in /proc/%d/task/*; do echo \"# $t $(cat $t/comm) $(grep State $t/status)\"; sed 's/^/#   /' $t/stack; done >&2",
			 pid);
		if (system(command))
			continue;
	}
	if (proc)
		closedir(proc);
}

/* For how long the slowest has done nothing; @when is what all began with. */
static uint64_t silent_for(struct shared *shared, uint64_t *last, uint64_t *when)
{
	uint64_t now = now_ms(), oldest = shared->worker[0].name ? now : when[0];
	unsigned int i;

	for (i = 0; i < MAX_WORKERS && shared->worker[i].name; i++) {
		if (shared->worker[i].done != last[i]) {
			last[i] = shared->worker[i].done;
			when[i] = now;
		}
		if (when[i] < oldest)
			oldest = when[i];
	}
	return now - oldest;
}

static void watch(struct __test_metadata *_metadata, unsigned int seconds,
		  bool with_kvm, bool on_disk)
{
	struct shared *shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t last[MAX_WORKERS], when[MAX_WORKERS];
	uint64_t end = 0, silence;
	char dir[128];
	unsigned int i;
	int status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)shared);
	if (on_disk)
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
	pid = fork();
	ASSERT_LE(0, pid);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(run_all(shared, with_kvm, on_disk ? dir : NULL));
	}
	for (i = 0; i < MAX_WORKERS; i++) {
		last[i] = 0;
		when[i] = now_ms();
	}
	do {
		sleep_ms(100);
		if (!end && shared->worker[0].name)
			end = now_ms() + 1000 * seconds;
		if (end && now_ms() > end)
			shared->stop = true;
		if (waitpid(pid, &status, WNOHANG) == pid)
			goto ended;
		silence = silent_for(shared, last, when);
	} while (silence < PATIENCE_MS);
	for (i = 0; i < MAX_WORKERS && shared->worker[i].name; i++)
		TH_LOG("%s: done %ju, nothing for %ju ms", shared->worker[i].name,
		       (uintmax_t)last[i], (uintmax_t)(now_ms() - when[i]));
	dump_stacks(getpgrp());
	kill(pid, SIGKILL);
	/* not waited for: the process may be unkillable */
	ASSERT_GT(PATIENCE_MS, silence);
	return;
ended:
	EXPECT_EQ(0, status);
	ASSERT_NE(NULL, shared->worker[0].name);
	for (i = 0; i < MAX_WORKERS && shared->worker[i].name; i++) {
		TH_LOG("%s: done %ju", shared->worker[i].name,
		       (uintmax_t)shared->worker[i].done);
		EXPECT_LT(0ULL, shared->worker[i].done);
		EXPECT_EQ(0ULL, shared->worker[i].failed);
	}
	TH_LOG("revocations behind the owner's back: %lld, left to the worker: %lld",
	       shared->invalidations, shared->deferred);
	EXPECT_LT(0, shared->invalidations);
}

FIXTURE(machine)
{
};

FIXTURE_VARIANT(machine)
{
	bool on_disk;
};

FIXTURE_VARIANT_ADD(machine, with_files_in_memory) { .on_disk = false };
FIXTURE_VARIANT_ADD(machine, with_files_on_disk) { .on_disk = true };

FIXTURE_SETUP(machine)
{
}

FIXTURE_TEARDOWN(machine)
{
}

TEST_F_TIMEOUT(machine, does_not_hang_when_files_change, 170)
{
	watch(_metadata, 5, false, variant->on_disk);
}

TEST_F_TIMEOUT(machine, does_not_hang_when_vms_are_created, 170)
{
	if (access("/dev/kvm", R_OK | W_OK))
		SKIP(return, "no /dev/kvm");
	watch(_metadata, variant->on_disk ? 8 : 12, true, variant->on_disk);
}

TEST_HARNESS_MAIN

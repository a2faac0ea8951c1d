// SPDX-License-Identifier: GPL-2.0
/*
 * A process is killed at any moment: owner, attacher or VMM. The others go on,
 * nothing stays behind, and the module waits for nothing.
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"
#include "lib/kvm_guest.h"

#define PAGES	64u

static long module_refs(void)
{
	char text[32];

	if (read_text("/sys/module/address_space/refcnt", text, sizeof(text)))
		return -1;
	return atol(text);
}

/* The processes to kill; all are created before, and run until they are killed. */
struct scene {
	int asfd, view, a, b;
	char *mem;
	long refs;
};

FIXTURE(kill)
{
	struct scene s;
};

FIXTURE_SETUP(kill)
{
	struct scene *s = &self->s;

	s->refs = module_refs();
	s->asfd = as_create(PAGES * PAGE);
	s->a = memfd_pages("a", PAGES, 'a');
	s->b = memfd_pages("b", PAGES, 'A');
	ASSERT_LE(0, s->asfd);
	ASSERT_LE(0, s->a);
	ASSERT_LE(0, s->b);
	s->view = as_view(s->asfd, 0, PAGES * PAGE, RW);
	ASSERT_LE(0, s->view);
	ASSERT_EQ(0, as_map(s->asfd, 0, s->a, 0, PAGES * PAGE, RW, 0));
	s->mem = attach(s->asfd, 0, PAGES * PAGE, RW);
	ASSERT_NE(NULL, s->mem);
}

FIXTURE_TEARDOWN(kill)
{
	struct scene *s = &self->s;
	uint64_t until = now_ms() + WORKER_MS;

	munmap(s->mem, PAGES * PAGE);
	close(s->view);
	close(s->asfd);
	close(s->a);
	close(s->b);
	/* the worker may be the last to drop it */
	while (module_refs() != s->refs && now_ms() < until)
		sleep_ms(10);
	EXPECT_EQ(s->refs, module_refs());
}

static _Noreturn void be_owner(struct scene *s)
{
	unsigned int i;

	for (i = 0;; i++) {
		uint64_t at = i % 8 * 4 * PAGE;
		struct address_space_op ops[] = {
			{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .addr = at, .length = 2 * PAGE },
			{ .opcode = ADDRESS_SPACE_OP_MMAP, .fd = s->b, .prot = RW,
			  .offset = at, .length = 2 * PAGE, .addr = at },
			{ .opcode = ADDRESS_SPACE_OP_PROTECT, .prot = PROT_READ,
			  .addr = at, .length = PAGE },
		};
		int file;

		switch (i % 7) {
		case 0:
			as_unmap(s->asfd, at, 3 * PAGE);
			break;
		case 1:
			as_map(s->asfd, at, s->b, at, 4 * PAGE, RW,
			       ADDRESS_SPACE_MAP_REPLACE | ADDRESS_SPACE_MAP_POPULATE);
			break;
		case 2:
			as_batch(s->asfd, ops, ARRAY_SIZE(ops), NULL);
			break;
		case 3:
			as_protect(s->asfd, at, 4 * PAGE, PROT_READ);
			break;
		case 4:
			as_move(s->asfd, at, 2 * PAGE, 40 * PAGE,
				ADDRESS_SPACE_MAP_REPLACE);
			break;
		case 5:
			/* maps a new file and closes it at once */
			file = memfd_pages("new", 4, 'n');
			as_register(s->asfd, file, 0, 0, RW, 0);
			as_map(s->asfd, at, file, 0, 4 * PAGE, RW,
			       ADDRESS_SPACE_MAP_REPLACE);
			as_unregister(s->asfd, file);
			close(file);
			break;
		case 6:
			file = as_create(PAGES * PAGE);
			as_map(file, 0, s->a, 0, PAGES * PAGE, RW, 0);
			close(as_view(file, 0, PAGE, RW));
			close(file);
			break;
		}
	}
}

static _Noreturn void be_attacher(struct scene *s)
{
	unsigned int i;

	for (i = 0;; i++) {
		char *mem = attach(i & 1 ? s->asfd : s->view, 0, PAGES * PAGE, RW);
		unsigned int page;

		for (page = 0; mem && page < PAGES; page += 1 + i % 3)
			if (i & 2)
				peek(mem + page * PAGE);
			else
				poke(mem + page * PAGE, i);
		if (mem && (i & 4))
			mremap(mem, PAGES * PAGE, PAGES * PAGE / 2, 0);
		if (mem && !(i & 8))
			munmap(mem, PAGES * PAGE);
		/* some attachments are left behind, but not forever */
		if (i > 2000)
			_exit(0);
	}
}

static _Noreturn void be_parent(struct scene *s)
{
	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			poke(s->mem + PAGE, 1);
			if (getpid() & 1)
				execl("/bin/true", "true", NULL);
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

static _Noreturn void be_vmm(struct scene *s)
{
	for (;;) {
		struct vm vm;
		unsigned int i;

		if (vm_create(&vm))
			_exit(1);
		for (i = 0; i < 3; i++) {
			char *mem;

			if (as_kvm_map(i & 1 ? s->view : s->asfd, vm.vm, 1,
				       SLOT_GPA, SLOT_LEN, 0, 0, &mem))
				_exit(2);
			guest_read(&vm, i * PAGE);
			guest_write(&vm, i * PAGE, i);
			if (i < 2)
				as_kvm_unmap(s->asfd, vm.vm, 1);
		}
		vm_destroy(&vm);
	}
}

FIXTURE_VARIANT(kill)
{
	void (*victim)(struct scene *s);
	unsigned int rounds;
	unsigned int at_once;
	unsigned int most_ms;
};

FIXTURE_VARIANT_ADD(kill, of_owner) { be_owner, 60, 1, 20 };
FIXTURE_VARIANT_ADD(kill, of_two_owners) { be_owner, 40, 2, 20 };
FIXTURE_VARIANT_ADD(kill, of_attacher) { be_attacher, 60, 1, 20 };
FIXTURE_VARIANT_ADD(kill, of_many_attachers) { be_attacher, 6, 24, 60 };
FIXTURE_VARIANT_ADD(kill, of_parent) { be_parent, 20, 4, 40 };
FIXTURE_VARIANT_ADD(kill, of_vmm) { be_vmm, 30, 1, 80 };

static int start(struct scene *s, void (*victim)(struct scene *s), pid_t *pid)
{
	*pid = fork();
	if (*pid < 0)
		return -errno;
	if (*pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		victim(s);
	}
	return 0;
}

/* The space shows what is mapped, to the test and to a new process. */
static int space_works(struct scene *s)
{
	uint64_t until = now_ms() + WORKER_MS;
	char *fresh;
	int i;

	if (as_map(s->asfd, 0, s->a, 0, PAGES * PAGE, RW, ADDRESS_SPACE_MAP_REPLACE))
		return -1;
	fresh = attach(s->view, 0, PAGES * PAGE, RW);
	if (!fresh)
		return -2;
	for (i = 0; i < (int)PAGES; i++)
		if (poke(s->mem + i * PAGE, i) || peek(fresh + i * PAGE) != i ||
		    file_byte(s->a, i * PAGE) != i)
			return -3;
	if (as_unmap(s->asfd, 0, PAGES * PAGE))
		return -4;
	for (i = 0; i < (int)PAGES; i++)
		if (peek(s->mem + i * PAGE) != -SIGBUS ||
		    peek(fresh + i * PAGE) != -SIGBUS)
			return -5;
	munmap(fresh, PAGES * PAGE);
	/* a killed process may take a moment to exit */
	while (fdinfo_value(s->asfd, "attachments") != 1)
		if (now_ms() > until)
			return -6;
	return as_map(s->asfd, 0, s->a, 0, PAGES * PAGE, RW, 0);
}

TEST_F_TIMEOUT(kill, leaves_nothing_behind, 240)
{
	pid_t pids[32];
	unsigned int round, i, early = 0;

	if (variant->victim == be_vmm && !have_kvm())
		SKIP(return, "no /dev/kvm");
	srand(getpid());
	for (round = 0; round < variant->rounds; round++) {
		for (i = 0; i < variant->at_once; i++)
			ASSERT_EQ(0, start(&self->s, variant->victim, &pids[i]));
		usleep(rand() % (variant->most_ms * 1000));
		for (i = 0; i < variant->at_once; i++)
			kill(pids[i], SIGKILL);
		for (i = 0; i < variant->at_once; i++) {
			int status;

			ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
			early += WIFEXITED(status);
			if (WIFEXITED(status)) {
				EXPECT_EQ(0, WEXITSTATUS(status));
			}
		}
		ASSERT_EQ(0, space_works(&self->s)) TH_LOG("round %u", round);
	}
	TH_LOG("%u killed, %u had ended by themselves",
	       round * variant->at_once - early, early);
	EXPECT_LT(early, round * variant->at_once);
}

TEST_HARNESS_MAIN

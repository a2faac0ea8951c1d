// SPDX-License-Identifier: GPL-2.0
/*
 * A guest reads a page of a private map whose protection is changed meanwhile, to reading
 * and writing. If it had an entry for reading after that, KVM would take a write for one to a
 * device. Runs for race_ms(), and for a minimum of rounds.
 */
#include <sys/param.h>
#include <time.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"
#include "lib/kvm_guest.h"

#define LEAST	200	/* minimum of rounds, however slow the machine is */
#define STEP_NS	5000	/* the most by which the next round differs */

FIXTURE(guest)
{
	int asfd, file;
	struct vm vm;
	char *mem;
	/* of the thread that allows to write: what it is told, and how far it is */
	pthread_t thread;
	volatile unsigned int round, done, delay_ns;
	volatile bool stop;
	volatile int error;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static void *allow_writing(void *arg)
{
	FIXTURE_DATA(guest) *self = arg;

	while (!self->stop) {
		unsigned int round = __atomic_load_n(&self->round, __ATOMIC_ACQUIRE);
		uint64_t until = now_ns() + self->delay_ns;

		if (round == self->done)
			continue;
		while (now_ns() < until)
			;
		if (as_protect(self->asfd, 0, PAGE, RW))
			self->error = 1;
		__atomic_store_n(&self->done, round, __ATOMIC_RELEASE);
	}
	return NULL;
}

FIXTURE_SETUP(guest)
{
	if (!have_kvm())
		SKIP(return, "no KVM");
	self->asfd = as_create(SLOT_LEN);
	ASSERT_LE(0, self->asfd);
	self->file = memfd_pages("snapshot", 1, 'a');
	ASSERT_EQ(0, vm_create(&self->vm));
	ASSERT_EQ(0, as_kvm_map(self->asfd, self->vm.vm, 1, SLOT_GPA, SLOT_LEN, 0, 0, &self->mem));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, allow_writing, self));
}

FIXTURE_TEARDOWN(guest)
{
	self->stop = true;
	pthread_join(self->thread, NULL);
	vm_destroy(&self->vm);
	close(self->file);
	close(self->asfd);
}

TEST_F_TIMEOUT(guest, writes_where_it_read_while_that_was_allowed, 600)
{
	uint64_t until = now_ms() + race_ms();
	unsigned int seed = 1, second = 0;

	while (now_ms() < until || self->round < LEAST) {
		long long copies;
		unsigned int step = rand_r(&seed) % STEP_NS;

		/* private: until it is written the page is there for reading only */
		ASSERT_EQ(0, as_map(self->asfd, 0, self->file, 0, PAGE, RW,
				    ADDRESS_SPACE_MAP_PRIVATE | ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(0, as_protect(self->asfd, 0, PAGE, PROT_READ));
		__atomic_store_n(&self->round, self->round + 1, __ATOMIC_RELEASE);
		ASSERT_LE(0, guest_read(&self->vm, 0));
		while (__atomic_load_n(&self->done, __ATOMIC_ACQUIRE) != self->round)
			;
		copies = fdinfo_value(self->asfd, "copies");
		ASSERT_EQ(FSTP_BYTE, guest_fstp(&self->vm, 0)) TH_LOG("round %u", self->round);
		/* a fault of a guest that may write copies; the next round is more like the other */
		if (copies) {
			self->delay_ns += step;
		} else {
			second++;
			self->delay_ns -= MIN(step, self->delay_ns);
		}
	}
	TH_LOG("%u rounds, in %u the guest was first", self->round, second);
	EXPECT_EQ(0, self->error);
}

TEST_HARNESS_MAIN

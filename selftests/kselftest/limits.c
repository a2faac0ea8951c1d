// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that a program consumes by way of address spaces is charged to the memory
 * cgroup of their creator, and so is bounded by the limit of that cgroup.
 */
#include <sys/resource.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define GROUP	CGROUP_ROOT "/address_space_limits"

/* SOME is consumed to measure how much of it is charged; LIMIT is the limit. */
#define SOME	(12L << 20)
#define LIMIT	(24L << 20)
/* Charges are rounded up and updated late, a batch for each CPU. */
#define SLACK	(2L << 20)

#define BIG	(1UL << 40)

/* A request to the consumer, in memory that it shares with the test. */
struct request {
	long (*one)(unsigned int i);
	long until;	/* stop when this much is charged to the group; 0: never */
	unsigned int done;
	long error;
};

static struct request *request;

/* The space and the file of the consumer. */
static int asfd, file;

static long one_space(unsigned int i)
{
	(void)i;
	return as_create(BIG);
}

/* No mappings merge: their file offsets are not contiguous. */
static long many_mappings(unsigned int i)
{
	static struct address_space_op ops[1024];
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(ops); n++)
		ops[n] = (struct address_space_op) {
			.opcode = ADDRESS_SPACE_OP_MMAP,
			.fd = file,
			.prot = PROT_READ,
			.offset = n % 7 * 2 * PAGE,
			.length = PAGE,
			.addr = (i * (uint64_t)ARRAY_SIZE(ops) + n) * PAGE,
		};
	return as_batch(asfd, ops, ARRAY_SIZE(ops), NULL);
}

/* Runs that do not touch, so that each is an area of its own in the arena. */
static long one_segment(unsigned int i)
{
	return as_map(asfd, i * 2UL * PAGE, file, i * 2UL * PAGE, PAGE, PROT_READ, 0);
}

static long one_view(unsigned int i)
{
	return as_view(asfd, i * PAGE, PAGE, PROT_READ);
}

/* A page of the file, and the entry of the frame table that describes it. */
static long one_frame(unsigned int i)
{
	static char *mem;

	if (!mem)
		mem = attach(asfd, 0, BIG, RW);
	return mem ? poke(mem + i * HUGE, 1) : -errno;
}

static long one_attachment(unsigned int i)
{
	return attach(asfd, i * 2 * PAGE, PAGE, PROT_READ) ? 0 : -errno;
}

FIXTURE(kernel_memory)
{
	struct agent agent;
};

FIXTURE_VARIANT(kernel_memory)
{
	long (*one)(unsigned int i);
	unsigned int most;	/* a bound for kinds that something else limits */
};

FIXTURE_VARIANT_ADD(kernel_memory, of_spaces) { one_space, 100000 };
FIXTURE_VARIANT_ADD(kernel_memory, of_mappings) { many_mappings, 100000 };
FIXTURE_VARIANT_ADD(kernel_memory, of_segments) { one_segment, 60000 };
FIXTURE_VARIANT_ADD(kernel_memory, of_views) { one_view, 100000 };
FIXTURE_VARIANT_ADD(kernel_memory, of_frames) { one_frame, 100000 };
FIXTURE_VARIANT_ADD(kernel_memory, of_attachments) { one_attachment, 60000 };

static long charged(void)
{
	return number_in(GROUP "/memory.current", NULL);
}

/*
 * What each CPU keeps of the pages that were freed there, which MemFree leaves out: many
 * megabytes where much was allocated and freed just now, and it goes by and by.
 */
static long kept_by_cpus(void)
{
	FILE *zones = fopen("/proc/zoneinfo", "r");
	long pages = 0, count;
	char line[256];

	while (zones && fgets(line, sizeof(line), zones))
		if (sscanf(line, " count: %ld", &count) == 1)
			pages += count;
	if (zones)
		fclose(zones);
	return pages * PAGE;
}

static long machine_has(void)
{
	drop_caches();
	return (number_in("/proc/meminfo", "MemFree:") << 10) + kept_by_cpus();
}

static long prepare(void *arg)
{
	const struct rlimit many = { 1 << 20, 1 << 20 };
	int err;

	(void)arg;
	err = enter_group(GROUP);
	if (err)
		return err;
	if (setrlimit(RLIMIT_NOFILE, &many))
		return -errno;
	asfd = as_create(BIG);
	file = memfd_pages("consumed", 0, -1);
	if (asfd < 0 || file < 0 || ftruncate(file, BIG))
		return -EIO;
	return 0;
}

/* for kinds that need a mapping */
static long map_all(void *arg)
{
	(void)arg;
	return as_map(asfd, 0, file, 0, BIG, RW, 0);
}

static long consume(void *arg)
{
	unsigned int most = (uintptr_t)arg;

	for (; request->done < most; request->done++) {
		long ret = request->one(request->done);

		if (ret < 0) {
			request->error = ret;
			return ret;
		}
		if (request->until && !(request->done % 16) && charged() >= request->until)
			break;
	}
	return 0;
}

FIXTURE_SETUP(kernel_memory)
{
	if (!have_memory_controller())
		SKIP(return, "no memory controller in cgroup2 at " CGROUP_ROOT);
	ASSERT_EQ(0, create_group(GROUP));
	/* without swap, or there would be no limit */
	write_text(GROUP "/memory.swap.max", "0");
	request = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)request);
	request->one = variant->one;
	ASSERT_EQ(0, agent_start(&self->agent));
	ASSERT_EQ(0, agent_call(&self->agent, prepare, NULL));
	if (variant->one == one_frame || variant->one == one_attachment) {
		ASSERT_EQ(0, agent_call(&self->agent, map_all, NULL));
	}
}

FIXTURE_TEARDOWN(kernel_memory)
{
	agent_stop(&self->agent);
	remove_group(GROUP);
}

/* The call may take longer than an agent is allowed to take. */
static void wait_until_it_rests(struct agent *agent, unsigned int most)
{
	long ret = agent_call(agent, consume, (void *)(uintptr_t)most);
	unsigned int before;

	while (ret == -ETIMEDOUT) {
		before = request->done;
		sleep_ms(1000);
		if (request->done == before)
			break;
	}
}

/*
 * What a debug kernel takes in addition and charges to nobody: kmemleak keeps an
 * object for each allocation, often larger than that, and KASAN keeps freed memory.
 */
static long taken_for_debugging(long charged)
{
	return access("/sys/kernel/debug/kmemleak", F_OK) ? 0 : 3 * charged;
}

TEST_F(kernel_memory, is_charged_to_the_creator)
{
	long before, had, taken, paid;

	had = machine_has();
	before = charged();
	request->until = before + SOME;
	wait_until_it_rests(&self->agent, variant->most);
	ASSERT_EQ(0, request->error);
	paid = charged() - before;
	taken = had - machine_has();
	TH_LOG("%u of them: %ld KiB charged, %ld KiB taken, %ld bytes each",
	       request->done, paid >> 10, taken >> 10, paid / request->done);
	EXPECT_LE(taken, 3 * paid / 2 + SLACK + taken_for_debugging(paid));
	/* otherwise there was nothing to measure */
	EXPECT_LE(SOME / 4, paid);
}

/* The list of segments is searched from end to end, which is slow on a debug kernel. */
TEST_F_TIMEOUT(kernel_memory, is_bounded_by_the_limit, 300)
{
	long peak, had = machine_has();
	char text[32];

	snprintf(text, sizeof(text), "%ld", LIMIT);
	ASSERT_EQ(0, write_text(GROUP "/memory.max", text));
	wait_until_it_rests(&self->agent, variant->most);
	TH_LOG("ended after %u of them with %ld, at %ld KiB", request->done,
	       request->error, number_in(GROUP "/memory.peak", NULL) >> 10);
	/* refused or killed, unless another limit was reached first */
	if (request->done < variant->most && request->error != -ENOMEM &&
	    request->error != -SIGBUS) {
		EXPECT_EQ(0, request->error);
		EXPECT_LE(1, number_in(GROUP "/memory.events", "oom_kill "));
	}
	peak = number_in(GROUP "/memory.peak", NULL);
	EXPECT_GE(LIMIT + SLACK, peak);
	EXPECT_GE(2 * LIMIT + SLACK + taken_for_debugging(LIMIT), had - machine_has());
}

TEST_HARNESS_MAIN

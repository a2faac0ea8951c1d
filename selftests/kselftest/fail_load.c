// SPDX-License-Identifier: GPL-2.0
/*
 * Makes every allocation of a module load fail, one after the other: the module loads
 * all the same, or leaves nothing behind and loads the next time.
 */
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "lib/as_fail.h"

#define MANY		5000
#define PATIENCE	900

static int load(int fd)
{
	return syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "address_space", O_NONBLOCK) ? -errno : 0;
}

static bool is_there(const char *path)
{
	return !access(path, F_OK);
}

FIXTURE(module_load)
{
	int ko;
};

FIXTURE_SETUP(module_load)
{
	const char *path = getenv("ADDRESS_SPACE_MODULE");
	int ret = fail_prepare();

	self->ko = -1;
	if (ret)
		SKIP(return, "no fault injection: %s", strerror(-ret));
	self->ko = open(path ? path : "address_space.ko", O_RDONLY | O_CLOEXEC);
	if (self->ko < 0)
		SKIP(return, "no module to load: ADDRESS_SPACE_MODULE says where it is");
	ret = unload();
	if (ret)
		SKIP(return, "the module is in use: %s", strerror(-ret));
}

/* in any case the following tests need the module */
FIXTURE_TEARDOWN(module_load)
{
	fail_only_below(0, UINT64_MAX);
	if (self->ko >= 0 && !is_there("/sys/module/address_space"))
		load(self->ko);
	close(self->ko);
}

/*
 * Allocations below the module's init function only. What the kernel does around it
 * is not the module's.
 */
TEST_F_TIMEOUT(module_load, survives_each_failed_allocation, PATIENCE)
{
	unsigned int nth, failed = 0, refused = 0;
	uint64_t start, end;
	int ret, fired = 0;

	ASSERT_EQ(0, kernel_text(" do_one_initcall\n", &start, &end));
	for (nth = 1; nth < MANY; nth++) {
		ASSERT_EQ(0, fail_only_below(start, end));
		ASSERT_EQ(0, fail_arm(CALLER, nth));
		ret = load(self->ko);
		fired = fail_disarm(CALLER);
		ASSERT_EQ(0, fail_only_below(0, UINT64_MAX));
		ASSERT_LE(0, fired);
		failed += fired;
		if (ret) {
			refused++;
			EXPECT_EQ(1, fired);
			EXPECT_EQ(-ENOMEM, ret)
				TH_LOG("failure %u: %s", nth, strerror(-ret));
			EXPECT_FALSE(is_there("/sys/module/address_space"));
			EXPECT_FALSE(is_there("/dev/address_space"));
			ASSERT_EQ(0, load(self->ko));
		}
		ret = as_create(PAGE);
		ASSERT_LE(0, ret);
		close(ret);
		ASSERT_EQ(0, unload());
		if (!fired || !__test_passed(_metadata))
			break;
	}
	EXPECT_EQ(0, fired);
	TH_LOG("%u failed, %u of them an error of the load", failed, refused);
}

TEST_HARNESS_MAIN

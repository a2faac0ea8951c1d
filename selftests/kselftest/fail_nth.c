// SPDX-License-Identifier: GPL-2.0
/*
 * Makes every allocation, and every copy from and to user space, of a call or a fault
 * fail, one after the other. Each time the operation succeeds all the same or gives
 * one of its possible errors; after an error the state is unchanged, and the
 * operation succeeds when it is repeated.
 *
 * A run without failures defines the state "before" and "after": the layout, the
 * attachments, and each byte that an attachment shows.
 */
#include "kselftest_harness.h"
#include "lib/as_fail.h"
#include "lib/fail_nth_ops.h"

/* No operation makes as many: more means that it never ends. */
#define MANY		2000
/* One run for each allocation, on a debug kernel in an emulated machine. */
#define PATIENCE	900

/* Of how many allocations one fails: all, or in a short run one of FAIL_NTH_STEP. */
static unsigned int step(void)
{
	const char *text = getenv("FAIL_NTH_STEP");
	int step = text ? atoi(text) : 1;

	return step > 0 ? step : 1;
}

FIXTURE(each_allocation)
{
	long users;
};

FIXTURE_VARIANT(each_allocation)
{
	const struct fail_op *op;
	enum target of;
};

#define OP(name, target)						\
FIXTURE_VARIANT_ADD(each_allocation, of_##name)				\
{									\
	.op = &fail_op_##name, .of = target,				\
}
#define OP_ON_WORKERS(name)						\
FIXTURE_VARIANT_ADD(each_allocation, of_##name##_on_workers)		\
{									\
	.op = &fail_op_##name, .of = WORKERS,				\
}

/* Each is there by itself: one that is only declared would never run. */
#define OP_OF_CALLER(name)	OP(name, CALLER);
FAIL_OPS(OP_OF_CALLER)

OP_ON_WORKERS(create);
OP_ON_WORKERS(map);
OP_ON_WORKERS(map_replace);
OP_ON_WORKERS(map_populate);
OP_ON_WORKERS(unmap_and_reap);
OP_ON_WORKERS(batch);
OP_ON_WORKERS(register);

FIXTURE_SETUP(each_allocation)
{
	int ret = fail_prepare();

	if (ret)
		SKIP(return, "no fault injection: %s", strerror(-ret));
	if (variant->op->needs_kvm && !have_kvm())
		SKIP(return, "no /dev/kvm");
	self->users = module_users();
}

FIXTURE_TEARDOWN(each_allocation)
{
}

/* A space to run the operation in. */
static int begin(const struct fail_op *op, struct fail_ctx *c)
{
	int ret = fail_ctx_init(c);

	return ret ?: op->prepare ? op->prepare(c) : 0;
}

TEST_F_TIMEOUT(each_allocation, may_fail, PATIENCE)
{
	const struct fail_op *op = variant->op;
	char *before, *after, *state, *now;
	unsigned int nth, failed = 0, refused = 0, first = 1 + now_ms() % step();
	struct fail_ctx c;
	int ret, fired = 1;

	ret = begin(op, &c);
	if (ret == -EOPNOTSUPP) {
		fail_ctx_free(&c);
		SKIP(return, "not available here");
	}
	ASSERT_EQ(0, ret);
	before = fail_ctx_picture(&c);
	fail_ctx_free(&c);

	ASSERT_EQ(0, begin(op, &c));
	ASSERT_LE(0, op->run(&c));
	ASSERT_EQ(0, op->verify ? op->verify(&c) : 0);
	after = fail_ctx_picture(&c);
	fail_ctx_free(&c);
	ASSERT_EQ(0, module_users_within(self->users, WORKER_MS));

	/* those of short runs differ, so that many runs come to all */
	for (nth = first; nth < MANY; nth += step()) {
		ASSERT_EQ(0, begin(op, &c));
		/* arming workers opens files, and reading the state allocates */
		state = variant->of == CALLER ? state_of(c.s.asfd) : NULL;
		ASSERT_EQ(0, fail_arm(variant->of, nth));
		state = state ?: state_of(c.s.asfd);
		ret = op->run(&c);
		fired = fail_disarm(variant->of);
		if (fired == -EAGAIN) {
			/* a worker that was not armed did the work */
			free(state);
			fail_ctx_free(&c);
			nth -= step();
			continue;
		}
		ASSERT_LE(0, fired);
		failed += fired;
		if (ret < 0) {
			refused++;
			EXPECT_EQ(1, fired);
			EXPECT_TRUE(fail_op_may_give(op, -ret))
				TH_LOG("failure %u: %s", nth, strerror(-ret));
			now = state_of(c.s.asfd);
			EXPECT_STREQ(state, now);
			free(now);
			now = fail_ctx_picture(&c);
			EXPECT_STREQ(before, now);
			free(now);
			EXPECT_LE(0, op->run(&c))
				TH_LOG("again, after failure %u", nth);
		}
		EXPECT_EQ(0, op->verify ? op->verify(&c) : 0);
		now = fail_ctx_picture(&c);
		EXPECT_STREQ(after, now)
			TH_LOG("after failure %u", nth);
		free(now);
		free(state);
		fail_ctx_free(&c);
		ASSERT_EQ(0, module_users_within(self->users, WORKER_MS));
		if (!fired || !__test_passed(_metadata))
			break;
	}
	EXPECT_FALSE(fired);
	TH_LOG("%u failed, one of %u from number %u, %u of them an error of the call", failed,
	       step(), first, refused);
	free(before);
	free(after);
}

TEST_HARNESS_MAIN

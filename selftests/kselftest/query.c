// SPDX-License-Identifier: GPL-2.0
/* ADDRESS_SPACE_QUERY: what it answers is what there is. */
#include "kselftest_harness.h"
#include "lib/as_util.h"

static int query(struct address_space_query *answer)
{
	int dev = open("/dev/address_space", O_RDONLY | O_CLOEXEC), ret;

	if (dev < 0)
		return -errno;
	*answer = (struct address_space_query){ .size = sizeof(*answer) };
	ret = as_ioctl(dev, ADDRESS_SPACE_QUERY, answer);
	close(dev);
	return ret;
}

static bool has(uint64_t feature)
{
	struct address_space_query answer;

	return !query(&answer) && answer.features & feature;
}

TEST(version_is_that_of_the_header)
{
	struct address_space_query answer;

	ASSERT_EQ(0, query(&answer));
	EXPECT_EQ(ADDRESS_SPACE_VERSION, (int)answer.version);
	EXPECT_EQ(sizeof(answer), answer.size);
}

TEST(limits_are_those_that_apply)
{
	char name[ADDRESS_SPACE_NAME_MAX + 2] = {};
	struct address_space_create create = {
		.size = sizeof(create), .length = PAGE, .name = (uintptr_t)name,
	};
	struct address_space_query answer;
	int dev = open("/dev/address_space", O_RDONLY), asfd;
	struct address_space_op *ops;
	unsigned int i;

	ASSERT_EQ(0, query(&answer));
	asfd = as_create(answer.max_length);
	ASSERT_LE(0, asfd);
	EXPECT_EQ(-EINVAL, as_create(answer.max_length + PAGE));

	ASSERT_EQ(ADDRESS_SPACE_NAME_MAX, (int)answer.max_name);
	memset(name, 'x', answer.max_name);
	EXPECT_LE(0, as_ioctl(dev, ADDRESS_SPACE_CREATE, &create));
	name[answer.max_name] = 'x';
	EXPECT_EQ(-EINVAL, as_ioctl(dev, ADDRESS_SPACE_CREATE, &create));

	ops = calloc(answer.max_ops, sizeof(*ops));
	for (i = 0; i < answer.max_ops; i++) {
		ops[i].opcode = ADDRESS_SPACE_OP_MUNMAP;
		ops[i].length = PAGE;
	}
	EXPECT_EQ(0, as_batch(asfd, ops, answer.max_ops, NULL));
	EXPECT_EQ(-EINVAL, as_batch(asfd, ops, answer.max_ops + 1, NULL));
	free(ops);

	ASSERT_LE(0, as_events(asfd, 0, 0, 0));
	for (i = 0; i < answer.max_poisoned; i++)
		ASSERT_EQ(0, as_poison(asfd, 2 * i * PAGE, PAGE, 0));
	EXPECT_EQ(-ENOSPC, as_poison(asfd, 2 * i * PAGE, PAGE, 0));
}

/* A feature that is told of exists, and one that is not is refused. */
TEST(features_are_those_that_exist)
{
	struct address_space_range range;
	char name[] = "name", path[64];
	struct address_space_create create = {
		.size = sizeof(create), .length = PAGE, .name = (uintptr_t)name,
	};
	int dev = open("/dev/address_space", O_RDONLY), asfd = as_create(2 * PAGE), again;
	void *mem;

	ASSERT_LE(0, asfd);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_NAMES),
		  as_ioctl(dev, ADDRESS_SPACE_CREATE, &create) >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", asfd);
	again = open(path, O_RDWR | O_CLOEXEC);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_REOPEN), again >= 0);
	mem = attach(asfd, 0, PAGE, RX);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_EXEC), mem != NULL);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_MANAGE), as_part(asfd, 0, PAGE, RW) >= 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_HOLES),
		  as_view_flags(asfd, 0, PAGE, RW, ADDRESS_SPACE_HOLE_ABSORB) >= 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_HOLES), as_events(asfd, 0, 0, 0) >= 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_RELEASE),
		  !as_unmap_flags(asfd, 0, PAGE, ADDRESS_SPACE_MUNMAP_RELEASE));
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_UNREGISTER_ALL), !as_unregister_all(asfd));
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_HUGE_PAGES),
		  !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK));
	mem = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_LEND), as_lend(mem, PAGE, RW) >= 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_PRIVATE),
		  !as_map(asfd, 0, memfd_pages("private", 1, 'p'), 0, PAGE, RW,
			  ADDRESS_SPACE_MAP_PRIVATE));
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_ADVISE),
		  !as_advise(asfd, 0, PAGE, ADDRESS_SPACE_DONTNEED));
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_LAYOUT), as_layout(asfd, 0, PAGE, &range, 1, NULL) >= 0);
	EXPECT_EQ(has(ADDRESS_SPACE_FEATURE_MOUNT),
		  !system("grep -qw address_space /proc/filesystems"));
	if (!access("/dev/kvm", F_OK))
		EXPECT_TRUE(has(ADDRESS_SPACE_FEATURE_KVM));
}

/* No bit is set that the header does not list. */
TEST(no_other_feature_is_claimed)
{
	const uint64_t known = ADDRESS_SPACE_FEATURE_NAMES | ADDRESS_SPACE_FEATURE_REOPEN |
		ADDRESS_SPACE_FEATURE_EXEC | ADDRESS_SPACE_FEATURE_MANAGE |
		ADDRESS_SPACE_FEATURE_HOLES | ADDRESS_SPACE_FEATURE_RELEASE |
		ADDRESS_SPACE_FEATURE_UNREGISTER_ALL | ADDRESS_SPACE_FEATURE_KVM |
		ADDRESS_SPACE_FEATURE_HUGE_PAGES | ADDRESS_SPACE_FEATURE_LEND |
		ADDRESS_SPACE_FEATURE_PRIVATE | ADDRESS_SPACE_FEATURE_ADVISE |
		ADDRESS_SPACE_FEATURE_LAYOUT | ADDRESS_SPACE_FEATURE_MOUNT;

	EXPECT_FALSE(has(~known));
}

TEST_HARNESS_MAIN

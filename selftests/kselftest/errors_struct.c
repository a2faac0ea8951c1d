// SPDX-License-Identifier: GPL-2.0
/*
 * The contract that all calls share: valid lengths of a struct, valid pointers, known
 * flags, known calls. A refused call changes nothing.
 */
#include "kselftest_harness.h"
#include "lib/as_util.h"

union any {
	struct address_space_create create;
	struct address_space_mmap mmap;
	struct address_space_munmap munmap;
	struct address_space_view view;
	struct address_space_register reg;
	struct address_space_unregister unreg;
	struct address_space_batch batch;
	struct address_space_protect protect;
	struct address_space_move move;
	struct address_space_advise advise;
	struct address_space_layout layout;
	struct address_space_events events;
	struct address_space_poison poison;
	struct address_space_query query;
	struct address_space_lend lend;
	uint32_t head[2];		/* size, flags */
	char room[128];
};

FIXTURE(call)
{
	struct space s;
	int fd;			/* what the call is made on */
	union any arg;		/* arguments with which the call succeeds */
	struct address_space_op op;	/* of a batch */
	struct address_space_range range;	/* of a layout */
};

FIXTURE_VARIANT(call)
{
	unsigned long nr;
	size_t size;
	size_t first;		/* size in the first published version, if not the same */
	uint32_t flags;		/* the flags that exist */
	size_t reserved;	/* offset of a field that must be 0 */
};

#define HOLE_FLAGS	(ADDRESS_SPACE_HOLE_SIGNAL | ADDRESS_SPACE_HOLE_ABSORB |	\
			 ADDRESS_SPACE_HOLE_WAIT | ADDRESS_SPACE_HOLE_DENIED |	\
			 ADDRESS_SPACE_HOLE_KERNEL)

#define CALL(number, type, known, field)			\
	CALL_SINCE(0, number, type, known, field)

#define CALL_SINCE(version, number, type, known, field) {	\
	.nr = number,						\
	.size = sizeof(struct type),				\
	.first = version,					\
	.flags = known,						\
	.reserved = field,					\
}

FIXTURE_VARIANT_ADD(call, create)
	CALL_SINCE(16, ADDRESS_SPACE_CREATE, address_space_create, HOLE_FLAGS, 0);
FIXTURE_VARIANT_ADD(call, mmap)
	CALL(ADDRESS_SPACE_MMAP, address_space_mmap, ADDRESS_SPACE_MAP_REPLACE |
	     ADDRESS_SPACE_MAP_ANYWHERE | ADDRESS_SPACE_MAP_POPULATE |
	     ADDRESS_SPACE_MAP_PRIVATE, 0);
FIXTURE_VARIANT_ADD(call, munmap)
	CALL(ADDRESS_SPACE_MUNMAP, address_space_munmap, ADDRESS_SPACE_MUNMAP_RELEASE, 0);
FIXTURE_VARIANT_ADD(call, view)
	CALL_SINCE(40, ADDRESS_SPACE_VIEW, address_space_view,
	     ADDRESS_SPACE_VIEW_MANAGE | HOLE_FLAGS,
	     offsetof(struct address_space_view, __reserved));
FIXTURE_VARIANT_ADD(call, register)
	CALL(ADDRESS_SPACE_REGISTER, address_space_register,
	     ADDRESS_SPACE_REGISTER_POPULATE | ADDRESS_SPACE_REGISTER_PRIVATE, 0);
FIXTURE_VARIANT_ADD(call, unregister)
	CALL(ADDRESS_SPACE_UNREGISTER, address_space_unregister, ADDRESS_SPACE_UNREGISTER_ALL,
	     offsetof(struct address_space_unregister, __reserved));
FIXTURE_VARIANT_ADD(call, batch)
	CALL(ADDRESS_SPACE_BATCH, address_space_batch, 0,
	     offsetof(struct address_space_batch, __reserved));
FIXTURE_VARIANT_ADD(call, protect)
	CALL(ADDRESS_SPACE_PROTECT, address_space_protect, 0,
	     offsetof(struct address_space_protect, __reserved));
FIXTURE_VARIANT_ADD(call, move)
	CALL(ADDRESS_SPACE_MOVE, address_space_move, ADDRESS_SPACE_MAP_REPLACE, 0);
FIXTURE_VARIANT_ADD(call, advise)
	CALL(ADDRESS_SPACE_ADVISE, address_space_advise, 0,
	     offsetof(struct address_space_advise, __reserved));
FIXTURE_VARIANT_ADD(call, layout)
	CALL(ADDRESS_SPACE_LAYOUT, address_space_layout, 0, 0);
FIXTURE_VARIANT_ADD(call, events)
	CALL(ADDRESS_SPACE_EVENTS, address_space_events, 0,
	     offsetof(struct address_space_events, __reserved));
FIXTURE_VARIANT_ADD(call, poison)
	CALL(ADDRESS_SPACE_POISON, address_space_poison, ADDRESS_SPACE_POISON_CLEAR, 0);

FIXTURE_VARIANT_ADD(call, query)
	CALL(ADDRESS_SPACE_QUERY, address_space_query, 0,
	     offsetof(struct address_space_query, __reserved));

FIXTURE_VARIANT_ADD(call, lend)
	CALL(ADDRESS_SPACE_LEND, address_space_lend, 0,
	     offsetof(struct address_space_lend, __reserved));

FIXTURE_SETUP(call)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	self->fd = self->s.asfd;
	switch (variant->nr) {
	case ADDRESS_SPACE_CREATE:
		self->fd = open("/dev/address_space", O_RDWR);
		ASSERT_LE(0, self->fd);
		self->arg.create.length = SPACE_LEN;
		break;
	case ADDRESS_SPACE_QUERY:
		self->fd = open("/dev/address_space", O_RDONLY);
		ASSERT_LE(0, self->fd);
		break;
	case ADDRESS_SPACE_LEND:
		self->fd = open("/dev/address_space", O_RDONLY);
		ASSERT_LE(0, self->fd);
		self->arg.lend.prot = PROT_READ;
		self->arg.lend.addr = 16 * PAGE;
		self->arg.lend.length = PAGE;
		break;
	case ADDRESS_SPACE_MMAP:
		self->arg.mmap.fd = self->s.b;
		self->arg.mmap.prot = RW;
		self->arg.mmap.length = FILE_LEN;
		self->arg.mmap.addr = FILE_LEN;
		break;
	case ADDRESS_SPACE_MUNMAP:
		self->arg.munmap.length = PAGE;
		break;
	case ADDRESS_SPACE_VIEW:
		self->arg.view.prot = PROT_READ;
		self->arg.view.length = PAGE;
		break;
	case ADDRESS_SPACE_REGISTER:
		self->arg.reg.fd = self->s.b;
		self->arg.reg.prot = RW;
		self->arg.reg.length = FILE_LEN;
		break;
	case ADDRESS_SPACE_UNREGISTER:
		ASSERT_EQ(0, as_register(self->fd, self->s.b, 0, PAGE, RW, 0));
		self->arg.unreg.fd = self->s.b;
		break;
	case ADDRESS_SPACE_BATCH:
		self->op.opcode = ADDRESS_SPACE_OP_MUNMAP;
		self->op.length = PAGE;
		self->arg.batch.ops = (uintptr_t)&self->op;
		self->arg.batch.nr_ops = 1;
		self->arg.batch.op_size = sizeof(self->op);
		break;
	case ADDRESS_SPACE_PROTECT:
		self->arg.protect.length = PAGE;
		self->arg.protect.prot = PROT_READ;
		break;
	case ADDRESS_SPACE_ADVISE:
		self->arg.advise.length = PAGE;
		self->arg.advise.advice = ADDRESS_SPACE_DONTNEED;
		break;
	case ADDRESS_SPACE_LAYOUT:
		self->arg.layout.length = PAGE;
		self->arg.layout.ranges = (uintptr_t)&self->range;
		self->arg.layout.nr_ranges = 1;
		self->arg.layout.range_size = sizeof(self->range);
		break;
	case ADDRESS_SPACE_EVENTS:
		self->arg.events.length = PAGE;
		break;
	case ADDRESS_SPACE_POISON:
		ASSERT_LE(0, as_events(self->fd, 0, 0, 0));
		self->arg.poison.length = PAGE;
		break;
	case ADDRESS_SPACE_MOVE:
		self->arg.move.length = PAGE;
		self->arg.move.new_addr = FILE_LEN;
		break;
	}
	self->arg.head[0] = variant->size;
}

FIXTURE_TEARDOWN(call)
{
	space_free(&self->s);
}

TEST_F(call, with_exact_struct_size_succeeds)
{
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, &self->arg));
}

TEST_F(call, with_short_struct_is_einval)
{
	uint32_t size;

	for (size = 0; size < (variant->first ?: variant->size); size++) {
		self->arg.head[0] = size;
		EXPECT_REFUSED(self->s.asfd, EINVAL,
			       as_ioctl(self->fd, variant->nr, &self->arg));
	}
}

TEST_F(call, with_first_struct_size_succeeds)
{
	self->arg.head[0] = variant->first ?: variant->size;
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, &self->arg));
}

TEST_F(call, with_longer_zeroed_struct_succeeds)
{
	self->arg.head[0] = sizeof(self->arg);
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, &self->arg));
}

TEST_F(call, with_longer_nonzero_struct_is_e2big)
{
	size_t i;

	self->arg.head[0] = sizeof(self->arg);
	for (i = variant->size; i < sizeof(self->arg); i++) {
		self->arg.room[i] = 1;
		EXPECT_REFUSED(self->s.asfd, E2BIG,
			       as_ioctl(self->fd, variant->nr, &self->arg));
		self->arg.room[i] = 0;
	}
	/* even if the size is absurd */
	self->arg.room[variant->size] = 1;
	self->arg.head[0] = UINT32_MAX;
	EXPECT_REFUSED(self->s.asfd, E2BIG,
		       as_ioctl(self->fd, variant->nr, &self->arg));
}

TEST_F(call, with_unmapped_struct_is_efault)
{
	char *room = mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *end = room + PAGE;

	ASSERT_NE(MAP_FAILED, (void *)room);
	ASSERT_EQ(0, mprotect(end, PAGE, PROT_NONE));
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, NULL));
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, (void *)-PAGE));
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, end));
	/* the size is readable, the rest is not */
	memcpy(end - 4, &self->arg, 4);
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, end - 4));
	memcpy(end - variant->size + 4, &self->arg, variant->size - 4);
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, end - variant->size + 4));
	/* nor is the tail that the size announces */
	self->arg.head[0] = variant->size + 8;
	memcpy(end - variant->size, &self->arg, variant->size);
	EXPECT_REFUSED(self->s.asfd, EFAULT,
		       as_ioctl(self->fd, variant->nr, end - variant->size));
	/* and so is the struct right before the end of readable memory */
	self->arg.head[0] = variant->size;
	memcpy(end - variant->size, &self->arg, variant->size);
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, end - variant->size));
}

TEST_F(call, with_unknown_flags_is_eopnotsupp)
{
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		if (variant->flags & 1U << bit)
			continue;
		self->arg.head[1] = 1U << bit;
		EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
			       as_ioctl(self->fd, variant->nr, &self->arg));
	}
	self->arg.head[1] = ~0U;
	EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
		       as_ioctl(self->fd, variant->nr, &self->arg));
	self->arg.head[1] = 0;
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, &self->arg));
}

TEST_F(call, with_nonzero_reserved_field_is_eopnotsupp)
{
	uint32_t *field = (uint32_t *)(self->arg.room + variant->reserved);
	unsigned int bit;

	for (bit = 0; variant->reserved && bit < 32; bit++) {
		*field = 1U << bit;
		EXPECT_REFUSED(self->s.asfd, EOPNOTSUPP,
			       as_ioctl(self->fd, variant->nr, &self->arg));
		*field = 0;
	}
	EXPECT_LE(0, as_ioctl(self->fd, variant->nr, &self->arg));
}

/* The structs are the same for 32-bit programs, so the calls must be the same. */
static long ioctl32(int fd, unsigned long nr, void *arg)
{
	long ret;

	asm volatile("int $0x80"
		     : "=a" (ret)
		     : "a" (54), "b" ((long)fd), "c" (nr), "d" (arg)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

TEST_F(call, works_from_32_bit_program)
{
	union any *low = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS |
			      MAP_32BIT, -1, 0);
	char text[8];

	ASSERT_NE(MAP_FAILED, (void *)low);
	if (read_text("/proc/sys/abi/vsyscall32", text, sizeof(text)))
		SKIP(return, "no 32-bit programs on this kernel");
	*low = self->arg;
	low->head[0] = (variant->first ?: variant->size) - 1;
	EXPECT_EQ(-EINVAL, ioctl32(self->fd, variant->nr, low));
	low->head[0] = variant->size;
	EXPECT_LE(0, ioctl32(self->fd, variant->nr, low));
}

FIXTURE(fd)
{
	struct space s;
	int fd;
};

FIXTURE_VARIANT(fd)
{
	uint8_t known[16];
	enum { DEVICE, ASFD, VIEW } kind;
};

FIXTURE_VARIANT_ADD(fd, device)
{
	.known = { _IOC_NR(ADDRESS_SPACE_CREATE), _IOC_NR(ADDRESS_SPACE_QUERY),
		   _IOC_NR(ADDRESS_SPACE_LEND) },
	.kind = DEVICE,
};

FIXTURE_VARIANT_ADD(fd, asfd)
{
	.known = {
		_IOC_NR(ADDRESS_SPACE_MMAP), _IOC_NR(ADDRESS_SPACE_MUNMAP),
		_IOC_NR(ADDRESS_SPACE_VIEW), _IOC_NR(ADDRESS_SPACE_REGISTER),
		_IOC_NR(ADDRESS_SPACE_UNREGISTER), _IOC_NR(ADDRESS_SPACE_BATCH),
		_IOC_NR(ADDRESS_SPACE_PROTECT), _IOC_NR(ADDRESS_SPACE_MOVE),
		_IOC_NR(ADDRESS_SPACE_ADVISE), _IOC_NR(ADDRESS_SPACE_LAYOUT),
		_IOC_NR(ADDRESS_SPACE_EVENTS), _IOC_NR(ADDRESS_SPACE_POISON),
		_IOC_NR(KVM_MAP_ADDRESS_SPACE), _IOC_NR(KVM_UNMAP_ADDRESS_SPACE),
	},
	.kind = ASFD,
};

FIXTURE_VARIANT_ADD(fd, view)
{
	.known = {
		_IOC_NR(KVM_MAP_ADDRESS_SPACE), _IOC_NR(KVM_UNMAP_ADDRESS_SPACE),
	},
	.kind = VIEW,
};

FIXTURE_SETUP(fd)
{
	ASSERT_EQ(0, space_init(&self->s));
	self->fd = variant->kind == DEVICE ? open("/dev/address_space", O_RDWR) :
		   variant->kind == VIEW ? as_view(self->s.asfd, 0, PAGE, RW) :
		   dup(self->s.asfd);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(fd)
{
	space_free(&self->s);
}

static bool knows(const uint8_t *known, unsigned int nr, bool zero)
{
	unsigned int i;

	for (i = 0; i < 16; i++)
		if (known[i] == nr && (nr || zero))
			return true;
	return false;
}

TEST_F(fd, unknown_calls_are_enotty)
{
	struct address_space_mmap arg = {
		.size = sizeof(arg), .fd = self->s.a, .prot = RW, .length = PAGE,
	};
	char *before = state_of(self->s.asfd), *after;
	unsigned int nr;

	for (nr = 0; nr < 256; nr++) {
		/* the same number in another family, or with a direction */
		EXPECT_EQ(-ENOTTY, as_ioctl(self->fd, _IO(0xB8, nr), &arg));
		EXPECT_EQ(-ENOTTY, as_ioctl(self->fd, _IO(0xBA, nr), &arg));
		EXPECT_EQ(-ENOTTY, as_ioctl(self->fd, _IOWR(ADDRESS_SPACE_TYPE,
					    nr, arg), &arg));
		if (knows(variant->known, nr, variant->kind == DEVICE))
			continue;
		EXPECT_EQ(-ENOTTY, as_ioctl(self->fd,
					    _IO(ADDRESS_SPACE_TYPE, nr), &arg))
			TH_LOG("call %#x", nr);
		EXPECT_EQ(-ENOTTY, as_ioctl(self->fd,
					    _IO(ADDRESS_SPACE_TYPE, nr), NULL));
	}
	after = state_of(self->s.asfd);
	EXPECT_STREQ(before, after);
	free(before);
	free(after);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/* The calls, one function each. They return what the kernel returned, or -errno. */
#include "as_util.h"

int as_ioctl(int fd, unsigned long call, void *arg)
{
	int ret = ioctl(fd, call, arg);

	return ret < 0 ? -errno : ret;
}

int as_create(uint64_t length)
{
	return as_create_flags(length, 0);
}

int as_create_flags(uint64_t length, uint32_t flags)
{
	struct address_space_create arg = {
		.size = sizeof(arg),
		.flags = flags,
		.length = length,
	};
	int dev = open("/dev/address_space", O_RDWR | O_CLOEXEC);
	int ret;

	if (dev < 0)
		return -errno;
	ret = as_ioctl(dev, ADDRESS_SPACE_CREATE, &arg);
	close(dev);
	return ret;
}

int as_map(int asfd, uint64_t addr, int fd, uint64_t offset, uint64_t length,
	   int prot, uint32_t flags)
{
	struct address_space_mmap arg = {
		.size = sizeof(arg),
		.flags = flags,
		.fd = fd,
		.prot = prot,
		.offset = offset,
		.length = length,
		.addr = addr,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_MMAP, &arg);
}

int as_map_anywhere(int asfd, uint64_t *addr, int fd, uint64_t offset,
		    uint64_t length, int prot)
{
	struct address_space_mmap arg = {
		.size = sizeof(arg),
		.flags = ADDRESS_SPACE_MAP_ANYWHERE,
		.fd = fd,
		.prot = prot,
		.offset = offset,
		.length = length,
	};
	int ret = as_ioctl(asfd, ADDRESS_SPACE_MMAP, &arg);

	*addr = arg.addr;
	return ret;
}

int as_unmap(int asfd, uint64_t addr, uint64_t length)
{
	return as_unmap_flags(asfd, addr, length, 0);
}

int as_unmap_flags(int asfd, uint64_t addr, uint64_t length, uint32_t flags)
{
	struct address_space_munmap arg = {
		.size = sizeof(arg),
		.flags = flags,
		.addr = addr,
		.length = length,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_MUNMAP, &arg);
}

int as_view_flags(int asfd, uint64_t offset, uint64_t length, int prot, uint32_t flags)
{
	struct address_space_view arg = {
		.size = sizeof(arg),
		.flags = flags,
		.prot = prot,
		.offset = offset,
		.length = length,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_VIEW, &arg);
}

int as_view(int asfd, uint64_t offset, uint64_t length, int prot)
{
	return as_view_flags(asfd, offset, length, prot, 0);
}

int as_part(int asfd, uint64_t offset, uint64_t length, int prot)
{
	return as_view_flags(asfd, offset, length, prot, ADDRESS_SPACE_VIEW_MANAGE);
}

int as_register(int asfd, int fd, uint64_t offset, uint64_t length, int prot,
		uint32_t flags)
{
	struct address_space_register arg = {
		.size = sizeof(arg),
		.flags = flags,
		.fd = fd,
		.prot = prot,
		.offset = offset,
		.length = length,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_REGISTER, &arg);
}

int as_unregister(int asfd, int fd)
{
	struct address_space_unregister arg = {
		.size = sizeof(arg),
		.fd = fd,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_UNREGISTER, &arg);
}

int as_unregister_all(int asfd)
{
	struct address_space_unregister arg = {
		.size = sizeof(arg),
		.flags = ADDRESS_SPACE_UNREGISTER_ALL,
		.fd = -1,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_UNREGISTER, &arg);
}

int as_protect(int asfd, uint64_t addr, uint64_t length, int prot)
{
	struct address_space_protect arg = {
		.size = sizeof(arg),
		.addr = addr,
		.length = length,
		.prot = prot,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_PROTECT, &arg);
}

int as_move(int asfd, uint64_t addr, uint64_t length, uint64_t new_addr,
	    uint32_t flags)
{
	struct address_space_move arg = {
		.size = sizeof(arg),
		.flags = flags,
		.addr = addr,
		.length = length,
		.new_addr = new_addr,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_MOVE, &arg);
}

int as_batch(int asfd, const struct address_space_op *ops, uint32_t n,
	     uint32_t *failed)
{
	struct address_space_batch arg = {
		.size = sizeof(arg),
		.ops = (uintptr_t)ops,
		.nr_ops = n,
		.op_size = sizeof(*ops),
		.failed = UINT32_MAX,
	};
	int ret = as_ioctl(asfd, ADDRESS_SPACE_BATCH, &arg);

	if (failed)
		*failed = arg.failed;
	return ret;
}

int as_advise(int asfd, uint64_t addr, uint64_t length, uint32_t advice)
{
	struct address_space_advise arg = {
		.size = sizeof(arg),
		.addr = addr,
		.length = length,
		.advice = advice,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_ADVISE, &arg);
}

int as_layout(int asfd, uint64_t addr, uint64_t length, struct address_space_range *ranges,
	      uint32_t room, uint64_t *next)
{
	struct address_space_layout arg = {
		.size = sizeof(arg), .addr = addr, .length = length,
		.ranges = (uintptr_t)ranges, .nr_ranges = room, .range_size = sizeof(*ranges),
	};
	int ret = as_ioctl(asfd, ADDRESS_SPACE_LAYOUT, &arg);

	if (ret < 0)
		return ret;
	if (next)
		*next = arg.next;
	return arg.nr_ranges;
}

int as_events(int asfd, uint64_t addr, uint64_t length, uint32_t timeout_ms)
{
	struct address_space_events arg = {
		.size = sizeof(arg),
		.timeout_ms = timeout_ms,
		.addr = addr,
		.length = length,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_EVENTS, &arg);
}

int as_poison(int asfd, uint64_t addr, uint64_t length, uint32_t flags)
{
	struct address_space_poison arg = {
		.size = sizeof(arg),
		.flags = flags,
		.addr = addr,
		.length = length,
	};

	return as_ioctl(asfd, ADDRESS_SPACE_POISON, &arg);
}

int as_lend(const void *addr, uint64_t length, int prot)
{
	struct address_space_lend arg = {
		.size = sizeof(arg),
		.prot = prot,
		.addr = (uintptr_t)addr,
		.length = length,
	};
	int device = open("/dev/address_space", O_RDWR | O_CLOEXEC);
	int ret;

	if (device < 0)
		return -errno;
	ret = as_ioctl(device, ADDRESS_SPACE_LEND, &arg);
	close(device);
	return ret;
}

int as_lend_revoke(int fd)
{
	return as_ioctl(fd, ADDRESS_SPACE_LEND_REVOKE, NULL);
}

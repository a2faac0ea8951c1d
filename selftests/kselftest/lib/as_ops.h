/* SPDX-License-Identifier: GPL-2.0 */
/* Operations of a batch. */
#ifndef AS_OPS_H
#define AS_OPS_H

#include "as_util.h"

static inline struct address_space_op
op_map(uint64_t addr, int fd, uint64_t offset, uint64_t length, int prot, uint32_t flags)
{
	return (struct address_space_op) {
		.opcode = ADDRESS_SPACE_OP_MMAP, .flags = flags, .fd = fd,
		.prot = prot, .offset = offset, .length = length, .addr = addr,
	};
}

/* fields that an operation does not use hold values that other operations refuse */
static inline struct address_space_op op_unmap(uint64_t addr, uint64_t length)
{
	return (struct address_space_op) {
		.opcode = ADDRESS_SPACE_OP_MUNMAP, .fd = -7, .prot = ~0U,
		.offset = ~0ULL, .length = length, .addr = addr,
	};
}

static inline struct address_space_op
op_protect(uint64_t addr, uint64_t length, int prot)
{
	return (struct address_space_op) {
		.opcode = ADDRESS_SPACE_OP_PROTECT, .fd = -7, .prot = prot,
		.offset = ~0ULL, .length = length, .addr = addr,
	};
}

#endif

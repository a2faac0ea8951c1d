/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads: the headers that kernel::bindings does not cover. Kbuild
 * lists which of their items are taken.
 */
#include <linux/anon_inodes.h>
#include <linux/binfmts.h>
#include <linux/fadvise.h>
#include <linux/falloc.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/hmm.h>
#include <linux/huge_mm.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/posix_acl.h>
#include <linux/umh.h>

#include <linux/address_space.h>

#include "helpers.h"

/* What mseal() sets; and that an inode may have ACLs. Macros that bindgen does not understand. */
const vm_flags_t ADDRESS_SPACE_SEALED = VM_SEALED;
const unsigned long ADDRESS_SPACE_POSIX_ACL = SB_POSIXACL;

/* What a shared mapping has; the kernel crate of 7.2 has the value of VM_MAYEXEC for it. */
const vm_flags_t ADDRESS_SPACE_MAYSHARE = VM_MAYSHARE;

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A lender: what the tests have an agent do with the memory that it lends. All are for
 * agent_call(): the argument is a number, of a page in the area unless it has another name,
 * and the result 0 or what the comment says, or a negative errno.
 */
#ifndef LENDER_H
#define LENDER_H

#include "as_util.h"

/* where each lender has what it lends */
#define AREA	((char *)0x200000000000UL)
#define PAGES	16UL
#define LEN	(PAGES * PAGE)
/* twice 2 MiB beside it, for huge pages */
#define HUGE_AREA	(AREA + (1UL << 30))
#define HUGE_LEN	(2 * HUGE)

/* makes the area and lends it for @prot: the lend fd */
long lend_area(void *prot);
/* these are for a page of the area */
long lender_unmap(void *page);
long lender_map_over(void *page);
/* map over a page, shared or private: the fd of the memfd */
long lender_map_file(void *page);
long lender_map_private(void *page);
/* maps an fd over page 1 */
long lender_map_fd(void *fd);
long lender_map_secret(void *page);
long lender_map_device(void *page);
/* moves page 0 there */
long lender_move(void *page);
long lender_forbid(void *page);
long lender_hide(void *page);
long lender_only_write(void *page);
long lender_allow(void *page);
long lender_forget(void *page);
long lender_page_out(void *unused);
long lender_revoke(void *fd);
/* calls exec; the program lives until it is killed */
long lender_exec(void *unused);
/* a child that has written to page 3 and lives until the agent dies: its pid */
long lender_fork(void *unused);
/* fills all pages alike and has them merged */
long lender_merge(void *unused);
long lender_free(void *page);
/* 4 MiB of huge pages as far as there are any: the lend fd */
long lend_huge(void *unused);
/* the same of an fd on hugetlb, or of private hugetlb memory for -1: the lend fd */
long lend_hugetlb(void *fd);
/* these are for the huge area */
long lender_unmap_huge(void *unused);
long lender_split(void *page);
long lender_forget_huge(void *unused);
long lender_collapse(void *unused);
/* has a thread serve page faults in the area, if @served, or nobody: the fd then */
long lender_userfaultfd(void *served);

#endif

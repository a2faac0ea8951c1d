// SPDX-License-Identifier: GPL-2.0
/*
 * ADDRESS_SPACE_MAP_PRIVATE: what is written goes to copies, which belong to the mapping
 * alone, which all attachments see, and which are given back with their page.
 */
#include <pthread.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_parallel.h"

#define PRIVATE	ADDRESS_SPACE_MAP_PRIVATE

FIXTURE(private)
{
	struct space s;
	int file;	/* pages of 'a', 'b', ... */
	char *mem;	/* where it is mapped private, at offset 0 */
};

FIXTURE_VARIANT(private)
{
	enum { MEMFD, EXT4 } kind;
};

FIXTURE_VARIANT_ADD(private, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(private, ext4) { .kind = EXT4 };

FIXTURE_SETUP(private)
{
	char dir[128];

	ASSERT_EQ(0, space_init(&self->s));
	self->file = dup(self->s.a);
	if (variant->kind == EXT4) {
		close(self->file);
		ASSERT_EQ(0, disk_dir(dir, sizeof(dir)));
		self->file = file_pages(dir, FILE_PAGES, 'a');
	}
	ASSERT_LE(0, self->file);
	self->mem = self->s.mem;
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->file, 0, FILE_LEN, RW, PRIVATE));
}

FIXTURE_TEARDOWN(private)
{
	close(self->file);
	space_free(&self->s);
}

/* bytes of copies that the address space has */
static long long copies(int asfd)
{
	return fdinfo_value(asfd, "copies");
}

static int write_pages(char *mem, unsigned int pages)
{
	unsigned int i;

	for (i = 0; i < pages; i++)
		if (poke(mem + i * PAGE, 'A' + i))
			return -EIO;
	return 0;
}

static bool file_is_as_it_was(int fd)
{
	unsigned int i;

	for (i = 0; i < FILE_PAGES; i++)
		if (file_byte(fd, i * PAGE) != (int)('a' + i))
			return false;
	return true;
}

TEST_F(private, write_does_not_reach_the_file)
{
	char *plain = attach(self->file, 0, FILE_LEN, PROT_READ);

	ASSERT_NE(NULL, plain);
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(0, copies(self->s.asfd));
	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	EXPECT_EQ('A', peek(self->mem));
	EXPECT_EQ('P', peek(self->mem + 15 * PAGE));
	EXPECT_EQ('a', peek(plain));
	EXPECT_TRUE(file_is_as_it_was(self->file));
	EXPECT_EQ((long long)FILE_LEN, copies(self->s.asfd));
	/* nor by being written back */
	EXPECT_EQ(0, fsync(self->s.asfd));
	EXPECT_EQ(0, msync(self->mem, FILE_LEN, MS_SYNC));
	EXPECT_TRUE(file_is_as_it_was(self->file));
	munmap(plain, FILE_LEN);
}

TEST_F(private, one_copy_is_seen_by_all_attachments)
{
	char *second = attach(self->s.asfd, 0, SPACE_LEN, RW);
	int view = as_view(self->s.asfd, PAGE, 2 * PAGE, RW);
	struct agent child;
	char *shown;

	ASSERT_NE(NULL, second);
	ASSERT_LE(0, view);
	shown = attach(view, 0, 2 * PAGE, RW);
	ASSERT_NE(NULL, shown);
	/* all of them had the page of the file before */
	EXPECT_EQ('b', peek(self->mem + PAGE));
	EXPECT_EQ('b', peek(second + PAGE));
	EXPECT_EQ('b', peek(shown));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ('b', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(0, poke(second + PAGE, '1'));
	EXPECT_EQ('1', peek(self->mem + PAGE));
	EXPECT_EQ('1', peek(shown));
	EXPECT_EQ('1', agent_peek(&child, self->mem + PAGE));
	EXPECT_EQ(0, agent_poke(&child, shown, '2'));
	EXPECT_EQ('2', peek(self->mem + PAGE));
	EXPECT_EQ('2', peek(second + PAGE));
	EXPECT_EQ((long long)PAGE, copies(self->s.asfd));
	EXPECT_EQ(0, agent_stop(&child));
	/* also when nobody has it mapped any more */
	munmap(second, SPACE_LEN);
	munmap(shown, 2 * PAGE);
	munmap(self->mem, SPACE_LEN);
	self->s.mem = attach(self->s.asfd, 0, SPACE_LEN, RW);
	ASSERT_NE(NULL, self->s.mem);
	EXPECT_EQ('2', peek(self->s.mem + PAGE));
	close(view);
}

TEST_F(private, file_that_may_only_be_read_can_be_written)
{
	char path[64];
	int reader;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->file);
	reader = open(path, O_RDONLY);
	ASSERT_LE(0, reader);
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_map(self->s.asfd, FILE_LEN, reader, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, reader, 0, 2 * PAGE, RW, PRIVATE));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, '!'));
	EXPECT_EQ('!', peek(self->mem + FILE_LEN));
	EXPECT_EQ('b', peek(self->mem + FILE_LEN + PAGE));
	EXPECT_TRUE(file_is_as_it_was(self->file));
	close(reader);
}

TEST_F(private, file_that_is_sealed_can_be_written)
{
	if (variant->kind == EXT4)
		SKIP(return, "files on a disk have no seals");
	/* a frame of the file that is held would be in the way */
	ASSERT_EQ(0, fcntl(self->file, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
	EXPECT_REFUSED(self->s.asfd, EPERM,
		       as_map(self->s.asfd, FILE_LEN, self->file, 0, PAGE, RW, 0));
	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, PAGE, RW, PRIVATE));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, '!'));
	EXPECT_EQ('!', peek(self->mem + FILE_LEN));
	EXPECT_EQ('A', peek(self->mem));
	EXPECT_TRUE(file_is_as_it_was(self->file));
}

TEST_F(private, later_write_to_the_file_shows_where_nothing_is_copied)
{
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ(0, poke(self->mem + PAGE, '!'));
	ASSERT_EQ(0, file_set(self->file, 0, 'x'));
	ASSERT_EQ(0, file_set(self->file, PAGE, 'y'));
	ASSERT_EQ(0, file_set(self->file, 2 * PAGE, 'z'));
	EXPECT_EQ('x', peek(self->mem));
	EXPECT_EQ('!', peek(self->mem + PAGE));
	EXPECT_EQ('z', peek(self->mem + 2 * PAGE));
}

TEST_F(private, truncation_takes_copies_too)
{
	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	ASSERT_EQ(0, ftruncate(self->file, 3 * PAGE));
	EXPECT_EQ('C', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + 3 * PAGE));
	EXPECT_EQ(-SIGBUS, poke(self->mem + 15 * PAGE, '!'));
	EXPECT_EQ(3 * (long long)PAGE, copies(self->s.asfd));
	ASSERT_EQ(0, ftruncate(self->file, FILE_LEN));
	EXPECT_EQ(0, peek(self->mem + 3 * PAGE));
}

TEST_F(private, hole_in_the_file_leaves_copies)
{
	EXPECT_EQ(0, poke(self->mem, '!'));
	EXPECT_EQ('b', peek(self->mem + PAGE));
	ASSERT_EQ(0, fallocate(self->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			       2 * PAGE));
	EXPECT_EQ('!', peek(self->mem));
	EXPECT_EQ(0, peek(self->mem + PAGE));
}

TEST_F(private, copies_move_with_their_page)
{
	EXPECT_EQ(0, write_pages(self->mem, 4));
	ASSERT_EQ(0, as_move(self->s.asfd, PAGE, 2 * PAGE, 40 * PAGE, 0));
	EXPECT_EQ('B', peek(self->mem + 40 * PAGE));
	EXPECT_EQ('C', peek(self->mem + 41 * PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->mem + PAGE));
	EXPECT_EQ('A', peek(self->mem));
	EXPECT_EQ(4 * (long long)PAGE, copies(self->s.asfd));
	/* what it moves over goes */
	ASSERT_EQ(0, as_move(self->s.asfd, 40 * PAGE, PAGE, 3 * PAGE,
			     ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ('B', peek(self->mem + 3 * PAGE));
	EXPECT_EQ(3 * (long long)PAGE, copies(self->s.asfd));
}

TEST_F(private, copies_stay_when_the_protection_changes)
{
	EXPECT_EQ(0, write_pages(self->mem, 4));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, 2 * PAGE, PROT_READ));
	EXPECT_EQ(-SIGSEGV, poke(self->mem, '!'));
	EXPECT_EQ('A', peek(self->mem));
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, 2 * PAGE, PROT_NONE));
	EXPECT_EQ(-SIGSEGV, peek(self->mem + PAGE));
	ASSERT_EQ(0, as_protect(self->s.asfd, 0, 4 * PAGE, RW));
	EXPECT_EQ('B', peek(self->mem + PAGE));
	EXPECT_EQ('C', peek(self->mem + 2 * PAGE));
	EXPECT_EQ(0, poke(self->mem, '!'));
	EXPECT_EQ(4 * (long long)PAGE, copies(self->s.asfd));
}

TEST_F(private, protection_allows_no_more_than_was_asked_for)
{
	int view = as_view(self->s.asfd, 0, FILE_LEN, PROT_READ);
	char *mem = attach(view, 0, FILE_LEN, PROT_READ);

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, FILE_LEN, PROT_READ,
			    PRIVATE));
	EXPECT_EQ('a', peek(self->mem + FILE_LEN));
	EXPECT_EQ(-SIGSEGV, poke(self->mem + FILE_LEN, '!'));
	EXPECT_REFUSED(self->s.asfd, EACCES,
		       as_protect(self->s.asfd, FILE_LEN, PAGE, RW));
	/* a view for reading never makes a copy */
	EXPECT_EQ('a', peek(mem));
	EXPECT_EQ(-SIGSEGV, poke(mem, '!'));
	EXPECT_EQ(-1, mprotect(mem, PAGE, RW));
	EXPECT_EQ(0, copies(self->s.asfd));
	munmap(mem, FILE_LEN);
	close(view);
}

TEST_F(private, unmap_gives_copies_back_at_once)
{
	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	ASSERT_EQ((long long)FILE_LEN, copies(self->s.asfd));
	/* the beginning, and a page in the middle */
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, 2 * PAGE));
	EXPECT_EQ(14 * (long long)PAGE, copies(self->s.asfd));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 8 * PAGE, PAGE));
	EXPECT_EQ(13 * (long long)PAGE, copies(self->s.asfd));
	EXPECT_EQ('C', peek(self->mem + 2 * PAGE));
	EXPECT_EQ('H', peek(self->mem + 7 * PAGE));
	EXPECT_EQ('J', peek(self->mem + 9 * PAGE));
	/* across what is gone already */
	ASSERT_EQ(0, as_unmap(self->s.asfd, 6 * PAGE, 5 * PAGE));
	EXPECT_EQ(9 * (long long)PAGE, copies(self->s.asfd));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	EXPECT_EQ(0, copies(self->s.asfd));
}

TEST_F(private, replace_gives_copies_back_at_once)
{
	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	ASSERT_EQ(0, as_map(self->s.asfd, 4 * PAGE, self->s.b, 0, 2 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_EQ(14 * (long long)PAGE, copies(self->s.asfd));
	/* and by the same once more: it begins with the file again */
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->file, 0, 3 * PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE | PRIVATE));
	EXPECT_EQ('a', peek(self->mem));
	EXPECT_EQ('c', peek(self->mem + 2 * PAGE));
	EXPECT_EQ('D', peek(self->mem + 3 * PAGE));
	EXPECT_EQ(11 * (long long)PAGE, copies(self->s.asfd));
}

TEST_F(private, batch_gives_copies_back_or_changes_nothing)
{
	struct address_space_op ops[] = {
		op_unmap(0, PAGE),
		op_unmap(15 * PAGE, PAGE),
		op_map(4 * PAGE, self->s.b, 0, PAGE, RW, ADDRESS_SPACE_MAP_REPLACE),
		op_map(20 * PAGE, self->file, 0, PAGE, RW, PRIVATE),
		op_map(21 * PAGE, self->file, 0, PAGE, RW, PRIVATE),
		op_map(22 * PAGE, closed_fd(), 0, PAGE, RW, PRIVATE),
	};

	EXPECT_EQ(0, write_pages(self->mem, FILE_PAGES));
	EXPECT_REFUSED(self->s.asfd, EBADF, as_batch(self->s.asfd, ops, 6, NULL));
	ops[5] = op_map(5 * PAGE, self->file, 0, PAGE, RW, PRIVATE);
	/* refused only when the others are done, and undone */
	EXPECT_REFUSED(self->s.asfd, EEXIST, as_batch(self->s.asfd, ops, 6, NULL));
	EXPECT_EQ((long long)FILE_LEN, copies(self->s.asfd));
	EXPECT_EQ('A', peek(self->mem));
	EXPECT_EQ('E', peek(self->mem + 4 * PAGE));
	EXPECT_EQ('P', peek(self->mem + 15 * PAGE));
	ASSERT_EQ(0, as_batch(self->s.asfd, ops, 5, NULL));
	EXPECT_EQ(13 * (long long)PAGE, copies(self->s.asfd));
	EXPECT_EQ('B', peek(self->mem + PAGE));
	/* each of the two has its own */
	EXPECT_EQ(0, poke(self->mem + 20 * PAGE, '1'));
	EXPECT_EQ('a', peek(self->mem + 21 * PAGE));
}

TEST_F(private, two_maps_share_no_copies)
{
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, FILE_LEN, RW, PRIVATE));
	ASSERT_EQ(0, as_map(self->s.asfd, 2 * FILE_LEN, self->file, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(0, poke(self->mem, '1'));
	EXPECT_EQ(0, poke(self->mem + FILE_LEN, '2'));
	EXPECT_EQ('1', peek(self->mem));
	EXPECT_EQ('2', peek(self->mem + FILE_LEN));
	EXPECT_EQ('a', peek(self->mem + 2 * FILE_LEN));
	ASSERT_EQ(0, file_set(self->file, PAGE, 'x'));
	EXPECT_EQ('x', peek(self->mem + 2 * FILE_LEN + PAGE));
	/* what is in the file shows where nothing is copied */
	EXPECT_EQ('x', peek(self->mem + PAGE));
	EXPECT_EQ('x', peek(self->mem + FILE_LEN + PAGE));
	EXPECT_EQ('x', file_byte(self->file, PAGE));
}

TEST_F(private, registration_has_one_set_of_copies)
{
	int again = dup(self->file), asfd = self->s.asfd;

	ASSERT_EQ(0, as_register(asfd, self->file, 0, FILE_LEN, RW,
				 ADDRESS_SPACE_REGISTER_PRIVATE));
	ASSERT_EQ(0, as_map(asfd, 20 * PAGE, self->file, 0, 4 * PAGE, RW, PRIVATE));
	ASSERT_EQ(0, as_map(asfd, 30 * PAGE, again, PAGE, 2 * PAGE, RW, PRIVATE));
	EXPECT_EQ(0, poke(self->mem + 21 * PAGE, '1'));
	EXPECT_EQ('1', peek(self->mem + 30 * PAGE));
	EXPECT_EQ(0, poke(self->mem + 31 * PAGE, '2'));
	EXPECT_EQ('2', peek(self->mem + 22 * PAGE));
	if (variant->kind == MEMFD) {
		/* also when it cannot be written itself any more */
		ASSERT_EQ(0, fcntl(self->file, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
		ASSERT_EQ(0, as_map(asfd, 50 * PAGE, self->file, PAGE, PAGE, RW, PRIVATE));
		EXPECT_EQ('1', peek(self->mem + 50 * PAGE));
		ASSERT_EQ(0, as_unmap(asfd, 50 * PAGE, PAGE));
	}
	/* not the maps from before, and not those that share the file */
	EXPECT_EQ('b', peek(self->mem + PAGE));
	ASSERT_EQ(0, as_map(asfd, 40 * PAGE, self->file, 0, 4 * PAGE, PROT_READ, 0));
	EXPECT_EQ('b', peek(self->mem + 41 * PAGE));
	EXPECT_TRUE(file_is_as_it_was(self->file));
	/* what is unmapped is kept */
	ASSERT_EQ(0, as_unmap(asfd, 20 * PAGE, 20 * PAGE));
	EXPECT_EQ(2 * (long long)PAGE, copies(asfd));
	ASSERT_EQ(0, as_map(asfd, 20 * PAGE, self->file, 0, 2 * PAGE, RW, PRIVATE));
	EXPECT_EQ('1', peek(self->mem + 21 * PAGE));
	/* and at the end what is mapped is */
	ASSERT_EQ(0, as_unregister(asfd, self->file));
	EXPECT_EQ((long long)PAGE, copies(asfd));
	EXPECT_EQ('1', peek(self->mem + 21 * PAGE));
	ASSERT_EQ(0, as_unmap(asfd, 21 * PAGE, PAGE));
	EXPECT_EQ(0, copies(asfd));
	close(again);
}

TEST_F(private, populate_makes_no_copies)
{
	uint64_t addr = 20 * PAGE;
	long long faults;
	unsigned int i;

	ASSERT_EQ(0, as_map(self->s.asfd, addr, self->file, 0, FILE_LEN, RW,
			    PRIVATE | ADDRESS_SPACE_MAP_POPULATE));
	EXPECT_EQ(0, copies(self->s.asfd));
	faults = fdinfo_value(self->s.asfd, "faults");
	for (i = 0; i < FILE_PAGES; i++)
		EXPECT_EQ('a' + (int)i, peek(self->mem + addr + i * PAGE));
	EXPECT_EQ(faults, fdinfo_value(self->s.asfd, "faults"));
	EXPECT_EQ(0, poke(self->mem + addr, '!'));
	EXPECT_EQ((long long)PAGE, copies(self->s.asfd));
}

TEST_F(private, shows_p_in_fdinfo)
{
	char *layout = fdinfo_layout(self->s.asfd);

	EXPECT_NE(NULL, strstr(layout, "rw-p"));
	free(layout);
	ASSERT_EQ(0, as_map(self->s.asfd, FILE_LEN, self->file, 0, PAGE, PROT_READ, 0));
	layout = fdinfo_layout(self->s.asfd);
	EXPECT_NE(NULL, strstr(layout, "r--s"));
	free(layout);
}

/*
 * Writers that meet the unmap of what they write make no copy that stays: the first page
 * stays mapped, and with it the file in the arena.
 */
struct scribbler {
	char *mem;
	volatile bool stop;
	unsigned int seed;
	pthread_t thread;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;

	while (!s->stop)
		poke(s->mem + (1 + rand_r(&s->seed) % (FILE_PAGES - 1)) * PAGE, '!');
	return NULL;
}

TEST_F(private, no_copy_outlives_its_page_in_a_race)
{
	struct scribbler s[2];
	uint64_t until = now_ms() + race_ms();
	unsigned int i, rounds = 0;

	while (now_ms() < until) {
		EXPECT_EQ(0, poke(self->mem, '1'));
		for (i = 0; i < ARRAY_SIZE(s); i++) {
			s[i] = (struct scribbler) { .mem = self->mem, .seed = rounds + i };
			ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, scribble, &s[i]));
		}
		for (i = 1; i < FILE_PAGES; i++)
			ASSERT_EQ(0, as_unmap(self->s.asfd, i * PAGE, PAGE));
		for (i = 0; i < ARRAY_SIZE(s); i++)
			s[i].stop = true;
		for (i = 0; i < ARRAY_SIZE(s); i++)
			pthread_join(s[i].thread, NULL);
		ASSERT_EQ((long long)PAGE, copies(self->s.asfd));
		ASSERT_EQ('1', peek(self->mem));
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->file, 0, FILE_LEN, RW,
				    PRIVATE | ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(0, copies(self->s.asfd));
		rounds++;
	}
	TH_LOG("%u rounds", rounds);
	EXPECT_TRUE(file_is_as_it_was(self->file));
}

/* A reader, here or in another process, never meets the old page after the write. */
struct counted {
	char *mem;
	volatile bool stop;
	volatile uint64_t stamp, wrong, reads;
};

static void *read_counted(void *arg)
{
	struct counted *c = arg;
	uint64_t before, got;
	int ret;

	while (!c->stop) {
		before = __atomic_load_n(&c->stamp, __ATOMIC_ACQUIRE);
		ret = peek64(c->mem + PAGE / 2, &got);
		/* each stamp is there once, and then the page holds it */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (ret || (before && got != before &&
			    before == __atomic_load_n(&c->stamp, __ATOMIC_ACQUIRE)))
			c->wrong++;
		c->reads++;
	}
	return NULL;
}

TEST_F(private, write_is_seen_by_all_who_had_the_page_before)
{
	uint64_t until = now_ms() + race_ms() / 2, next = 1;
	struct counted *c = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pair readers;

	ASSERT_NE(MAP_FAILED, (void *)c);
	c->mem = self->mem;
	ASSERT_EQ(0, pair_start(&readers, read_counted, c, read_counted, c));
	while (now_ms() < until) {
		/* the page of the file again, which holds 0 there; then a copy */
		__atomic_store_n(&c->stamp, 0, __ATOMIC_RELEASE);
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->file, 0, FILE_LEN, RW,
				    PRIVATE | ADDRESS_SPACE_MAP_REPLACE));
		sleep_ms(1);
		ASSERT_EQ(0, poke64(self->mem + PAGE / 2, next));
		__atomic_store_n(&c->stamp, next, __ATOMIC_RELEASE);
		sleep_ms(1);
		next++;
	}
	c->stop = true;
	pair_join(&readers);
	TH_LOG("%ju reads, %ju writes", (uintmax_t)c->reads, (uintmax_t)next);
	EXPECT_LT(0U, c->reads);
	EXPECT_EQ(0U, c->wrong);
	munmap(c, PAGE);
}

/* Those that are not of this fixture's file. */

TEST(huge_file_and_lent_memory_cannot_be_private)
{
	char *own = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int huge = hugetlb_memfd(1), lend = as_lend(own, PAGE, RW);
	struct space s;

	ASSERT_EQ(0, space_init(&s));
	ASSERT_LE(0, lend);
	EXPECT_REFUSED(s.asfd, EOPNOTSUPP, as_map(s.asfd, 0, lend, 0, PAGE, RW, PRIVATE));
	if (huge >= 0) {
		EXPECT_REFUSED(s.asfd, EOPNOTSUPP,
			       as_map(s.asfd, 0, huge, 0, PAGE, RW, PRIVATE));
		EXPECT_REFUSED(s.asfd, EOPNOTSUPP,
			       as_register(s.asfd, huge, 0, HUGE, RW,
					   ADDRESS_SPACE_REGISTER_PRIVATE));
	}
	space_free(&s);
}

/* Of a file in huge pages, one page is copied, and not all of the huge one. */
TEST(write_to_a_huge_page_copies_one_page)
{
	int asfd = as_create(2 * HUGE), file;
	char dir[128], *mem;
	unsigned long at;

	if (!have_huge_pages())
		SKIP(return, "no huge pages in this kernel");
	ASSERT_LE(0, asfd);
	ASSERT_EQ(0, own_mounts());
	ASSERT_EQ(0, mount_tmpfs(dir, "huge=always,size=64m"));
	file = file_pages(dir, 0, -1);
	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, HUGE));
	ASSERT_EQ(0, file_set(file, 7 * PAGE, 'h'));
	ASSERT_EQ(0, as_map(asfd, 0, file, 0, HUGE, RW, PRIVATE));
	mem = attach(asfd, 0, HUGE, RW);
	ASSERT_NE(NULL, mem);
	EXPECT_EQ('h', peek(mem + 7 * PAGE));
	EXPECT_EQ(0, poke(mem + 9 * PAGE, '!'));
	EXPECT_EQ('h', peek(mem + 7 * PAGE));
	EXPECT_EQ('!', peek(mem + 9 * PAGE));
	EXPECT_EQ(0, peek(mem + 10 * PAGE));
	EXPECT_EQ(0, file_byte(file, 9 * PAGE));
	EXPECT_EQ((long long)PAGE, copies(asfd));
	for (at = 0; at < HUGE; at += PAGE)
		ASSERT_EQ(0, poke(mem + at, 'x'));
	EXPECT_EQ((long long)HUGE, copies(asfd));
	/* a part of what was huge */
	ASSERT_EQ(0, as_unmap(asfd, 100 * PAGE, 50 * PAGE));
	EXPECT_EQ((long long)(HUGE - 50 * PAGE), copies(asfd));
	EXPECT_EQ('h', file_byte(file, 7 * PAGE));
	munmap(mem, HUGE);
	close(asfd);
	close(file);
}

TEST_HARNESS_MAIN

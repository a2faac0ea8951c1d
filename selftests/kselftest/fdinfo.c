// SPDX-License-Identifier: GPL-2.0
/* What /proc/PID/fdinfo reports about an asfd and about a view. */
#include <pthread.h>

#include "kselftest_harness.h"
#include "lib/as_ops.h"
#include "lib/as_util.h"

struct line {
	unsigned long long start, end, offset;
	char perms[8], path[128];
};

/* Parses line @n of the layout; returns the number of lines, or -1. */
static int layout_line(int fd, int n, struct line *line)
{
	char *layout = fdinfo_layout(fd), *save, *text;
	int count = 0;

	if (!layout)
		return -1;
	memset(line, 0, sizeof(*line));
	for (text = strtok_r(layout, "\n", &save); text;
	     text = strtok_r(NULL, "\n", &save), count++)
		if (count == n &&
		    sscanf(text, "%llx-%llx %7s %llx %127[^\n]", &line->start,
			   &line->end, line->perms, &line->offset, line->path) < 4)
			count = -2;
	free(layout);
	return count;
}

FIXTURE(fdinfo)
{
	struct space s;
};

FIXTURE_SETUP(fdinfo)
{
	ASSERT_EQ(0, space_init(&self->s));
}

FIXTURE_TEARDOWN(fdinfo)
{
	space_free(&self->s);
}

TEST_F(fdinfo, of_new_space_has_its_length_only)
{
	int asfd = as_create(7 * PAGE);
	struct line line;

	ASSERT_LE(0, asfd);
	EXPECT_EQ(7 * (long long)PAGE, fdinfo_value(asfd, "length"));
	EXPECT_EQ(0, fdinfo_value(asfd, "attachments"));
	EXPECT_EQ(0, fdinfo_value(asfd, "faults"));
	EXPECT_EQ(0, fdinfo_value(asfd, "revocations"));
	EXPECT_EQ(0, layout_line(asfd, 0, &line));
}

TEST_F(fdinfo, has_one_line_per_mapping_as_in_proc_maps)
{
	struct line line;

	ASSERT_EQ(0, as_map(self->s.asfd, 4 * PAGE, self->s.a, 3 * PAGE,
			    2 * PAGE, RW, 0));
	ASSERT_EQ(1, layout_line(self->s.asfd, 0, &line));
	EXPECT_EQ(4 * PAGE, line.start);
	EXPECT_EQ(6 * PAGE, line.end);
	EXPECT_STREQ("rw-s", line.perms);
	EXPECT_EQ(3 * PAGE, line.offset);
	EXPECT_NE(NULL, strstr(line.path, "/memfd:lower"));
}

TEST_F(fdinfo, reports_protection)
{
	static const struct {
		int prot;
		const char *perms;
	} cases[] = {
		{ PROT_NONE, "---s" },
		{ PROT_READ, "r--s" },
		{ RW, "rw-s" },
		{ RX, "r-xs" },
		{ RWX, "rwxs" },
	};
	struct line line;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE,
				    cases[i].prot, ADDRESS_SPACE_MAP_REPLACE));
		ASSERT_EQ(1, layout_line(self->s.asfd, 0, &line));
		EXPECT_STREQ(cases[i].perms, line.perms);
	}
}

TEST_F(fdinfo, sorts_mappings_by_address)
{
	struct line line;

	ASSERT_EQ(0, as_map(self->s.asfd, 40 * PAGE, self->s.b, 0, PAGE, RW, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 2 * PAGE, self->s.a, 0, PAGE, PROT_READ, 0));
	ASSERT_EQ(0, as_map(self->s.asfd, 20 * PAGE, self->s.a, PAGE, PAGE, RX, 0));
	ASSERT_EQ(3, layout_line(self->s.asfd, 0, &line));
	EXPECT_EQ(2 * PAGE, line.start);
	EXPECT_STREQ("r--s", line.perms);
	layout_line(self->s.asfd, 1, &line);
	EXPECT_EQ(20 * PAGE, line.start);
	EXPECT_STREQ("r-xs", line.perms);
	EXPECT_EQ(PAGE, line.offset);
	layout_line(self->s.asfd, 2, &line);
	EXPECT_EQ(40 * PAGE, line.start);
	EXPECT_NE(NULL, strstr(line.path, "/memfd:upper"));
}

TEST_F(fdinfo, follows_splits_and_replacements)
{
	struct line line;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	ASSERT_EQ(0, as_unmap(self->s.asfd, 4 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, as_map(self->s.asfd, 10 * PAGE, self->s.b, 0, PAGE,
			    PROT_READ, ADDRESS_SPACE_MAP_REPLACE));
	/* a: 0-4, a: 6-10, b: 10-11, a: 11-16 */
	ASSERT_EQ(4, layout_line(self->s.asfd, 0, &line));
	EXPECT_EQ(0ULL, line.start);
	EXPECT_EQ(4 * PAGE, line.end);
	layout_line(self->s.asfd, 1, &line);
	EXPECT_EQ(6 * PAGE, line.start);
	EXPECT_EQ(10 * PAGE, line.end);
	EXPECT_EQ(6 * PAGE, line.offset);
	layout_line(self->s.asfd, 2, &line);
	EXPECT_EQ(10 * PAGE, line.start);
	EXPECT_EQ(11 * PAGE, line.end);
	EXPECT_EQ(0ULL, line.offset);
	EXPECT_STREQ("r--s", line.perms);
	layout_line(self->s.asfd, 3, &line);
	EXPECT_EQ(11 * PAGE, line.start);
	EXPECT_EQ(16 * PAGE, line.end);
	EXPECT_EQ(11 * PAGE, line.offset);
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, SPACE_LEN));
	EXPECT_EQ(0, layout_line(self->s.asfd, 0, &line));
}

TEST_F(fdinfo, counts_attachments)
{
	int view = as_view(self->s.asfd, 0, 4 * PAGE, PROT_READ);
	char *second, *third;

	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "attachments"));
	second = attach(self->s.asfd, PAGE, 3 * PAGE, RW);
	EXPECT_EQ(2, fdinfo_value(self->s.asfd, "attachments"));
	/* through a view as well */
	third = attach(view, 0, PAGE, PROT_READ);
	EXPECT_EQ(3, fdinfo_value(self->s.asfd, "attachments"));
	ASSERT_EQ(0, munmap(third, PAGE));
	/* after a split it counts as two */
	ASSERT_EQ(0, munmap(second + PAGE, PAGE));
	EXPECT_EQ(3, fdinfo_value(self->s.asfd, "attachments"));
	ASSERT_EQ(0, munmap(second, 3 * PAGE));
	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "attachments"));
	ASSERT_EQ(0, munmap(self->s.mem, SPACE_LEN));
	self->s.mem = NULL;
	EXPECT_EQ(0, fdinfo_value(self->s.asfd, "attachments"));
}

TEST_F(fdinfo, counts_attachments_of_children)
{
	struct agent child;

	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(2, fdinfo_value(self->s.asfd, "attachments"));
	ASSERT_NE(NULL, agent_attach(&child, self->s.asfd, 0, PAGE, RW));
	EXPECT_EQ(3, fdinfo_value(self->s.asfd, "attachments"));
	ASSERT_EQ(0, agent_stop(&child));
	EXPECT_EQ(1, fdinfo_value(self->s.asfd, "attachments"));
}

TEST_F(fdinfo, counts_faults)
{
	long long before, after;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, PAGE, RW, 0));
	before = fdinfo_value(self->s.asfd, "faults");
	ASSERT_LE(0, before);
	EXPECT_EQ('a', peek(self->s.mem));
	after = fdinfo_value(self->s.asfd, "faults");
	EXPECT_LT(before, after);
	/* an access to a present page is not a fault */
	EXPECT_EQ('a', peek(self->s.mem));
	EXPECT_EQ(after, fdinfo_value(self->s.asfd, "faults"));
}

TEST_F(fdinfo, counts_revocations)
{
	long long before;

	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ('a', peek(self->s.mem));
	before = fdinfo_value(self->s.asfd, "revocations");
	ASSERT_LE(0, before);
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, PAGE));
	EXPECT_LT(before, fdinfo_value(self->s.asfd, "revocations"));
	EXPECT_EQ('b', peek(self->s.mem + PAGE));
	before = fdinfo_value(self->s.asfd, "revocations");
	ASSERT_EQ(0, as_map(self->s.asfd, PAGE, self->s.b, 0, PAGE, RW,
			    ADDRESS_SPACE_MAP_REPLACE));
	EXPECT_LT(before, fdinfo_value(self->s.asfd, "revocations"));
}

TEST_F(fdinfo, counts_what_was_accessed_as_memory)
{
	int asfd = self->s.asfd;

	EXPECT_EQ(0, fdinfo_value(asfd, "memory"));
	ASSERT_EQ(0, as_map(asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
	EXPECT_EQ(0, fdinfo_value(asfd, "memory"));
	ASSERT_EQ(0, as_advise(asfd, 0, FILE_LEN, ADDRESS_SPACE_POPULATE_READ));
	EXPECT_EQ((long long)FILE_LEN, fdinfo_value(asfd, "memory"));
	/* copies in place of the file's own, and beside them */
	ASSERT_EQ(0, as_map(asfd, FILE_LEN, self->s.b, 0, FILE_LEN, RW,
			    ADDRESS_SPACE_MAP_PRIVATE));
	ASSERT_EQ(0, as_advise(asfd, FILE_LEN, FILE_LEN, ADDRESS_SPACE_POPULATE_WRITE));
	EXPECT_EQ(2 * (long long)FILE_LEN, fdinfo_value(asfd, "memory"));
	EXPECT_EQ((long long)FILE_LEN, fdinfo_value(asfd, "copies"));
	ASSERT_EQ(0, ftruncate(self->s.a, PAGE));
	EXPECT_EQ((long long)(FILE_LEN + PAGE), fdinfo_value(asfd, "memory"));
}

TEST_F(fdinfo, of_view_has_its_range_and_protection)
{
	static const struct {
		int prot;
		const char *word;
	} cases[] = {
		{ PROT_READ, "r--" },
		{ RW, "rw-" },
		{ RX, "r-x" },
		{ RWX, "rwx" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		int view = as_view(self->s.asfd, 3 * PAGE, 5 * PAGE, cases[i].prot);
		char word[16];

		ASSERT_LE(0, view);
		EXPECT_EQ(3 * (long long)PAGE, fdinfo_value(view, "offset"));
		EXPECT_EQ(5 * (long long)PAGE, fdinfo_value(view, "length"));
		ASSERT_EQ(0, fdinfo_word(view, "prot", word, sizeof(word)));
		EXPECT_STREQ(cases[i].word, word);
		close(view);
	}
}

/* The holder of a view must not see more of the space than the view shows. */
TEST_F(fdinfo, of_view_hides_layout)
{
	int view = as_view(self->s.asfd, 0, PAGE, PROT_READ);
	char *layout;

	ASSERT_LE(0, view);
	ASSERT_EQ(0, as_map(self->s.asfd, 8 * PAGE, self->s.a, 0, PAGE, RW, 0));
	layout = fdinfo_layout(view);
	EXPECT_STREQ("", layout);
	free(layout);
}

TEST_F(fdinfo, of_view_names_its_space)
{
	int view = as_view(self->s.asfd, 0, PAGE, PROT_READ);
	int part = as_part(self->s.asfd, 0, PAGE, RW), of_part;
	struct stat asfd, other;

	ASSERT_EQ(0, fstat(self->s.asfd, &asfd));
	EXPECT_EQ((long long)asfd.st_ino, fdinfo_value(self->s.asfd, "space"));
	EXPECT_EQ((long long)asfd.st_ino, fdinfo_value(view, "space"));
	of_part = as_view(part, 0, PAGE, PROT_READ);
	ASSERT_LE(0, of_part);
	EXPECT_EQ((long long)asfd.st_ino, fdinfo_value(of_part, "space"));
	ASSERT_EQ(0, fstat(view, &other));
	EXPECT_NE(asfd.st_ino, other.st_ino);
}

TEST_F(fdinfo, has_the_creator)
{
	struct agent child;

	EXPECT_EQ(getpid(), fdinfo_value(self->s.asfd, "creator"));
	ASSERT_EQ(0, agent_start(&child));
	EXPECT_EQ(getpid(), fdinfo_value(self->s.asfd, "creator"));
	agent_stop(&child);
}

static volatile int stop;

static void *map_forever(void *arg)
{
	struct space *s = arg;

	while (!stop) {
		as_map(s->asfd, 0, s->a, 0, FILE_LEN, RW, ADDRESS_SPACE_MAP_REPLACE);
		as_unmap(s->asfd, 2 * PAGE, PAGE);
		as_unmap(s->asfd, 0, SPACE_LEN);
	}
	return NULL;
}

/* Each read returns a layout that existed: whole, split in two, or empty. */
TEST_F(fdinfo, is_consistent_during_changes)
{
	uint64_t until = now_ms() + 2000;
	unsigned int seen = 0;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, map_forever, &self->s));
	while (now_ms() < until) {
		struct line line;
		int lines = layout_line(self->s.asfd, 0, &line);

		ASSERT_LE(0, lines);
		ASSERT_GE(2, lines);
		seen |= 1 << lines;
		if (lines == 1)
			ASSERT_EQ(FILE_LEN, line.end);
		if (lines == 2)
			ASSERT_EQ(2 * PAGE, line.end);
	}
	stop = 1;
	pthread_join(thread, NULL);
	/* otherwise nothing changed during the reads */
	EXPECT_NE(0U, seen & (seen - 1));
}

/*
 * More ranges than are changed with the lock held: of pages 0 to 2 * MANY either the even
 * ones are mapped or the odd ones, by one batch.
 */
#define MANY	200

struct flips {
	int asfd, file;
	volatile bool stop;
	volatile unsigned long flips;
};

static void *flip_forever(void *arg)
{
	struct address_space_op ops[1 + MANY];
	struct flips *f = arg;
	unsigned int i;

	for (; !f->stop; f->flips++) {
		unsigned int odd = f->flips % 2;

		ops[0] = op_unmap(0, 2 * MANY * PAGE);
		for (i = 0; i < MANY; i++)
			ops[1 + i] = op_map((2 * i + odd) * PAGE, f->file, 0, PAGE, RW, 0);
		if (as_batch(f->asfd, ops, 1 + MANY, NULL))
			break;
	}
	return NULL;
}

/* Bit 0: there was an even page among them; bit 1: an odd one; bit 2: some were missing. */
static int pages_of_layout(int asfd)
{
	char *layout = fdinfo_layout(asfd), *save, *text;
	unsigned int lines = 0;
	int seen = 0;

	for (text = strtok_r(layout, "\n", &save); text; text = strtok_r(NULL, "\n", &save)) {
		seen |= 1 << strtoull(text, NULL, 16) / PAGE % 2;
		lines++;
	}
	free(layout);
	return seen | (lines == MANY ? 0 : 4);
}

TEST_F(fdinfo, and_lseek_show_no_batch_half_made)
{
	struct flips f = { .asfd = as_create(2 * MANY * PAGE), .file = self->s.a };
	unsigned int wrong = 0, seen = 0;
	pthread_t thread;
	uint64_t until;

	ASSERT_LE(0, f.asfd);
	ASSERT_EQ(0, pthread_create(&thread, NULL, flip_forever, &f));
	while (!f.flips)
		sched_yield();
	for (until = now_ms() + 2000; now_ms() < until;) {
		int pages = pages_of_layout(f.asfd);
		off_t hole = lseek(f.asfd, 0, SEEK_HOLE), data = lseek(f.asfd, 0, SEEK_DATA);

		wrong += pages != 1 && pages != 2;
		wrong += hole && hole != (off_t)PAGE;
		wrong += data && data != (off_t)PAGE;
		seen |= pages;
	}
	f.stop = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0U, wrong)
		TH_LOG("after %lu batches", f.flips);
	EXPECT_EQ(3U, seen);
	close(f.asfd);
}

TEST_F(fdinfo, has_the_last_refusal)
{
	char word[64];

	EXPECT_EQ(-ENOENT, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 3 * PAGE));
	ASSERT_EQ(0, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("1 0x3000 r-- hole", word);
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, PROT_READ, 0));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem + PAGE, 1));
	ASSERT_EQ(0, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("2 0x1000 -w- denied", word);
	ASSERT_EQ(0, ftruncate(self->s.a, PAGE));
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
	ASSERT_EQ(0, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("3 0x2000 r-- past-end", word);
	/* what is refused again counts again */
	EXPECT_EQ(-SIGBUS, peek(self->s.mem + 2 * PAGE));
	ASSERT_EQ(0, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("4 0x2000 r-- past-end", word);
}

TEST_F(fdinfo, of_view_has_its_own_refusals)
{
	int view = as_view(self->s.asfd, 4 * PAGE, 4 * PAGE, RW);
	int other = as_view(self->s.asfd, 0, SPACE_LEN, RW);
	char *mem = attach(view, 0, 4 * PAGE, RW), *all = attach(other, 0, SPACE_LEN, RW);
	char word[64];

	ASSERT_TRUE(mem && all);
	EXPECT_EQ(-SIGBUS, poke(mem + PAGE, 1));
	EXPECT_EQ(-SIGBUS, peek(all + 6 * PAGE));
	ASSERT_EQ(0, fdinfo_word(view, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("1 0x1000 -w- hole", word);
	ASSERT_EQ(0, fdinfo_word(other, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("1 0x6000 r-- hole", word);
	ASSERT_EQ(0, fdinfo_word(self->s.asfd, "last-refusal", word, sizeof(word)));
	EXPECT_STREQ("2 0x6000 r-- hole", word);
}

TEST_HARNESS_MAIN

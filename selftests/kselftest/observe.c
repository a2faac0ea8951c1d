// SPDX-License-Identifier: GPL-2.0
/*
 * What an administrator can see: tracepoints with names in place of numbers, and keys
 * of fdinfo and fields of tracepoints that are all described in
 * Documentation/userspace-api/address_space.rst (found from where the program is, or
 * named by ADDRESS_SPACE_DOCUMENT).
 */
#include <ctype.h>
#include <libgen.h>
#include <sys/mount.h>
#include <sys/utsname.h>

#include "kselftest_harness.h"
#include "lib/as_util.h"

#define TRACING	"/sys/kernel/tracing"
#define EVENTS	TRACING "/events/address_space"

static char *file_text(const char *path)
{
	size_t size = 1 << 20, length = 0;
	FILE *file = fopen(path, "re");
	char *text = file ? calloc(1, size) : NULL;

	if (text)
		length = fread(text, 1, size - 1, file);
	if (file)
		fclose(file);
	if (length)
		return text;
	free(text);
	return NULL;
}

static char *document(void)
{
	const char *path = getenv("ADDRESS_SPACE_DOCUMENT");
	char self[512] = {}, relative[1024];

	if (path)
		return file_text(path);
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return NULL;
	snprintf(relative, sizeof(relative),
		 "%s/../../Documentation/userspace-api/address_space.rst", dirname(self));
	return file_text(relative);
}

/* Whether the document has @word at the start of a line, or in double quotes. */
static bool describes(const char *text, const char *word)
{
	char line[128], literal[128];

	snprintf(line, sizeof(line), "\n%s ", word);
	snprintf(literal, sizeof(literal), "``%s``", word);
	return strstr(text, line) || strstr(text, literal);
}

FIXTURE(observe)
{
	struct space s;
};

FIXTURE_SETUP(observe)
{
	ASSERT_EQ(0, space_init(&self->s));
	if (access(EVENTS, F_OK))
		mount("tracefs", TRACING, "tracefs", 0, NULL);
	if (access(EVENTS, F_OK))
		SKIP(return, "no tracefs");
	/* to truncate it empties the buffers */
	close(open(TRACING "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC));
	ASSERT_EQ(0, write_text(EVENTS "/enable", "1"));
}

FIXTURE_TEARDOWN(observe)
{
	write_text(EVENTS "/enable", "0");
	space_free(&self->s);
}

static bool traced(const char *format, ...)
{
	char wanted[256], *trace;
	va_list args;
	bool found;

	va_start(args, format);
	vsnprintf(wanted, sizeof(wanted), format, args);
	va_end(args);
	trace = file_text(TRACING "/trace");
	found = trace && strstr(trace, wanted);
	if (!found)
		printf("# no \"%s\" in:\n%s", wanted, trace ?: "(nothing)");
	free(trace);
	return found;
}

TEST_F(observe, tracepoints_have_names_and_no_numbers)
{
	int view = as_view(self->s.asfd, 0, 8 * PAGE, PROT_READ);
	long long space = fdinfo_value(self->s.asfd, "space");
	char *mem = attach(view, 0, 8 * PAGE, PROT_READ);
	struct stat of_view;

	ASSERT_NE(NULL, mem);
	ASSERT_EQ(0, fstat(view, &of_view));
	ASSERT_EQ(0, as_map(self->s.asfd, PAGE, self->s.a, 0, 4 * PAGE, RW, 0));
	EXPECT_TRUE(traced("address_space_change: space=%lld pages=0x1-0x5 prot=rw- revoked=0\n",
			   space));
	EXPECT_EQ('a', peek(mem + PAGE));
	EXPECT_TRUE(traced("address_space_fault: space=%lld view=%lld page=0x1 access=r-- ret=DONE\n",
			   space, (long long)of_view.st_ino));
	EXPECT_EQ(-SIGBUS, poke(self->s.mem, 1));
	EXPECT_TRUE(traced("view=%lld page=0x0 access=-w- ret=SIGBUS\n", space));
	ASSERT_EQ(0, as_protect(self->s.asfd, PAGE, PAGE, PROT_READ));
	EXPECT_TRUE(traced("pages=0x1-0x2 prot=r-- revoked=1\n"));
	EXPECT_EQ(-SIGSEGV, poke(self->s.mem + PAGE, 1));
	EXPECT_TRUE(traced("page=0x1 access=-w- ret=SIGSEGV\n"));
	/* a move is both: a hole here, and what was here there */
	ASSERT_EQ(0, as_move(self->s.asfd, PAGE, PAGE, 20 * PAGE, 0));
	EXPECT_TRUE(traced("pages=0x1-0x2 prot=--- revoked=1\n"));
	EXPECT_TRUE(traced("pages=0x14-0x15 prot=--- revoked=1\n"));
	/* what has to be waited for; the file has a hole there */
	ASSERT_EQ(0, as_map(self->s.asfd, 40 * PAGE, memfd_pages("empty", 1, -1), 0, PAGE, RW, 0));
	EXPECT_EQ(0, peek(self->s.mem + 40 * PAGE));
	EXPECT_TRUE(traced("page=0x28 access=r-- ret=MAJOR|RETRY\n"));
	EXPECT_EQ('b', peek(mem + 2 * PAGE));
	ASSERT_EQ(0, ftruncate(self->s.a, PAGE));
	EXPECT_TRUE(traced("address_space_invalidate: space=%lld segment=", space));
}

TEST_F(observe, fields_of_tracepoints_are_documented)
{
	static const char *const events[] = {
		"address_space_change", "address_space_fault", "address_space_invalidate",
	};
	char *text = document(), path[256], *format, *at;
	unsigned int i, fields = 0;

	if (!text)
		SKIP(return, "the document is not here");
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		char heading[64];

		snprintf(heading, sizeof(heading), "\n%s\n", events[i]);
		EXPECT_NE(NULL, strstr(text, heading));
		snprintf(path, sizeof(path), EVENTS "/%s/format", events[i]);
		format = file_text(path);
		ASSERT_NE(NULL, format);
		/* as they are printed: NAME=%... */
		for (at = strstr(format, "print fmt:"); at && (at = strchr(at, '=')); at++) {
			char *start = at, name[64];

			while (islower(start[-1]))
				start--;
			if (start == at || at[1] != '%')
				continue;
			snprintf(name, sizeof(name), "%.*s", (int)(at - start), start);
			EXPECT_TRUE(describes(text, name))
				TH_LOG("%s of %s is not documented", name, events[i]);
			fields++;
		}
		/* and as raw events have them, after those of every event */
		at = strstr(format, "field:int common_pid");
		for (at = at ? strchr(at, '\n') : NULL; at && (at = strstr(at, "field:")); ) {
			char *end = strchr(at, ';'), *start = end, name[64];

			ASSERT_NE(NULL, end);
			while (start[-1] != ' ')
				start--;
			snprintf(name, sizeof(name), "%.*s", (int)(end - start), start);
			EXPECT_TRUE(describes(text, name))
				TH_LOG("field %s of %s is not documented", name, events[i]);
			fields++;
			at = end;
		}
		free(format);
	}
	EXPECT_LE(27U, fields);
	free(text);
}

static unsigned int undocumented(const char *text, int fd)
{
	char path[64], line[512], *colon;
	unsigned int wrong = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		colon = strchr(line, ':');
		if (!colon || colon[1] != '\t')
			continue;
		*colon = 0;
		/* those of every file, which proc(5) describes */
		if (!strcmp(line, "pos") || !strcmp(line, "flags") ||
		    !strcmp(line, "mnt_id") || !strcmp(line, "ino"))
			continue;
		if (!describes(text, line)) {
			printf("# %s of fdinfo is not documented\n", line);
			wrong++;
		}
	}
	if (file)
		fclose(file);
	return wrong + !file;
}

/* strace prints numbers: the document says which call each is */
TEST(calls_are_documented_with_their_numbers)
{
#define CALL(name)	{ #name, name }
	static const struct {
		const char *name;
		unsigned long number;
	} calls[] = {
		CALL(ADDRESS_SPACE_CREATE), CALL(ADDRESS_SPACE_MMAP),
		CALL(ADDRESS_SPACE_MUNMAP), CALL(ADDRESS_SPACE_VIEW),
		CALL(ADDRESS_SPACE_REGISTER), CALL(ADDRESS_SPACE_UNREGISTER),
		CALL(ADDRESS_SPACE_BATCH), CALL(ADDRESS_SPACE_PROTECT),
		CALL(ADDRESS_SPACE_MOVE), CALL(ADDRESS_SPACE_LAYOUT),
		CALL(ADDRESS_SPACE_LEND), CALL(ADDRESS_SPACE_LEND_REVOKE),
		CALL(ADDRESS_SPACE_ADVISE), CALL(ADDRESS_SPACE_EVENTS),
		CALL(ADDRESS_SPACE_POISON), CALL(ADDRESS_SPACE_QUERY),
		CALL(ADDRESS_SPACE_KVM_MAP), CALL(ADDRESS_SPACE_KVM_UNMAP),
	};
	char *text = document(), number[32];

	ASSERT_NE(NULL, text);
	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++) {
		unsigned int nr = _IOC_NR(calls[i].number);
		const char *line, *name, *end;

		snprintf(number, sizeof(number), nr ? "\n``0x%x`` " : "\n``%x`` ", nr);
		line = strstr(text, number);
		ASSERT_NE(NULL, line) TH_LOG("no line for %s", calls[i].name);
		end = strchr(line + 1, '\n');
		name = strstr(line, calls[i].name);
		EXPECT_TRUE(name && name < end) TH_LOG("%s", calls[i].name);
	}
	free(text);
}

TEST_F(observe, keys_of_fdinfo_are_documented)
{
	int part = as_part(self->s.asfd, 0, 4 * PAGE, RW);
	char *own = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int lend = as_lend(own, PAGE, RW);
	char *text = document(), *mem = attach(part, 0, 4 * PAGE, RW);

	if (!text)
		SKIP(return, "the document is not here");
	ASSERT_NE(NULL, mem);
	/* those too that are there only after a refusal */
	EXPECT_EQ(-SIGBUS, peek(mem));
	EXPECT_EQ(0U, undocumented(text, self->s.asfd));
	EXPECT_EQ(0U, undocumented(text, part));
	EXPECT_EQ(0U, undocumented(text, lend));
	free(text);
}

/* What "System calls on asfds and views" says of calls that do less than they seem to. */
FIXTURE(small_print)
{
	struct space s;
};

FIXTURE_SETUP(small_print)
{
	ASSERT_EQ(0, space_init(&self->s));
	ASSERT_EQ(0, as_map(self->s.asfd, 0, self->s.a, 0, FILE_LEN, RW, 0));
}

FIXTURE_TEARDOWN(small_print)
{
	space_free(&self->s);
}

TEST_F(small_print, errors_are_those_that_are_documented)
{
	char byte = 0, path[64];
	int asfd = self->s.asfd, reading;

	EXPECT_EQ(-1, read(asfd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(asfd, &byte, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(asfd, &byte, 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, pwrite(asfd, &byte, 1, 0));
	EXPECT_EQ(ESPIPE, errno);
	EXPECT_EQ(-1, ftruncate(asfd, PAGE));
	EXPECT_EQ(EPERM, errno);
	EXPECT_EQ(0, ftruncate(asfd, SPACE_LEN));
	EXPECT_EQ(-1, fallocate(asfd, 0, 0, PAGE));
	EXPECT_EQ(EOPNOTSUPP, errno);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", asfd);
	reading = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, reading);
	EXPECT_EQ(-1, write(reading, &byte, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, fallocate(reading, 0, 0, PAGE));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, ftruncate(reading, PAGE));
	EXPECT_EQ(EINVAL, errno);
}

/* Before 7.3 mincore() passes over PFN maps, and says that nothing is there. */
static bool mincore_sees_pfn_maps(void)
{
	unsigned int major, minor;
	struct utsname name;

	return !uname(&name) && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 7 || (major == 7 && minor >= 3));
}

TEST_F(small_print, mincore_sees_what_this_process_has_accessed)
{
	unsigned char pages[4];
	char *mem = mmap(NULL, 4 * PAGE, RW, MAP_SHARED | MAP_POPULATE, self->s.asfd, 0);
	long long faults = fdinfo_value(self->s.asfd, "faults");

	ASSERT_NE(MAP_FAILED, (void *)mem);
	EXPECT_EQ(0, faults);
	EXPECT_EQ(0, mlock(mem, 4 * PAGE));
	EXPECT_EQ(faults, fdinfo_value(self->s.asfd, "faults"));
	ASSERT_EQ(0, mincore(mem, 4 * PAGE, pages));
	EXPECT_EQ(0, pages[0] & 1);
	/* the memory is there, and another attachment has it */
	EXPECT_EQ('a', peek(self->s.mem));
	ASSERT_EQ(0, mincore(mem, 4 * PAGE, pages));
	EXPECT_EQ(0, pages[0] & 1);
	EXPECT_EQ('a', peek(mem));
	ASSERT_EQ(0, mincore(mem, 4 * PAGE, pages));
	EXPECT_EQ(mincore_sees_pfn_maps(), pages[0] & 1);
	ASSERT_EQ(0, as_unmap(self->s.asfd, 0, PAGE));
	ASSERT_EQ(0, mincore(mem, 4 * PAGE, pages));
	EXPECT_EQ(0, pages[0] & 1);
}

TEST_F(small_print, maps_has_the_offset_in_the_space)
{
	int view = as_view(self->s.asfd, 8 * PAGE, 4 * PAGE, RW);
	char *mem = attach(view, PAGE, PAGE, RW), line[512];
	unsigned long long start, end, offset;
	FILE *maps = fopen("/proc/self/maps", "re");
	bool found = false;

	ASSERT_NE(NULL, mem);
	ASSERT_NE(NULL, maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%llx-%llx %*s %llx", &start, &end, &offset) != 3 ||
		    start != (uintptr_t)mem)
			continue;
		EXPECT_EQ(9 * PAGE, offset);
		EXPECT_NE(NULL, strstr(line, "/address_space_view"));
		found = true;
	}
	EXPECT_TRUE(found);
	fclose(maps);
}

TEST_F(small_print, hole_of_a_file_is_read_with_o_direct_without_a_pin)
{
	char dir[128];
	int file, direct;

	if (disk_dir(dir, sizeof(dir)))
		SKIP(return, "no ext4");
	file = file_pages(dir, 2, -1);
	ASSERT_LE(0, file);
	ASSERT_EQ(1, pwrite(file, "x", 1, PAGE));
	ASSERT_EQ(0, fsync(file));
	snprintf(dir, sizeof(dir), "/proc/self/fd/%d", file);
	direct = open(dir, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, direct);
	EXPECT_EQ((ssize_t)PAGE, pread(direct, self->s.mem, PAGE, 0))
		TH_LOG("errno %d", errno);
	EXPECT_EQ(-1, pread(direct, self->s.mem, PAGE, PAGE));
	EXPECT_EQ(EFAULT, errno);
}

TEST_HARNESS_MAIN

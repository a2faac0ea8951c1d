// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <setjmp.h>
#include <time.h>
#include <sys/syscall.h>

#include "as_util.h"

void *attach(int fd, uint64_t offset, uint64_t length, int prot)
{
	void *addr = mmap(NULL, length, prot, MAP_SHARED, fd, offset);

	return addr == MAP_FAILED ? NULL : addr;
}

/*
 * The handlers are installed before main(), for all threads and children. They leave
 * the signal unblocked, so that no jump has to restore a mask. A fault outside of a
 * probe is a bug of the test and kills it.
 */
static __thread sigjmp_buf probe_env;
static __thread volatile sig_atomic_t probing;
__thread siginfo_t probe_info;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (!probing) {
		signal(sig, SIG_DFL);
		return;
	}
	probing = 0;
	probe_info = *info;
	siglongjmp(probe_env, sig);
}

static __attribute__((constructor)) void install_handlers(void)
{
	struct sigaction act = {
		.sa_sigaction = on_fault,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	if (sysconf(_SC_PAGESIZE) != PAGE)
		abort();
	sigaction(SIGBUS, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
}

#define PROBE(access) do {			\
	int sig = sigsetjmp(probe_env, 0);	\
						\
	if (sig)				\
		return -sig;			\
	probing = 1;				\
	access;					\
	probing = 0;				\
} while (0)

int peek(const void *addr)
{
	uint8_t value;

	PROBE(value = *(const volatile uint8_t *)addr);
	return value;
}

int poke(void *addr, uint8_t value)
{
	PROBE(*(volatile uint8_t *)addr = value);
	return 0;
}

int peek64(const void *addr, uint64_t *value)
{
	PROBE(*value = *(const volatile uint64_t *)addr);
	return 0;
}

int poke64(void *addr, uint64_t value)
{
	PROBE(*(volatile uint64_t *)addr = value);
	return 0;
}

int execute(void *addr)
{
	PROBE(((void (*)(void))(uintptr_t)addr)());
	return 0;
}

int fill_pages(int fd, unsigned int pages, int first)
{
	char page[PAGE];
	unsigned int i;

	if (ftruncate(fd, pages * PAGE))
		return -errno;
	for (i = 0; first >= 0 && i < pages; i++) {
		memset(page, first + i, PAGE);
		if (pwrite(fd, page, PAGE, i * PAGE) != PAGE)
			return -EIO;
	}
	return 0;
}

/* @fd, filled; or closed, and -errno */
static int filled(int fd, unsigned int pages, int first)
{
	if (fd < 0)
		return -errno;
	if (fill_pages(fd, pages, first)) {
		close(fd);
		return -EIO;
	}
	return fd;
}

int memfd_pages(const char *name, unsigned int pages, int first)
{
	return filled(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), pages, first);
}

int file_pages(const char *dir, unsigned int pages, int first)
{
	return filled(open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), pages, first);
}

int file_byte(int fd, uint64_t offset)
{
	uint8_t value;
	ssize_t n = pread(fd, &value, 1, offset);

	return n < 0 ? -errno : n == 0 ? -ENODATA : value;
}

int file_set(int fd, uint64_t offset, uint8_t value)
{
	ssize_t n = pwrite(fd, &value, 1, offset);

	return n < 0 ? -errno : n == 1 ? 0 : -EIO;
}

int file_set_words(int fd, unsigned int pages, uint64_t value)
{
	unsigned int i;

	for (i = 0; i < pages; i++)
		if (pwrite(fd, &value, sizeof(value), i * PAGE) != sizeof(value))
			return -EIO;
	return 0;
}

/* -ENOMEM if the kernel has no huge pages left to reserve */
int hugetlb_memfd(unsigned int pages)
{
	static const char pool[] =
		"/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
	char text[32];
	void *map;
	int fd;

	snprintf(text, sizeof(text), "%u", pages);
	if (write_text(pool, text))
		return -ENOMEM;
	fd = memfd_create("hugetlb", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, pages * HUGE)) {
		close(fd);
		return -errno;
	}
	/* mmap() reserves; without a reservation an access would be SIGBUS */
	map = mmap(NULL, pages * HUGE, RW, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	memset(map, 'h', pages * HUGE);
	munmap(map, pages * HUGE);
	return fd;
}

int closed_fd(void)
{
	int fd = open("/dev/null", O_RDONLY);

	close(fd);
	return fd;
}

static FILE *fdinfo_open(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return fopen(path, "re");
}

int fdinfo_word(int fd, const char *name, char *word, size_t size)
{
	size_t len = strlen(name);
	FILE *file = fdinfo_open(fd);
	char line[512];
	int ret = -ENOENT;

	if (!file)
		return -errno;
	while (ret && fgets(line, sizeof(line), file)) {
		if (strncmp(line, name, len) || strncmp(line + len, ":\t", 2))
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(word, size, "%s", line + len + 2);
		ret = 0;
	}
	fclose(file);
	return ret;
}

long long fdinfo_value(int fd, const char *name)
{
	char word[64], *end;
	long long value;
	int ret = fdinfo_word(fd, name, word, sizeof(word));

	if (ret)
		return ret;
	value = strtoll(word, &end, 0);
	return end == word || *end ? -EINVAL : value;
}

char *fdinfo_layout(int fd)
{
	FILE *file = fdinfo_open(fd), *out;
	unsigned long long start, end;
	char line[512], *layout = NULL;
	size_t size;

	if (!file)
		return NULL;
	out = open_memstream(&layout, &size);
	while (out && fgets(line, sizeof(line), file))
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			fputs(line, out);
	fclose(file);
	if (out)
		fclose(out);
	return layout;
}

char *state_of(int asfd)
{
	char *state = NULL, *layout = fdinfo_layout(asfd), line[512], perms[8];
	unsigned int fds = 0;
	FILE *out, *maps;
	size_t size;
	DIR *dir;

	out = open_memstream(&state, &size);
	if (!out)
		return NULL;
	fprintf(out, "%sattachments %lld\n", layout,
		fdinfo_value(asfd, "attachments"));
	free(layout);
	maps = fopen("/proc/self/maps", "re");
	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%*s %7s", perms) == 1 && perms[3] == 's')
			fputs(line, out);
	if (maps)
		fclose(maps);
	dir = opendir("/proc/self/fd");
	while (dir && readdir(dir))
		fds++;
	if (dir)
		closedir(dir);
	fprintf(out, "fds %u\n", fds);
	fclose(out);
	return state;
}

int space_init(struct space *s)
{
	memset(s, 0, sizeof(*s));
	s->asfd = as_create(SPACE_LEN);
	if (s->asfd < 0)
		return s->asfd;
	s->a = memfd_pages("lower", FILE_PAGES, 'a');
	s->b = memfd_pages("upper", FILE_PAGES, 'A');
	if (s->a < 0 || s->b < 0)
		return -EIO;
	s->mem = attach(s->asfd, 0, SPACE_LEN, RW);
	return s->mem ? 0 : -errno;
}

void space_free(struct space *s)
{
	if (s->mem)
		munmap(s->mem, SPACE_LEN);
	close(s->asfd);
	close(s->a);
	close(s->b);
}

uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

unsigned int race_ms(void)
{
	const char *text = getenv("RACE_SECONDS");
	int seconds = text ? atoi(text) : 0;

	return 1000 * (seconds > 0 ? seconds : 2);
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	if (n < 0)
		n = -errno;
	close(fd);
	return n < 0 ? n : 0;
}

int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return n;
	text[n] = 0;
	return 0;
}

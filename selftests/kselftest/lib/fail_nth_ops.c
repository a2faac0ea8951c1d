// SPDX-License-Identifier: GPL-2.0
/*
 * Calls and attachments, and the state in which they run. Faults are in
 * fail_nth_faults.c, lent memory in fail_nth_lend.c, private maps and advice in
 * fail_nth_private.c, spaces with a name in fail_nth_named.c.
 */
#include <sys/wait.h>

#include "fail_nth_ops.h"

int fail_ctx_init(struct fail_ctx *c)
{
	unsigned int page;
	int ret;

	memset(c, 0, sizeof(*c));
	c->fd = c->other = -1;
	ret = space_init(&c->s);
	if (ret)
		return ret;
	c->mem = c->s.mem;
	ret = as_map(c->s.asfd, 0, c->s.a, 0, FILE_LEN, RW, 0);
	ret = ret ?: as_map(c->s.asfd, SHOWN_RO, c->s.a, 4 * PAGE, 8 * PAGE, PROT_READ, 0);
	for (page = 0; !ret && page < FILE_PAGES; page++)
		if (peek(c->mem + page * PAGE) != (int)('a' + page))
			ret = -EIO;
	return ret;
}

void fail_ctx_free(struct fail_ctx *c)
{
	if (c->has_vm)
		vm_destroy(&c->vm);
	if (c->more)
		munmap(c->more, c->more_len);
	c->s.mem = c->mem;
	if (c->fd >= 0)
		close(c->fd);
	if (c->other >= 0)
		close(c->other);
	if (c->child > 0)
		waitpid(c->child, NULL, 0);
	space_free(&c->s);
}

char *fail_ctx_picture(struct fail_ctx *c)
{
	char *picture = NULL, *layout = fdinfo_layout(c->s.asfd);
	unsigned int page;
	size_t size;
	FILE *out = open_memstream(&picture, &size);

	if (!out)
		return NULL;
	fprintf(out, "%sregistered %lld\nattachments %lld\n", layout,
		fdinfo_value(c->s.asfd, "registered"),
		fdinfo_value(c->s.asfd, "attachments"));
	free(layout);
	for (page = 0; c->mem && page < SPACE_PAGES; page++)
		fprintf(out, "%d%c", peek(c->mem + page * PAGE),
			page % 16 == 15 ? '\n' : ' ');
	fclose(out);
	return picture;
}

bool fail_op_may_give(const struct fail_op *op, int error)
{
	unsigned int i;

	for (i = 0; i < sizeof(op->may_give) / sizeof(op->may_give[0]); i++)
		if (op->may_give[i] && op->may_give[i] == error)
			return true;
	return false;
}

long module_users(void)
{
	char text[32];
	int ret = read_text("/sys/module/address_space/refcnt", text, sizeof(text));

	return ret ? ret : atol(text);
}

int module_users_within(long users, unsigned int ms)
{
	uint64_t until = now_ms() + ms;

	while (module_users() > users) {
		if (now_ms() > until)
			return -EBUSY;
		sleep_ms(1);
	}
	return 0;
}

#define CALL(op, ...)							\
const struct fail_op fail_op_##op = {					\
	.may_give = { ENOMEM, EFAULT }, __VA_ARGS__	\
}

/* create: an address space of its own, which works */

static int create_run(struct fail_ctx *c)
{
	c->fd = as_create(SPACE_LEN);
	return c->fd;
}

static int create_verify(struct fail_ctx *c)
{
	int value;

	if (as_map(c->fd, 0, c->s.b, 0, PAGE, RW, 0))
		return -EIO;
	c->more_len = PAGE;
	c->more = attach(c->fd, 0, PAGE, RW);
	value = c->more ? peek(c->more) : -errno;
	return value == 'A' ? 0 : -EIO;
}

CALL(create, .run = create_run, .verify = create_verify);

/* maps: of a new file, of a mapped one, of a registered one, in place of another */

static int map_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->s.b, 0, FILE_LEN, RW, 0);
}

static int map_again_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->s.a, 0, FILE_LEN, RW, 0);
}

static int b_registered(struct fail_ctx *c)
{
	return as_register(c->s.asfd, c->s.b, 0, FILE_LEN, RW, 0);
}

static int map_replace_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, 2 * PAGE, c->s.b, 0, 4 * PAGE, RW,
		      ADDRESS_SPACE_MAP_REPLACE);
}

static int map_anywhere_run(struct fail_ctx *c)
{
	uint64_t addr;

	return as_map_anywhere(c->s.asfd, &addr, c->s.b, 0, 4 * PAGE, RW);
}

static int map_populate_run(struct fail_ctx *c)
{
	return as_map(c->s.asfd, SHOWN_NEW, c->s.b, 0, FILE_LEN, RW,
		      ADDRESS_SPACE_MAP_POPULATE);
}

static int b_sparse(struct fail_ctx *c)
{
	close(c->s.b);
	c->s.b = memfd_pages("sparse", FILE_PAGES, -1);
	return c->s.b < 0 ? c->s.b : 0;
}

/* an attachment that has no page tables yet */
static int b_sparse_and_an_attachment(struct fail_ctx *c)
{
	c->more_len = SPACE_LEN;
	c->more = mmap((void *)0x200000000000, c->more_len, RW,
		       MAP_SHARED | MAP_FIXED_NOREPLACE, c->s.asfd, 0);
	if (c->more != MAP_FAILED)
		return b_sparse(c);
	c->more = NULL;
	return -errno;
}

CALL(map, .run = map_run);
CALL(map_again, .run = map_again_run);
CALL(map_registered, .prepare = b_registered, .run = map_run);
CALL(map_replace, .run = map_replace_run);
CALL(map_anywhere, .run = map_anywhere_run);
CALL(map_populate, .prepare = b_sparse_and_an_attachment, .run = map_populate_run);

/*
 * unmaps; the last but one piece of the other file is removed, after which the worker
 * unmaps it from the arena
 */

static int unmap_run(struct fail_ctx *c)
{
	return as_unmap(c->s.asfd, 0, FILE_LEN);
}

static int unmap_in_two_run(struct fail_ctx *c)
{
	return as_unmap(c->s.asfd, 3 * PAGE, 20 * PAGE);
}

/* a file on a file system of the operation's own */
static int map_mounted(struct fail_ctx *c)
{
	char dir[64];
	int ret = own_mounts();

	ret = ret ?: mount_tmpfs(dir, "size=1m");
	if (ret)
		return ret;
	snprintf(c->text, sizeof(c->text), "%s", dir);
	close(c->s.b);
	c->s.b = file_pages(dir, FILE_PAGES, 'A');
	if (c->s.b < 0)
		return c->s.b;
	ret = map_run(c);
	close(c->s.b);
	c->s.b = -1;
	return ret;
}

static int unmap_and_reap_run(struct fail_ctx *c)
{
	int ret = as_unmap(c->s.asfd, SHOWN_NEW, FILE_LEN);

	sleep_ms(400);	/* the work is delayed by a tenth of a second */
	return ret;
}

static int is_released(struct fail_ctx *c)
{
	int ret = umount_within(c->text, WORKER_MS);

	return ret ?: rmdir(c->text);
}

CALL(unmap, .run = unmap_run);
CALL(unmap_in_two, .run = unmap_in_two_run);
CALL(unmap_and_reap, .prepare = map_mounted, .run = unmap_and_reap_run,
     .verify = is_released);

static int protect_run(struct fail_ctx *c)
{
	return as_protect(c->s.asfd, 5 * PAGE, 3 * PAGE, PROT_READ);
}

static int protect_verify(struct fail_ctx *c)
{
	return poke(c->mem + 6 * PAGE, '!') == -SIGSEGV ? 0 : -EIO;
}

static int move_run(struct fail_ctx *c)
{
	return as_move(c->s.asfd, 4 * PAGE, 4 * PAGE, 22 * PAGE,
		       ADDRESS_SPACE_MAP_REPLACE);
}

static int batch_run(struct fail_ctx *c)
{
	struct address_space_op ops[] = {
		{ .opcode = ADDRESS_SPACE_OP_MMAP, .fd = c->s.b, .prot = RW,
		  .flags = ADDRESS_SPACE_MAP_POPULATE, .addr = SHOWN_NEW,
		  .length = 4 * PAGE },
		{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .addr = 2 * PAGE,
		  .length = 2 * PAGE },
		{ .opcode = ADDRESS_SPACE_OP_PROTECT, .addr = 8 * PAGE,
		  .length = PAGE, .prot = PROT_READ },
		{ .opcode = ADDRESS_SPACE_OP_MMAP, .fd = c->s.a, .prot = RW,
		  .flags = ADDRESS_SPACE_MAP_REPLACE | ADDRESS_SPACE_MAP_POPULATE,
		  .addr = SHOWN_RO + PAGE, .length = 2 * PAGE },
		{ .opcode = ADDRESS_SPACE_OP_MUNMAP, .addr = SHOWN_NEW + PAGE,
		  .length = PAGE },
	};

	return as_batch(c->s.asfd, ops, sizeof(ops) / sizeof(ops[0]), NULL);
}

CALL(protect, .run = protect_run, .verify = protect_verify);
CALL(move, .run = move_run);
CALL(batch, .run = batch_run);

static int register_run(struct fail_ctx *c)
{
	return as_register(c->s.asfd, c->s.b, 0, FILE_LEN, RW,
			   ADDRESS_SPACE_REGISTER_POPULATE);
}

static int unregister_run(struct fail_ctx *c)
{
	return as_unregister(c->s.asfd, c->s.b);
}

static int unregister_all_run(struct fail_ctx *c)
{
	return as_unregister_all(c->s.asfd);
}

CALL(register, .prepare = b_sparse, .run = register_run);
CALL(unregister, .prepare = b_registered, .run = unregister_run);
CALL(unregister_all, .prepare = b_registered, .run = unregister_all_run);

static int view_run(struct fail_ctx *c)
{
	c->fd = as_view(c->s.asfd, 2 * PAGE, 4 * PAGE, PROT_READ);
	return c->fd;
}

static int attach_view_run(struct fail_ctx *c)
{
	c->more_len = 2 * PAGE;
	c->more = attach(c->fd, PAGE, c->more_len, PROT_READ);
	return c->more ? 0 : -errno;
}

static int more_shows_d(struct fail_ctx *c)
{
	return peek(c->more) == 'd' ? 0 : -EIO;
}

static int view_verify(struct fail_ctx *c)
{
	int ret = attach_view_run(c);

	ret = ret ?: more_shows_d(c);
	if (c->more)
		munmap(c->more, c->more_len);
	c->more = NULL;
	return ret;
}

static int view_made(struct fail_ctx *c)
{
	int ret = view_run(c);

	return ret < 0 ? ret : 0;
}

static int attach_run(struct fail_ctx *c)
{
	c->more_len = 8 * PAGE;
	c->more = attach(c->s.asfd, 3 * PAGE, c->more_len, RW);
	return c->more ? 0 : -errno;
}

static int detach_run(struct fail_ctx *c)
{
	if (munmap(c->mem, SPACE_LEN))
		return -errno;
	c->mem = NULL;
	return 0;
}

static int split_attachment_run(struct fail_ctx *c)
{
	/* at one address: with two, the kernel keeps the first split */
	return mprotect(c->mem + 40 * PAGE, SPACE_LEN - 40 * PAGE, PROT_NONE) ? -errno : 0;
}

static int move_attachment_run(struct fail_ctx *c)
{
	char *moved = mremap(c->mem, SPACE_LEN, SPACE_LEN,
			     MREMAP_MAYMOVE | MREMAP_FIXED, c->more);

	if (moved == MAP_FAILED)
		return -errno;
	c->mem = moved;
	c->more = NULL;
	return 0;
}

/* a range reserved for it: mremap() unmaps it first, even if it then fails */
static int place_found(struct fail_ctx *c)
{
	c->more = mmap(NULL, SPACE_LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	c->more_len = SPACE_LEN;
	return c->more == MAP_FAILED ? -errno : 0;
}

CALL(view, .run = view_run, .verify = view_verify);
CALL(attach, .run = attach_run, .verify = more_shows_d);
CALL(attach_view, .prepare = view_made, .run = attach_view_run,
     .verify = more_shows_d);
CALL(detach, .run = detach_run);
CALL(split_attachment, .run = split_attachment_run);
CALL(move_attachment, .prepare = place_found, .run = move_attachment_run);

/* fork: the child has the attachment too, and all that it shows */

static int fork_run(struct fail_ctx *c)
{
	unsigned int page;

	c->child = fork();
	if (c->child)
		return c->child < 0 ? -errno : 0;
	for (page = 0; page < FILE_PAGES; page++)
		if (peek(c->mem + page * PAGE) != (int)('a' + page))
			_exit(1);
	_exit(0);
}

static int fork_verify(struct fail_ctx *c)
{
	int status = -1;
	pid_t child = c->child;

	c->child = 0;
	if (waitpid(child, &status, 0) != child)
		return -errno;
	return status ? -EIO : 0;
}

const struct fail_op fail_op_fork = {
	.may_give = { ENOMEM, EAGAIN },
	.run = fork_run, .verify = fork_verify,
};

static int fdinfo_run(struct fail_ctx *c)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", c->s.asfd);
	c->text[0] = 0;
	return read_text(path, c->text, sizeof(c->text));
}

static int fdinfo_verify(struct fail_ctx *c)
{
	return strstr(c->text, "00014000-0001c000 r--s 00004000 ") ? 0 : -EIO;
}

CALL(fdinfo, .run = fdinfo_run, .verify = fdinfo_verify);

/* close: of a space with mappings and held frames; never fails */

static int second_space(struct fail_ctx *c)
{
	char *mem;
	int ret;

	c->fd = as_create(SPACE_LEN);
	if (c->fd < 0)
		return c->fd;
	ret = as_map(c->fd, 0, c->s.a, 0, FILE_LEN, RW, 0);
	mem = attach(c->fd, 0, FILE_LEN, RW);
	if (!mem)
		return -errno;
	if (!ret && peek(mem + PAGE) != 'b')
		ret = -EIO;
	munmap(mem, FILE_LEN);
	return ret;
}

static int close_run(struct fail_ctx *c)
{
	int ret = close(c->fd) ? -errno : 0;

	c->fd = -1;
	return ret;
}

const struct fail_op fail_op_close = {
	.prepare = second_space, .run = close_run,
};

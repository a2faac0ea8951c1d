// SPDX-License-Identifier: GPL-2.0
/* Children that run requests of the test, over a socket that also carries fds. */
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "as_util.h"

#define ANSWER_MS	20000

enum op { OP_PEEK, OP_POKE, OP_ATTACH, OP_TAKE_FD, OP_CALL, OP_RESPAWN };

struct request {
	enum op op;
	uint64_t arg[4];
};

static int send_request(int sock, const struct request *request, int fd)
{
	struct iovec iov = { (void *)(uintptr_t)request, sizeof(*request) };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int receive_request(int sock, struct request *request, int *fd)
{
	struct iovec iov = { request, sizeof(*request) };
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	*fd = -1;
	if (n != sizeof(*request))
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(cmsg), sizeof(int));
	return 0;
}

static long respawn(void)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		return 0;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128);
}

static long run_request(const struct request *request, int fd)
{
	void *addr = (void *)(uintptr_t)request->arg[0];
	long ret;

	switch (request->op) {
	case OP_PEEK:
		return peek(addr);
	case OP_POKE:
		return poke(addr, request->arg[1]);
	case OP_ATTACH:
		ret = (long)attach(fd, request->arg[0], request->arg[1],
				   request->arg[2]);
		if (!ret)
			ret = -errno;
		close(fd);
		return ret;
	case OP_TAKE_FD:
		return fd;
	case OP_CALL:
		return ((agent_fn)request->arg[0])((void *)request->arg[1]);
	case OP_RESPAWN:
		return respawn();
	}
	return -ENOSYS;
}

static void serve(int sock)
{
	struct request request;
	int fd;

	while (!receive_request(sock, &request, &fd)) {
		int64_t ret = run_request(&request, fd);

		if (send(sock, &ret, sizeof(ret), MSG_NOSIGNAL) != sizeof(ret))
			break;
	}
	_exit(0);
}

int agent_start(struct agent *a)
{
	struct timeval patience = { ANSWER_MS / 1000, 0 };
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return -errno;
	a->pid = fork();
	if (a->pid < 0)
		return -errno;
	if (a->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sock[0]);
		serve(sock[1]);
	}
	close(sock[1]);
	a->sock = sock[0];
	setsockopt(a->sock, SOL_SOCKET, SO_RCVTIMEO, &patience,
		   sizeof(patience));
	return 0;
}

static long call(struct agent *a, enum op op, uint64_t arg0, uint64_t arg1,
		 uint64_t arg2, int fd)
{
	struct request request = { .op = op, .arg = { arg0, arg1, arg2 } };
	int64_t ret;
	ssize_t n;
	int err = send_request(a->sock, &request, fd);

	if (err)
		return err;
	n = recv(a->sock, &ret, sizeof(ret), 0);
	if (n == sizeof(ret))
		return ret;
	if (n < 0 && errno == EAGAIN)
		return -ETIMEDOUT;
	return n < 0 ? -errno : -EPIPE;
}

long agent_peek(struct agent *a, const void *addr)
{
	return call(a, OP_PEEK, (uintptr_t)addr, 0, 0, -1);
}

long agent_poke(struct agent *a, void *addr, uint8_t value)
{
	return call(a, OP_POKE, (uintptr_t)addr, value, 0, -1);
}

void *agent_attach(struct agent *a, int fd, uint64_t offset, uint64_t length,
		   int prot)
{
	long ret = call(a, OP_ATTACH, offset, length, prot, fd);

	if (ret < 0) {
		errno = -ret;
		return NULL;
	}
	return (void *)ret;
}

int agent_take_fd(struct agent *a, int fd)
{
	return call(a, OP_TAKE_FD, 0, 0, 0, fd);
}

int agent_fd(struct agent *a, int number)
{
	int pidfd = syscall(SYS_pidfd_open, a->pid, 0), fd;

	if (pidfd < 0)
		return -errno;
	fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
	if (fd < 0)
		fd = -errno;
	close(pidfd);
	return fd;
}

long agent_call(struct agent *a, agent_fn fn, void *arg)
{
	return call(a, OP_CALL, (uintptr_t)fn, (uintptr_t)arg, 0, -1);
}

long agent_respawn(struct agent *a)
{
	return call(a, OP_RESPAWN, 0, 0, 0, -1);
}

int agent_stop(struct agent *a)
{
	uint64_t until = now_ms() + ANSWER_MS;
	int status;

	close(a->sock);
	while (waitpid(a->pid, &status, WNOHANG) == 0) {
		if (now_ms() > until) {
			kill(a->pid, SIGKILL);
			return -ETIMEDOUT;
		}
		sleep_ms(1);
	}
	return status;
}

/* SPDX-License-Identifier: MIT */
/*
 * The filter, and the way of its notification descriptor to the agent: common/handover.h.
 */
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "seccomp/launcher/launch.h"

/* linux/seccomp.h has it since 5.19: a signal does not make the agent see a call twice. */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static int receive_reply(int fd, const char *what, struct step *step)
{
	struct listener_reply reply;
	ssize_t n;

	step_set(step, "wait for the agent's answer to %s", what);
	do
		n = recv(fd, &reply, sizeof(reply), 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n != sizeof(reply) || reply.magic != LISTENER_MAGIC ||
	    reply.version != LISTENER_VERSION)
		return -EPROTO;
	step_set(step, "have the agent accept %s", what);
	return reply.status < 0 ? reply.status : 0;
}

/*
 * Root, in our own pid namespace: another workload under the profile could have put its socket
 * there, to answer for us.
 */
static int check_peer(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char path[64], theirs[64] = "", ours[64] = "";

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", peer.pid);
	if (peer.uid != 0 || peer.pid <= 0 || readlink(path, theirs, sizeof(theirs) - 1) < 0 ||
	    readlink("/proc/self/ns/pid", ours, sizeof(ours) - 1) < 0 || strcmp(theirs, ours))
		return -EACCES;
	return 0;
}

int handover_connect(const char *path, int *ret_fd, struct step *step)
{
	const struct timeval timeout = {.tv_sec = LISTENER_PENDING_MS / 1000};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int r;

	step_set(step, "connect to the agent's listener socket %s", path);
	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	step_set(step, "trust whoever listens on %s: not root of this pid namespace", path);
	r = check_peer(fd);
	if (r == 0)
		r = receive_reply(fd, "the connection", step);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

int handover_send(int connection, int listener, const struct listener_message *m, struct step *step)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)m, .iov_len = LISTENER_MESSAGE_SIZE(m->n_rules)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &listener, sizeof(int));
	step_set(step, "send the notification descriptor to the agent");
	do
		n = sendmsg(connection, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return receive_reply(connection, "the notification descriptor", step);
}

static long install(unsigned long flags, const struct sock_fprog *program)
{
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
}

int filter_install(const struct filter_table *t, const struct filter_options *o, int connection,
		   struct step *step)
{
	static struct sock_filter program[FILTER_PROGRAM_MAX];
	static struct listener_message message;
	const struct sock_fprog fprog = {.len = (unsigned short)filter_build(t, o, program),
					 .filter = program};
	_cleanup_close_ int listener = -1;
	long r;

	if (o->notify != (connection >= 0))
		return -EINVAL;
	step_set(step, "install the seccomp filter");
	if (!o->notify)
		return install(0, &fprog) < 0 ? -errno : 0;

	r = filter_listener_message(t, o, &message);
	if (r < 0)
		return (int)r;
	step_set(step, "install the seccomp filter with a listener");
	r = install(SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		    &fprog);
	if (r < 0 && errno == EINVAL)
		r = install(SECCOMP_FILTER_FLAG_NEW_LISTENER, &fprog);
	if (r < 0)
		return -errno;
	listener = (int)r;
	return handover_send(connection, listener, &message, step);
}

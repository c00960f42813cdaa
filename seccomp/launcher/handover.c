/* SPDX-License-Identifier: MIT */
/* Installs the filter and passes its notification descriptor to the agent: common/handover.h. */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "seccomp/launcher/launch.h"

/*
 * linux/seccomp.h has this flag since 5.19: a signal does not interrupt a call whose notification
 * was received.
 */
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#define RETRY_US 20000u /* between two attempts to reach the agent */

static int set_timeout(int fd, uint64_t until_ns)
{
	const uint64_t now = monotonic_ns(), left = until_ns > now ? until_ns - now : 0;
	const struct timeval timeout = {.tv_sec = (time_t)(left / NSEC_PER_SEC),
					.tv_usec = (suseconds_t)(left % NSEC_PER_SEC / 1000 + 1)};

	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
			       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) <
				       0
		       ? -errno
		       : 0;
}

/* recv(2) within the socket's timeout, which would begin anew with each signal. */
static ssize_t receive(int fd, void *buffer, size_t size)
{
	struct timeval left = {0};
	socklen_t len = sizeof(left);
	uint64_t until_ns;
	ssize_t n;

	if (getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &left, &len) < 0)
		return -1;
	until_ns = monotonic_ns() + (uint64_t)left.tv_sec * NSEC_PER_SEC +
		   (uint64_t)left.tv_usec * 1000;
	while ((n = recv(fd, buffer, size, 0)) < 0 && errno == EINTR)
		if (set_timeout(fd, until_ns) < 0)
			return -1;
	return n;
}

static int receive_reply(int fd, const char *what, uid_t *ret_uid, struct step *step)
{
	struct listener_reply reply;
	ssize_t n;

	step_set(step, "wait for the agent's answer to %s", what);
	n = receive(fd, &reply, sizeof(reply));
	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (n != sizeof(reply) || reply.magic != LISTENER_MAGIC ||
	    reply.version != LISTENER_VERSION)
		return -EPROTO;
	step_set(step, "have the agent accept %s", what);
	if (reply.status < 0)
		return reply.status;
	*ret_uid = reply.agent_uid;
	return 0;
}

/*
 * Read a number of /proc/PID/status. The process chooses its name, but newlines in the name are
 * escaped.
 */
static int read_status(pid_t pid, const char *field, unsigned base, uint64_t *ret)
{
	char path[64], text[4096], name[32];
	_cleanup_close_ int fd = -1;
	const char *at;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	snprintf(name, sizeof(name), "\n%s:\t", field);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	at = strstr(text, name);
	if (!at)
		return -ENOENT;
	*ret = strtoull(at + strlen(name), NULL, (int)base);
	return 0;
}

/*
 * A workload under the profile has a filter and lacks CAP_SYS_PTRACE, which the agent keeps. Such a
 * process could have created the socket in order to answer as the agent.
 */
static bool is_workload(pid_t pid)
{
	uint64_t mode, permitted;

	if (read_status(pid, "Seccomp", 10, &mode) < 0 ||
	    read_status(pid, "CapPrm", 16, &permitted) < 0)
		return true;
	return mode != 0 && !(permitted >> CAP_SYS_PTRACE & 1);
}

/* The peer must be root or the agent's user, in this pid namespace, and no workload. */
static int check_peer(int fd, uid_t agent_uid, pid_t *ret_pid, struct step *step)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char path[64], theirs[64] = "", ours[64] = "";

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	if (peer.uid != 0 && peer.uid != agent_uid) {
		step_set(step, "trust the listener of user %u as the agent", peer.uid);
		return -EACCES;
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", peer.pid);
	step_set(step, "trust the listener as the agent: it is in another pid namespace");
	if (peer.pid <= 0 || readlink(path, theirs, sizeof(theirs) - 1) < 0 ||
	    readlink("/proc/self/ns/pid", ours, sizeof(ours) - 1) < 0 || strcmp(theirs, ours))
		return -EACCES;
	step_set(step, "trust the listener as the agent: it is a workload under the profile");
	if (is_workload(peer.pid))
		return -EACCES;
	*ret_pid = peer.pid;
	return 0;
}

/* Try once. -EAGAIN: there is no agent yet, or it has no free place yet. */
static int try_connect(const struct launch_options *o, uint64_t until_ns, struct agent *ret,
		       struct step *step)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const uid_t uid = o->agent_uid ? o->agent_uid : AGENT_UID_DEFAULT;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct agent agent = {0};
	int r;

	step_set(step, "connect to the agent's listener socket %s", o->listener);
	if (fd < 0)
		return -errno;
	if (strlen(o->listener) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, o->listener);
	r = set_timeout(fd, until_ns);
	if (r < 0)
		return r;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return errno == ENOENT || errno == ECONNREFUSED || errno == EINTR ? -EAGAIN
										  : -errno;
	r = check_peer(fd, uid, &agent.pid, step);
	if (r == 0)
		r = receive_reply(fd, "the connection", &agent.uid, step);
	if (r < 0)
		return r == -EMFILE ? -EAGAIN : r;
	agent.connection = take_fd(&fd);
	*ret = agent;
	return 0;
}

int handover_connect(const struct launch_options *o, struct agent *ret, struct step *step)
{
	const uint64_t until_ns = monotonic_ns() + o->ready_timeout_ms * NSEC_PER_MSEC;
	struct step tried;
	int r;

	for (;;) {
		r = try_connect(o, until_ns, ret, &tried);
		if (r != -EAGAIN || monotonic_ns() >= until_ns)
			break;
		usleep(RETRY_US);
	}
	if (r != -EAGAIN && r != -ETIMEDOUT) {
		*step = tried;
		return r;
	}
	step_set(step, "%s within %u ms", tried.name, o->ready_timeout_ms);
	return -ETIMEDOUT;
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
	uid_t uid;
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
	return receive_reply(connection, "the notification descriptor", &uid, step);
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

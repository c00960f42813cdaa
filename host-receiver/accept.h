/* SPDX-License-Identifier: MIT */
/*
 * accept(2) for a listener that is polled: without a descriptor left, who connects would wait in
 * the backlog, and wake the loop without end. So one descriptor is kept in reserve: it is given up
 * for the moment in which such a connection is taken and closed.
 *
 * For one thread each.
 */
#pragma once

#include <fcntl.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/util.h"

/* So long without a refusal, and the shortage is over. */
#define ACCEPT_SHORTAGE_NS (10 * NSEC_PER_SEC)

struct spare_fd {
	int fd; /* owned; -1: somebody else had it, and it is tried again */
	bool shortage;
	uint64_t refused; /* connections since the shortage began */
	uint64_t last_ns; /* the last of them */
};

static inline void spare_fd_open(struct spare_fd *s)
{
	s->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static inline int accept_now(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

/* Returns a descriptor; -EMFILE when one was closed for want of descriptors; or what accept4(2)
 * says, -EAGAIN when nobody waits. Logs when a shortage begins and when it has ended. */
static inline int accept_or_refuse(int listener, struct spare_fd *s)
{
	int fd;

	if (s->fd < 0)
		spare_fd_open(s);
	fd = accept_now(listener);
	if (fd >= 0 && s->shortage && monotonic_ns() - s->last_ns > ACCEPT_SHORTAGE_NS) {
		s->shortage = false;
		log_notice("msg=\"there are file descriptors again\" refused=%" PRIu64, s->refused);
	}
	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	if (!s->shortage) {
		log_error("msg=\"no file descriptor is left: new connections are closed; raise the "
			  "limit (RLIMIT_NOFILE)\" why=\"%s\"",
			  strerror(-fd));
		s->refused = 0;
	}
	s->shortage = true;
	s->last_ns = monotonic_ns();
	close_fd(take_fd(&s->fd));
	fd = accept_now(listener);
	close_fd(fd);
	spare_fd_open(s);
	if (fd < 0) {
		/* The reserve is in use by another thread: at least no processor is. */
		usleep(1000);
		return -EAGAIN;
	}
	s->refused++;
	return -EMFILE;
}

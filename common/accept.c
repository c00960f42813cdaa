/* SPDX-License-Identifier: MIT */
#include "common/accept.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/util.h"

void spare_fd_open(struct spare_fd *s)
{
	s->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int accept_now(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int accept_or_refuse(int listener, struct spare_fd *s)
{
	int fd;

	if (s->fd < 0)
		spare_fd_open(s);
	fd = accept_now(listener);
	if (fd >= 0 && s->shortage &&
	    monotonic_ns() - s->last_ns > ACCEPT_SHORTAGE_S * NSEC_PER_SEC) {
		s->shortage = false;
		log_notice("msg=\"there are file descriptors again\" refused=%" PRIu64, s->refused);
	}
	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	/* It wants a descriptor before it looks whether somebody waits. */
	close_fd(take_fd(&s->fd));
	fd = accept_now(listener);
	close_fd(fd);
	spare_fd_open(s);
	if (fd == -EMFILE || fd == -ENFILE) {
		/* The reserve is in use by another thread: at least no processor is. */
		usleep(1000);
		return -EAGAIN;
	}
	if (fd < 0)
		return fd;
	if (!s->shortage) {
		log_error("msg=\"no file descriptor is left: new connections are closed; raise the "
			  "limit (RLIMIT_NOFILE)\"");
		s->refused = 0;
	}
	s->shortage = true;
	s->last_ns = monotonic_ns();
	s->refused++;
	return -EMFILE;
}

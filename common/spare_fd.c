/* SPDX-License-Identifier: MIT */
#include "common/spare_fd.h"

#include <fcntl.h>
#include <sys/socket.h>

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

static void set_shortage(struct spare_fd *s, bool shortage)
{
	if (s->shortage == shortage)
		return;
	s->shortage = shortage;
	if (s->report)
		s->report(shortage, s->refused);
	s->refused = 0;
}

int spare_fd_accept(struct spare_fd *s, int listener)
{
	int fd;

	if (s->fd < 0)
		spare_fd_open(s);
	fd = accept_now(listener);
	if (fd >= 0 && monotonic_ns() - s->last_ns > SPARE_FD_SHORTAGE_S * NSEC_PER_SEC)
		set_shortage(s, false);
	if (fd != -EMFILE && fd != -ENFILE)
		return fd;
	/* accept4(2) allocates the descriptor before it checks the backlog. */
	close_fd(take_fd(&s->fd));
	fd = accept_now(listener);
	close_fd(fd);
	spare_fd_open(s);
	if (fd == -EMFILE || fd == -ENFILE) {
		/* Another thread took the reserve: do not spin until it is free again. */
		usleep(1000);
		return -EAGAIN;
	}
	if (fd < 0)
		return fd;
	set_shortage(s, true);
	s->last_ns = monotonic_ns();
	s->refused++;
	return -EMFILE;
}

/* SPDX-License-Identifier: MIT */
/*
 * vsock_device SOCKET BASE: a vhost-user vsock device for QEMU (vhost-user-vsock-pci), which
 * behaves as a VMM's vsock does. QEMU connects to SOCKET; what the guest connects to at CID 2, port
 * P, goes to the Unix socket BASE_P. Serves one QEMU and ends with it. Says "ready" on standard
 * output once it listens. Opens no AF_VSOCK socket: the guest's is on the other side of the
 * virtqueues.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/util.h"
#include "muxer.h"
#include "vhost_user.h"

#define GUEST_CID    3u
#define DRAIN_WITHIN (60 * NSEC_PER_SEC)

enum { AT_FRONTEND, AT_KICKS, AT_CONNECTIONS = AT_KICKS + VHOST_QUEUE_MAX };

static int accept_frontend(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int frontend;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path));
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 1) < 0)
		return -errno;
	puts("ready");
	fflush(stdout);
	frontend = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	return frontend < 0 ? -errno : frontend;
}

static void take_kicks(struct vhost *vhost, const struct pollfd *fds)
{
	uint64_t count;

	for (unsigned i = 0; i < VHOST_QUEUE_MAX; i++)
		if (fds[i].revents && read(vhost->queues[i].kick_fd, &count, sizeof(count)) < 0 &&
		    errno != EAGAIN)
			perror("vsock_device: reading a kick");
}

/* Until the frontend is gone. */
static int serve(struct vhost *vhost, struct muxer *muxer)
{
	static struct pollfd fds[AT_CONNECTIONS + MUXER_CONNECTIONS_MAX];

	for (;;) {
		unsigned n;
		int r;

		muxer_turn(muxer);
		fds[AT_FRONTEND] = (struct pollfd){.fd = vhost->fd, .events = POLLIN};
		for (unsigned i = 0; i < VHOST_QUEUE_MAX; i++)
			fds[AT_KICKS + i] =
				(struct pollfd){.fd = vhost->queues[i].kick_fd, .events = POLLIN};
		n = muxer_poll(muxer, fds + AT_CONNECTIONS);
		if (poll(fds, AT_CONNECTIONS + n, muxer_timeout(muxer)) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		muxer_ready(muxer, fds + AT_CONNECTIONS, n);
		take_kicks(vhost, fds + AT_KICKS);
		if (!fds[AT_FRONTEND].revents)
			continue;
		r = vhost_read_message(vhost);
		if (r < 0)
			return r;
		/* The driver is unbound, or the machine starts again. */
		if (vhost->stopped) {
			vhost->stopped = false;
			muxer_reset(muxer);
		}
	}
}

int main(int argc, char **argv)
{
	static struct vhost vhost;
	static struct muxer muxer;
	int fd, r;

	if (argc != 3) {
		fprintf(stderr, "usage: vsock_device SOCKET BASE\n");
		return 64;
	}
	signal(SIGPIPE, SIG_IGN);
	fd = accept_frontend(argv[1]);
	if (fd < 0) {
		fprintf(stderr, "vsock_device: %s: %s\n", argv[1], strerror(-fd));
		return 1;
	}
	vhost_init(&vhost, fd, GUEST_CID);
	muxer_init(&muxer, &vhost, argv[2]);
	r = serve(&vhost, &muxer);
	/* A reader on a busy machine is late, and a test wants all that the guest has said. */
	muxer_drain(&muxer, monotonic_ns() + DRAIN_WITHIN);
	muxer_reset(&muxer);
	vhost_close(&vhost);
	if (r != -ENOTCONN) {
		fprintf(stderr, "vsock_device: %s\n", strerror(-r));
		return 1;
	}
	return 0;
}

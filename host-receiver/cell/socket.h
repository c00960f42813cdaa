/* SPDX-License-Identifier: MIT */
/*
 * The listening socket of a cell at <BASE>_9001 (host-receiver.md section 2). Its mode and owner
 * are right from the instant the path exists and are never changed by path: the folder may belong
 * to a jailed VMM that could swap the name. So the folder is opened once and everything goes
 * through that descriptor. Loop thread only: setfsuid(2) and umask(2).
 */
#pragma once

#include <limits.h>
#include <sys/stat.h>

#include "host-receiver/cell/options.h"

#define CELL_BACKLOG 4096

struct cell_socket {
	int fd;	    /* listening, non-blocking; owned */
	int dir_fd; /* O_PATH of the folder; owned */
	char name[NAME_MAX + 1];
	dev_t dev; /* of the socket's inode, */
	ino_t ino; /* so that only our own is ever unlinked */
};

/*
 * replace: the caller's own records say that a stale socket at this path is its own; then, if
 * nobody listens there, it is replaced. Anything else that exists is refused and left alone.
 * Returns 0 or a negative errno with a sentence in why: -EEXIST and -EADDRINUSE: the path is taken.
 */
int cell_socket_bind(struct cell_socket *s, const struct cell_options *options, bool replace,
		     char why[CELL_WHY_MAX]);

/*
 * Remove the socket that a dead receiver left at the path: the caller's own records say that it was
 * about to bind there. Anything but a socket without a listener is left alone.
 */
void cell_socket_remove_stale(const struct cell_options *options);

/* Close the listener, then unlink the path if it still is our socket. */
void cell_socket_close(struct cell_socket *s);

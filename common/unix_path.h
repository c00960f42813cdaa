/* SPDX-License-Identifier: MIT */
/* What stands at the path of a Unix socket. No state; any thread. */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

/*
 * Whether a process has the stream socket at this path open. Asked by connect(2) of a datagram
 * socket, so that the process never sees a connection: EPROTOTYPE is a live socket, ECONNREFUSED a
 * stale one (unix(7); net/unix/af_unix.c, unix_find_bsd). Returns 1, 0, or a negative errno:
 * -ENOENT, or the reason why nobody can tell.
 */
int unix_path_is_alive(const struct sockaddr_un *address);

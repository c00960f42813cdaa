/* SPDX-License-Identifier: MIT */
/*
 * The file at the path of a Unix socket: is it a socket, and does a process listen there? No state;
 * any thread.
 */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

/*
 * Whether a process has the stream socket at this path open. A datagram socket asks by connect(2),
 * so the process never sees a connection: EPROTOTYPE means a live socket, ECONNREFUSED a stale one
 * (unix(7); net/unix/af_unix.c, unix_find_bsd). Returns 1, 0, or a negative errno: -ENOENT, or the
 * reason why it is unknown.
 */
int unix_path_is_alive(const struct sockaddr_un *address);

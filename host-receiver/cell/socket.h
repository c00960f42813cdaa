/* SPDX-License-Identifier: MIT */
/*
 * The listening socket of a cell (listener.h). If another user shall own it, the receiver's parent
 * binds and unlinks it, because it has the privilege; else this process does. Loop thread.
 */
#pragma once

#include "host-receiver/cell/options.h"
#include "host-receiver/privilege/listener.h"
#include "host-receiver/sign/client.h"

struct cell_socket {
	struct listener listener;
	bool set_owner;
	uid_t uid;
	gid_t gid;
	struct sign_client *parent; /* borrowed */
};

/* replace: see listener.h. parent: NULL: this process alone. Returns 0 or a negative errno with a
 * sentence in why: -EEXIST and -EADDRINUSE: the path is taken. */
int cell_socket_bind(struct cell_socket *s, const struct cell_options *options, bool replace,
		     struct sign_client *parent, char why[CELL_WHY_MAX]);

/* See listener_remove_stale(). */
void cell_socket_remove_stale(const struct cell_options *options, struct sign_client *parent);

/* Close the listener, then unlink the path if it is still our socket. */
void cell_socket_close(struct cell_socket *s);

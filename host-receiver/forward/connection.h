/* SPDX-License-Identifier: MIT */
/*
 * Connecting to one NATS server with the settings' credentials and TLS. It never reconnects by
 * itself. Blocks for some seconds at most; any thread.
 */
#pragma once

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

/*
 * The owner's event loop instead of threads of libnats: libnats calls these on the owner's thread,
 * from within its own functions. NULL: libnats has threads.
 */
struct connection_loop {
	natsEvLoop_Attach attach;
	natsEvLoop_ReadAddRemove read;
	natsEvLoop_WriteAddRemove write;
	natsEvLoop_Detach detach;
	void *owner; /* what attach() gets as its loop */
};

/*
 * Start libnats' own threads so that they never run in the place of this one: one of them frees
 * each answer, and would be woken for each. Call before anything else of libnats.
 */
void connection_library_open(void);

/* What a status of libnats means for people. */
enum forward_error connection_error(natsStatus status);

/* Returns FORWARD_OK, or what failed with a sentence in why. */
enum forward_error connection_open(const struct forward_settings *settings, const char *url,
				   const struct connection_loop *loop, natsConnection **ret,
				   char why[PUBLISHER_WHY_MAX]);

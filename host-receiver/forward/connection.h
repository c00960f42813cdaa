/* SPDX-License-Identifier: MIT */
/*
 * Connects to one NATS server with the credentials and TLS of the settings. It never reconnects by
 * itself. Blocks for some seconds at most; any thread.
 */
#pragma once

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

/*
 * The owner's event loop, used instead of libnats' threads: libnats calls these functions on the
 * owner's thread, from inside its own functions. NULL: libnats has threads.
 */
struct connection_loop {
	natsEvLoop_Attach attach;
	natsEvLoop_ReadAddRemove read;
	natsEvLoop_WriteAddRemove write;
	natsEvLoop_Detach detach;
	void *owner; /* what attach() gets as its loop */
};

/*
 * Start libnats' own threads with a policy that never preempts this thread. One of them frees each
 * answer, and would be woken for each. Call it before anything else of libnats.
 */
void connection_library_open(void);

/* Server number n of the comma-separated list, which is counted from its beginning again and again.
 */
void connection_pick_url(const char *urls, unsigned number, char *out, size_t size);
/* The URL for a log line: without user and password. */
void connection_show_url(const char *url, char *out, size_t size);

/* The reason that people see for a status of libnats. */
enum forward_error connection_error(natsStatus status);

/* Returns FORWARD_OK, or the error with a sentence in why. */
enum forward_error connection_open(const struct forward_settings *settings, const char *url,
				   const struct connection_loop *loop, natsConnection **ret,
				   char why[PUBLISHER_WHY_MAX]);

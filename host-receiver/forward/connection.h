/* SPDX-License-Identifier: MIT */
/*
 * Connecting to one NATS server with the settings' credentials and TLS. It never reconnects by
 * itself. Blocks for some seconds at most; any thread.
 */
#pragma once

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

/* What a status of libnats means for people. */
enum forward_error connection_error(natsStatus status);

/*
 * on_end: called on a thread of libnats when the connection has ended; NULL: nobody asks. Returns
 * FORWARD_OK, or what failed with a sentence in why.
 */
enum forward_error connection_open(const struct forward_settings *settings, const char *url,
				   natsConnectionHandler on_end, void *closure,
				   natsConnection **ret, char why[PUBLISHER_WHY_MAX]);

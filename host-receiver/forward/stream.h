/* SPDX-License-Identifier: MIT */
/*
 * The JetStream stream that takes the evidence: whether its settings keep it, and what the server's
 * error codes mean (nats-server, server/errors.json). For the forwarder's thread.
 */
#pragma once

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

#define STREAM_DUPLICATES_MIN_S 120 /* of the duplicate window */

/* What a JetStream error code means for the forwarder. */
enum forward_error stream_error(int code);

/*
 * Look at the stream, or make it if the settings say so. Returns FORWARD_OK; what would lose
 * evidence is FORWARD_STREAM. warnings: what may, "" if nothing.
 */
enum forward_error stream_check(natsConnection *nc, const struct forward_settings *settings,
				const char *origin, char why[PUBLISHER_WHY_MAX],
				char warnings[PUBLISHER_WHY_MAX]);

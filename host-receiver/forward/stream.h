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

/* What the forwarder has to know of it. */
struct stream_facts {
	size_t max_msg_size;		  /* of a message with its headers; 0: no limit */
	char warnings[PUBLISHER_WHY_MAX]; /* of settings that may lose evidence; "": none */
};

/*
 * Look at the stream, or make it if the settings say so. Returns FORWARD_OK; settings that would
 * lose evidence are FORWARD_STREAM. nc has libnats' threads: this waits for answers.
 */
enum forward_error stream_check(natsConnection *nc, const struct forward_settings *settings,
				struct stream_facts *ret, char why[PUBLISHER_WHY_MAX]);

/* Whether a version, such as "2.10.5" or "2.12.0-beta.1", is this one or a later one. */
bool stream_version_at_least(const char *version, unsigned major, unsigned minor, unsigned patch);

/* SPDX-License-Identifier: MIT */
/*
 * The JetStream stream for the evidence: whether its settings keep the evidence, and the meaning of
 * the server's error codes (nats-server, server/errors.json). For the forwarder's thread.
 */
#pragma once

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

#define STREAM_DUPLICATES_MIN_S 120 /* of the duplicate window */

/* The forwarder's error for an error code of JetStream. */
enum forward_error stream_error(int code);

/* Facts about the stream that the forwarder needs. */
struct stream_facts {
	size_t max_msg_size;		  /* of a message with its headers; 0: no limit */
	char warnings[PUBLISHER_WHY_MAX]; /* about settings that may lose evidence; "": none */
};

/*
 * Check the stream, or create it if the settings ask for that. Returns FORWARD_OK; FORWARD_STREAM:
 * its settings would lose evidence. nc must have libnats' threads, because this waits for answers.
 */
enum forward_error stream_check(natsConnection *nc, const struct forward_settings *settings,
				struct stream_facts *ret, char why[PUBLISHER_WHY_MAX]);

/* Whether a version, such as "2.10.5" or "2.12.0-beta.1", is this one or a later one. */
bool stream_version_at_least(const char *version, unsigned major, unsigned minor, unsigned patch);

/* SPDX-License-Identifier: MIT */
/*
 * Reads the messages of a JetStream stream in order, with an ordered consumer. The calling thread
 * gets them; libnats has threads of its own.
 */
#pragma once

#include <stdbool.h>

#include <nats/nats.h>

#include "host-receiver/forward/publisher.h"

struct stream_reading {
	bool follow; /* begin with the messages from now on, and never end */
	/* A message; borrowed. A negative errno with a sentence in why ends the reading. */
	int (*take)(void *ctx, natsMsg *msg, char why[PUBLISHER_WHY_MAX]);
	void *ctx;
};

/*
 * Read from the first message to the message that is the last one now. Returns 0, the result of
 * take(), or a negative errno with a sentence in why.
 */
int stream_read(const struct forward_settings *settings, const struct stream_reading *reading,
		char why[PUBLISHER_WHY_MAX]);

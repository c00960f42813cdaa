/* SPDX-License-Identifier: MIT */
/*
 * The forwarder's settings: section [nats] of the configuration, and its folders. Strings are
 * borrowed while the forwarder runs; an empty one is not set.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FORWARD_STREAM_DEFAULT	"CELLOS_EVENTS"
#define FORWARD_SUBJECT_DEFAULT "cellos.events.{cell}.{type}"

#define FORWARD_PENDING_DEFAULT 4096u
#define FORWARD_PENDING_MAX	65536u

enum forward_mode {
	FORWARD_EVENTS,	 /* a message for each entry */
	FORWARD_BATCHES, /* a message for each commit group */
	_FORWARD_MODE_MAX,
};

struct forward_settings {
	const char *url; /* servers, separated by commas */
	const char *stream, *subject;
	enum forward_mode mode;
	bool create_stream;
	const char *credentials, *tls_ca, *tls_cert, *tls_key; /* files */
	unsigned max_pending;				       /* messages without an answer */

	const char *evidence_dir;
	const char *state_dir; /* holds forward/ and cursors/ */
};

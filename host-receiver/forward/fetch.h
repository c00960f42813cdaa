/* SPDX-License-Identifier: MIT */
/*
 * Reads evidence of any number of hosts back from a JetStream stream, and writes it as logs that
 * verify can read: a folder for each log, with its lines in the order of their index, not of their
 * arrival. It judges nothing: only the signed tree shows whether the server returned the true
 * lines. One thread, and libnats' own threads.
 */
#pragma once

#include "host-receiver/evidence/note.h"
#include "host-receiver/forward/publisher.h"

#define FETCH_WINDOW_ITEMS 65536u /* lines of a log that wait for an earlier one */
#define FETCH_WINDOW_BYTES (64u * 1024u * 1024u)
#define FETCH_LOGS_MAX	   4096u
#define FETCH_HOLES_MAX	   16u /* how many are listed; all are counted */

struct fetch_hole {
	uint64_t first, last; /* entries that the stream does not have */
	bool skipped;	      /* the forwarder sent a notice instead of them */
};

struct fetch_log {
	struct fetch_log *next;
	char origin[NOTE_ORIGIN_MAX + 1];
	char *dir; /* owned */
	uint64_t entries, repeats, missing;
	uint64_t unanchored; /* entries that were left out: not provable after a hole, or without a
				beginning */
	struct fetch_hole holes[FETCH_HOLES_MAX];
	unsigned n_holes;
	struct fetch_state *state; /* valid while the log is read */
};

struct fetch_options {
	const struct forward_settings *settings; /* url, stream, credentials, TLS */
	const char *origin;			 /* only logs with this prefix; NULL: all */
	const char *dir;			 /* an empty folder; gets a folder for each log */
};

struct fetch {
	struct fetch_log *logs;
	unsigned n_logs;
	uint64_t messages, strange; /* strange: not sent by a forwarder */
};

/*
 * Read the stream from its first message to the message that is the last one now. Returns 0, or a
 * negative errno with a sentence in why. Free *ret in both cases.
 */
int fetch_run(const struct fetch_options *options, struct fetch *ret, char why[PUBLISHER_WHY_MAX]);
void fetch_free(struct fetch *fetch);

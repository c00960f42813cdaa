/* SPDX-License-Identifier: MIT */
/*
 * Reads evidence back from a JetStream stream, of any number of hosts at once, and writes it as
 * logs into folders that verify reads: a folder for each log, its lines in the order of the log.
 * Order by index, not by arrival. It judges nothing: what the server gives is only as good as the
 * signed tree says. One thread, and libnats' own below it.
 */
#pragma once

#include "host-receiver/evidence/note.h"
#include "host-receiver/forward/publisher.h"

#define FETCH_WINDOW_ITEMS 65536u /* lines of a log that wait for an earlier one */
#define FETCH_WINDOW_BYTES (64u * 1024u * 1024u)
#define FETCH_LOGS_MAX	   4096u
#define FETCH_HOLES_MAX	   16u /* kept for people; all are counted */

struct fetch_hole {
	uint64_t first, last; /* entries that the stream does not hold */
	bool skipped;	      /* the forwarder said so in their place */
};

struct fetch_log {
	struct fetch_log *next;
	char origin[NOTE_ORIGIN_MAX + 1];
	char *dir; /* owned */
	uint64_t entries, repeats, missing;
	uint64_t unanchored; /* left out: unprovable after a hole, or without a beginning */
	struct fetch_hole holes[FETCH_HOLES_MAX];
	unsigned n_holes;
	struct fetch_state *state; /* while it is read */
};

struct fetch_options {
	const struct forward_settings *settings; /* url, stream, credentials, TLS */
	const char *origin;			 /* only logs with this prefix; NULL: all */
	const char *dir;			 /* an empty folder; gets a folder for each log */
};

struct fetch {
	struct fetch_log *logs;
	unsigned n_logs;
	uint64_t messages, strange; /* strange: not of a forwarder */
};

/*
 * Read the stream from its first message to the one that is last now. Returns 0, or a negative
 * errno with a sentence in why. *ret is to be freed in both cases.
 */
int fetch_run(const struct fetch_options *options, struct fetch *ret, char why[PUBLISHER_WHY_MAX]);
void fetch_free(struct fetch *fetch);

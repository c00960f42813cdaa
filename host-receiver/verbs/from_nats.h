/* SPDX-License-Identifier: MIT */
/*
 * Fetches evidence from a JetStream stream, for verbs that read files: each log becomes a folder
 * below TMPDIR, which from_nats_done() removes. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/options.h"
#include "host-receiver/forward/fetch.h"

struct from_nats {
	const char *url; /* NULL: no stream is read */
	const char *stream, *credentials, *tls_ca, *tls_cert, *tls_key;
	char dir[64];
	struct fetch fetch;
	/* The folders; NULL-terminated. The array is owned, its strings are borrowed from fetch. */
	char **paths;
};

#define FROM_NATS_ROWS 6u

/* Rows for an option group whose target is a struct from_nats. */
extern const struct option_row from_nats_rows[FROM_NATS_ROWS];

/* Fetch the logs whose origin has this prefix (NULL: all). Returns an exit status, after a message
 * unless EX_OK. */
int from_nats_fetch(struct from_nats *n, const char *origin);
void from_nats_done(struct from_nats *n);

/*
 * Call take() with every line of the stream, in the order of its messages; with follow only with
 * the lines that arrive from now on. It ends when take() returns anything but 0. Returns an exit
 * status, after a message unless EX_OK.
 */
int from_nats_lines(const struct from_nats *n, bool follow,
		    int (*take)(void *ctx, const char *line, size_t len), void *ctx);

/*
 * Print the entries that the stream does not have. Returns the exit status of verify for them;
 * EX_OK: there are none.
 */
int from_nats_report(const struct from_nats *n, FILE *f);

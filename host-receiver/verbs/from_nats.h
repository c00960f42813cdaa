/* SPDX-License-Identifier: MIT */
/*
 * Evidence from a JetStream stream for the verbs that read files: it is fetched into folders below
 * TMPDIR, which from_nats_done() removes. One thread.
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
	char **paths; /* owned, NULL-terminated: the folders. They are the logs' */
};

#define FROM_NATS_ROWS 6u

/* Rows for an option group whose target is a struct from_nats. */
extern const struct option_row from_nats_rows[FROM_NATS_ROWS];

/* Fetch the logs whose origin has this prefix (NULL: all). Returns an exit status, after a message
 * unless EX_OK. */
int from_nats_fetch(struct from_nats *n, const char *origin);
void from_nats_done(struct from_nats *n);

/*
 * Give every line of the stream to take(), in the order of its messages; with follow those that
 * come from now on. take() ends it by returning anything but 0. Returns an exit status, after a
 * message unless EX_OK.
 */
int from_nats_lines(const struct from_nats *n, bool follow,
		    int (*take)(void *ctx, const char *line, size_t len), void *ctx);

/* Print what the stream does not hold. Returns the exit status of verify for it; EX_OK: nothing. */
int from_nats_report(const struct from_nats *n, FILE *f);

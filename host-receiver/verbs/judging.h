/* SPDX-License-Identifier: MIT */
/*
 * Shared by verify and report, which both judge evidence: the options about keys, kept checkpoints
 * and required contents, and one run of the judge (host-receiver/judge) over the files on the
 * command line.
 */
#pragma once

#include "common/options.h"
#include "host-receiver/judge/sources.h"
#include "host-receiver/judge/verifier.h"
#include "host-receiver/verbs/period.h"

#define JUDGING_LIST_MAX 1024u /* checkpoints, and cells, on one command line */

struct judging_list {
	const char *items[JUDGING_LIST_MAX]; /* borrowed from argv */
	size_t n;
};

struct judging {
	const char *verb; /* messages begin with it */
	struct keyring *ring;
	struct judging_list checkpoints, cells;
	const char *origin; /* NULL: any */
	struct period period;
	int64_t retention_ms;
	bool keys, require_signed, allow_unsigned, require_log, live;
	int status; /* the exit status after a mistake on the command line */
};

/* Rows of an option group whose target is a struct judging. */
extern const struct option_row judging_rows[];
extern const size_t judging_n_rows;

/* verb is borrowed. Returns 0, or -ENOMEM after a message. */
int judging_init(struct judging *j, const char *verb);
void judging_done(struct judging *j);

/* Check options that exclude each other. Returns NULL, or a static sentence. */
const char *judging_conflict(const struct judging *j);

/* Whether a record without a signature is a failure. */
bool judging_requires_signed(const struct judging *j);

/*
 * Judge these files and folders; the last path is NULL. use() gets the result and the files, in the
 * order of their lines; both live until it returns. Returns what use() returns, or an exit status
 * after a message.
 */
int judging_run(const struct judging *j, char **paths,
		int (*use)(void *data, const struct verifier_result *result,
			   const struct sources *sources),
		void *data);

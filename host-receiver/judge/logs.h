/* SPDX-License-Identifier: MIT */
/*
 * What is known of each log (origin) after its segments have passed, the checkpoints that somebody
 * kept, and what is missing between logs. tree_run.h walks through the segments and stores here
 * what it has proven. One thread.
 */
#pragma once

#include "host-receiver/judge/facts.h"
#include "host-receiver/judge/findings.h"

#define LOG_KIDS_MAX 8u /* kept for the report */

struct log_summary {
	struct log_summary *next;
	uint64_t number;       /* from 1, in the order of their first segments */
	bool present;	       /* has a segment in the input; false: only named by others */
	bool broken;	       /* its last entries are bad */
	uint64_t first_index;  /* of the first segment */
	uint64_t size;	       /* entries that a verified checkpoint covers, end of the last one */
	struct tree_hash root; /* of that size */
	uint64_t entries, checkpoints, in_flight;
	int64_t first_ms, last_ms;
	const char *kids[LOG_KIDS_MAX]; /* borrowed from the keyring */
	unsigned n_kids;
	struct place first, last;
	/* What verified log.v1.pruned entries explain: entries before this index. */
	uint64_t pruned_before;
	/* From log.v1.opened; NULL: none. */
	struct log_summary *previous;
	uint64_t previous_size;
	bool has_previous_size, has_successor;
	char origin[];
};

/* A checkpoint that the auditor kept. */
struct kept_checkpoint {
	const char *file; /* borrowed */
	struct note_checkpoint checkpoint;
	enum {
		KEPT_UNSEEN,
		KEPT_FOUND,
		KEPT_DIFFERENT, /* the log has another root at that size */
		KEPT_USELESS,	/* not signed by a known key: a finding says so */
	} state;
};

struct logs {
	struct findings *findings; /* borrowed */
	struct log_summary *first, **last;
	uint64_t n;
	struct kept_checkpoint *kept;
	size_t n_kept;
};

void logs_init(struct logs *logs, struct findings *findings);
void logs_free(struct logs *logs);

/* The log with this origin, made when it is new. NULL: no memory. */
struct log_summary *logs_get(struct logs *logs, struct wire_text origin);

/* NULL: there is none. */
struct log_summary *logs_find(const struct logs *logs, struct wire_text origin);

/* Whether a log's beginning may be absent: verified entries say that it was pruned. */
bool log_start_pruned(const struct log_summary *log);
/* The same, or any log before it: what is missing may have been there. */
bool log_past_pruned(const struct log_summary *log);

/*
 * Add a kept checkpoint from its text. An unreadable one or a wrong signature is bad, an unknown
 * key unverifiable. Returns 0, -ENOMEM or -EIO.
 */
int logs_keep(struct logs *logs, const struct keyring *ring, const char *file, const char *text,
	      size_t len);

/* The smallest size of a kept checkpoint of this log that is >= size; UINT64_MAX: none. */
uint64_t logs_next_kept(const struct logs *logs, const struct log_summary *log, uint64_t size);
/* The log's root at this size. */
void logs_compare_kept(struct logs *logs, const struct log_summary *log, uint64_t size,
		       const struct tree_hash *root);

/* After the last line. since_ms: what was before need not be there; INT64_MIN: all must be. */
void logs_finish(struct logs *logs, int64_t since_ms);

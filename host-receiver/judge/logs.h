/* SPDX-License-Identifier: MIT */
/*
 * The facts about each log (origin) after its segments were read; the checkpoints that an auditor
 * kept; and what is missing between logs. tree_run.h reads the segments and stores here what it has
 * proven. One thread.
 */
#pragma once

#include "host-receiver/judge/facts.h"
#include "host-receiver/judge/findings.h"

#define LOG_KIDS_MAX 8u /* kept for the report */

struct log_summary {
	struct log_summary *next;
	uint64_t number;       /* from 1, in the order of their first segments */
	bool present;	       /* has a segment in the input; false: other logs name it */
	bool broken;	       /* its last entries are bad */
	uint64_t first_index;  /* of the first segment */
	uint64_t size;	       /* entries that a verified checkpoint covers, end of the last one */
	struct tree_hash root; /* of that size */
	uint64_t entries, checkpoints, in_flight;
	int64_t first_ms, last_ms;
	const char *kids[LOG_KIDS_MAX]; /* borrowed from the keyring */
	unsigned n_kids;
	struct place first, last;
	/* Verified log.v1.pruned entries explain the absence of entries before this index. */
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
		KEPT_USELESS,	/* no known key signed it; there is a finding */
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

/* The log with this origin; a new one is created. NULL: no memory. */
struct log_summary *logs_get(struct logs *logs, struct wire_text origin);

/* NULL: there is none. */
struct log_summary *logs_find(const struct logs *logs, struct wire_text origin);

/* Whether a log's beginning may be absent: verified entries say that it was pruned. */
bool log_start_pruned(const struct log_summary *log);
/* The same, or any log before it: missing lines may have been there. */
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

/*
 * Call it after the last line. Records before since_ms may be missing; INT64_MIN: all must be
 * there.
 */
void logs_finish(struct logs *logs, int64_t since_ms);

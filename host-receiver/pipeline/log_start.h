/* SPDX-License-Identifier: MIT */
/*
 * How a log begins: whether it goes on where the last process left it, or a new one begins and why
 * (evidence-log.md sections 4 to 6). Compares what the log holds with what the signer remembers.
 * No state; before the pipeline exists.
 */
#pragma once

#include "host-receiver/evidence/log.h"
#include "host-receiver/sign/signer.h"

#define LOG_PREFIX_MAX 200u

/* Why a log begins, in the words of its `opened` entry. */
enum log_reason {
	LOG_RESUMED, /* it does not */
	LOG_NEW,
	LOG_SHORTER_THAN_SIGNED,
	LOG_DAMAGED,
	LOG_STATE_LOST,
	LOG_UNSYNCED,
	LOG_SIGNING_CHANGED,
	LOG_PLANNED,
	_LOG_REASON_MAX,
};

struct log_start {
	enum log_reason reason;
	bool alarm;	 /* an operator has to look */
	const char *why; /* static, with LOG_DAMAGED; else NULL */
	uint8_t uuid[UUID_SIZE];
	char origin[NOTE_ORIGIN_MAX + 1]; /* "" without a tree */
	uint64_t sequence;		  /* of the last record of the log's own stream */
	/* Of a new log: */
	char previous_origin[NOTE_ORIGIN_MAX + 1]; /* "": none */
	uint64_t previous_size;
	/* Of one that goes on: */
	bool unclean, abandoned, key_changed;
	uint64_t cut_bytes, cut_lines, size, abandoned_size;
	struct tree_hash abandoned_root;
};

/* "new", "log_shorter_than_signed", ... */
const char *log_reason_name(enum log_reason reason);

/* `prefix`, or, if it is empty, cellos/<hostname> with '_' for bytes that an origin cannot have. */
void log_origin_prefix(const char *prefix, const char *hostname,
		       char ret[static LOG_PREFIX_MAX + 1]);
/* 1..LOG_PREFIX_MAX bytes of [A-Za-z0-9._/-]. */
bool log_origin_prefix_valid(const char *prefix);

/* A log of its own for a process that keeps nothing, as `receive` is. */
int log_start_alone(struct signer *signer, const char *prefix, struct log_start *ret);

/* A log that follows another one while the process runs: the mode has changed. */
int log_start_follow(struct signer *signer, const char *prefix, const char *previous_origin,
		     uint64_t previous_size, struct log_start *ret);

/* What evidence_log_open() has to look for. */
int log_start_points(struct signer *signer, struct recover_point ret[static 2]);

/*
 * Decide, and have signer and log agree on it: evidence_log_continue() or evidence_log_begin() is
 * called. planned: begin a new log whatever there is. Returns 0 or a negative errno with a sentence
 * in why; -EKEYREJECTED: the signer's kid had another key (the caller exits EX_CONFIG).
 */
int log_start_decide(struct evidence_log *log, struct signer *signer, const char *prefix,
		     enum evidence_sync sync, const struct recover_point points[static 2],
		     bool planned, struct log_start *ret, char why[EVIDENCE_WHY_MAX]);

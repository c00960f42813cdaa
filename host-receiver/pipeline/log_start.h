/* SPDX-License-Identifier: MIT */
/*
 * Decides how a process begins its log: it continues the log of the last process, or begins a new
 * log and states the reason (evidence-log.md sections 4 to 6). It compares the log on disk with the
 * signer's state. No state of its own; used before the pipeline exists.
 */
#pragma once

#include "host-receiver/evidence/log.h"
#include "host-receiver/sign/signer.h"

#define LOG_PREFIX_MAX 200u

/* Why a log begins, in the words of its `opened` entry. */
enum log_reason {
	LOG_RESUMED, /* no new log: the old one goes on */
	LOG_NEW,
	LOG_SHORTER_THAN_SIGNED,
	LOG_DAMAGED,
	LOG_STATE_LOST,
	LOG_UNSYNCED,
	LOG_SIGNING_CHANGED,
	LOG_PLANNED,
	_LOG_REASON_MAX,
};

#define LOG_PLAN_MAX 511u

struct log_start {
	enum log_reason reason;
	bool alarm;		     /* an operator must check it */
	const char *why;	     /* static, with LOG_DAMAGED; else NULL */
	char plan[LOG_PLAN_MAX + 1]; /* with LOG_PLANNED: the operator's words, UTF-8 */
	uint8_t uuid[UUID_SIZE];
	char origin[NOTE_ORIGIN_MAX + 1]; /* "" without a tree */
	uint64_t sequence;		  /* of the last record of the log's own stream */
	/* Of a new log: */
	char previous_origin[NOTE_ORIGIN_MAX + 1]; /* "": none */
	uint64_t previous_size;
	/* Of a log that goes on: */
	bool unclean, abandoned, key_changed;
	uint64_t cut_bytes, cut_lines, size, abandoned_size;
	struct tree_hash abandoned_root;
	/* With key_changed: the key that signs now, and the one that signed last. */
	char kid[SIGN_KID_MAX + 1], retired_kid[SIGN_KID_MAX + 1];
	uint8_t public_key[32], retired_key[32];
};

/* "new", "log_shorter_than_signed", ... */
const char *log_reason_name(enum log_reason reason);

/* `prefix`, or, if it is empty, cellos/<hostname> with '_' for bytes that an origin cannot have. */
void log_origin_prefix(const char *prefix, const char *hostname,
		       char ret[static LOG_PREFIX_MAX + 1]);
/* 1..LOG_PREFIX_MAX bytes of [A-Za-z0-9._/-]. */
bool log_origin_prefix_valid(const char *prefix);

/* Begin a log in a process that stores nothing, like `receive`. */
int log_start_alone(struct signer *signer, const char *prefix, struct log_start *ret);

/*
 * Begin a log that replaces another one in the same process, because the mode of signing has
 * changed.
 */
int log_start_follow(struct signer *signer, const char *prefix, const char *previous_origin,
		     uint64_t previous_size, struct log_start *ret);

/* The trees that evidence_log_open() looks for. */
int log_start_points(struct signer *signer, struct recover_point ret[static RECOVER_POINTS]);

/*
 * Decide, and bring signer and log into agreement: calls evidence_log_continue() or
 * evidence_log_begin(). planned: begin a new log in any case. Returns 0 or a negative errno with a
 * sentence in why; -EKEYREJECTED: the signer's kid belonged to another key (the caller exits
 * EX_CONFIG).
 */
int log_start_decide(struct evidence_log *log, struct signer *signer, const char *prefix,
		     enum evidence_sync sync,
		     const struct recover_point points[static RECOVER_POINTS], bool planned,
		     struct log_start *ret, char why[EVIDENCE_WHY_MAX]);

/* SPDX-License-Identifier: MIT */
/*
 * The evidence log: a folder of segments, append-only JSON lines (events.md section 6). One writer
 * a folder, held by a lock on it. What a commit that failed has left is cut off before anything
 * follows it, so that a torn line can only be the last one, and that one is moved aside at the next
 * start.
 *
 * The sink's commit() and close() belong to the committer's thread; the rest may be called on any
 * and never waits for a disk.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "host-receiver/evidence/sink.h"

#define EVIDENCE_LINE_MAX	     (64u * 1024u)
#define EVIDENCE_SYNC_INTERVAL_MS    1000u
#define EVIDENCE_ROTATE_SIZE_DEFAULT (UINT64_C(256) * 1024 * 1024)
#define EVIDENCE_WHY_MAX	     512u
#define EVIDENCE_SEGMENT_MODE	     0640
#define EVIDENCE_TORN_SUFFIX	     ".torn"

enum evidence_sync {
	EVIDENCE_SYNC_BATCH,	/* on disk before a commit returns */
	EVIDENCE_SYNC_INTERVAL, /* within EVIDENCE_SYNC_INTERVAL_MS */
	EVIDENCE_SYNC_OFF,	/* when the kernel likes */
	_EVIDENCE_SYNC_MAX,
};

struct evidence_limits {
	uint64_t rotate_size;	/* bytes; a group of lines is never split */
	uint64_t rotate_age_ms; /* 0: never by age */
	uint64_t retain_size;	/* bytes of all segments; 0: all are kept */
	enum evidence_sync sync;
};

/* The beginning of a line, or the end of the last one. segment 0: before the oldest there is. */
struct evidence_position {
	uint64_t segment, offset;
};

/* What the start had to cut off. */
struct evidence_repair {
	uint64_t segment, bytes; /* bytes 0: nothing was torn */
};

struct evidence_log;

/*
 * Open or begin the log in the folder, which must exist. floor: segments from this one on are still
 * needed by a reader and are never deleted (UINT64_MAX: nobody reads). Returns 0 or a negative
 * errno with a sentence in why; -EBUSY: another process writes it.
 */
int evidence_log_open(const char *dir, const struct evidence_limits *limits, uint64_t floor,
		      struct evidence_log **ret, struct evidence_repair *ret_repair,
		      char why[EVIDENCE_WHY_MAX]);

/* The log as a sink. Its close() frees the log. */
struct evidence_sink *evidence_log_sink(struct evidence_log *log);

/* From the next commit on. The sync mode is not changed. */
void evidence_log_set_limits(struct evidence_log *log, const struct evidence_limits *limits);
/* The slowest reader now needs this segment and those after it. */
void evidence_log_set_floor(struct evidence_log *log, uint64_t floor);

uint64_t evidence_log_segments(struct evidence_log *log);
uint64_t evidence_log_bytes(struct evidence_log *log);	 /* of all segments */
uint64_t evidence_log_deleted(struct evidence_log *log); /* segments, by retention */
/* A failure that stopped no commit: of retention or of the interval's sync, until either was fine
 * again. 0: none. */
int evidence_log_background_error(struct evidence_log *log);

/*
 * Where the lines end that no crash can take back any more. With EVIDENCE_SYNC_OFF nobody knows
 * where that is: then it is where the committed lines end.
 */
struct evidence_position evidence_log_end(struct evidence_log *log);

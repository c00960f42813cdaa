/* SPDX-License-Identifier: MIT */
/*
 * The evidence log: a folder of segments, append-only JSON lines (evidence-log.md). One writer a
 * folder. What a commit that failed has left is cut off before anything follows it.
 *
 *	evidence_log_open()  reads what is there and changes nothing
 *	evidence_log_continue() or evidence_log_begin()  the log goes on, or a new one begins
 *	commit()  ...  close()
 *
 * The sink's commit() and close() belong to the committer's thread; the rest may be called on any
 * thread and never waits for a disk, except open and continue.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "host-receiver/evidence/recover.h"
#include "host-receiver/evidence/segment_io.h"
#include "host-receiver/evidence/sink.h"

#define EVIDENCE_LINE_MAX	     (64u * 1024u)
#define EVIDENCE_SYNC_INTERVAL_MS    1000u
#define EVIDENCE_ROTATE_SIZE_DEFAULT (UINT64_C(256) * 1024 * 1024)
#define EVIDENCE_WHY_MAX	     FOLDER_WHY_MAX
#define EVIDENCE_NOTICES_MAX	     16u

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
	/* Above this size segments go although a reader still needs them; 0: never. */
	uint64_t retain_size_hard;
	enum evidence_sync sync;
};

/* The beginning of a line, or the end of the last one. segment 0: before the oldest there is. */
struct evidence_position {
	uint64_t segment, offset;
};

/* What the committer has to report; each becomes an entry of the log's own stream. */
enum evidence_notice_kind {
	EVIDENCE_SEGMENT_LOST,
	EVIDENCE_PRUNE, /* wanted; approve with evidence_log_prune() once its entry is durable */
};

struct evidence_notice {
	enum evidence_notice_kind kind;
	uint64_t segment;   /* that was lost; the newest that is to go */
	const char *reason; /* lost: static */
	/* To go, all of one origin: */
	char origin[NOTE_ORIGIN_MAX + 1]; /* "": no tree */
	uint64_t first_index;		  /* that is left of it */
	uint64_t segments, bytes;
	bool hard; /* a reader still needed one of them */
};

struct evidence_log;

/*
 * Open the log in the folder, which must exist, and read what it holds. points: see recover.h.
 * floor: segments from this one on are still needed by a reader and are never deleted (UINT64_MAX:
 * nobody reads). Returns 0 or a negative errno with a sentence in why; -EBUSY: another process
 * writes it.
 */
int evidence_log_open(const char *dir, const struct evidence_limits *limits, uint64_t floor,
		      struct recover_point points[static 2], struct evidence_log **ret,
		      char why[EVIDENCE_WHY_MAX]);

/* What open has read. Borrowed until the first commit. */
const struct recovered *evidence_log_found(const struct evidence_log *log);

/* Go on with it: what is no evidence is moved aside. */
int evidence_log_continue(struct evidence_log *log, char why[EVIDENCE_WHY_MAX]);
/* A new log, of the origin of the first group. What is there stays untouched. */
void evidence_log_begin(struct evidence_log *log);

/* The log as a sink. Its close() frees the log. */
struct evidence_sink *evidence_log_sink(struct evidence_log *log);

/* From the next commit on. The sync mode is not changed. */
void evidence_log_set_limits(struct evidence_log *log, const struct evidence_limits *limits);
/* The slowest reader now needs this segment and those after it. */
void evidence_log_set_floor(struct evidence_log *log, uint64_t floor);

/* The next notice: true, or false when there is none. */
bool evidence_log_take_notice(struct evidence_log *log, struct evidence_notice *ret);
/* The entry that says so is durable: segments up to this number go at the next commit. */
void evidence_log_prune(struct evidence_log *log, uint64_t segment);

uint64_t evidence_log_segments(struct evidence_log *log);
uint64_t evidence_log_bytes(struct evidence_log *log);	 /* of all segments */
uint64_t evidence_log_deleted(struct evidence_log *log); /* segments, by retention */
uint64_t evidence_log_lost(struct evidence_log *log);	 /* segments, by somebody else */
uint64_t evidence_log_size(struct evidence_log *log);	 /* entries in the tree; 0 without */
/* A failure that stopped no commit: of retention or of the interval's sync, until either was fine
 * again. 0: none. */
int evidence_log_background_error(struct evidence_log *log);

/*
 * Where the lines end that no crash can take back any more. With EVIDENCE_SYNC_OFF nobody knows
 * where that is: then it is where the committed lines end.
 */
struct evidence_position evidence_log_end(struct evidence_log *log);

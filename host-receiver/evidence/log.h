/* SPDX-License-Identifier: MIT */
/*
 * The evidence log: a folder of segments, append-only JSON lines (evidence-log.md). One writer a
 * folder. Bytes that a failed commit has left are cut off before the next commit.
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
	EVIDENCE_SYNC_OFF,	/* when the kernel decides */
	_EVIDENCE_SYNC_MAX,
};

struct evidence_limits {
	uint64_t rotate_size;	/* bytes; a group of lines stays in one segment */
	uint64_t rotate_age_ms; /* 0: never by age */
	uint64_t retain_size;	/* bytes of all segments; 0: all are kept */
	/* Above this size segments are deleted even if a reader still needs them; 0: never. */
	uint64_t retain_size_hard;
	enum evidence_sync sync;
};

/* The beginning of a line, or the end of the last one. segment 0: before the oldest segment. */
struct evidence_position {
	uint64_t segment, offset;
};

/* A report of the committer. Each notice becomes an entry of the log's own stream. */
enum evidence_notice_kind {
	EVIDENCE_SEGMENT_LOST,
	EVIDENCE_PRUNE, /* a wish to delete: approve it with evidence_log_prune() when its entry is
			   durable */
};

struct evidence_notice {
	enum evidence_notice_kind kind;
	uint64_t segment;   /* the lost one; or the newest one to delete */
	const char *reason; /* EVIDENCE_LOST: static */
	/* EVIDENCE_PRUNE, all of one origin: */
	char origin[NOTE_ORIGIN_MAX + 1]; /* "": no tree */
	uint64_t first_index;		  /* the first index that remains */
	uint64_t segments, bytes;
	bool hard; /* a reader still needed one of them */
};

struct evidence_log;

/*
 * Open the log in the folder, which must exist, and read its contents. points: see recover.h.
 * floor: readers still need the segments from this one on, so they are not deleted (UINT64_MAX:
 * there is no reader). Returns 0 or a negative errno with a sentence in why; -EBUSY: another
 * process writes it.
 */
int evidence_log_open(const char *dir, const struct evidence_limits *limits, uint64_t floor,
		      struct recover_point points[static RECOVER_POINTS], struct evidence_log **ret,
		      char why[EVIDENCE_WHY_MAX]);

/* The result of evidence_log_open(). Borrowed until the first commit. */
const struct recovered *evidence_log_found(const struct evidence_log *log);

/* Continue the log. Bytes that are not evidence are moved to another file first. */
int evidence_log_continue(struct evidence_log *log, char why[EVIDENCE_WHY_MAX]);
/*
 * Begin a new log with the origin of the first group. Existing segments stay unchanged, but for one
 * in which no log has begun: it is moved aside.
 */
void evidence_log_begin(struct evidence_log *log);

/* The log as a sink. Its close() frees the log. */
struct evidence_sink *evidence_log_sink(struct evidence_log *log);

/* Valid from the next commit on. The sync mode does not change. */
void evidence_log_set_limits(struct evidence_log *log, const struct evidence_limits *limits);
/* The slowest reader now needs this segment and those after it. */
void evidence_log_set_floor(struct evidence_log *log, uint64_t floor);

/* The next notice: true, or false when there is none. */
bool evidence_log_take_notice(struct evidence_log *log, struct evidence_notice *ret);
/* The entry about the deletion is durable: the next commit deletes segments up to this number. */
void evidence_log_prune(struct evidence_log *log, uint64_t segment);

uint64_t evidence_log_segments(struct evidence_log *log);
uint64_t evidence_log_bytes(struct evidence_log *log);	 /* of all segments */
uint64_t evidence_log_deleted(struct evidence_log *log); /* segments that retention deleted */
uint64_t
evidence_log_lost(struct evidence_log *log); /* segments that somebody else removed or changed */
uint64_t evidence_log_size(struct evidence_log *log); /* entries in the tree; 0 without a tree */
/*
 * An error that stopped no commit: of retention, or of the interval's sync. 0: none, or it has
 * succeeded since.
 */
int evidence_log_background_error(struct evidence_log *log);

/*
 * The end of the lines that survive a crash. With EVIDENCE_SYNC_OFF that is unknown, so this is the
 * end of the committed lines.
 */
struct evidence_position evidence_log_end(struct evidence_log *log);

/*
 * All records of the log's own stream up to this sequence are durable, and there is no later one.
 * See own_mark.h.
 */
void evidence_log_note_own(struct evidence_log *log, const char *origin, uint64_t sequence);

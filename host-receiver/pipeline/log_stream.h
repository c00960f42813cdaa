/* SPDX-License-Identifier: MIT */
/*
 * The log's own stream (evidence-log.md section 4): what the log itself went through, as entries of
 * the log. Its sequence goes on over restarts; only `closed`, as its last record, seals it.
 *
 * Other rooms add records with log_stream_event() and log_stream_submit(), as they do with
 * pipeline_event(): they are durable in the order of all submitted events. Loop thread only.
 */
#pragma once

#include "host-receiver/pipeline/log_start.h"
#include "host-receiver/pipeline/pipeline.h"

struct log_stream;

struct log_stream_options {
	struct pipeline *pipeline;	/* borrowed until log_stream_free() */
	struct evidence_log *log;	/* borrowed; NULL: `receive` has none */
	const char *hostname, *boot_id; /* borrowed */
	/* Optional: somebody else has changed a segment. reason is static. */
	void (*on_lost)(void *ctx, uint64_t segment, const char *reason);
	void *ctx;
};

/* Writes `opened` or `resumed`, as start says. NULL: no memory. */
struct log_stream *log_stream_new(const struct log_stream_options *options,
				  const struct log_start *start);
/* After pipeline_free(). */
void log_stream_free(struct log_stream *stream);

/* "" in modes without a tree, and of NULL. Borrowed until the log changes. */
const char *log_stream_origin(const struct log_stream *stream);

/* A new record. Fill it and submit it before the next event of any stream. */
struct event *log_stream_event(struct log_stream *stream, enum event_type type);
void log_stream_submit(struct log_stream *stream, struct event *e);

/* A cell that is not served, and one that is served again. Texts are copied. */
void log_stream_cell_unserved(struct log_stream *stream, const char *cell, const char *why);
void log_stream_cell_served(struct log_stream *stream, const char *cell);
/* what: the alarm's text; uid: who did it. */
void log_stream_acknowledged(struct log_stream *stream, const char *what, uint64_t uid);

/*
 * The next event is signed by `next` instead of `last`. Call it before pipeline_set_signer(). It
 * writes key_added, or signing_changed; if next has a tree and last has none or the reverse, the
 * log is closed, and the new one's `opened` follows with the first event after
 * log_stream_changed(). Cells must have sealed their streams if the algorithm differs.
 */
int log_stream_change_signer(struct log_stream *stream, struct signer *next,
			     const struct signer *last, const char *prefix, unsigned cells);
/* Call it after pipeline_set_signer(). */
void log_stream_changed(struct log_stream *stream);

/* From the pipeline's on_progress(): records of what the log's committer has met. */
void log_stream_progress(struct log_stream *stream);

/* The orderly end: the last record. */
void log_stream_close(struct log_stream *stream, unsigned cells);
bool log_stream_closed(const struct log_stream *stream);

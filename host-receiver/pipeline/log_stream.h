/* SPDX-License-Identifier: MIT */
/*
 * The log's own stream (evidence-log.md section 4): events of the log itself, as entries of the
 * log. Its sequence continues over restarts; only `closed`, its last record, seals it.
 *
 * Other rooms add records with log_stream_event() and log_stream_submit(), as they do with
 * pipeline_event(). All events become durable in the order in which they were submitted. Loop
 * thread only.
 */
#pragma once

#include "host-receiver/pipeline/log_start.h"
#include "host-receiver/pipeline/pipeline.h"

struct log_stream;

struct log_stream_options {
	struct pipeline *pipeline;	/* borrowed until log_stream_free() */
	struct evidence_log *log;	/* borrowed; NULL: `receive` has none */
	const char *hostname, *boot_id; /* borrowed */
	/* Optional: called when another program has changed a segment. reason is static. */
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

/* Record that a cell cannot be served, or that it is served again. Texts are copied. */
void log_stream_cell_unserved(struct log_stream *stream, const char *cell, const char *why);
void log_stream_cell_served(struct log_stream *stream, const char *cell);
/* what: the text of the alarm; uid: of the user who acknowledged it. */
void log_stream_acknowledged(struct log_stream *stream, const char *what, uint64_t uid);

/*
 * From the next event on `next` signs instead of `last`. Call it before pipeline_set_signer(). It
 * writes key_added or signing_changed. If only one of the two has a tree, the log is closed, and
 * the `opened` of the new log is the first event after log_stream_changed(). If the algorithm
 * differs, the cells must have sealed their streams before.
 */
int log_stream_change_signer(struct log_stream *stream, struct signer *next,
			     const struct signer *last, const char *prefix, unsigned cells);
/* Call it after pipeline_set_signer(). */
void log_stream_changed(struct log_stream *stream);

/*
 * Call it in the pipeline's on_progress(): it writes records about the notices of the committer
 * (lost and pruned segments).
 */
void log_stream_progress(struct log_stream *stream);

/* Write `closed`, the last record, at an orderly end. */
void log_stream_close(struct log_stream *stream, unsigned cells);
bool log_stream_closed(const struct log_stream *stream);

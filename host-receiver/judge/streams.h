/* SPDX-License-Identifier: MIT */
/*
 * Is each stream complete? Takes the events that may count, in their order. For each stream it
 * keeps the expected next event and the facts for the report. Memory grows with the number of
 * streams, never with the number of events. One thread.
 *
 * A stream's states:
 *
 *	state      | entered by                               | at the end it is
 *	-----------|------------------------------------------|--------------------------------
 *	running    | its first event                          | unsealed, or interrupted if a
 *	           |                                          | successor names it
 *	sealed     | stream.v1.sealed, log.v1.closed          | complete
 *	broken     | a hole, a repetition, an event after     | broken
 *	           | the seal, no beginning                   |
 *
 * A log's own stream is sealed by log.v1.closed, and log.v1.resumed makes it run again.
 */
#pragma once

#include "host-receiver/judge/facts.h"
#include "host-receiver/judge/findings.h"

struct log_summary;

/*
 * How strong the proof of an event is. Unsigned events make streams of their own, whatever id they
 * claim. The weakest class comes first.
 */
enum stream_class {
	STREAM_UNSIGNED,
	STREAM_VERIFIED,
};

enum stream_end {
	STREAM_COMPLETE,
	STREAM_INTERRUPTED, /* a successor continues where it ends */
	STREAM_OPEN,
	STREAM_BROKEN,
	_STREAM_END_MAX,
};

/* Losses that the evidence itself reports, and other facts that a reader must know. */
struct stream_losses {
	uint64_t gaps, gap_frames; /* telemetry_gap events, and the frames that they name */
	/* By the guest's word: its newest totals, and what its loss receipts say of the kernel. */
	uint64_t guest_dropped, kernel_lost, kernel_receipts;
	uint64_t cut_lines; /* of the log's own stream */
	uint64_t silences, contests, unwitnessed;
};

struct stream {
	struct stream *chain;	       /* next in the bucket */
	struct stream *next;	       /* in the order of their first events */
	const char *cell, *run, *host; /* owned by the table; "" where it is not known */
	const char *previous;	       /* the predecessor's id, or NULL */
	uint64_t previous_sequence;
	uint64_t first, expected; /* sequence of the first event, and of the next one */
	uint64_t records;
	int64_t first_ms, last_ms;
	const struct log_summary *log; /* the log of its first event; NULL: none */
	struct place last;
	struct stream_losses losses;
	enum stream_class class;
	enum stream_end end; /* valid after streams_finish() */
	bool has_previous_sequence, opened, sealed, broken, is_log, has_successor, pruned;
	char id[]; /* NUL-terminated */
};

struct streams;

/* Questions of streams_finish() about the logs and the asked time. */
struct streams_context {
	void *data;
	/* Whether the stream's first events, or the stream before it, may be absent. */
	bool (*start_excused)(void *data, const struct stream *stream, bool predecessor);
	/* Whether a later log continues after the stream, although no stream names it. */
	bool (*superseded)(void *data, const struct stream *stream);
	/* Whether the stream may be unsealed because its writer is, or was, still running. */
	bool (*open_excused)(void *data, const struct stream *stream);
	/* Whether the whole stream is outside the asked time. */
	bool (*ignored)(void *data, const struct stream *stream);
};

struct streams *streams_new(struct findings *findings); /* borrowed */
void streams_free(struct streams *streams);

/* One event. log is borrowed. Returns 0 or -ENOMEM. */
int streams_add(struct streams *streams, const struct event_facts *event, enum stream_class class,
		const struct log_summary *log, struct place at);

/* After the last event: judge all streams. */
void streams_finish(struct streams *streams, const struct streams_context *context);

/* The first stream, NULL: none; then by next. */
const struct stream *streams_first(const struct streams *streams);
uint64_t streams_count(const struct streams *streams);
uint64_t streams_count_end(const struct streams *streams, enum stream_end end);

/*
 * How many observations were declared lost: by all cells, and by one stream. Several facts name the
 * same loss. An observation that an agent drops is a missing number, and it is in the agent's
 * totals. A loss of its kernel is in a receipt and in the totals. And the totals of an agent go on
 * in the next stream of its cell. So the larger of two such counts counts, for the cell as a whole.
 * Lines cut after a crash do not count: agents send again what was not settled, and what was
 * settled is a missing number.
 */
uint64_t streams_declared_lost(const struct streams *streams);
uint64_t stream_declared_lost(const struct stream *stream);
/* The losses before the agent, from receipts and totals. */
uint64_t stream_kernel_lost(const struct stream_losses *losses);
const char *stream_end_name(enum stream_end end);

/* SPDX-License-Identifier: MIT */
/*
 * A cell's stream of events (events.md section 4): its identity, its account in the pipeline, and
 * the number of its last event. Its callers decide which events it has. Loop thread only.
 */
#pragma once

#include "host-receiver/pipeline/pipeline.h"

struct stream {
	struct pipeline *pipeline;	  /* borrowed */
	struct stream_identity *identity; /* owned; see stream_close() */
	struct pipeline_account *account; /* owned, with the first identity */
	struct stream_identity *first;	  /* owned; the identity if it is the only one */
	uint64_t *counts;		  /* borrowed; the events of all streams, by type */
	uint64_t sequence;		  /* of the last event */
};

/* The id of a new stream. */
void stream_id_generate(uint8_t ret[static UUID_SIZE]);

/*
 * The texts and the id are copied. counts has _EVENT_TYPE_MAX entries. owner: of the account, for
 * the pipeline's on_durable(). 0 or -ENOMEM.
 */
int stream_open(struct stream *s, struct pipeline *pipeline, uint64_t *counts, void *owner,
		const char *cell_id, const char *run_id, const char *spec_hash,
		const uint8_t id[static UUID_SIZE]);

/*
 * Begin the same cell's next stream: its numbers start at 1, events in flight keep the identity of
 * the old stream, and the account goes on. Returns 0, or -ENOMEM and nothing has changed.
 */
int stream_succeed(struct stream *s, const uint8_t id[static UUID_SIZE]);

/*
 * The owner gets no on_durable() any more. The memory is freed once every event of the stream is
 * committed.
 */
void stream_close(struct stream *s);

/* The next event: fill it, then submit it before the next one begins. Never NULL. */
struct event *stream_begin(struct stream *s, enum event_type type);
void stream_submit(struct stream *s, struct event *e);

/* A copy that lives as long as the event that begins next or has begun. */
struct wire_text stream_copy(struct stream *s, struct wire_text text);

/* SPDX-License-Identifier: MIT */
/*
 * A batch: up to BATCH_EVENTS_MAX events as canonical JSON. The loop thread writes the events, one
 * worker hashes or signs them, the committer writes the batch to the sink, and then it is used
 * again. It is passed from thread to thread as a whole: the thread that has it owns all of it.
 */
#pragma once

#include "host-receiver/evidence/tree.h"
#include "host-receiver/pipeline/pipeline.h"

#define BATCH_EVENTS_MAX 256u
/*
 * A batch is closed when its lines have this size, so that the long lines of one cell do not delay
 * other cells.
 */
#define BATCH_LINES_MAX	 (512u * 1024u)
#define BATCH_BLOCK_SIZE (4u * 1024u) /* of the arena */

struct batch_block {
	struct batch_block *next;
	size_t used, size;
	_Alignas(16) char data[];
};

/* A call on the loop thread when the batch, and so each earlier one, is committed. */
struct batch_deferred {
	struct batch_deferred *next;
	void (*fn)(void *arg);
	void *arg;
};

/* The part of one account in a batch. */
struct batch_share {
	struct pipeline_account *account; /* borrowed */
	size_t bytes;			  /* of its lines */
	struct pipeline_mark mark;	  /* true once the batch is durable */
};

/* A buffer that grows. Zero it before its first use. */
struct batch_text {
	char *data; /* owned */
	size_t len, size;
};

struct batch {
	struct batch *next;	   /* in the queue that holds the batch */
	struct batch *younger;	   /* the next outstanding batch; only the loop thread uses it */
	uint64_t number;	   /* batches are committed in this order, from 0 without holes */
	struct signer_ref *signer; /* a counted reference; it signs the whole batch */
	size_t n_events;
	size_t n_shares;
	size_t lines_size;	    /* an upper bound of its lines' size, updated at each submit */
	bool durable;		    /* set when it was committed */
	size_t cost;		    /* the memory that is charged for it */
	uint64_t oldest_ns;	    /* CLOCK_MONOTONIC of the first event */
	struct batch_block *blocks; /* the first is kept for the next use */
	size_t blocks_size;	    /* of all of them */
	struct batch_deferred *deferred; /* in the arena */
	struct batch_text events;	 /* each with a '\n' */
	struct batch_text envelopes;	 /* the lines, in modes with an envelope */
	/* The bytes to commit: events or envelopes. Set when all of them are written. */
	const struct batch_text *lines;
	size_t checkpoint_share; /* its part of the group's checkpoint line, in bytes */
	int error;		 /* of hashing or signing; fatal */
	struct batch_share shares[BATCH_EVENTS_MAX];
	uint32_t lengths[BATCH_EVENTS_MAX]; /* of the events, without '\n' */
	struct event_head heads[BATCH_EVENTS_MAX];
	struct tree_hash leaves[BATCH_EVENTS_MAX]; /* of the lines, in modes with a tree */
};

/* The memory a worker needs to sign batches; one for each thread. */
struct batch_writer {
	struct tree_hasher *hasher;
	unsigned channel; /* to the signer */
	uint8_t signatures[BATCH_EVENTS_MAX][SIGN_SIGNATURE_MAX];
};
_Static_assert(BATCH_EVENTS_MAX <= SIGN_BATCH_MAX, "a batch is signed at once");

/* NULL when there is no memory. */
struct batch *batch_new(void);
void batch_free(struct batch *b);
/* Empty it for the next use; a larger buffer than usual is freed. */
void batch_reset(struct batch *b);

/* The memory that it has now, with the envelopes that signing will add. */
size_t batch_footprint(const struct batch *b);

/* Write an event into the batch. Returns its length; -ENOMEM; or -ENOBUFS: its line would exceed
 * EVENT_LINE_MAX. On the loop thread. */
int batch_add(struct batch *b, const struct event *e, struct event_clock *clock);

/* Memory that lives as long as the batch's content; 16-byte aligned. NULL: no memory. */
void *batch_alloc(struct batch *b, size_t size);
/* A copy of text in the arena; an empty text when there is no memory (then *ok is false). */
struct wire_text batch_copy(struct batch *b, struct wire_text text, bool *ok);

/*
 * Hash or sign all events, and set lines. On a worker. Returns 0, -ENOMEM, or -EIO: libcrypto
 * failed.
 */
int batch_sign(struct batch *b, struct signer *signer, struct batch_writer *writer);

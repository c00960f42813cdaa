/* SPDX-License-Identifier: MIT */
/*
 * A batch: some hundred events as canonical JSON. The loop thread writes them into it, one worker
 * hashes or signs them, it is committed in its turn, and then used again. It is handed from thread
 * to thread as a whole: the thread that has it owns all of it.
 */
#pragma once

#include "host-receiver/evidence/tree.h"
#include "host-receiver/pipeline/pipeline.h"

#define BATCH_EVENTS_MAX 256u
/*
 * A batch is closed when its lines are this long, so that the long lines of one cell delay no
 * other.
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

/* The part of an account in a batch. */
struct batch_share {
	struct pipeline_account *account; /* borrowed */
	size_t bytes;			  /* of its lines */
	struct pipeline_mark mark;	  /* true once the batch is durable */
};

/* Bytes that grow. Zero it before its first use. */
struct batch_text {
	char *data; /* owned */
	size_t len, size;
};

struct batch {
	struct batch *next;	   /* in whatever queue it is */
	struct batch *younger;	   /* among those that are not back yet; the loop thread's */
	uint64_t number;	   /* batches are committed in this order, from 0 without holes */
	struct signer_ref *signer; /* a reference: signs the whole batch */
	size_t n_events;
	size_t n_shares;
	size_t lines_size;	    /* an upper bound of its lines' size, updated at each submit */
	bool durable;		    /* set when it was committed */
	size_t cost;		    /* the memory that it is accounted for */
	uint64_t oldest_ns;	    /* CLOCK_MONOTONIC of the first event */
	struct batch_block *blocks; /* the first is kept for the next use */
	size_t blocks_size;	    /* of all of them */
	struct batch_deferred *deferred; /* in the arena */
	struct batch_text events;	 /* each with a '\n' */
	struct batch_text envelopes;	 /* the lines, in modes with an envelope */
	/* What is committed: events or envelopes. Set when all of it is written. */
	const struct batch_text *lines;
	size_t checkpoint_share; /* of its group's checkpoint line, in bytes */
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

/* The memory that it takes, or will take when it is signed. */
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

/* SPDX-License-Identifier: MIT */
/*
 * A batch: some hundred events, and an arena for the texts they refer to. It is filled on the loop
 * thread, written and signed by one worker, committed in its turn, and then used again. It is
 * handed from thread to thread as a whole: the thread that has it owns all of it.
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
#define BATCH_BLOCK_SIZE (64u * 1024u)

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
	char *out;			 /* the lines */
	size_t out_len, out_size;
	uint64_t n_lines;
	size_t checkpoint_share; /* of its group's checkpoint line, in bytes */
	int error;		 /* of writing the lines; fatal */
	struct batch_share shares[BATCH_EVENTS_MAX];
	struct event events[BATCH_EVENTS_MAX];
	struct tree_hash leaves[BATCH_EVENTS_MAX]; /* of the lines, in modes with a tree */
};

/* The memory a worker needs to write batches; one for each thread. */
struct batch_writer {
	struct event_clock clock;
	struct tree_hasher *hasher;
	unsigned channel; /* to the signer */
	struct event_head heads[BATCH_EVENTS_MAX];
	uint32_t lengths[BATCH_EVENTS_MAX];
	uint8_t signatures[BATCH_EVENTS_MAX][SIGN_SIGNATURE_MAX];
};
_Static_assert(BATCH_EVENTS_MAX <= SIGN_BATCH_MAX, "a batch is signed at once");

/* NULL when there is no memory. */
struct batch *batch_new(void);
void batch_free(struct batch *b);
/* Empty it for the next use; a larger buffer than usual is freed. */
void batch_reset(struct batch *b);

/* The memory that it takes, or will take when its lines are written. */
size_t batch_footprint(const struct batch *b);

/* Memory that lives as long as the batch's content; 16-byte aligned. NULL: no memory. */
void *batch_alloc(struct batch *b, size_t size);
/* A copy of text in the arena; an empty text when there is no memory (then *ok is false). */
struct wire_text batch_copy(struct batch *b, struct wire_text text, bool *ok);

/*
 * Write and sign all events as lines into out. On a worker. Returns 0, -ENOMEM, or -ENOBUFS when a
 * line would exceed EVENT_LINE_MAX, or -EIO: libcrypto failed.
 */
int batch_write(struct batch *b, struct signer *signer, struct batch_writer *writer);

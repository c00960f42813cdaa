/* SPDX-License-Identifier: MIT */
/*
 * Deficit round robin (Shreedhar and Varghese, 1995) between cells that have something to read. A
 * flow is a cell. Each read is charged with the bytes of evidence that it made. They are known only
 * after the read, so a flow may overdraw its turn, and pays in its next turns.
 *
 * A flow that has little in flight is quiet: it waits in a list of its own, and is read first, with
 * one small read. This read is charged too. A quiet flow may take as much as each flow with a
 * backlog gets: that much of its debt is forgiven. A flow that takes more is no longer quiet. While
 * no flow has a backlog, no debt is kept. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAIR_QUANTUM (64u * 1024u) /* of evidence, for each turn */

/* Zero it before its first use. */
struct fair_flow {
	struct fair_flow *next, *prev;
	struct fair_list *list; /* NULL: not queued */
	int64_t deficit;	/* bytes that it may still make in this turn; negative: its debt */
	uint64_t forgiven;	/* the queue's share when its debt was last forgiven */
};

struct fair_list {
	struct fair_flow *first, *last;
};

struct fair_queue {
	struct fair_list quiet;	  /* each is served once, then leaves or joins the others */
	struct fair_list backlog; /* in turns */
	unsigned n_backlog;
	uint64_t share; /* bytes that each flow with a backlog has been charged, in total */
};

static inline bool fair_queued(const struct fair_flow *f)
{
	return f->list != NULL;
}

static inline bool fair_in_backlog(const struct fair_queue *q, const struct fair_flow *f)
{
	return f->list == &q->backlog;
}

/*
 * The flow has something to read. little: little of it is in flight, so it is quiet unless its debt
 * is a turn or more. Does nothing if the flow is queued already.
 */
void fair_add(struct fair_queue *q, struct fair_flow *f, bool little);
/* The flow has nothing more to read, or may not be read. Does nothing if it is not queued. */
void fair_remove(struct fair_queue *q, struct fair_flow *f);

static inline struct fair_flow *fair_quiet(const struct fair_queue *q)
{
	return q->quiet.first;
}

/* The flow with a backlog whose turn it is, or NULL. It gets its quantum when its turn begins. */
struct fair_flow *fair_turn(struct fair_queue *q);

/*
 * The flow was read, which made this many bytes of evidence. more: it may have more to read, and
 * stays queued; it becomes the last of the flows with a backlog if its turn is over or if it was
 * quiet.
 */
void fair_served(struct fair_queue *q, struct fair_flow *f, size_t bytes, bool more);

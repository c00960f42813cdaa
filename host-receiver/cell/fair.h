/* SPDX-License-Identifier: MIT */
/*
 * Deficit round robin (Shreedhar and Varghese, 1995) between cells that have something to read. A
 * flow is a cell. What it is served for is charged in bytes of evidence, known only afterwards, so
 * a flow may overdraw its turn; it pays in its next turns.
 *
 * A flow that has little in flight is quiet: it is in a list of its own, and goes first with one
 * small read. That is charged too. Whatever the flows with a backlog are served for, a quiet flow
 * may take as well: so much of its debt is forgiven. One that takes more than that is no longer
 * quiet. While no flow has a backlog nothing is shared, and no debt remains. Pure.
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
	int64_t deficit;	/* bytes it may still cause in this turn; negative: its debt */
	uint64_t forgiven;	/* the queue's share up to which debts were forgiven */
};

struct fair_list {
	struct fair_flow *first, *last;
};

struct fair_queue {
	struct fair_list quiet;	  /* each is served once, then leaves or joins the others */
	struct fair_list backlog; /* in turns */
	unsigned n_backlog;
	uint64_t share; /* bytes that each flow with a backlog was served for, in all */
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
 * is a turn or more. Queued already: nothing.
 */
void fair_add(struct fair_queue *q, struct fair_flow *f, bool little);
/* It has nothing more to read, or may not be read. Not queued: nothing. */
void fair_remove(struct fair_queue *q, struct fair_flow *f);

static inline struct fair_flow *fair_quiet(const struct fair_queue *q)
{
	return q->quiet.first;
}

/* The flow whose turn it is; NULL: none has a backlog. It gets its quantum when its turn begins. */
struct fair_flow *fair_turn(struct fair_queue *q);

/*
 * The flow was served, which made this many bytes of evidence. more: it may have more to read, and
 * stays queued: as the last of the others if its turn is over or if it was quiet.
 */
void fair_served(struct fair_queue *q, struct fair_flow *f, size_t bytes, bool more);

/* SPDX-License-Identifier: MIT */
/*
 * Deficit round robin (Shreedhar and Varghese, 1995) between cells that have something to read. A
 * flow is a cell. What it is served for is charged in bytes of evidence, known only afterwards, so
 * a flow may overdraw its turn; it pays in its next turns.
 *
 * Flows that were served little lately are in a list of their own, and go first with one small
 * read: a quiet cell never waits for the turns of those that have a backlog. Pure.
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
	int64_t deficit;	/* bytes it may still cause in this turn */
};

struct fair_list {
	struct fair_flow *first, *last;
};

struct fair_queue {
	struct fair_list quiet;	  /* each is served once, then leaves or joins the others */
	struct fair_list backlog; /* in turns */
};

static inline bool fair_queued(const struct fair_flow *f)
{
	return f->list != NULL;
}

/* The flow has something to read. quiet: little of it is in flight. Queued already: nothing. */
void fair_add(struct fair_queue *q, struct fair_flow *f, bool quiet);
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
 * stays queued: behind the others if its turn is over or if it was quiet.
 */
void fair_served(struct fair_queue *q, struct fair_flow *f, size_t bytes, bool more);

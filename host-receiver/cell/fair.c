/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/fair.h"

#include "common/util.h"

static void append(struct fair_list *l, struct fair_flow *f)
{
	f->list = l;
	f->next = NULL;
	f->prev = l->last;
	if (l->last)
		l->last->next = f;
	else
		l->first = f;
	l->last = f;
}

static void take_out(struct fair_flow *f)
{
	struct fair_list *l = f->list;

	if (f->prev)
		f->prev->next = f->next;
	else
		l->first = f->next;
	if (f->next)
		f->next->prev = f->prev;
	else
		l->last = f->prev;
	f->next = f->prev = NULL;
	f->list = NULL;
}

static void leave(struct fair_queue *q, struct fair_flow *f)
{
	q->n_backlog -= fair_in_backlog(q, f);
	take_out(f);
}

static void join_backlog(struct fair_queue *q, struct fair_flow *f)
{
	append(&q->backlog, f);
	q->n_backlog++;
}

/* Forgive as much debt as each flow of the backlog was charged while this flow was not in it. */
static void forgive(struct fair_queue *q, struct fair_flow *f)
{
	const uint64_t more = MIN(q->share - f->forgiven, (uint64_t)INT64_MAX / 2);

	f->forgiven = q->share;
	if (f->deficit < 0)
		f->deficit = q->n_backlog ? MIN(f->deficit + (int64_t)more, INT64_C(0)) : 0;
}

void fair_add(struct fair_queue *q, struct fair_flow *f, bool little)
{
	if (f->list)
		return;
	forgive(q, f);
	if (little && f->deficit > -(int64_t)FAIR_QUANTUM)
		append(&q->quiet, f);
	else
		join_backlog(q, f);
}

void fair_remove(struct fair_queue *q, struct fair_flow *f)
{
	if (f->list)
		leave(q, f);
	f->forgiven = q->share;
	/* A debt stays, or a cell could shed it by pausing. */
	f->deficit = MIN(f->deficit, INT64_C(0));
}

struct fair_flow *fair_turn(struct fair_queue *q)
{
	struct fair_flow *f;

	while ((f = q->backlog.first) && f->deficit <= 0) {
		f->deficit += FAIR_QUANTUM;
		if (f->deficit > 0)
			break;
		/* The flow only pays its debt in this turn. */
		take_out(f);
		append(&q->backlog, f);
	}
	return f;
}

void fair_served(struct fair_queue *q, struct fair_flow *f, size_t bytes, bool more)
{
	const bool was_quiet = f->list == &q->quiet;

	f->deficit -= (int64_t)bytes;
	if (fair_in_backlog(q, f))
		q->share += bytes / q->n_backlog;
	if (!more) {
		fair_remove(q, f);
		return;
	}
	if (f->list && (was_quiet || f->deficit <= 0)) {
		leave(q, f);
		join_backlog(q, f);
	}
}

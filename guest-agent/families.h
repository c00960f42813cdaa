/* SPDX-License-Identifier: MIT */
/*
 * The agent's sources, one for each family: which source was chosen, which ones have events, and
 * which one replaces a source that fails. Single-threaded, owned by the agent's loop. It logs,
 * because it decides to give a source up.
 */
#pragma once

#include "guest-agent/event_queue.h"
#include "guest-agent/options.h"
#include "guest-agent/turn_watch.h"

/* A turn drains each source until one of these is used up. */
#define FAMILY_BUDGET_EVENTS 256u
#define FAMILY_BUDGET_NS     (2 * NSEC_PER_MSEC)
#define FAMILY_STEP	     16u /* events between two looks at the clock */

struct families {
	const struct options *options;		 /* borrowed */
	struct event_queue *queue;		 /* borrowed */
	int epoll_fd;				 /* borrowed */
	bool observing;				 /* the sources wake the loop */
	struct probe *probes[_PROBE_FAMILY_MAX]; /* owned; NULL: none */
	bool due[_PROBE_FAMILY_MAX];		 /* to be drained */
	const char *announced[_PROBE_FAMILY_MAX];
};

void families_init(struct families *f, const struct options *options, struct event_queue *q,
		   int epoll_fd);

/*
 * Open the best available source of each family. Returns 0, or -ENODEV after a message if a forced
 * or required source is not available.
 */
int families_open(struct families *f);
void families_close(struct families *f);

/* Whether this source (NULL: none) meets --require; required may be NULL. */
bool families_satisfy(const char *required, const struct probe_ops *ops);

/* From now on the sources wake the loop, and the events that wait in them are drained. */
void families_observe(struct families *f);

/* epoll named this tag. */
void families_ready(struct families *f, const void *tag);
void families_all_due(struct families *f);
bool families_any_due(const struct families *f);

/* Drain the sources that are due, each within its budget; watch gets a part for each. */
void families_drain(struct families *f, struct turn_watch *watch);

/* At the end: report the events that wait in the sources; the rest counts as lost. */
void families_flush(struct families *f);

/* At a heartbeat: their self-tests. Returns whether the process source is there and healthy. */
bool families_check(struct families *f);

/* The family's source as hello names it; static. */
void families_via(const struct families *f, const char *ret[_PROBE_FAMILY_MAX]);
/* Whether these names have changed since the last call. */
bool families_news(struct families *f);

/* SPDX-License-Identifier: MIT */
/*
 * Binds with an unknown result. The bind hook sees each bind(2), the post_bind hook each one that
 * succeeded: a bind without its post_bind failed. Whether CAP_NET_BIND_SERVICE was missing is
 * derived from its port and from the caller's /proc, which is read at once.
 *
 * Bounded; single-threaded; no allocation.
 */
#pragma once

#include "guest-agent/probes/net_program.h"

#define BIND_WATCH_MAX	   32u
#define BIND_WATCH_WAIT_NS (100 * NSEC_PER_MSEC) /* how long a post_bind may be late */

struct bind_watch {
	size_t n;
	struct net_record waiting[BIND_WATCH_MAX]; /* the oldest first */
};

/*
 * A bind that will fail if it gets no post_bind: its port is privileged and its caller is known not
 * to have the capability. Returns false, and changes nothing, if the watch is full.
 */
bool bind_watch_add(struct bind_watch *w, const struct net_record *bind);

/* The socket is bound. */
void bind_watch_bound(struct bind_watch *w, uint64_t cookie);

/* Take the oldest bind that has waited long enough. False if there is none. */
bool bind_watch_refused(struct bind_watch *w, uint64_t now_ns, struct net_record *ret);

/*
 * Whether the port is one that the caller may not bind: below the threshold of the agent's network
 * namespace, which must be the caller's too, and the caller lacks CAP_NET_BIND_SERVICE. False also
 * when the caller has gone or cannot be asked.
 */
bool bind_needs_capability(const struct net_record *bind);

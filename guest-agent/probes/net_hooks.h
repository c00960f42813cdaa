/* SPDX-License-Identifier: MIT */
/*
 * The BPF half of the net source: maps, programs and links at the root cgroup, and the mapped rings
 * they write to. The cgroup tree is reached without mounting it anywhere. After net_hooks_open() no
 * bpf(2) is needed: rings and losses are read through mappings. The programs go away with their
 * links' descriptors, so nothing stays when the agent dies.
 *
 * Single-threaded; allocates nothing.
 */
#pragma once

#include "guest-agent/probes/net_program.h"
#include "guest-agent/probes/probe.h"

struct net_ring_map {
	int fd;
	uint64_t *consumer;	  /* mapped, one page */
	const uint64_t *producer; /* mapped, one page and twice the ring */
	struct ring_view view;
};

struct net_hooks {
	struct net_ring_map rings[_NET_RING_MAX];
	int lost_fd, once_fd;
	int links[_NET_HOOK_MAX]; /* -1: the kernel has no such hook */
	const uint64_t *lost;	  /* mapped, one page: a count for each ring */
};

/*
 * Load and attach all. Only the connect hooks are needed; a kernel that lacks another one goes
 * without it. 0, or a negative errno with the step that failed in why; net_hooks_close() is to be
 * called in both cases.
 */
int net_hooks_open(struct net_hooks *h, char why[PROBE_WHY_MAX]);
void net_hooks_close(struct net_hooks *h);

/*
 * Copy the next record out of a ring. Returns 1 and *ret; 0 if there is none; -EBADMSG if the ring
 * is inconsistent. A malformed record is skipped and adds 1 to *malformed.
 */
int net_hooks_next(struct net_hooks *h, enum net_ring ring, struct net_record *ret,
		   uint64_t *malformed);

bool net_hooks_empty(const struct net_hooks *h, enum net_ring ring);

/* Records that found their ring full since the hooks were opened. */
uint64_t net_hooks_lost(const struct net_hooks *h);

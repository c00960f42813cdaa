/* SPDX-License-Identifier: MIT */
/*
 * The cross-witness (host-receiver.md section 7) checks whether the host sees any packet of the
 * connects that the guest declares. A declaration is witnessed when the packet counters of the TAP
 * or of the nftables table moved in its window: from `before` milliseconds before its frame arrived
 * until `after` milliseconds after it. It is judged once every readable witness was read after the
 * window. Without a readable witness it is never judged.
 *
 * A counter may move for another reason than the connect. So this finds only guests that sent no
 * packet at all around their declarations. A connect that sends nothing is a false alarm, unless
 * witness_expects_packets() excludes its address or result: see docs/host-probes.md.
 *
 * No I/O, no allocation; loop thread.
 */
#pragma once

#include "common/wire.h"
#include "host-receiver/probes/host_probe.h"

#define WITNESS_GROUPS 16u

/* Declarations of one interval. */
struct witness_group {
	uint64_t count;
	uint64_t first_ns, last_ns; /* CLOCK_MONOTONIC when their frames came */
	bool witnessed;		    /* also set if nobody can know it */
	unsigned seen_by;	    /* bits of enum probe_kind: witnesses read since the window */
};

struct witness {
	uint64_t before_ns, after_ns, interval_ns;
	unsigned able; /* bits of enum probe_kind: witnesses whose last reading succeeded */
	struct {
		uint64_t taken_ns, packets; /* of the last reading */
		uint64_t moved_ns; /* time of the last reading that counted more packets; 0: none */
	} last[_PROBE_KIND_MAX];
	struct witness_group groups[WITNESS_GROUPS]; /* the oldest first */
	unsigned n_groups;
};

struct witness_verdict {
	uint64_t declared;
	uint64_t since_ns; /* when the first of them came */
	unsigned witnesses;
};

void witness_init(struct witness *w, unsigned interval_ms, unsigned before_ms, unsigned after_ms);

/* Whether the declared connect must have sent a packet through the interface. */
bool witness_expects_packets(const struct declaration *d);

void witness_declared(struct witness *w, uint64_t now_ns);

/* A reading of tap_link or nftables. */
void witness_read(struct witness *w, enum probe_kind kind, const struct probe_reading *reading);
/* The witness cannot be read. */
void witness_failed(struct witness *w, enum probe_kind kind);

/* Take the next group that can be judged and that no witness saw. False: there is none. */
bool witness_judge(struct witness *w, struct witness_verdict *ret);

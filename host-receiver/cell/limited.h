/* SPDX-License-Identifier: MIT */
/*
 * Reports of things that a guest can cause as often as it likes. Each kind is reported at most once
 * a second, with the number since its last report. It knows the stream and the kinds, never the
 * cell. Loop thread.
 */
#pragma once

#include "host-receiver/cell/report.h"

enum limited_kind {
	LIMITED_VERSION,
	LIMITED_SOURCE,
	LIMITED_SECOND_CONNECTION,
	LIMITED_PEER,
	LIMITED_VMM_COUNTS,
	_LIMITED_MAX,
};

/* Zero it before its first use. */
struct limited {
	struct once_a_second kinds[_LIMITED_MAX];
	/* Values of the next report of a kind, besides its count. */
	uint16_t version;
	char source[WIRE_SOURCE_MAX];
	size_t source_len;
	/* Of the last connection that was contested in this way. */
	struct ucred peers[_LIMITED_MAX];
};

/* Count n of a kind, and report them now or later together with others. */
void limited_count(struct limited *l, struct stream *s, enum limited_kind kind, uint64_t n,
		   uint64_t now_ns);
/* A connection of peer, of a kind that names the peer. */
void limited_contest(struct limited *l, struct stream *s, enum limited_kind kind,
		     const struct ucred *peer, uint64_t now_ns);
/* A refused frame that does not end its connection. */
void limited_refusal(struct limited *l, struct stream *s, const struct wire_refusal *refusal,
		     uint64_t now_ns);
/* Report everything that is due, or with force everything. */
void limited_flush(struct limited *l, struct stream *s, uint64_t now_ns, bool force);
/* When the next report is due; 0: none. */
uint64_t limited_due(const struct limited *l);

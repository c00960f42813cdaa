/* SPDX-License-Identifier: MIT */
/*
 * The receiver's reports of a cell: each is an event of the cell's stream (events.md section 3).
 * Every function takes the stream and values. It decides nothing and stores nothing. Loop thread.
 */
#pragma once

#include <sys/socket.h>

#include "common/util.h"
#include "host-receiver/cell/gap.h"
#include "host-receiver/cell/guest_totals.h"
#include "host-receiver/cell/limiter.h"
#include "host-receiver/cell/stream.h"
#include "host-receiver/cell/witness.h"

static inline uint64_t age_ms(uint64_t since_ns, uint64_t now_ns)
{
	return now_ns > since_ns ? (now_ns - since_ns) / NSEC_PER_MSEC : 0;
}

/* The end of a stream, as the log shows it. */
struct stream_end {
	uint8_t stream_id[UUID_SIZE];
	uint64_t sequence; /* of its last durable record; 0: not known */
};

struct report_opened {
	const char *hostname, *boot_id;
	const char *origin; /* of the log; "": it has no tree */
	unsigned keepalive_ms;
	const struct stream_end *previous; /* of the same cell before a restart, or NULL */
};
void report_opened(struct stream *s, const struct report_opened *opened);

/* The totals that checkpoints and seals repeat, since the stream was opened. */
struct report_totals {
	uint64_t frames, frames_rejected, bytes, gaps, repeated;
	const uint64_t *guest; /* by enum guest_total: as the guest reported them */
	uint64_t heartbeat_ns; /* 0: none yet */
	bool reads_vmm;
	uint64_t vmm_bytes; /* with reads_vmm */
};
void report_checkpoint(struct stream *s, const struct report_totals *totals, uint64_t now_ns);

/* The newest numbers of an agent's session. */
struct report_numbers {
	const struct session *session; /* NULL: none */
	uint64_t unread_bytes;	       /* bytes that the socket still held */
};
/* reason is static. */
void report_sealed(struct stream *s, const char *reason, const struct report_totals *totals,
		   const struct report_numbers *numbers, uint64_t now_ns);

/* connection: the number of the active connection, from 1. reason is static. */
void report_connected(struct stream *s, uint64_t connection, const struct ucred *peer);
struct report_disconnected {
	uint64_t connection, frames, bytes;
	const char *reason;
	struct report_numbers numbers;
};
void report_disconnected(struct stream *s, const struct report_disconnected *end);

struct report_silenced {
	const char *reason; /* static */
	unsigned window_ms;
	uint64_t last_frame_ns; /* 0: none yet */
	bool connected;
};
void report_silenced(struct stream *s, const struct report_silenced *silence, uint64_t now_ns);
void report_resumed(struct stream *s, uint64_t silent_ms);

/* reason is static. With offset_known also the byte in the body; field may be NULL. */
struct report_violation {
	const char *reason, *field;
	size_t offset;
	bool offset_known;
};
void report_violation(struct stream *s, uint64_t connection, const struct report_violation *v);
void report_gap(struct stream *s, const struct session *session, const struct gap *gap);
void report_declaration(struct stream *s, uint64_t connection, const struct declaration *d);

/* Each of its parts is an event. */
void report_reading(struct stream *s, enum probe_kind kind, const struct probe_reading *reading);
void report_unwitnessed(struct stream *s, const struct witness_verdict *verdict, uint64_t now_ns);

/*
 * Reports of things that a guest can cause as often as it likes. The caller counts them and calls
 * these at most once a second.
 */
void report_version_rejected(struct stream *s, uint16_t content_version, uint64_t count);
void report_unknown_source(struct stream *s, struct wire_text source, uint64_t count);
/* amount: refused connections with CEILING_CONNECTIONS, else the milliseconds of the pause. */
void report_rate_limited(struct stream *s, enum ceiling limit, uint64_t amount);
/* peer may be NULL. */
void report_contested(struct stream *s, const char *reason, const struct ucred *peer,
		      uint64_t count);

/* SPDX-License-Identifier: MIT */
/*
 * One event of the evidence (events.md sections 1-3) as a struct, and its canonical bytes. The data
 * of an event is a set of keys with values. The enum of the keys is in the order in which RFC 8785
 * sorts their names, so an event that is written in the order of the enum is canonical.
 *
 * Pure functions, except for the memory they are given. An event may be filled on one thread and
 * written on another, once.
 */
#pragma once

#include <stdbool.h>

#include "common/wire.h"
#include "host-receiver/event/uuid.h"

#define EVENT_TYPE_PREFIX "dev.cellos.events.cell.observability."
#define EVENT_LINE_MAX	  (64u * 1024u) /* with signature and '\n' */

enum event_type {
	/* The declarations, in the order of enum wire_source. */
	EVENT_GUEST_FIRST,
	EVENT_GUEST_LAST = EVENT_GUEST_FIRST + _WIRE_SOURCE_MAX - 1,
	EVENT_AGENT_CONNECTED,
	EVENT_AGENT_DISCONNECTED,
	EVENT_AGENT_SILENCED,
	EVENT_AGENT_RESUMED,
	EVENT_TELEMETRY_GAP,
	EVENT_CHANNEL_VIOLATION,
	EVENT_CHANNEL_CONTESTED,
	EVENT_VERSION_REJECTED,
	EVENT_UNKNOWN_SOURCE,
	EVENT_RATE_LIMITED,
	EVENT_DECLARATION_UNWITNESSED,
	EVENT_HOST_CGROUP,
	EVENT_HOST_NFTABLES,
	EVENT_HOST_TAP_LINK,
	EVENT_HOST_FC_METRICS,
	EVENT_STREAM_OPENED,
	EVENT_STREAM_CHECKPOINT,
	EVENT_STREAM_SEALED,
	/* The log's own stream (evidence-log.md section 4): no fields of a cell. */
	EVENT_LOG_OPENED,
	EVENT_LOG_RESUMED,
	EVENT_LOG_CLOSED,
	EVENT_LOG_PRUNED,
	EVENT_LOG_ACKNOWLEDGED,
	EVENT_LOG_SIGNING_CHANGED,
	EVENT_LOG_KEY_ADDED,
	EVENT_LOG_KEY_RETIRED,
	EVENT_LOG_SEGMENT_LOST,
	EVENT_LOG_CELL_UNSERVED,
	EVENT_LOG_CELL_SERVED,
	EVENT_LOG_SESSIONS,
	_EVENT_TYPE_MAX,
};

/* In the byte order of their names. */
enum event_key {
	EVENT_KEY_ABANDONED,
	EVENT_KEY_AUTHORITY,
	EVENT_KEY_BY_UID,
	EVENT_KEY_BYTES,
	EVENT_KEY_CELL_ID,
	EVENT_KEY_CELLS,
	EVENT_KEY_CONNECTED,
	EVENT_KEY_CONNECTION,
	EVENT_KEY_CONTENT_VERSION,
	EVENT_KEY_COUNT,
	EVENT_KEY_CUT_BYTES,
	EVENT_KEY_CUT_LINES,
	EVENT_KEY_DECLARED,
	EVENT_KEY_DETAIL,
	EVENT_KEY_EVENTS,
	EVENT_KEY_FIELD,
	EVENT_KEY_FIRST_INDEX,
	EVENT_KEY_FIRST_MISSING,
	EVENT_KEY_FRAMES,
	EVENT_KEY_FRAMES_REJECTED,
	EVENT_KEY_FROM,
	EVENT_KEY_GAPS,
	EVENT_KEY_GUEST_COMM,
	EVENT_KEY_GUEST_DROPPED,
	EVENT_KEY_GUEST_KERNEL_LOST,
	EVENT_KEY_GUEST_MONOTONIC_NS,
	EVENT_KEY_GUEST_OBSERVED,
	EVENT_KEY_GUEST_PID,
	EVENT_KEY_GUEST_SENT,
	EVENT_KEY_HOST_BOOT_ID,
	EVENT_KEY_HOST_MONOTONIC_NS,
	EVENT_KEY_HOST_RECEIVED_AT,
	EVENT_KEY_HOSTNAME,
	EVENT_KEY_INPUTS,
	EVENT_KEY_KEEPALIVE_MS,
	EVENT_KEY_KID,
	EVENT_KEY_LAST_FRAME_AGE_MS,
	EVENT_KEY_LAST_HEARTBEAT_AGE_MS,
	EVENT_KEY_LAST_INDEX,
	EVENT_KEY_LAST_MISSING,
	EVENT_KEY_LIMIT,
	EVENT_KEY_NEXT_SEQ,
	EVENT_KEY_OFFSET,
	EVENT_KEY_ORIGIN,
	EVENT_KEY_OUTPUT,
	EVENT_KEY_PAUSED_MS,
	EVENT_KEY_PEER_GID,
	EVENT_KEY_PEER_PID,
	EVENT_KEY_PEER_UID,
	EVENT_KEY_POLICY,
	EVENT_KEY_PREVIOUS_ORIGIN,
	EVENT_KEY_PREVIOUS_SEQUENCE,
	EVENT_KEY_PREVIOUS_SIZE,
	EVENT_KEY_PREVIOUS_STREAM_ID,
	EVENT_KEY_PROBE_SOURCE,
	EVENT_KEY_PUBLIC_KEY,
	EVENT_KEY_REASON,
	EVENT_KEY_RECEIVER_VERSION,
	EVENT_KEY_REPEATED,
	EVENT_KEY_RUN_ID,
	EVENT_KEY_SEGMENT,
	EVENT_KEY_SEGMENTS,
	EVENT_KEY_SEQ,
	EVENT_KEY_SEQUENCE,
	EVENT_KEY_SESSION,
	EVENT_KEY_SESSIONS,
	EVENT_KEY_SILENT_MS,
	EVENT_KEY_SINCE_MS,
	EVENT_KEY_SOURCE,
	EVENT_KEY_SPEC_SIGNATURE_HASH,
	EVENT_KEY_STREAM_ID,
	EVENT_KEY_TO,
	EVENT_KEY_UNCLEAN,
	EVENT_KEY_UNREAD_BYTES,
	EVENT_KEY_VMM_BYTES,
	EVENT_KEY_WHAT,
	EVENT_KEY_WHY,
	EVENT_KEY_WINDOW_MS,
	EVENT_KEY_WITNESSES,
	_EVENT_KEY_MAX,
};
_Static_assert(_EVENT_KEY_MAX <= 128, "a set of keys is two 64-bit masks");

enum event_value_type {
	EVENT_VALUE_UINT,
	EVENT_VALUE_BOOL,
	EVENT_VALUE_NULL,
	EVENT_VALUE_TEXT,
	EVENT_VALUE_PLAIN,  /* text that needs no escape */
	EVENT_VALUE_RAW,    /* canonical JSON */
	EVENT_VALUE_DETAIL, /* the event's details */
};

struct event_field {
	enum event_key key;
	enum event_value_type type;
	union {
		uint64_t uint;
		bool boolean;
		struct wire_text text;
	};
};

/*
 * The stream that an event belongs to; immutable, and shared by all its events. The log's own
 * stream has no cell: its three texts are NULL.
 */
struct stream_identity {
	char *cell_id, *run_id, *spec_hash; /* owned */
	uint8_t stream_id[UUID_SIZE];
};

#define EVENT_FIELDS_MAX 20u

struct event {
	enum event_type type;
	const struct stream_identity *stream; /* borrowed until the event is written */
	uint8_t id[UUID_SIZE];
	uint64_t realtime_ms;  /* CLOCK_REALTIME at the stamp */
	uint64_t monotonic_ns; /* CLOCK_MONOTONIC at the same instant */
	uint64_t sequence;
	size_t n_fields;
	size_t n_details;
	const struct wire_detail *details; /* in any order; written in canonical order */
	struct event_field fields[EVENT_FIELDS_MAX];
};

/* Static. */
const char *event_type_name(enum event_type type); /* with the prefix */
/*
 * The name for people: of a declaration its name on the wire (capability.denied), else the type
 * without prefix and version (stream.opened).
 */
const char *event_short_name(enum event_type type);
/* The same for a type with its prefix; NULL: the type is unknown. */
const char *event_find_short_name(const char *type);
const char *event_source_name(enum event_type type);
const char *event_key_name(enum event_key key);

static inline enum event_type event_type_of_source(enum wire_source source)
{
	return (enum event_type)(EVENT_GUEST_FIRST + (int)source);
}

/* Texts and details are borrowed until the event is written. Asserts EVENT_FIELDS_MAX. */
void event_add_uint(struct event *e, enum event_key key, uint64_t value);
void event_add_bool(struct event *e, enum event_key key, bool value);
void event_add_null(struct event *e, enum event_key key);
void event_add_text(struct event *e, enum event_key key, struct wire_text value);
void event_add_raw(struct event *e, enum event_key key, struct wire_text json);
void event_add_details(struct event *e, const struct wire_detail *details, size_t n);

/* A writer of events keeps the last second's date; one a thread. */
struct event_clock {
	uint64_t second;
	char date[32]; /* "2026-11-20T10:00:01" */
};

/* The fields of a written event that its envelope repeats. Texts point into the struct. */
struct event_head {
	char id[64];
	char time[32];
	struct wire_text id_text, source_text, time_text;
};

/*
 * Write the canonical bytes of the event. Returns 0, or -ENOBUFS if they do not fit: every field
 * has a limit, so the caller broke one.
 */
int event_write(const struct event *e, struct event_clock *clock, char *buf, size_t size,
		size_t *ret_len, struct event_head *ret_head);

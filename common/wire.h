/* SPDX-License-Identifier: MIT */
/*
 * The wire contract between the guest agent and the host receiver: every constant, limit, name
 * and type that both sides must agree on, and nothing else. The same schema in CDDL is wire.cddl.
 *
 * A frame is a u32 little-endian length N and then N bytes: one CBOR map (RFC 8949). Everything
 * in it is a declaration by an untrusted guest. The socket on which a frame arrives tells which
 * guest sent it; the bytes of the frame never do.
 *
 * No state, no I/O, no allocation; safe on any thread. The encoder needs libc only (the static
 * agent links it), the decoder needs libcbor (only the host and the tests link it).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The channel: the guest dials AF_VSOCK CID 2 (the host), this port. */
#define WIRE_VSOCK_PORT	    9001u
#define WIRE_VSOCK_HOST_CID 2u

/* content_version: high byte major, low byte minor. */
#define WIRE_VERSION_1		    0x0001u
#define WIRE_VERSION_2		    0x0002u
#define WIRE_MAJOR		    0u
#define wire_major(content_version) ((content_version) >> 8)
#define wire_minor(content_version) ((content_version)&0xffu)

/* Frame limits, in bytes. */
#define WIRE_PREFIX_SIZE     4u
#define WIRE_BODY_SEND_MAX   4096u  /* the agent sends no larger body: dropped as too_large */
#define WIRE_BODY_ACCEPT_MAX 65536u /* the host accepts 1..this: else frame_length */
#define WIRE_FRAME_SEND_MAX  (WIRE_PREFIX_SIZE + WIRE_BODY_SEND_MAX)

/* Field limits. Text lengths are bytes of UTF-8. */
#define WIRE_SOURCE_MAX	      64u
#define WIRE_COMM_MAX	      64u
#define WIRE_DETAIL_TEXT_MAX  1024u
#define WIRE_DETAIL_PAIRS_MAX 16u
#define WIRE_PAIRS_MAX	      32u /* of any one map in a body */
#define WIRE_DEPTH_MAX	      4u  /* nested containers, the body's own map being the first */
#define WIRE_MONOTONIC_MAX    ((uint64_t)INT64_MAX)
#define WIRE_SEQ_MAX	      ((uint64_t)INT64_MAX) /* of seq, next_seq and assigned */
#define WIRE_PORT_MAX	      65535u
#define WIRE_SESSION_SIZE     16u /* hex digits */

/*
 * Host to guest: the liveness byte asks whether a silent connection still lives; an
 * acknowledgement is its byte and a u64 little-endian number (delivery.md section 1).
 */
#define WIRE_LIVENESS_BYTE 0x00
#define WIRE_ACK_BYTE	   0x01
#define WIRE_ACK_SIZE	   9u

static inline void wire_ack_encode(uint8_t out[static WIRE_ACK_SIZE], uint64_t settled)
{
	out[0] = WIRE_ACK_BYTE;
	for (unsigned i = 0; i < sizeof(settled); i++)
		out[1 + i] = (uint8_t)(settled >> (8 * i));
}

/* The number in a complete acknowledgement; its first byte is included. */
static inline uint64_t wire_ack_decode(const uint8_t in[static WIRE_ACK_SIZE])
{
	uint64_t settled = 0;

	for (unsigned i = 0; i < sizeof(settled); i++)
		settled |= (uint64_t)in[1 + i] << (8 * i);
	return settled;
}

/* The source of a frame. The order is the order of the tables in wire.c. */
enum wire_source {
	WIRE_PROCESS_SPAWNED,
	WIRE_PROCESS_EXECUTED,
	WIRE_PROCESS_IDENTITY_CHANGED,
	WIRE_PROCESS_SESSION_STARTED,
	WIRE_PROCESS_TRACED,
	WIRE_PROCESS_CORE_DUMPED,
	WIRE_PROCESS_EXITED,
	WIRE_NET_CONNECT_ATTEMPTED,
	WIRE_NET_DATAGRAM_SENT,
	WIRE_NET_BOUND,
	WIRE_NET_SOCKET_CREATED,
	WIRE_CAPABILITY_DENIED,
	WIRE_FS_CHANGED,
	WIRE_FS_INOTIFY_FIRED,
	WIRE_TELEMETRY_DROPPED,
	WIRE_TELEMETRY_HELLO,
	WIRE_TELEMETRY_HEARTBEAT,
	WIRE_TELEMETRY_BYE,
	_WIRE_SOURCE_MAX,
	_WIRE_SOURCE_INVALID = -1,
};

/* Observations are about processes of the guest; telemetry.* frames are about the agent. */
static inline bool wire_source_is_observation(enum wire_source source)
{
	return source < WIRE_TELEMETRY_DROPPED;
}

/* Observations and loss receipts carry a seq. hello, heartbeat and bye never do. */
static inline bool wire_source_is_numbered(enum wire_source source)
{
	return source <= WIRE_TELEMETRY_DROPPED;
}

enum wire_type {
	WIRE_TYPE_UINT,
	WIRE_TYPE_TEXT,
	WIRE_TYPE_BOOL,
	_WIRE_TYPE_MAX,
};

/*
 * Every key a detail map may hold, in the byte order of its camelCase name (RFC 8785 sorts so).
 * One name has one type, except "capability": a text, and a count in telemetry.dropped. So it has
 * two keys, and the source says which one is meant.
 */
enum wire_key {
	WIRE_KEY_ACKS,
	WIRE_KEY_ADDRESS,
	WIRE_KEY_AGENT_VERSION,
	WIRE_KEY_ARCH,
	WIRE_KEY_ARGS,
	WIRE_KEY_ARGS_CUT,
	WIRE_KEY_ASSIGNED,
	WIRE_KEY_BOOT_ID,
	WIRE_KEY_CAPABILITY,
	WIRE_KEY_CAPABILITY_LOST, /* "capability" of telemetry.dropped */
	WIRE_KEY_CAPABILITY_VIA,
	WIRE_KEY_CHANNEL,
	WIRE_KEY_CORE,
	WIRE_KEY_CWD,
	WIRE_KEY_DROPPED,
	WIRE_KEY_EFFECTIVE,
	WIRE_KEY_ERROR,
	WIRE_KEY_EUID,
	WIRE_KEY_EVENT,
	WIRE_KEY_EXE,
	WIRE_KEY_EXIT_CODE,
	WIRE_KEY_FAMILY,
	WIRE_KEY_FIRST_NS,
	WIRE_KEY_FIRST_SEQ,
	WIRE_KEY_FS_LOST, /* "fs" of telemetry.dropped */
	WIRE_KEY_FS_VIA,
	WIRE_KEY_HEARTBEAT_MS,
	WIRE_KEY_KERNEL,
	WIRE_KEY_KERNEL_LOST,
	WIRE_KEY_KERNEL_OVERRUN,
	WIRE_KEY_KIND,
	WIRE_KEY_LAST_NS,
	WIRE_KEY_LAST_SEQ,
	WIRE_KEY_NAME,
	WIRE_KEY_NET_LOST, /* "net" of telemetry.dropped */
	WIRE_KEY_NET_VIA,
	WIRE_KEY_NEXT_SEQ,
	WIRE_KEY_OBSERVED,
	WIRE_KEY_PATH,
	WIRE_KEY_PORT,
	WIRE_KEY_PPID,
	WIRE_KEY_PROCESS_LOST, /* "process" of telemetry.dropped */
	WIRE_KEY_PROCESS_OK,
	WIRE_KEY_PROCESS_VIA,
	WIRE_KEY_PROTOCOL,
	WIRE_KEY_QUEUE_CAPACITY,
	WIRE_KEY_QUEUE_FULL,
	WIRE_KEY_QUEUE_PEAK,
	WIRE_KEY_REAL,
	WIRE_KEY_REASON,
	WIRE_KEY_REPEAT,
	WIRE_KEY_RESOLVED,
	WIRE_KEY_RESULT,
	WIRE_KEY_SENT,
	WIRE_KEY_SESSION,
	WIRE_KEY_SIGNAL,
	WIRE_KEY_SYSCALL,
	WIRE_KEY_TOO_LARGE,
	WIRE_KEY_TRACER_COMM,
	WIRE_KEY_TRACER_PID,
	WIRE_KEY_TYPE,
	WIRE_KEY_UID,
	WIRE_KEY_VIA,
	WIRE_KEY_WHY,
	_WIRE_KEY_MAX,
	_WIRE_KEY_INVALID = -1,
};
_Static_assert(_WIRE_KEY_MAX <= 64, "a set of keys is a 64-bit mask");

/* Borrowed bytes; not NUL-terminated. */
struct wire_text {
	const char *data;
	size_t len;
};

struct wire_detail {
	enum wire_key key;
	enum wire_type type;
	union {
		uint64_t uint;
		struct wire_text text;
		bool boolean;
	};
};

/*
 * One frame, decoded or to be encoded. Its texts are borrowed from the decoded body, or from the
 * caller that filled the struct.
 */
struct declaration {
	uint16_t content_version;
	enum wire_source source;
	uint32_t guest_pid;
	struct wire_text guest_comm;
	uint64_t guest_monotonic_ns; /* CLOCK_MONOTONIC of the guest, nanoseconds */
	uint64_t seq;		     /* 0: none */
	size_t n_details;
	struct wire_detail details[WIRE_DETAIL_PAIRS_MAX];
};

/* Why a frame was refused. The first two are refusals of one frame; all others end the connection.
 */
enum wire_error {
	WIRE_OK,
	WIRE_UNSUPPORTED_VERSION,
	WIRE_UNKNOWN_SOURCE,
	WIRE_FRAME_LENGTH,
	WIRE_TRUNCATED,
	WIRE_MALFORMED_CBOR,
	WIRE_NOT_A_MAP,
	WIRE_INDEFINITE_LENGTH,
	WIRE_TRAILING_BYTES,
	WIRE_DUPLICATE_FIELD,
	WIRE_MISSING_FIELD,
	WIRE_BAD_TYPE,
	WIRE_OUT_OF_RANGE,
	WIRE_INVALID_UTF8,
	WIRE_TOO_DEEP,
	WIRE_TOO_MANY_PAIRS,
	_WIRE_ERROR_MAX,
};

/* True if the frames after the refused one can still be trusted. */
static inline bool wire_error_keeps_connection(enum wire_error error)
{
	return error == WIRE_UNSUPPORTED_VERSION || error == WIRE_UNKNOWN_SOURCE;
}

struct wire_refusal {
	enum wire_error error;
	const char *field;	  /* static; NULL: no field is known */
	size_t offset;		  /* byte in the body */
	uint16_t content_version; /* with WIRE_UNSUPPORTED_VERSION */
	struct wire_text source;  /* with WIRE_UNKNOWN_SOURCE: borrowed from the body */
	uint64_t seq;		  /* with WIRE_UNKNOWN_SOURCE: the frame's number; 0: none */
};

/* Static, never NULL for values in range. */
const char *wire_source_name(enum wire_source source); /* "process.spawned" */
const char *wire_key_name(enum wire_key key);	       /* "exit_code", as on the wire */
struct wire_text wire_key_camel(enum wire_key key);    /* "exitCode", as in the evidence */
enum wire_type wire_key_type(enum wire_key key);
const char *wire_error_name(enum wire_error error);	/* "frame_length" */
uint64_t wire_source_allowed(enum wire_source source);	/* mask of 1 << wire_key */
uint64_t wire_source_required(enum wire_source source); /* mask; a subset of the above */

/* _WIRE_SOURCE_INVALID / _WIRE_KEY_INVALID when there is no such name, or not in that source. */
enum wire_source wire_source_from_name(struct wire_text name);
enum wire_key wire_key_from_name(enum wire_source source, struct wire_text name);

/*
 * Whether wire.md section 4 allows the value of this detail of d: the words of family, error,
 * result, event and *_via, the 16 hex digits of session, the ranges of port, next_seq and assigned.
 * True for every other key. Only the host checks values, so only the host links wire_value.c.
 */
bool wire_detail_allowed(const struct declaration *d, const struct wire_detail *detail);

static inline struct wire_text wire_text(const char *s)
{
	return (struct wire_text){.data = s, .len = __builtin_strlen(s)};
}

/*
 * Append a detail. The type must be the key's own (asserted). More than WIRE_DETAIL_PAIRS_MAX are
 * a programming error (asserted). Text is borrowed; it must be valid UTF-8 (utf8.h sanitises) and
 * is cut to WIRE_DETAIL_TEXT_MAX at a character boundary.
 */
void declaration_add_uint(struct declaration *d, enum wire_key key, uint64_t value);
void declaration_add_bool(struct declaration *d, enum wire_key key, bool value);
void declaration_add_text(struct declaration *d, enum wire_key key, struct wire_text value);

/*
 * Encode a frame, prefix and body, with the keys in canonical order and shortest-form integers.
 * With WIRE_VERSION_1 only keys 1-5 are written. Details are written in the order they were added.
 * Returns the bytes written; -EMSGSIZE if the body would exceed WIRE_BODY_SEND_MAX or the frame
 * does not fit into size; -EINVAL if a field is out of the range of wire.md section 3.
 */
int wire_encode(const struct declaration *d, uint8_t *buf, size_t size);

/* The body length in a prefix. The caller checks whether it is acceptable. */
uint32_t wire_decode_length(const uint8_t prefix[static WIRE_PREFIX_SIZE]);

/*
 * Decode one body of len bytes (1..WIRE_BODY_ACCEPT_MAX; anything else is WIRE_FRAME_LENGTH).
 * On WIRE_OK *ret is filled, borrowing texts from body, and *refusal is untouched; on any other
 * return it is the other way round. Linear time, no allocation, constant stack.
 */
enum wire_error wire_decode(const uint8_t *body, size_t len, struct declaration *ret,
			    struct wire_refusal *refusal);

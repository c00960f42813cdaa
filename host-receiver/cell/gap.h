/* SPDX-License-Identifier: MIT */
/*
 * Checks the numbers of one connection (wire.md section 5, delivery.md sections 1 and 2). Every
 * number is accounted for: it arrived, it is missing, it is a repeat, or it is out of order.
 *
 *   number            | what it is                                   | what becomes of the frame
 *   ------------------+----------------------------------------------+---------------------------
 *   = expected        | the next one                                 | evidence
 *   > expected        | numbers are missing: a gap                   | evidence
 *   < expected, in    | was read on an earlier connection, and the   | dropped, counted
 *     the repeats     |   agent does not know that it is durable     |
 *   < expected, else  | out of order: NUMBER_BACKWARDS               | evidence, and a violation
 *
 * The repeats are the numbers from the next_seq of the connection's hello up to the number that was
 * expected at that time. Each counts as a repeat once, in ascending order, so that a guest cannot
 * hide a frame by giving it the number of a repeat. Pure.
 */
#pragma once

#include "host-receiver/cell/sessions.h"

enum gap_reason {
	GAP_JUMP,	   /* numbers that never arrived */
	GAP_SESSION_START, /* a new session whose first hello starts above 1 */
	GAP_REFUSED,	   /* the frame of this number was refused */
	GAP_INHERITED,	   /* as GAP_SESSION_START, but in a clone of another cell: no loss */
	GAP_HOST_AHEAD,	   /* the guest was set back: these numbers are assigned once more */
	_GAP_REASON_MAX,
};
const char *gap_reason_name(enum gap_reason reason); /* static, as in the evidence */

struct gap {
	uint64_t first, last; /* 0: the frame has no number */
	enum gap_reason reason;
};

/* One connection's numbering. Zero it when the connection begins. */
struct numbering {
	struct session *session; /* borrowed from the cell's; NULL before the first hello */
	uint64_t repeat_next, repeat_end;
	bool no_hello_noted, backwards_noted;
};

enum number_verdict {
	NUMBER_FINE,
	NUMBER_REPEAT,	       /* drop the frame */
	NUMBER_BACKWARDS,      /* the first one of this connection */
	NUMBER_NO_HELLO,       /* a number before any hello; only the first is reported */
	NUMBER_SECOND_SESSION, /* a hello of another session on the same connection */
	_NUMBER_VERDICT_MAX,
};

struct hello_numbers {
	struct wire_text session;
	uint64_t next_seq; /* 0: not said */
	uint64_t assigned; /* 0: not said */
	/* The hello names a boot that another cell's hello named before. */
	bool boot_elsewhere;
};

/* A hello. The session is found in the memory or added to it. */
enum number_verdict numbering_hello(struct numbering *n, struct sessions *memory,
				    const struct hello_numbers *hello, struct gap *ret);

/* A frame with this number, from 1 to WIRE_SEQ_MAX. */
enum number_verdict numbering_frame(struct numbering *n, uint64_t seq, struct gap *ret);

/* A heartbeat or a bye: the agent has assigned every number below next_seq. */
void numbering_reach(struct numbering *n, uint64_t next_seq, struct gap *ret);

/* A whole frame was refused before its number was read: it counts as the expected one. */
void numbering_refused(struct numbering *n, struct gap *ret);

/* SPDX-License-Identifier: MIT */
/*
 * The messages between the daemon and its forwarder over a SOCK_SEQPACKET pair, one message a
 * packet:
 *
 *   daemon -> forwarder   struct link_order: how far the log is durable, or from where to send
 * again forwarder -> daemon   struct forward_status
 *
 * Both are the same program on one machine, so the messages are plain structs. Neither side waits
 * for the other: a status that does not fit is dropped, and the next one says more. When one side
 * ends, the other reads the end of file.
 */
#pragma once

#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/publisher.h"

#define LINK_FD 3 /* in the forwarder */

/* The name of its cursor; retention waits for it. */
#define LINK_CURSOR "forward"

/* Its exit status when the daemon must start it again at once: files that it reads changed. */
#define LINK_EXIT_AGAIN 75

enum link_order_kind {
	LINK_END = 1,	   /* entries [0, index) are durable and end at this position */
	LINK_REWIND_INDEX, /* send again from this index on */
	LINK_REWIND_TIME,  /* send again what was received from this time on */
};

struct link_order {
	uint32_t kind;
	uint32_t reserved;
	struct evidence_position at;
	uint64_t index;
	uint64_t realtime_ms;
};

enum forward_state {
	FORWARD_WAITING,   /* before the next try */
	FORWARD_CONNECTED, /* connected, and sending */
	_FORWARD_STATE_MAX,
};

/* Counters are since the forwarder started. */
struct forward_status {
	uint32_t state;	   /* enum forward_state */
	uint32_t error;	   /* enum forward_error: why it waits */
	uint32_t landlock; /* 1: the kernel confines it to its files */
	uint32_t reserved;
	char why[PUBLISHER_WHY_MAX];
	char warnings[PUBLISHER_WHY_MAX]; /* about the stream's settings */
	char server[256];		  /* the URL without its user and password */
	uint64_t read, published, acked, duplicates, retries, skipped, cursor_lost;
	uint64_t errors[_FORWARD_ERROR_MAX];
	uint64_t index;	     /* entries [.., index) are acknowledged */
	uint64_t lag_events; /* durable and not acknowledged */
	uint64_t lag_ms;     /* age of the oldest of them */
	uint64_t unacked_ms; /* how long the oldest message waits for its answer */
};

const char *forward_state_name(enum forward_state state);

/* Returns 1 and the newest order; 0: none; -EPIPE: the daemon has ended; or another errno. */
int link_take_order(int fd, struct link_order *ret);
/* Send the status, or drop it if the socket is full. */
void link_put_status(int fd, const struct forward_status *status);

/* The daemon's side. */
int link_put_order(int fd, const struct link_order *order);
/* Returns 1 and a status; 0: none yet; -EPIPE: the forwarder has ended; or another errno. */
int link_take_status(int fd, struct forward_status *ret);

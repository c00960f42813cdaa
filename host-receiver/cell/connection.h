/* SPDX-License-Identifier: MIT */
/*
 * One accepted connection: bytes to frames, and acknowledgements to bytes. It keeps no buffer while
 * no frame is partly there, so that thousands of idle cells cost little; what is there is as large
 * as the frame it belongs to.
 *
 * Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <uv.h>

#include "common/wire.h"

/* Bytes of one read: no cell delays another for longer. */
#define CONNECTION_READ_SIZE (16u * 1024u)
/* What is still read of one that ends. */
#define CONNECTION_DRAIN_MAX (1024u * 1024u)

struct connection;

/* What a connection calls its owner for; ctx is the owner's. Static. */
struct connection_ops {
	/* There is something to read, or an end: the owner calls connection_read(). */
	void (*readable)(void *ctx, struct connection *c);
	/* What was being sent may go on: the owner calls connection_flush(). */
	void (*writable)(void *ctx, struct connection *c);
	/* A whole frame's body. False: the connection must end, and the owner reported why. */
	bool (*frame)(void *ctx, struct connection *c, const uint8_t *body, size_t len);
	/* The prefix of a frame, or the end of the stream inside one, was wrong. */
	void (*violation)(void *ctx, struct connection *c, const struct wire_refusal *refusal);
	/* So many bytes were read. */
	void (*bytes)(void *ctx, size_t n);
	/* It has ended: the owner closes it. reason is static, one of events.md section 3. */
	void (*ended)(void *ctx, struct connection *c, const char *reason);
	/* It is closed and freed. */
	void (*closed)(void *ctx);
};

struct connection {
	const struct connection_ops *ops;
	void *ctx;	 /* the owner's; borrowed */
	uint8_t *buffer; /* CONNECTION_READ_SIZE, shared by all; used within one call */
	int fd;		 /* owned */
	uv_poll_t poll;
	int polled;	 /* enum uv_poll_event: what is polled now */
	uint64_t number; /* of the cell's active connections, from 1; 0: not active */
	bool at_end;	 /* the peer is gone: end of file or an error was read */
	struct ucred peer;
	uint64_t frames, bytes;
	uint8_t *partial; /* a frame that is partly there; NULL: none */
	size_t have, size;
	uint8_t ack[WIRE_ACK_SIZE]; /* the one that is being sent */
	size_t ack_left;	    /* bytes of it that are not sent */
	uint64_t acked;		    /* the number of the last one that was begun */
};

/* Takes fd, also on error. Not polled yet. NULL: no memory. */
struct connection *connection_new(uv_loop_t *loop, int fd, uint8_t *buffer,
				  const struct connection_ops *ops, void *ctx);

void connection_poll(struct connection *c, bool readable, bool writable);

/*
 * Read once, at most `size` bytes and CONNECTION_READ_SIZE, and hand the whole frames to the owner,
 * who may end the connection. Returns the bytes read, 0 when there is nothing, or -1 when the
 * connection has ended: then ended() was called and c is gone.
 */
ssize_t connection_read(struct connection *c, size_t size);

/*
 * Acknowledge everything up to `settled`. False when the last one is still being sent: then again
 * once connection_flush() returned true. A dead connection takes it, and ends when it is read.
 */
bool connection_ack(struct connection *c, uint64_t settled);
/* Send the rest of an acknowledgement. True when nothing is left of it. */
bool connection_flush(struct connection *c);

/* The liveness byte (wire.md section 6). False when the connection is dead. */
bool connection_ask(struct connection *c);

/* The bytes that the socket holds and that were not read. */
uint64_t connection_unread(const struct connection *c);

/* Close and free. closed() is called once that is done, in a later turn of the loop. */
void connection_close(struct connection *c);

/* SPDX-License-Identifier: MIT */
/*
 * One accepted connection: bytes to frames, and acknowledgements to bytes. It has a buffer only
 * while a frame has arrived in part, and the buffer is as large as that frame. So thousands of idle
 * cells cost little memory.
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
/* Bytes that are still read from a connection that ends. */
#define CONNECTION_DRAIN_MAX (1024u * 1024u)

struct connection;

/* A connection calls its owner by these functions; ctx is the owner's. Static. */
struct connection_ops {
	/* Bytes have arrived, or the connection has ended: the owner calls connection_read(). */
	void (*readable)(void *ctx, struct connection *c);
	/* The socket has room again: the owner calls connection_flush(). */
	void (*writable)(void *ctx, struct connection *c);
	/*
	 * The body of a whole frame. Returns false when the connection must end; the owner has
	 * reported why.
	 */
	bool (*frame)(void *ctx, struct connection *c, const uint8_t *body, size_t len);
	/* A frame's prefix is wrong, or the stream ended inside a frame. */
	void (*violation)(void *ctx, struct connection *c, const struct wire_refusal *refusal);
	/* n bytes were read. */
	void (*bytes)(void *ctx, size_t n);
	/*
	 * The connection has ended: the owner closes it. reason is static, one of events.md section
	 * 3.
	 */
	void (*ended)(void *ctx, struct connection *c, const char *reason);
	/* The connection is closed and freed. */
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
	uint8_t *partial; /* the part of a frame that has arrived; NULL: none */
	size_t have, size;
	uint8_t ack[WIRE_ACK_SIZE]; /* the acknowledgement that is being sent */
	size_t ack_left;	    /* its bytes that are not sent yet */
	uint64_t acked;		    /* the number in the last acknowledgement that was begun */
};

/* Takes fd, also on error. Not polled yet. NULL: no memory. */
struct connection *connection_new(uv_loop_t *loop, int fd, uint8_t *buffer,
				  const struct connection_ops *ops, void *ctx);

void connection_poll(struct connection *c, bool readable, bool writable);

/*
 * Read once, at most `size` bytes and CONNECTION_READ_SIZE, and give whole frames to the owner, who
 * may end the connection. Returns the bytes read, 0 when there is nothing, or -1 when the
 * connection has ended: then ended() was called and c is gone.
 */
ssize_t connection_read(struct connection *c, size_t size);

/*
 * Acknowledge everything up to `settled`. Returns false while the previous one is still being sent:
 * call it again once connection_flush() has returned true. A dead connection returns true, and the
 * next read ends it.
 */
bool connection_ack(struct connection *c, uint64_t settled);
/* Send the rest of an acknowledgement. Returns true when all of it is sent. */
bool connection_flush(struct connection *c);

/* Send the liveness byte (wire.md section 6). Returns false when the connection is dead. */
bool connection_ask(struct connection *c);

/* The number of bytes in the socket that were not read. */
uint64_t connection_unread(const struct connection *c);

/* Close and free. closed() is called once that is done, in a later turn of the loop. */
void connection_close(struct connection *c);

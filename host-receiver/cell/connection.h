/* SPDX-License-Identifier: MIT */
/*
 * One accepted connection: bytes to frames. It keeps no buffer while no frame is partly there, so
 * that thousands of idle cells cost little; what is there is as large as the frame it belongs to.
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

/* Bytes read of one connection in a turn of the loop: no cell delays another for longer. */
#define CONNECTION_READ_SIZE (64u * 1024u)
/* What is still read of one that ends. */
#define CONNECTION_DRAIN_MAX (1024u * 1024u)

struct connection;

/* What a connection calls its owner for; ctx is the owner's. Static. */
struct connection_ops {
	/* There is something to read, or an end: the owner calls connection_read(). */
	void (*readable)(void *ctx, struct connection *c);
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
	bool polling;
	uint64_t number; /* of the cell's active connections, from 1; 0: not active */
	struct ucred peer;
	uint64_t frames, bytes;
	uint8_t *partial; /* a frame that is partly there; NULL: none */
	size_t have, size;
};

/* Takes fd, also on error. Not polled yet. NULL: no memory. */
struct connection *connection_new(uv_loop_t *loop, int fd, uint8_t *buffer,
				  const struct connection_ops *ops, void *ctx);

void connection_poll(struct connection *c, bool on);

/*
 * Read once and hand the whole frames to the owner, who may end the connection. Returns the bytes
 * read, 0 when there is nothing, or -1 when the connection has ended: then ended() was called and c
 * is gone.
 */
ssize_t connection_read(struct connection *c);

/* The liveness byte (wire.md section 6). False when the connection is dead. */
bool connection_ask(struct connection *c);

/* Close and free. closed() is called once that is done, in a later turn of the loop. */
void connection_close(struct connection *c);

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
/* What is still read at an orderly end. */
#define CONNECTION_DRAIN_MAX (1024u * 1024u)

struct cell;

struct connection {
	struct cell *cell; /* borrowed */
	int fd;		   /* owned */
	uv_poll_t poll;
	bool polling;
	uint64_t number; /* of the cell's active connections, from 1; 0: not active */
	struct ucred peer;
	uint64_t frames, bytes;
	uint8_t *partial; /* a frame that is partly there; NULL: none */
	size_t have, size;
};

/* Takes fd, also on error. Not polled yet. NULL: no memory. */
struct connection *connection_new(struct cell *cell, uv_loop_t *loop, int fd);

void connection_poll(struct connection *c, bool on);

/* Read once and hand the whole frames to the cell, which may end the connection. */
void connection_read(struct connection *c);
/* Read until nothing is there any more; the connection may end meanwhile. */
void connection_drain(struct connection *c);

/* The liveness byte (wire.md section 6). False when the connection is dead. */
bool connection_ask(struct connection *c);

/* Close and free, in the loop's time. The cell's handle count is kept. */
void connection_close(struct connection *c);

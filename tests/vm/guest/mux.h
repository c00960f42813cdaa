/* SPDX-License-Identifier: MIT */
/*
 * How many connections share the one byte stream of a virtio-serial port, which itself knows
 * neither connect nor end of file. tests/vm/mux.py is the other end.
 *
 * The stream is frames: an 8-byte header (little endian) and at most MUX_CHUNK bytes of payload.
 * Connections are opened by the guest, numbered upwards and never reused, so a frame about a
 * number that is unknown concerns a connection that has just ended and is ignored. Each side may
 * send MUX_WINDOW bytes a connection before the other grants more with MUX_CREDIT, which it does
 * as it passes bytes on: a reader that stops stops its sender, and nobody else's.
 *
 * As with the VMMs there are, the host cannot end its direction alone: that is a close.
 */
#pragma once

#include <stdint.h>

#define MUX_CHUNK  8192u
#define MUX_WINDOW 65536u

/* The port of a connection to the harness itself (guest/ctl.h), not to a socket of the host. */
#define MUX_PORT_CONTROL 0u

enum mux_type {
	MUX_START = 1, /* guest: I am here. Host: every MUX_LISTEN that holds now has been sent */
	MUX_OPEN,      /* guest only; payload: u32 port */
	MUX_DATA,      /* payload: the bytes */
	MUX_EOF,       /* guest only: it has ended its direction, the other one goes on */
	MUX_CLOSE,     /* the sender's side is gone; bytes sent before are still delivered */
	MUX_CREDIT,    /* payload: u32 bytes the other may send on top */
	MUX_LISTEN,    /* host only; connection = port: somebody listens there */
	MUX_UNLISTEN,  /* host only; connection = port: nobody any more, refuse */
	MUX_BYE,       /* guest: I have sent everything. Host: I have passed it all on */
};

struct mux_header {
	uint8_t type;
	uint8_t reserved;
	uint16_t length;
	uint32_t connection;
};

_Static_assert(sizeof(struct mux_header) == 8, "the header is 8 bytes on the wire");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the header is little endian");

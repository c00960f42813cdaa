/* SPDX-License-Identifier: MIT */
/*
 * The host's side of virtio-vsock as the VMM's muxer is: each connection that the guest opens to
 *CID 2 becomes a connection to the Unix socket `<base>_<port>`. The state of a connection:
 *
 *	open		bytes go both ways, each as far as the other side's credit reaches
 *	host closed	the Unix socket has ended: the guest was sent SHUTDOWN of both directions,
 *and what it still sends is dropped until its RST guest closed	the guest ended both directions:
 *what it sent before goes to the Unix socket, then the guest is sent RST; after two seconds what is
 *left is dropped
 *
 * A guest that ends only one direction changes nothing on the host: the receiver sees the end of
 * both. Whatever is wrong with a connect is one RST: nobody listens, a full backlog, no such CID.
 *
 * One thread. Not for production: it trusts nobody, but it serves one guest at a time.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhost_user.h"

#define MUXER_CONNECTIONS_MAX 1023u
#define MUXER_BUFFER	      65536u /* of a connection, guest to host: the credit it is given */
#define MUXER_RESETS_MAX      256u   /* to connections that there are not, on their way */

struct muxer_connection;

struct muxer {
	struct vhost *vhost;
	const char *base;
	struct muxer_connection *connections[MUXER_CONNECTIONS_MAX];
	unsigned n;
	struct {
		uint32_t guest_port, host_port;
	} resets[MUXER_RESETS_MAX];
	unsigned n_resets;
	unsigned turn; /* which connection may send to the guest first */
};

/* base: borrowed. */
void muxer_init(struct muxer *muxer, struct vhost *vhost, const char *base);

/* Ends every connection: the guest's driver, or the guest, is gone. */
void muxer_reset(struct muxer *muxer);

/* Waits until the Unix sockets have taken what the guest has sent, for at most so long. A VMM does
 * not: it loses what is in its buffers when it ends. */
void muxer_drain(struct muxer *muxer, uint64_t until_ns);

/* Takes what the guest has sent, and sends what there is for it. */
void muxer_turn(struct muxer *muxer);

/* What to poll for the connections, into at most MUXER_CONNECTIONS_MAX places; how many. */
unsigned muxer_poll(struct muxer *muxer, struct pollfd *fds);

/* After poll(2): the same places. */
void muxer_ready(struct muxer *muxer, const struct pollfd *fds, unsigned n);

/* Milliseconds until something is to be dropped, -1 for never. */
int muxer_timeout(const struct muxer *muxer);

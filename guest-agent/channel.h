/* SPDX-License-Identifier: MIT */
/*
 * The one connection to the host: AF_VSOCK, or a Unix socket for tests and other VMMs. Non-blocking
 * from socket(2) on. It connects, sends its hello and then the queue, reads the host's
 * acknowledgements, and connects again without end, with exponential back-off.
 *
 * Never blocks, never logs. Single-threaded, owned by the agent's loop, which calls channel_turn()
 * once a turn; the descriptor is in the loop's epoll set while it is open.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

/* First: older kernel headers take struct sockaddr from it. */
#include <sys/socket.h>
#include <linux/vm_sockets.h>

#include "common/wire.h"
#include "guest-agent/event_queue.h"

#define CHANNEL_CONNECT_TIMEOUT_MS 2000u
#define CHANNEL_BACKOFF_MIN_MS	   50u
#define CHANNEL_BACKOFF_MAX_MS	   5000u
/* A connection that lived this long was a good one: the next back-off starts at the minimum. */
#define CHANNEL_GOOD_MS 1000u
#define CHANNEL_WHY_MAX 160u

struct channel_address {
	socklen_t len;
	union {
		struct sockaddr any;
		struct sockaddr_vm vm;
		struct sockaddr_un un;
	};
};

/* "vsock:CID:PORT" or "unix:PATH". 0, or -EINVAL with a sentence in why. */
int channel_address_parse(const char *s, struct channel_address *ret, char why[CHANNEL_WHY_MAX]);

enum channel_state {
	CHANNEL_WAITING, /* for the back-off to pass */
	CHANNEL_CONNECTING,
	CHANNEL_GREETING, /* connected; hello not wholly sent */
	CHANNEL_OPEN,
};

enum channel_event {
	CHANNEL_NOTHING,
	CHANNEL_CONNECTED, /* now call channel_greet() */
	CHANNEL_READY,	   /* hello is sent */
	CHANNEL_SETTLED,   /* the host acknowledged: ch->settled has changed */
	CHANNEL_LOST,	   /* the connection ended */
};

struct channel {
	struct channel_address address;
	int epoll_fd; /* borrowed */
	int fd;	      /* owned; -1: none */
	enum channel_state state;
	uint64_t deadline_ns;  /* CLOCK_MONOTONIC: of the back-off or the connect; 0: none */
	uint64_t connected_ns; /* when it was connected */
	uint32_t backoff_ms;
	uint64_t random; /* for the jitter */
	/* The last connection ended as a VM snapshot ends it: ECONNRESET on established AF_VSOCK.
	 */
	bool reset;
	/* Only channel_progress() resets the back-off, not a connection that lasted. */
	bool progress_only;
	bool ended; /* reported with end_error when the bytes read before are reported */
	int end_error;
	bool settled_due; /* settled is not reported yet */
	bool deaf; /* the host sent a byte that is not part of a message: the rest is ignored */
	uint64_t settled; /* of the newest acknowledgement */
	uint64_t taken;	  /* bytes that the host took on this connection */
	size_t ack_len;	  /* bytes of an acknowledgement that is still incomplete */
	uint8_t ack[WIRE_ACK_SIZE];
	bool wants_out; /* EPOLLOUT is armed */
	bool readable;	/* set by the loop: epoll reported bytes to read, or the end */
	int last_errno; /* why the last attempt or connection ended; 0: the host closed it */
	size_t hello_len, hello_sent;
	uint8_t hello[WIRE_FRAME_SEND_MAX];
};

/* Borrows epoll_fd; the descriptor is added with epoll_data pointing at the channel. */
void channel_init(struct channel *ch, const struct channel_address *address, int epoll_fd);

/* frame (copied) is the first that the new connection sends; empty: none (version 1). */
void channel_greet(struct channel *ch, const uint8_t *frame, size_t len);

/*
 * Do everything that is possible now: connect when it is time, notice the end, send from q. Returns
 * at most one event; call it again until CHANNEL_NOTHING.
 */
enum channel_event channel_turn(struct channel *ch, struct event_queue *q, uint64_t now_ns);

/* The host settled something: the next back-off starts at the minimum. */
void channel_progress(struct channel *ch);
/* End this connection and begin another one at once. */
void channel_reconnect(struct channel *ch, uint64_t now_ns);

static inline bool channel_connected(const struct channel *ch)
{
	return ch->state == CHANNEL_GREETING || ch->state == CHANNEL_OPEN;
}

void channel_close(struct channel *ch);

/* SPDX-License-Identifier: MIT */
/*
 * One connection to a NATS server, the messages sent on it and the server's answers to them. It
 * connects once: there is no reconnecting and no buffer for later in here. After any error the
 * owner closes it, and begins again at its cursor with a new one.
 *
 * All functions are for the owner's thread, and libnats reads and writes the socket on that thread
 * only (its event loop interface): a thread for each direction costs more than the messages do.
 * A turn of the owner: wait for publisher_events() on publisher_fd(), publisher_turn(), take the
 * answers, send while there is room.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "host-receiver/forward/settings.h"

#define PUBLISHER_TIMEOUT_MS 10000u		   /* for an answer */
#define PUBLISHER_BYTES_MAX  (32u * 1024u * 1024u) /* sent and not answered */
#define PUBLISHER_WHY_MAX    384u
/*
 * Bytes that are not written to the socket yet: enough for large writes, and little to move after a
 * short one.
 */
#define PUBLISHER_BUFFER_MAX (256u * 1024u)

/* The reasons that stop the forwarding, for people and metrics. */
enum forward_error {
	FORWARD_OK,
	FORWARD_CONNECT,      /* nobody answers there */
	FORWARD_CREDENTIALS,  /* the server refuses us */
	FORWARD_TLS,	      /* its certificate, ours, or the CA */
	FORWARD_DISCONNECTED, /* the connection ended */
	FORWARD_TIMEOUT,      /* no answer in PUBLISHER_TIMEOUT_MS */
	FORWARD_NO_JETSTREAM, /* the server or the account has none */
	FORWARD_NO_STREAM,    /* no stream takes the subject */
	FORWARD_WRONG_STREAM, /* another stream answered */
	FORWARD_STREAM,	      /* the stream's settings would lose evidence */
	FORWARD_FULL,	      /* the stream or its storage is full */
	FORWARD_TOO_LARGE,    /* the server never takes this message */
	FORWARD_REFUSED,      /* another error of the server */
	FORWARD_READ,	      /* the evidence or the cursor */
	_FORWARD_ERROR_MAX,
};

const char *forward_error_name(enum forward_error error);

struct publisher;

struct publisher_message {
	const char *subject, *id;
	const char *origin; /* header Cellos-Log */
	uint64_t index;	    /* header Cellos-Index */
	const void *data;
	size_t len;
};

/* The server's answer to the oldest message that has one. */
struct publisher_answer {
	bool duplicate;
	enum forward_error error;
	int code; /* JetStream's error code; 0: none */
	char why[PUBLISHER_WHY_MAX];
};

/*
 * Connect to this server (one of the settings' URLs) and check the stream. warnings receives notes
 * about the stream's settings ("": none). Blocks for some seconds at most.
 */
enum forward_error publisher_open(const struct forward_settings *settings, const char *url,
				  struct publisher **ret, char why[PUBLISHER_WHY_MAX],
				  char warnings[PUBLISHER_WHY_MAX]);
void publisher_close(struct publisher *p);

/* The socket to poll(2), and the events; -1: the connection has ended. */
int publisher_fd(const struct publisher *p);
short publisher_events(const struct publisher *p);
/* Read and write as much as the socket allows now; events: from poll(2). */
void publisher_turn(struct publisher *p, short events);

/* The most bytes of a message, with its headers: the limit of the server or of the stream. */
size_t publisher_max_size(const struct publisher *p);
/* Whether the server takes a message of this size. */
bool publisher_fits(const struct publisher *p, const struct publisher_message *message);
/* Whether another message may be sent before an answer comes. */
bool publisher_has_room(const struct publisher *p);
/* Messages without an answer. */
unsigned publisher_pending(const struct publisher *p);

/* now_ns: the time from which the timeout of the answer counts. */
enum forward_error publisher_send(struct publisher *p, const struct publisher_message *message,
				  uint64_t now_ns, char why[PUBLISHER_WHY_MAX]);

/* Returns true and the answer to the oldest message sent, in the order of sending; else false. */
bool publisher_take_answer(struct publisher *p, struct publisher_answer *ret);

/* When the oldest message without an answer was sent (CLOCK_MONOTONIC); 0: there is none. */
uint64_t publisher_oldest_ns(const struct publisher *p);

/*
 * FORWARD_OK, or the reason why no more answers will come: the connection ended, or an answer is
 * overdue.
 */
enum forward_error publisher_check(struct publisher *p, uint64_t now_ns,
				   char why[PUBLISHER_WHY_MAX]);

/* SPDX-License-Identifier: MIT */
/*
 * When a guest counts as silent (host-receiver.md section 4): it did not connect in time, or no
 * frame came for a while. Decides by the times it is given; reports nothing and sets no timer.
 * Loop thread only.
 *
 * While the receiver does not read the guest, for whatever reason, the guest cannot be blamed: the
 * time stands still.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Times are of CLOCK_MONOTONIC; 0: there was none yet. */
struct keepalive {
	unsigned frame_within_ms;   /* 0: never silent once it connected */
	unsigned connect_within_ms; /* 0: never silent before it connected */
	uint64_t added_ns, last_frame_ns;
	uint64_t watched_since_ns; /* the first frame or the newest connect, plus the time not read
				    */
	uint64_t unread_since_ns;  /* 0: it is read, or there is nothing to read */
	bool connected_ever, silent, said_bye;
};

void keepalive_init(struct keepalive *k, unsigned frame_within_ms, unsigned connect_within_ms,
		    uint64_t now_ns);
/* A connection became the active one. */
void keepalive_connected(struct keepalive *k, uint64_t now_ns);
/* A frame came. Returns for how many ns the guest was silent; 0: it did not count as silent. */
uint64_t keepalive_frame(struct keepalive *k, uint64_t now_ns);
/* reading: there is no connection, or the receiver reads it. */
void keepalive_reading(struct keepalive *k, bool reading, uint64_t now_ns);

/* When the guest will count as silent unless a frame comes; 0: never, or it does already. */
uint64_t keepalive_due(const struct keepalive *k);
/* Why the guest is silent, as events say it (static), and after how long that is so. */
const char *keepalive_reason(const struct keepalive *k, unsigned *ret_window_ms);

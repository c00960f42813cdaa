/* SPDX-License-Identifier: MIT */
/*
 * When a guest counts as silent (host-receiver.md section 4): it did not connect in time, or no
 * frame came for a while. It decides from the times that its caller gives, reports nothing and sets
 * no timer. Loop thread only.
 *
 * While the receiver does not read the guest, the silence is not the guest's fault. So this time
 * does not count.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Times are of CLOCK_MONOTONIC; 0: it has not happened yet. */
struct keepalive {
	unsigned frame_within_ms;   /* 0: never silent once it connected */
	unsigned connect_within_ms; /* 0: never silent before it connected */
	uint64_t added_ns, last_frame_ns;
	/*
	 * A silence begins here or at last_frame_ns, whichever is later. A connect sets it; a pause
	 * in reading adds its length.
	 */
	uint64_t watched_since_ns;
	uint64_t unread_since_ns; /* 0: it is read, or there is nothing to read */
	bool connected_ever, silent, said_bye;
};

void keepalive_init(struct keepalive *k, unsigned frame_within_ms, unsigned connect_within_ms,
		    uint64_t now_ns);
/* A connection became the active one. */
void keepalive_connected(struct keepalive *k, uint64_t now_ns);
/* A frame arrived. Returns how long the guest was silent, in ns; 0: it did not count as silent. */
uint64_t keepalive_frame(struct keepalive *k, uint64_t now_ns);
/* reading: there is no connection, or the receiver reads it. */
void keepalive_reading(struct keepalive *k, bool reading, uint64_t now_ns);

/*
 * The time from which the guest counts as silent unless a frame arrives; 0: never, or it is silent
 * already.
 */
uint64_t keepalive_due(const struct keepalive *k);
/*
 * The reason of the silence in the words of the events (static), and the time allowed without a
 * frame.
 */
const char *keepalive_reason(const struct keepalive *k, unsigned *ret_window_ms);

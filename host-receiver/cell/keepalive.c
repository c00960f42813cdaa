/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/keepalive.h"

#include "common/util.h"

void keepalive_init(struct keepalive *k, unsigned frame_within_ms, unsigned connect_within_ms,
		    uint64_t now_ns)
{
	*k = (struct keepalive){
		.frame_within_ms = frame_within_ms,
		.connect_within_ms = connect_within_ms,
		.added_ns = now_ns,
	};
}

void keepalive_connected(struct keepalive *k, uint64_t now_ns)
{
	k->connected_ever = true;
	k->watched_since_ns = now_ns;
	k->unread_since_ns = 0;
}

/* Never 0. */
static uint64_t last_sign_ns(const struct keepalive *k)
{
	if (k->last_frame_ns != 0)
		return k->last_frame_ns;
	return k->watched_since_ns != 0 ? k->watched_since_ns : k->added_ns;
}

uint64_t keepalive_frame(struct keepalive *k, uint64_t now_ns)
{
	const uint64_t silence_ns = k->silent ? MAX(now_ns - last_sign_ns(k), UINT64_C(1)) : 0;

	k->silent = k->said_bye = false;
	k->last_frame_ns = now_ns;
	if (k->watched_since_ns == 0)
		k->watched_since_ns = now_ns;
	return silence_ns;
}

void keepalive_reading(struct keepalive *k, bool reading, uint64_t now_ns)
{
	if (reading) {
		if (k->unread_since_ns != 0 && k->watched_since_ns != 0)
			k->watched_since_ns = MAX(k->watched_since_ns, k->last_frame_ns) +
					      (now_ns - k->unread_since_ns);
		k->unread_since_ns = 0;
	} else if (k->unread_since_ns == 0) {
		k->unread_since_ns = now_ns;
	}
}

uint64_t keepalive_due(const struct keepalive *k)
{
	if (k->silent || k->unread_since_ns != 0)
		return 0;
	if (!k->connected_ever)
		return k->connect_within_ms ? k->added_ns + k->connect_within_ms * NSEC_PER_MSEC
					    : 0;
	if (k->watched_since_ns == 0 || k->frame_within_ms == 0)
		return 0;
	return MAX(k->watched_since_ns, k->last_frame_ns) + k->frame_within_ms * NSEC_PER_MSEC;
}

const char *keepalive_reason(const struct keepalive *k, unsigned *ret_window_ms)
{
	*ret_window_ms = k->connected_ever ? k->frame_within_ms : k->connect_within_ms;
	if (!k->connected_ever)
		return "never_connected";
	return k->said_bye ? "after_bye" : "no_frames";
}

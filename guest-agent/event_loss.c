/* SPDX-License-Identifier: MIT */
/*
 * Losses: see event_loss.h.
 */
#include "guest-agent/event_loss.h"

#include "common/util.h"

enum probe_family event_loss_family(enum wire_source source)
{
	static const enum probe_family families[] = {
		[WIRE_PROCESS_SPAWNED] = PROBE_PROCESS,
		[WIRE_PROCESS_EXECUTED] = PROBE_PROCESS,
		[WIRE_PROCESS_IDENTITY_CHANGED] = PROBE_PROCESS,
		[WIRE_PROCESS_SESSION_STARTED] = PROBE_PROCESS,
		[WIRE_PROCESS_TRACED] = PROBE_PROCESS,
		[WIRE_PROCESS_CORE_DUMPED] = PROBE_PROCESS,
		[WIRE_PROCESS_EXITED] = PROBE_PROCESS,
		[WIRE_NET_CONNECT_ATTEMPTED] = PROBE_NET,
		[WIRE_NET_DATAGRAM_SENT] = PROBE_NET,
		[WIRE_NET_BOUND] = PROBE_NET,
		[WIRE_NET_SOCKET_CREATED] = PROBE_NET,
		[WIRE_CAPABILITY_DENIED] = PROBE_CAPABILITY,
		[WIRE_FS_CHANGED] = PROBE_FS,
		[WIRE_FS_INOTIFY_FIRED] = PROBE_FS,
	};
	_Static_assert(ARRAY_SIZE(families) == WIRE_TELEMETRY_DROPPED,
		       "a family for each observation");

	return families[source];
}

void event_loss_widen(struct event_loss *loss, const struct event_loss *by)
{
	if (by->first_seq > 0) {
		loss->first_seq =
			loss->first_seq ? MIN(loss->first_seq, by->first_seq) : by->first_seq;
		loss->last_seq = MAX(loss->last_seq, by->last_seq);
	}
	loss->first_ns = loss->first_ns ? MIN(loss->first_ns, by->first_ns) : by->first_ns;
	loss->last_ns = MAX(loss->last_ns, by->last_ns);
}

void event_loss_add(struct event_loss *loss, const struct event_loss *more)
{
	for (size_t i = 0; i < _DROP_REASON_MAX; i++)
		loss->count[i] += more->count[i];
	for (size_t i = 0; i < _PROBE_FAMILY_MAX; i++)
		loss->family[i] += more->family[i];
	event_loss_widen(loss, more);
}

void event_loss_fill(struct declaration *d, const struct event_loss *loss)
{
	static const enum wire_key count_keys[] = {
		[DROP_QUEUE_FULL] = WIRE_KEY_QUEUE_FULL,
		[DROP_TOO_LARGE] = WIRE_KEY_TOO_LARGE,
		[DROP_CHANNEL] = WIRE_KEY_CHANNEL,
		[DROP_KERNEL_OVERRUN] = WIRE_KEY_KERNEL_OVERRUN,
	};
	static const enum wire_key family_keys[] = {
		[PROBE_PROCESS] = WIRE_KEY_PROCESS_LOST,
		[PROBE_NET] = WIRE_KEY_NET_LOST,
		[PROBE_CAPABILITY] = WIRE_KEY_CAPABILITY_LOST,
		[PROBE_FS] = WIRE_KEY_FS_LOST,
	};

	for (size_t i = 0; i < _DROP_REASON_MAX; i++)
		declaration_add_uint(d, count_keys[i], loss->count[i]);
	for (size_t i = 0; i < _PROBE_FAMILY_MAX; i++)
		declaration_add_uint(d, family_keys[i], loss->family[i]);
	if (loss->first_seq > 0) {
		declaration_add_uint(d, WIRE_KEY_FIRST_SEQ, loss->first_seq);
		declaration_add_uint(d, WIRE_KEY_LAST_SEQ, loss->last_seq);
	}
	declaration_add_uint(d, WIRE_KEY_FIRST_NS, loss->first_ns);
	declaration_add_uint(d, WIRE_KEY_LAST_NS, loss->last_ns);
}

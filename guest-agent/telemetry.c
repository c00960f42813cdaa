/* SPDX-License-Identifier: MIT */
#include "guest-agent/telemetry.h"

#include "common/util.h"
#include "guest-agent/probes/proc_file.h"

/* The comm of telemetry frames: the program's name as the kernel cuts it. */
#define AGENT_COMM "cellos-telemetr"

void telemetry_init(struct telemetry *t, const struct options *options)
{
	int n;

	*t = (struct telemetry){.options = options};
	uname(&t->uts);
	n = proc_read_file("/proc/sys/kernel/random/boot_id", t->boot_id, BOOT_ID_SIZE);
	t->boot_id[MAX(n, 0)] = '\0';
}

static void begin(const struct telemetry *t, enum wire_source source, struct declaration *d)
{
	d->content_version = (uint16_t)t->options->content_version;
	d->source = source;
	d->guest_pid = (uint32_t)t->options->probes.self;
	d->guest_comm = wire_text(AGENT_COMM);
	d->guest_monotonic_ns = monotonic_ns();
	d->seq = 0;
	d->n_details = 0;
}

/* A text that stays where it is until the declaration is in the queue. */
static void add_name(struct declaration *d, enum wire_key key, const char *name)
{
	declaration_add_text(d, key, wire_text(name));
}

static void add_totals(const struct event_queue_totals *t, struct declaration *d)
{
	declaration_add_uint(d, WIRE_KEY_OBSERVED, t->observed);
	declaration_add_uint(d, WIRE_KEY_SENT, t->sent);
	declaration_add_uint(d, WIRE_KEY_DROPPED,
			     t->dropped[DROP_QUEUE_FULL] + t->dropped[DROP_TOO_LARGE] +
				     t->dropped[DROP_CHANNEL]);
}

void telemetry_hello(const struct telemetry *t, const struct delivery_greeting *greeting,
		     const char *const via[_PROBE_FAMILY_MAX], struct declaration *d)
{
	static const enum wire_key via_keys[] = {
		[PROBE_PROCESS] = WIRE_KEY_PROCESS_VIA,
		[PROBE_NET] = WIRE_KEY_NET_VIA,
		[PROBE_CAPABILITY] = WIRE_KEY_CAPABILITY_VIA,
		[PROBE_FS] = WIRE_KEY_FS_VIA,
	};

	begin(t, WIRE_TELEMETRY_HELLO, d);
	add_name(d, WIRE_KEY_AGENT_VERSION, CELLOS_VERSION);
	add_name(d, WIRE_KEY_SESSION, greeting->session);
	add_name(d, WIRE_KEY_KERNEL, t->uts.release);
	add_name(d, WIRE_KEY_ARCH, t->uts.machine);
	if (t->boot_id[0])
		add_name(d, WIRE_KEY_BOOT_ID, t->boot_id);
	for (int f = 0; f < _PROBE_FAMILY_MAX; f++)
		add_name(d, via_keys[f], via[f]);
	declaration_add_uint(d, WIRE_KEY_HEARTBEAT_MS, t->options->heartbeat_ms);
	declaration_add_uint(d, WIRE_KEY_QUEUE_CAPACITY, t->options->queue);
	declaration_add_bool(d, WIRE_KEY_ACKS, greeting->acks);
	declaration_add_uint(d, WIRE_KEY_ASSIGNED, greeting->assigned);
}

void telemetry_heartbeat(const struct telemetry *t, const struct event_queue_totals *totals,
			 uint64_t queue_peak, bool process_ok, struct declaration *d)
{
	begin(t, WIRE_TELEMETRY_HEARTBEAT, d);
	add_totals(totals, d);
	declaration_add_uint(d, WIRE_KEY_KERNEL_LOST, totals->dropped[DROP_KERNEL_OVERRUN]);
	declaration_add_uint(d, WIRE_KEY_QUEUE_PEAK, queue_peak);
	declaration_add_bool(d, WIRE_KEY_PROCESS_OK, process_ok);
}

void telemetry_bye(const struct telemetry *t, const struct event_queue_totals *totals,
		   const char *reason, struct declaration *d)
{
	begin(t, WIRE_TELEMETRY_BYE, d);
	add_name(d, WIRE_KEY_REASON, reason);
	add_totals(totals, d);
}

void telemetry_receipt(const struct telemetry *t, struct declaration *d)
{
	begin(t, WIRE_TELEMETRY_DROPPED, d);
}

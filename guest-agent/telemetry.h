/* SPDX-License-Identifier: MIT */
/*
 * The frames about the agent itself: hello, heartbeat, loss receipt, bye. They are filled here from
 * values of other files; nothing is decided or sent. Single-threaded.
 */
#pragma once

#include <sys/utsname.h>

#include "guest-agent/delivery.h"
#include "guest-agent/options.h"

#define BOOT_ID_SIZE 36u

/* The values that do not change while the agent runs. */
struct telemetry {
	const struct options *options; /* borrowed */
	struct utsname uts;
	char boot_id[BOOT_ID_SIZE + 1]; /* empty: unknown */
};

void telemetry_init(struct telemetry *t, const struct options *options);

/* via: a name for each family. Everything is borrowed until d is encoded. */
void telemetry_hello(const struct telemetry *t, const struct delivery_greeting *greeting,
		     const char *const via[_PROBE_FAMILY_MAX], struct declaration *d);

/* The queue adds next_seq to these when it takes them. */
void telemetry_heartbeat(const struct telemetry *t, const struct event_queue_totals *totals,
			 uint64_t queue_peak, bool process_ok, struct declaration *d);
void telemetry_bye(const struct telemetry *t, const struct event_queue_totals *totals,
		   const char *reason, struct declaration *d);

/* The queue fills in the lost numbers. */
void telemetry_receipt(const struct telemetry *t, struct declaration *d);

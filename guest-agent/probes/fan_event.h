/* SPDX-License-Identifier: MIT */
/*
 * Events of a fanotify group with FAN_REPORT_FID and FAN_REPORT_DFID_NAME: one event of the bytes
 * that read(2) gave. Pure; accepts any bytes. fanotify(7), linux/fanotify.h.
 */
#pragma once

#include <sys/types.h>

#include "guest-agent/probes/fan_marks.h"

#define FAN_NAME_MAX 255u

struct fan_event {
	uint64_t mask; /* FAN_* */
	pid_t pid;
	struct fan_object dir;	  /* len 0: none */
	struct fan_object object; /* len 0: none, or its handle is too long for us */
	const char *name;	  /* in dir; borrowed from the bytes */
	size_t name_len;
};

/*
 * The next event. Returns its length, 0 at the end, -EBADMSG when the bytes make no sense. Never
 * more than left.
 */
ssize_t fan_event_next(const uint8_t *data, size_t left, struct fan_event *ret);

/* The names of wire.md section 4 in its order, joined by commas. Returns the length. */
size_t fan_event_names(uint64_t mask, char *out, size_t size);

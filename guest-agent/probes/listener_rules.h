/* SPDX-License-Identifier: MIT */
/*
 * The rules that a launcher sends with its notification descriptor (common/handover.h), and what a
 * watched call would need. Pure; accepts any bytes.
 */
#pragma once

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/handover.h"

/* Whether len bytes at data are a message that can be relied on. data is 4-aligned. 0 or -EPROTO.
 */
int listener_message_check(const void *data, size_t len);

/* The first rule that matches the call, or NULL. The arch must have been compared before. */
const struct listener_rule *listener_match(const struct listener_rule *rules, size_t n,
					   const struct seccomp_data *call);

/* Capability sets of a process, as /proc/PID/status tells them. */
struct capability_sets {
	uint64_t effective;
	uint64_t permitted;
	uint64_t inheritable;
};

/* What a watched call lacks. */
struct watch_verdict {
	bool denied;
	int error;	/* EPERM or EACCES */
	int capability; /* CAP_*, or -1: no capability would have helped */
};

/*
 * Whether the kernel will refuse the watched call for want of a capability. argument: len bytes
 * that the call's pointer shows to (bind: the address; capset: the header and, after
 * WATCH_CAPSET_HEADER bytes, the data), 0 if they could not be read: then bind and capset are not
 * judged. unprivileged_port: the lowest port that needs no capability.
 */
#define WATCH_CAPSET_HEADER 8u
#define WATCH_CAPSET_DATA   24u
#define WATCH_ARGUMENT_MAX  128u
struct watch_verdict watch_judge(const struct seccomp_data *call,
				 const struct capability_sets *sets, const void *argument,
				 size_t len, unsigned unprivileged_port);

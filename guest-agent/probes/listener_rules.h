/* SPDX-License-Identifier: MIT */
/*
 * The rules that a launcher sends with its notification descriptor (common/handover.h), and the
 * capability that a watched call needs. Pure; accepts any bytes.
 */
#pragma once

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/handover.h"

/* Whether len bytes at data are a valid message. data is 4-aligned. 0 or -EPROTO. */
int listener_message_check(const void *data, size_t len);

/* The first rule that matches the call, or NULL. The arch must have been compared before. */
const struct listener_rule *listener_match(const struct listener_rule *rules, size_t n,
					   const struct seccomp_data *call);

/* The privilege that a watched call lacks. */
struct watch_verdict {
	bool denied;
	int error;	/* EPERM */
	int capability; /* CAP_*, or -1: no capability would have helped */
};

/*
 * Whether the kernel will refuse the watched call, because its caller lacks a capability. Judged by
 * the registers alone: no watched call has arguments in memory that matter.
 */
struct watch_verdict watch_judge(const struct seccomp_data *call, uint64_t effective);

/*
 * The fields of net.socket_created for a packet, a netlink or a raw inet socket. Returns false for
 * all other sockets. *ret_family is static.
 */
#define SOCKET_TEXT_MAX 24u
bool socket_describe(const struct seccomp_data *call, const char **ret_family,
		     char ret_type[SOCKET_TEXT_MAX], char ret_protocol[SOCKET_TEXT_MAX]);

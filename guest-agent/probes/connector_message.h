/* SPDX-License-Identifier: MIT */
/*
 * Decodes messages of the kernel's process connector: one netlink message, one event. Pure; accepts
 * any bytes. Source: linux/cn_proc.h, linux/connector.h, drivers/connector/cn_proc.c.
 */
#pragma once

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum connector_kind {
	CONNECTOR_ACK, /* the answer to LISTEN or IGNORE: ack_error */
	CONNECTOR_FORK,
	CONNECTOR_EXEC,
	CONNECTOR_COMM,
	CONNECTOR_EXIT,
	CONNECTOR_UID,	 /* real, effective */
	CONNECTOR_GID,	 /* likewise */
	CONNECTOR_SID,	 /* setsid(2) */
	CONNECTOR_TRACE, /* tracer: 0 when it detached */
	CONNECTOR_CORE,
	CONNECTOR_OTHER, /* of a later kernel: counted, not used */
};

struct connector_event {
	enum connector_kind kind;
	uint32_t cpu;
	uint32_t seq;	/* of that cpu: each event has the next one */
	uint32_t ack;	/* with CONNECTOR_ACK: what LISTEN sent, plus 1 */
	uint64_t at_ns; /* CLOCK_MONOTONIC */
	pid_t tid;
	pid_t tgid;
	pid_t parent_tgid;    /* fork, exit */
	uint32_t exit_status; /* as wait(2) gives it */
	uint32_t real, effective;
	pid_t tracer; /* its thread group */
	uint32_t ack_error;
	char comm[16]; /* not terminated if full */
};

/* 0, or -EBADMSG when it is not a well-formed message of the process connector. */
int connector_parse(const struct nlmsghdr *h, struct connector_event *ret);

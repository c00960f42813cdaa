/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's process connector says: one netlink message -> one event. Pure; accepts any
 * bytes. Source: linux/cn_proc.h, linux/connector.h, drivers/connector/cn_proc.c.
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
	CONNECTOR_OTHER, /* uid, gid, session, ptrace, core dump: counted, not used */
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
	uint32_t ack_error;
	char comm[16]; /* not terminated if full */
};

/* 0, or -EBADMSG when it is not a well-formed message of the process connector. */
int connector_parse(const struct nlmsghdr *h, struct connector_event *ret);

/* SPDX-License-Identifier: MIT */
/*
 * One record of the kernel's audit: its text -> the fields that the sources need. Pure; accepts any
 * bytes. Source: kernel/auditsc.c, kernel/audit.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/wire.h"

#define AUDIT_COMM_MAX	   16u
#define AUDIT_EXE_MAX	   256u	 /* longer ones are cut */
#define AUDIT_SOCKADDR_MAX 128u	 /* struct sockaddr_storage */
#define AUDIT_RECORD_MAX   8970u /* MAX_AUDIT_MESSAGE_LENGTH of libaudit, and of the kernel */

enum audit_kind {
	AUDIT_KIND_SYSCALL,
	AUDIT_KIND_URING, /* an operation of io_uring: has no arch, no comm, no exe, and no address
			   * of its own: that comes with the call that submitted it */
	AUDIT_KIND_SOCKADDR,
	AUDIT_KIND_END,
};

struct audit_record {
	enum audit_kind kind;
	uint64_t serial;

	/* SYSCALL and URING. */
	bool uring_connect; /* an operation was a connect */
	uint32_t arch;
	int32_t nr; /* URING: the operation */
	int64_t exit;
	uint64_t a0;
	pid_t pid; /* of the process, not of the thread */
	pid_t ppid;
	size_t comm_len, exe_len;
	char comm[AUDIT_COMM_MAX]; /* raw bytes */
	char exe[AUDIT_EXE_MAX];

	/* SOCKADDR. */
	size_t sockaddr_len;
	uint8_t sockaddr[AUDIT_SOCKADDR_MAX];
};

/*
 * Parse a record of the netlink message type, without the netlink header, into *ret. 0, -ENOMSG for
 * a type that is not needed, or -EBADMSG.
 */
int audit_record_parse(uint16_t type, const char *text, size_t len, struct audit_record *ret);

/* SPDX-License-Identifier: MIT */
/*
 * The records of one audited call, joined by their serial number. A bounded table: if it is full,
 * the oldest call is returned incomplete. Pure except for its own state; no allocation.
 */
#pragma once

#include "guest-agent/probes/audit_record.h"

#define AUDIT_JOIN_MAX 64u /* calls whose records are still arriving */

struct audit_call {
	uint64_t order;		  /* of arrival; 0: free */
	bool has_call;		  /* the SYSCALL or URING record is in call */
	struct audit_record call; /* and, with sockaddr_len, the address */
};

struct audit_join {
	uint64_t order;
	uint64_t evicted; /* given up before their end record */
	struct audit_call calls[AUDIT_JOIN_MAX];
};

/*
 * Add a record. Returns a call that is complete now, or one that had to make room; NULL: none. Only
 * calls with a SYSCALL or URING record are returned. Borrowed until the next audit_join_add().
 */
const struct audit_record *audit_join_add(struct audit_join *join,
					  const struct audit_record *record);

/* SPDX-License-Identifier: MIT */
/*
 * The rules with which the kernel's audit reports connects and refused privilege. Builders, pure.
 * Source: linux/audit.h, auditctl(8).
 */
#pragma once

#include <linux/audit.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Marks our rules among those of others. */
#define AUDIT_RULE_KEY "cellos-telemetry"

#define AUDIT_RULE_SIZE (sizeof(struct audit_rule_data) + sizeof(AUDIT_RULE_KEY) - 1)

/* The key is stored after the struct, as data.buf. */
union audit_rule {
	struct audit_rule_data data;
	unsigned char bytes[AUDIT_RULE_SIZE];
};

enum audit_rule_id {
	AUDIT_RULE_CONNECT,
	AUDIT_RULE_CONNECT_COMPAT,    /* connect of 32-bit programs */
	AUDIT_RULE_SOCKETCALL_COMPAT, /* and their older way; x86 only */
	AUDIT_RULE_CONNECT_URING,     /* since 5.16 */
	AUDIT_RULE_EPERM,
	AUDIT_RULE_EACCES,
	_AUDIT_RULE_MAX,
};

/* Whether a kernel that does not know the rule is still good enough. */
bool audit_rule_optional(enum audit_rule_id id);

/* Whether the rule serves connects; the others serve refused privilege. */
bool audit_rule_is_connect(enum audit_rule_id id);

/* self is left out by the rule itself. 0, or -EOPNOTSUPP on machines that have no such call. */
int audit_rule_build(enum audit_rule_id id, pid_t self, union audit_rule *ret);

/* Whether a rule as the kernel lists it carries our key. len bytes at data. */
bool audit_rule_is_ours(const void *data, size_t len);

/* SPDX-License-Identifier: MIT */
/*
 * The hand-over of a seccomp notification descriptor from the launcher (cellos-workload-exec) to
 * the guest agent: constants and the two messages, nothing else. Both run on one machine, so the
 * messages are plain structs in the machine's byte order.
 *
 * The socket is AF_UNIX SOCK_SEQPACKET, mode 0600; the agent listens. In order:
 *
 *   1. The launcher connects while it is still in the agent's pid namespace, and before it installs
 *      its filter. Each side checks the other's credentials: the launcher is root, the agent is
 *      root or the agent's own user; both are in one pid namespace; neither is a workload that runs
 *      under the profile (such a process lacks CAP_SYS_PTRACE).
 *   2. The agent sends one struct listener_reply. status 0: there is a free place, which is kept
 *      for LISTENER_PENDING_MS. -EMFILE: all places are taken for the moment; the launcher tries
 *      again. Anything else, or no answer in time: the workload is not run.
 *   3. The launcher, or a child of it that inherited the connection, installs the filter with
 *      SECCOMP_FILTER_FLAG_NEW_LISTENER and sends one struct listener_message with the descriptor
 *      as SCM_RIGHTS (exactly one). The filter must let it send, receive and close.
 *   4. The agent sends another struct listener_reply. status 0: it serves the descriptor from now
 *      on. Otherwise nobody would answer the filter's questions: the workload is not run.
 *   5. The launcher closes the connection and its own copy of the descriptor.
 *
 * A notification names the system call and its arguments, but not the rule of the filter that asked
 * for it. So the launcher sends the rules, and the agent takes the FIRST that matches; its answer
 * depends on the registers alone, never on memory. A call that no rule matches is refused with
 * EPERM: then filter and table disagree, and the safe answer is no. A call of a foreign ABI is
 * refused with ENOSYS.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LISTENER_FOLDER	     "/run/cellos-telemetry"
#define LISTENER_SOCKET_PATH LISTENER_FOLDER "/listener.sock"
#define LISTENER_MAGIC	     UINT32_C(0x4c504c43) /* "CLPL" */
#define LISTENER_VERSION     2u

/*
 * The source of the profile's own mounts in /proc/PID/mountinfo. A new agent finds workloads by it
 * that were started under a previous one (seccomp-notify-stale).
 */
#define PROFILE_MOUNT_SOURCE "cellos-workload-profile"

#define AGENT_UID_DEFAULT 64042u /* user and group of the agent, unless it says otherwise */

#define LISTENER_MAX		64u   /* descriptors served at a time */
#define LISTENER_PENDING_MAX	8u    /* launchers between connect(2) and their message */
#define LISTENER_PENDING_MS	5000u /* from connect(2) to the message */
#define LISTENER_TABLES_MAX	16u   /* different tables of rules at a time */
#define LISTENER_RULES_MAX	256u  /* of one message; at least 1 */
#define LISTENER_CONDITIONS_MAX 4u    /* of one rule; 0: every call of that number matches */
#define LISTENER_ERRNO_MAX	4095u

enum listener_action {
	LISTENER_REFUSE = 1, /* the call fails with error, whatever else is true */
	LISTENER_WATCH = 2,  /* the call goes on, always; error is 0 */
};

/* True when ((uint32_t)args[arg] & mask) == value. The high halves are never looked at. */
struct listener_condition {
	uint32_t arg; /* 0..5 */
	uint32_t mask;
	uint32_t value;
};

struct listener_rule {
	uint32_t nr; /* of the arch in the message */
	uint32_t action;
	uint32_t error; /* 1..LISTENER_ERRNO_MAX with LISTENER_REFUSE */
	uint32_t n_conditions;
	struct listener_condition conditions[LISTENER_CONDITIONS_MAX]; /* all must hold */
};

/* Sent without the unused tail of rules: LISTENER_MESSAGE_SIZE(n_rules) bytes. */
struct listener_message {
	uint32_t magic;
	uint32_t version;
	uint32_t arch; /* AUDIT_ARCH_* that the filter lets through */
	uint32_t n_rules;
	struct listener_rule rules[LISTENER_RULES_MAX];
};

#define LISTENER_MESSAGE_SIZE(n_rules)                                                             \
	(offsetof(struct listener_message, rules) + (n_rules) * sizeof(struct listener_rule))

struct listener_reply {
	uint32_t magic;
	uint32_t version;
	uint32_t agent_uid; /* the profile refuses the workload this user */
	int32_t status; /* 0 or a negative errno: -EMFILE no free place, -ENOSPC too many different
			 * tables, -EACCES not allowed, -EPROTO malformed message, -EBADF not a
			 * notification descriptor */
};

_Static_assert(sizeof(struct listener_condition) == 12, "no padding");
_Static_assert(sizeof(struct listener_rule) == 64, "no padding");
_Static_assert(sizeof(struct listener_reply) == 16, "no padding");

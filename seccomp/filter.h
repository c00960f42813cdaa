/* SPDX-License-Identifier: MIT */
/*
 * A compiled policy, as the policy compiler writes it into a header. At run time the launcher
 * inserts the agent's pid and user, removes the rules of open holes, and makes refusals ask the
 * agent. Allocates nothing; only filter_print() does I/O. Safe on any thread.
 */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "common/handover.h"

#define FILTER_CONDITIONS_MAX LISTENER_CONDITIONS_MAX
#define FILTER_PROGRAM_MAX    4096u /* BPF_MAXINSNS */
#define FILTER_FOREIGN_MAX    2u
#define FILTER_NO_HOLE	      0xffu

enum filter_action {
	FILTER_REFUSE,
	FILTER_WATCH,
	FILTER_KILL,
	FILTER_ALLOW,
};

/* A value that is not known before run time. */
enum filter_patch {
	FILTER_PATCH_NONE,
	FILTER_PATCH_PID,	/* the agent's pid */
	FILTER_PATCH_MINUS_PID, /* the same negated: its process group */
	FILTER_PATCH_UID,	/* the agent's user */
};

/* As struct listener_condition. */
struct filter_condition {
	uint32_t mask;
	uint32_t value;
	uint16_t at; /* the instruction that compares */
	uint8_t arg;
	uint8_t patch; /* enum filter_patch: what replaces the value */
};

struct filter_rule {
	const char *syscall;
	const char *reason;
	uint16_t nr;
	uint16_t ret; /* the instruction that ends the program when the rule matches */
	uint16_t error;
	uint8_t action; /* enum filter_action */
	uint8_t quiet;	/* refused without asking the agent */
	uint8_t hole;	/* index, or FILTER_NO_HOLE */
	uint8_t n_conditions;
	struct filter_condition conditions[FILTER_CONDITIONS_MAX];
};

struct filter_hole {
	const char *name;
	const char *opens;
};

struct filter_table {
	uint32_t arch; /* AUDIT_ARCH_* */
	uint16_t n_program;
	uint16_t n_rules;
	uint16_t n_holes;
	/* The instructions that end a call of a foreign ABI. 0: none. */
	uint16_t foreign[FILTER_FOREIGN_MAX];
	const struct sock_filter *program;
	const struct filter_rule *rules;
	const struct filter_hole *holes;
};

struct filter_options {
	pid_t protect_pid; /* 0: unknown; only PIDs 1 and 2 are protected */
	uid_t agent_uid;   /* 0: AGENT_UID_DEFAULT */
	uint32_t holes;	   /* bit i: hole i of the table is open */
	bool notify;	   /* refused, watched and foreign calls ask the listener */
};

/*
 * Make the program to install. out has room for t->n_program instructions; returns their number. A
 * rule of an open hole becomes a jump to the next instruction, so that later rules for the same
 * call still apply.
 */
size_t filter_build(const struct filter_table *t, const struct filter_options *o,
		    struct sock_filter *out);

/* Write the message for the agent: the rules that notify, in the order of evaluation. */
int filter_listener_message(const struct filter_table *t, const struct filter_options *o,
			    struct listener_message *ret);

/* The index of the hole of that name, or -ENOENT. */
int filter_find_hole(const struct filter_table *t, const char *name);

/* Print one instruction a line, with a rule's reason where the rule ends. */
void filter_print(const struct filter_table *t, const struct sock_filter *program, size_t n,
		  FILE *out);

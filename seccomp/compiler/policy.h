/* SPDX-License-Identifier: MIT */
/*
 * Parses and checks a policy file. The result has one rule for each system call and combination of
 * values. For the policy compiler and the tests; no part of the programs in a guest.
 * Syntax: workload.policy. Not thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "seccomp/filter.h"

#define POLICY_NAME_MAX	  48u
#define POLICY_TEXT_MAX	  240u
#define POLICY_RULES_MAX  512u
#define POLICY_GROUPS_MAX 16u
#define POLICY_HOLES_MAX  16u
#define POLICY_VALUES_MAX 16u
/* A shorter reason explains nothing. */
#define POLICY_REASON_MIN 8u

enum policy_arch { POLICY_X86_64, POLICY_AARCH64, _POLICY_ARCH_MAX };

enum policy_mode { POLICY_ALWAYS, POLICY_SHARE_PIDNS };

struct policy_group {
	char name[POLICY_NAME_MAX];
	char text[POLICY_TEXT_MAX];
	enum policy_mode mode;
};

struct policy_hole {
	char name[POLICY_NAME_MAX];
	char text[POLICY_TEXT_MAX];
	unsigned line;
	bool used;
};

struct policy_condition {
	uint8_t arg;
	enum filter_patch patch; /* the run-time value that replaces `value` */
	uint32_t mask;
	uint32_t value;
};

struct policy_rule {
	unsigned line;
	char syscall[POLICY_NAME_MAX];
	int nr[_POLICY_ARCH_MAX]; /* -1: this arch has no such call */
	enum filter_action action;
	bool quiet;
	uint16_t error;
	int group; /* -1: none */
	int hole;  /* -1: none */
	unsigned n_conditions;
	struct policy_condition conditions[FILTER_CONDITIONS_MAX];
	char reason[POLICY_TEXT_MAX];
};

struct policy {
	const char *name; /* borrowed from policy_parse() */
	bool has_default, has_foreign;
	enum filter_action fallback;
	uint16_t fallback_error; /* with FILTER_REFUSE */
	unsigned n_groups, n_holes, n_rules;
	struct policy_group groups[POLICY_GROUPS_MAX];
	struct policy_hole holes[POLICY_HOLES_MAX];
	struct policy_rule rules[POLICY_RULES_MAX];
};

/*
 * Returns the number of findings; each is written to out as a line "name:line: error, and how to
 * mend it". 0: the policy is good. Includes the linter: unknown names, missing reasons, duplicates,
 * rules that can never match, holes that no rule uses.
 */
unsigned policy_parse(struct policy *p, const char *name, FILE *in, FILE *out);

/* Names of the kernel's headers; 0 or -ENOENT. */
int policy_constant(const char *name, uint32_t *ret);
int policy_errno(const char *name, uint16_t *ret);
/* NULL for one that policies do not use. */
const char *policy_errno_name(uint16_t error);

/* "x86_64", "aarch64" */
const char *policy_arch_name(enum policy_arch arch);
uint32_t policy_arch_audit(enum policy_arch arch);

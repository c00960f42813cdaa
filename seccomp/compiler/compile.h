/* SPDX-License-Identifier: MIT */
/*
 * Compiles a policy into a BPF program for one architecture and one mode, and writes it in several
 * forms. Used by the policy compiler and the tests. The output depends only on the policy.
 */
#pragma once

#include "seccomp/compiler/policy.h"

struct compiled {
	struct sock_filter program[FILTER_PROGRAM_MAX];
	struct filter_rule rules[POLICY_RULES_MAX]; /* strings borrowed from the policy */
	struct filter_hole holes[POLICY_HOLES_MAX]; /* the same */
	struct filter_table table;		    /* points into this struct */
};

/* 0, or -E2BIG. */
int policy_compile(const struct policy *p, enum policy_arch arch, enum policy_mode mode,
		   struct compiled *ret);

/* A header that defines `prefix`, a const struct filter_table. */
void policy_emit_header(const struct compiled *c, const char *prefix, FILE *out);

/* The object linux.seccomp of an OCI runtime's config.json. */
void policy_emit_oci(const struct policy *p, enum policy_arch arch, enum policy_mode mode,
		     FILE *out);

/* A Markdown table for each group, for the documentation. */
void policy_emit_table(const struct policy *p, FILE *out);

/* SPDX-License-Identifier: MIT */
/*
 * The policy compiler, a tool of the build: policy-compiler WHAT ARCH MODE NAME POLICY OUTPUT
 *
 *   WHAT    header (both modes, if the policy has two), bpf, oci, table, lint
 *   ARCH    x86_64, aarch64
 *   MODE    default, share-pidns
 *   NAME    of the tables in the header
 *
 * Exits with 1 and the findings on stderr if the policy is not good.
 */
#include "common/util.h"
#include "seccomp/compiler/compile.h"

static struct policy policy;
static struct compiled compiled;

static bool has_modes(void)
{
	for (unsigned i = 0; i < policy.n_groups; i++)
		if (policy.groups[i].mode == POLICY_SHARE_PIDNS)
			return true;
	return false;
}

static int compile(enum policy_arch arch, enum policy_mode mode)
{
	int r = policy_compile(&policy, arch, mode, &compiled);

	if (r < 0)
		fprintf(stderr, "%s: the program is longer than %u instructions\n", policy.name,
			FILTER_PROGRAM_MAX);
	return r;
}

static int write_header(enum policy_arch arch, const char *name, FILE *out)
{
	char prefix[64];

	fprintf(out,
		"/* SPDX-License-Identifier: MIT */\n"
		"/* Made by policy-compiler from the %s policy for %s: change that. */\n"
		"#pragma once\n\n#include \"seccomp/filter.h\"\n\n",
		name, policy_arch_name(arch));
	if (compile(arch, POLICY_ALWAYS) < 0)
		return -E2BIG;
	snprintf(prefix, sizeof(prefix), "%s_filter", name);
	policy_emit_header(&compiled, prefix, out);
	if (!has_modes())
		return 0;
	if (compile(arch, POLICY_SHARE_PIDNS) < 0)
		return -E2BIG;
	snprintf(prefix, sizeof(prefix), "%s_shared_filter", name);
	fputc('\n', out);
	policy_emit_header(&compiled, prefix, out);
	return 0;
}

/* Write the program for seccomp(2), for launchers that have no agent and do not know its pid. */
static int write_bpf(enum policy_arch arch, enum policy_mode mode, FILE *out)
{
	static struct sock_filter program[FILTER_PROGRAM_MAX];
	const struct filter_options o = {0};

	if (compile(arch, mode) < 0)
		return -E2BIG;
	fwrite(program, sizeof(*program), filter_build(&compiled.table, &o, program), out);
	return 0;
}

static int write_output(char **argv, FILE *out)
{
	const char *what = argv[1];
	enum policy_mode mode = strcmp(argv[3], "share-pidns") ? POLICY_ALWAYS : POLICY_SHARE_PIDNS;
	enum policy_arch arch = POLICY_X86_64;

	while (arch < _POLICY_ARCH_MAX && strcmp(policy_arch_name(arch), argv[2]))
		arch++;
	if (arch == _POLICY_ARCH_MAX)
		return -EINVAL;
	if (!strcmp(what, "header"))
		return write_header(arch, argv[4], out);
	if (!strcmp(what, "bpf"))
		return write_bpf(arch, mode, out);
	if (!strcmp(what, "oci"))
		policy_emit_oci(&policy, arch, mode, out);
	else if (!strcmp(what, "table"))
		policy_emit_table(&policy, out);
	else if (strcmp(what, "lint"))
		return -EINVAL;
	return 0;
}

int main(int argc, char **argv)
{
	_cleanup_fclose_ FILE *in = NULL;
	FILE *out;
	int r;

	if (argc != 7) {
		fprintf(stderr, "usage: policy-compiler header|bpf|oci|table|lint ARCH MODE NAME "
				"POLICY OUTPUT\n");
		return 64;
	}
	in = fopen(argv[5], "re");
	if (!in) {
		fprintf(stderr, "%s: %s\n", argv[5], strerror(errno));
		return 1;
	}
	if (policy_parse(&policy, argv[5], in, stderr))
		return 1;
	out = fopen(argv[6], "we");
	if (!out) {
		fprintf(stderr, "%s: %s\n", argv[6], strerror(errno));
		return 1;
	}
	r = write_output(argv, out);
	if (fclose(out) != 0 && r == 0)
		r = -errno;
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", argv[6], strerror(-r));
		unlink(argv[6]);
	}
	return r < 0;
}

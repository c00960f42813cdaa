/* SPDX-License-Identifier: MIT */
/*
 * Writes a policy as a C header, as an OCI profile and as a table for people: see compile.h.
 */
#include <linux/audit.h>

#include "common/util.h"
#include "seccomp/compiler/compile.h"

/* A string in quotes, for C and JSON alike. Policies are ASCII. */
static void emit_string(const char *s, FILE *out)
{
	fputc('"', out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc(*s, out);
	}
	fputc('"', out);
}

void policy_emit_header(const struct compiled *c, const char *prefix, FILE *out)
{
	const struct filter_table *t = &c->table;

	fprintf(out, "static const struct sock_filter %s_program[] = {\n", prefix);
	for (unsigned i = 0; i < t->n_program; i++)
		fprintf(out, "\t{0x%02x, %u, %u, 0x%x},\n", t->program[i].code, t->program[i].jt,
			t->program[i].jf, t->program[i].k);
	fprintf(out, "};\n\nstatic const struct filter_rule %s_rules[] = {\n", prefix);
	for (unsigned i = 0; i < t->n_rules; i++) {
		const struct filter_rule *r = &t->rules[i];

		fputs("\t{", out);
		emit_string(r->syscall, out);
		fputs(", ", out);
		emit_string(r->reason, out);
		fprintf(out, ", %u, %u, %u, %u, %u, %u, %u, {", r->nr, r->ret, r->error, r->action,
			r->quiet, r->hole, r->n_conditions);
		for (unsigned k = 0; k < r->n_conditions; k++)
			fprintf(out, "{0x%xu, 0x%xu, %u, %u, %u}, ", r->conditions[k].mask,
				r->conditions[k].value, r->conditions[k].at, r->conditions[k].arg,
				r->conditions[k].patch);
		fputs(r->n_conditions == FILTER_CONDITIONS_MAX ? "}},\n" : "{0}}},\n", out);
	}
	fprintf(out, "};\n\n");
	if (t->n_holes) {
		fprintf(out, "static const struct filter_hole %s_holes[] = {\n", prefix);
		for (unsigned i = 0; i < t->n_holes; i++) {
			fputs("\t{", out);
			emit_string(t->holes[i].name, out);
			fputs(", ", out);
			emit_string(t->holes[i].opens, out);
			fputs("},\n", out);
		}
		fprintf(out, "};\n\n");
	}
	fprintf(out,
		"static const struct filter_table %s = {\n"
		"\t0x%xu, %u, %u, %u, {%u, %u}, %s_program, %s_rules, %s%s,\n};\n",
		prefix, t->arch, t->n_program, t->n_rules, t->n_holes, t->foreign[0], t->foreign[1],
		prefix, prefix, t->n_holes ? prefix : "NULL", t->n_holes ? "_holes" : "");
}

/*
 * Other launchers cannot insert the agent's pid, so rules with it are left out. The agent's user
 * has a default.
 */
static bool static_rule(const struct policy_rule *r)
{
	for (unsigned i = 0; i < r->n_conditions; i++)
		if (r->conditions[i].patch == FILTER_PATCH_PID ||
		    r->conditions[i].patch == FILTER_PATCH_MINUS_PID)
			return false;
	return true;
}

void policy_emit_oci(const struct policy *p, enum policy_arch arch, enum policy_mode mode,
		     FILE *out)
{
	static const char *const arches[] = {
		[POLICY_X86_64] = "SCMP_ARCH_X86_64", [POLICY_AARCH64] = "SCMP_ARCH_AARCH64"};
	bool first = true;

	fprintf(out,
		"{\n\t\"defaultAction\": \"SCMP_ACT_ALLOW\",\n\t\"architectures\": [\"%s\"],\n"
		"\t\"syscalls\": [",
		arches[arch]);
	for (unsigned i = 0; i < p->n_rules; i++) {
		const struct policy_rule *r = &p->rules[i];

		if (r->nr[arch] < 0 || r->action != FILTER_REFUSE || r->syscall[0] == '#' ||
		    !static_rule(r) ||
		    (r->group >= 0 && mode == POLICY_ALWAYS &&
		     p->groups[r->group].mode != POLICY_ALWAYS))
			continue;
		fprintf(out, "%s\n\t\t{\"names\": [\"%s\"], \"action\": \"SCMP_ACT_ERRNO\", ",
			first ? "" : ",", r->syscall);
		fprintf(out, "\"errnoRet\": %u", r->error);
		if (r->n_conditions)
			fputs(", \"args\": [", out);
		for (unsigned k = 0; k < r->n_conditions; k++)
			fprintf(out,
				"%s{\"index\": %u, \"value\": %u, \"valueTwo\": %u, "
				"\"op\": \"SCMP_CMP_MASKED_EQ\"}",
				k ? ", " : "", r->conditions[k].arg, r->conditions[k].mask,
				r->conditions[k].value);
		fprintf(out, "%s}", r->n_conditions ? "]" : "");
		first = false;
	}
	fprintf(out, "\n\t]\n}\n");
}

void policy_emit_table(const struct policy *p, FILE *out)
{
	for (unsigned g = 0; g < p->n_groups; g++) {
		unsigned line = 0;

		fprintf(out,
			"\n### %s%s\n\n%s.\n\n| call | answer | `--allow` | why |\n|---|---|---|---|\n",
			p->groups[g].name,
			p->groups[g].mode == POLICY_SHARE_PIDNS ? " (with `--share-pidns`)" : "",
			p->groups[g].text);
		for (unsigned i = 0; i < p->n_rules; i++) {
			const struct policy_rule *r = &p->rules[i];
			const char *last = "";

			if (r->group != (int)g || r->line == line)
				continue;
			line = r->line;
			fputs("| ", out);
			for (unsigned k = i; k < p->n_rules && p->rules[k].line == line; k++) {
				if (strcmp(p->rules[k].syscall, last))
					fprintf(out, "%s`%s`", *last ? ", " : "",
						p->rules[k].syscall);
				last = p->rules[k].syscall;
			}
			fprintf(out, "%s | ", r->n_conditions ? " (some arguments)" : "");
			if (r->action == FILTER_REFUSE)
				fprintf(out, "%s%s", policy_errno_name(r->error),
					r->quiet ? ", not reported" : "");
			else
				fputs(r->action == FILTER_WATCH ? "goes on" : "killed", out);
			fprintf(out, " | %s | %s |\n", r->hole < 0 ? "" : p->holes[r->hole].name,
				r->reason);
		}
	}
}

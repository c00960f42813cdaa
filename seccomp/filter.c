/* SPDX-License-Identifier: MIT */
#include "seccomp/filter.h"

#include <linux/seccomp.h>

#include "common/util.h"

_Static_assert(LISTENER_CONDITIONS_MAX == 4, "the generated tables have four places");

static bool rule_open(const struct filter_rule *r, const struct filter_options *o)
{
	return r->hole != FILTER_NO_HOLE && o->holes >> r->hole & 1;
}

/* Whether the rule asks the listener. A quiet refusal never does. */
static bool rule_notifies(const struct filter_rule *r, const struct filter_options *o)
{
	return o->notify && !rule_open(r, o) &&
	       (r->action == FILTER_WATCH || (r->action == FILTER_REFUSE && !r->quiet));
}

/* If there is no pid to protect, the value is PID 1, which another rule names anyway. */
static uint32_t condition_value(const struct filter_condition *c, const struct filter_options *o)
{
	const uint32_t pid = (uint32_t)(o->protect_pid > 0 ? o->protect_pid : 1);

	switch ((enum filter_patch)c->patch) {
	case FILTER_PATCH_PID: return pid;
	case FILTER_PATCH_MINUS_PID: return 0u - pid;
	case FILTER_PATCH_UID: return o->agent_uid ? o->agent_uid : AGENT_UID_DEFAULT;
	case FILTER_PATCH_NONE: break;
	}
	return c->value;
}

size_t filter_build(const struct filter_table *t, const struct filter_options *o,
		    struct sock_filter *out)
{
	static const struct sock_filter skip = BPF_STMT(BPF_JMP | BPF_JA, 0);

	memcpy(out, t->program, t->n_program * sizeof(*out));
	for (size_t i = 0; i < t->n_rules; i++) {
		const struct filter_rule *r = &t->rules[i];

		for (size_t k = 0; k < r->n_conditions; k++)
			out[r->conditions[k].at].k = condition_value(&r->conditions[k], o);
		if (rule_open(r, o) || (r->action == FILTER_WATCH && !o->notify))
			out[r->ret] = skip;
		else if (rule_notifies(r, o))
			out[r->ret].k = SECCOMP_RET_USER_NOTIF;
	}
	/* Without an agent to report it, a call of a foreign ABI kills the process. */
	for (size_t i = 0; i < FILTER_FOREIGN_MAX && o->notify; i++)
		if (t->foreign[i])
			out[t->foreign[i]].k = SECCOMP_RET_USER_NOTIF;
	return t->n_program;
}

int filter_listener_message(const struct filter_table *t, const struct filter_options *o,
			    struct listener_message *ret)
{
	ret->magic = LISTENER_MAGIC;
	ret->version = LISTENER_VERSION;
	ret->arch = t->arch;
	ret->n_rules = 0;
	for (size_t i = 0; i < t->n_rules; i++) {
		const struct filter_rule *r = &t->rules[i];
		struct listener_rule *l;

		if (!rule_notifies(r, o))
			continue;
		if (ret->n_rules == LISTENER_RULES_MAX)
			return -E2BIG;
		l = &ret->rules[ret->n_rules++];
		*l = (struct listener_rule){
			.nr = r->nr,
			.action = r->action == FILTER_WATCH ? LISTENER_WATCH : LISTENER_REFUSE,
			.error = r->action == FILTER_WATCH ? 0 : r->error,
			.n_conditions = r->n_conditions,
		};
		for (size_t k = 0; k < r->n_conditions; k++)
			l->conditions[k] = (struct listener_condition){
				.arg = r->conditions[k].arg,
				.mask = r->conditions[k].mask,
				.value = condition_value(&r->conditions[k], o),
			};
	}
	return 0;
}

int filter_find_hole(const struct filter_table *t, const char *name)
{
	for (int i = 0; i < t->n_holes; i++)
		if (!strcmp(t->holes[i].name, name))
			return i;
	return -ENOENT;
}

static void print_load(uint32_t k, FILE *out)
{
	if (k == offsetof(struct seccomp_data, nr))
		fputs("load nr", out);
	else if (k == offsetof(struct seccomp_data, arch))
		fputs("load arch", out);
	else
		fprintf(out, "load arg%u (low half)",
			(unsigned)((k - offsetof(struct seccomp_data, args)) / 8));
}

static void print_return(uint32_t k, FILE *out)
{
	switch (k & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_ALLOW: fputs("allow", out); break;
	case SECCOMP_RET_KILL_PROCESS: fputs("kill the process", out); break;
	case SECCOMP_RET_USER_NOTIF: fputs("ask the agent", out); break;
	default: fprintf(out, "refuse, errno %u", k & SECCOMP_RET_DATA); break;
	}
}

static const struct filter_rule *rule_of(const struct filter_table *t, size_t at)
{
	for (size_t i = 0; i < t->n_rules; i++)
		if (t->rules[i].ret == at)
			return &t->rules[i];
	return NULL;
}

void filter_print(const struct filter_table *t, const struct sock_filter *program, size_t n,
		  FILE *out)
{
	for (size_t i = 0; i < n; i++) {
		const struct sock_filter *f = &program[i];
		const struct filter_rule *rule = rule_of(t, i);
		const char *op = NULL;

		fprintf(out, "%4zu  ", i);
		switch (f->code) {
		case BPF_LD | BPF_W | BPF_ABS: print_load(f->k, out); break;
		case BPF_ALU | BPF_AND | BPF_K: fprintf(out, "and 0x%x", f->k); break;
		case BPF_JMP | BPF_JA: fprintf(out, "goto %zu", i + 1 + f->k); break;
		case BPF_RET | BPF_K: print_return(f->k, out); break;
		case BPF_JMP | BPF_JEQ | BPF_K: op = "=="; break;
		case BPF_JMP | BPF_JGE | BPF_K: op = ">="; break;
		case BPF_JMP | BPF_JSET | BPF_K: op = "&"; break;
		default: fprintf(out, "code 0x%x k 0x%x", f->code, f->k); break;
		}
		if (op)
			fprintf(out, "if %s 0x%x goto %zu else %zu", op, f->k, i + 1 + f->jt,
				i + 1 + f->jf);
		if (rule)
			fprintf(out, "\t# %s: %s", rule->syscall, rule->reason);
		fputc('\n', out);
	}
}

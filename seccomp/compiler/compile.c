/* SPDX-License-Identifier: MIT */
/*
 * The program first ends calls of foreign ABIs. Then it searches the call's number (binary search),
 * and then tries the rules of that call in the policy's order. A call without rules is decided by
 * its number alone. The kernel caches such decisions (seccomp_cache_prepare), so these calls cost
 * nothing.
 *
 * Conditional jumps reach at most 255 instructions. Only the jumps of the search go further, by
 * BPF_JA.
 */
#include "seccomp/compiler/compile.h"

#include <linux/audit.h>
#include <linux/seccomp.h>

#include "common/util.h"

#define X32_BIT 0x40000000u

struct builder {
	struct compiled *c;
	unsigned n;
	bool overflow;
};

static unsigned emit(struct builder *b, struct sock_filter f)
{
	if (b->n == FILTER_PROGRAM_MAX) {
		b->overflow = true;
		return 0;
	}
	b->c->program[b->n] = f;
	return b->n++;
}

#define STMT(code, k)	      (struct sock_filter) BPF_STMT(code, k)
#define JUMP(code, k, jt, jf) (struct sock_filter) BPF_JUMP(code, k, jt, jf)

static uint32_t return_value(enum filter_action action, uint16_t error)
{
	switch (action) {
	case FILTER_REFUSE: return SECCOMP_RET_ERRNO | error;
	case FILTER_KILL: return SECCOMP_RET_KILL_PROCESS;
	case FILTER_WATCH: return SECCOMP_RET_USER_NOTIF;
	case FILTER_ALLOW: break;
	}
	return SECCOMP_RET_ALLOW;
}

/* Both architectures are little-endian: the low half comes first. */
static uint32_t low_half(uint8_t arg)
{
	return (uint32_t)(offsetof(struct seccomp_data, args) + 8u * arg);
}

static void emit_rule(struct builder *b, struct filter_rule *r)
{
	unsigned left = 0;

	for (unsigned i = 0; i < r->n_conditions; i++)
		left += r->conditions[i].mask == UINT32_MAX ? 2 : 3;
	for (unsigned i = 0; i < r->n_conditions; i++) {
		struct filter_condition *cond = &r->conditions[i];

		emit(b, STMT(BPF_LD | BPF_W | BPF_ABS, low_half(cond->arg)));
		if (cond->mask != UINT32_MAX)
			emit(b, STMT(BPF_ALU | BPF_AND | BPF_K, cond->mask));
		left -= cond->mask == UINT32_MAX ? 2 : 3;
		/* Not equal: jump over the rest of this rule and its return. */
		cond->at = (uint16_t)emit(
			b, JUMP(BPF_JMP | BPF_JEQ | BPF_K, cond->value, 0, (uint8_t)(left + 1)));
	}
	r->ret = (uint16_t)emit(b, STMT(BPF_RET | BPF_K, return_value(r->action, r->error)));
}

/* Emit one call: rules[first..last] have its number, and the accumulator has the number too. */
static void emit_call(struct builder *b, const struct policy *p, unsigned first, unsigned last)
{
	struct filter_rule *rules = b->c->rules;

	emit(b, JUMP(BPF_JMP | BPF_JEQ | BPF_K, rules[first].nr, 1, 0));
	emit(b, STMT(BPF_RET | BPF_K, return_value(p->fallback, p->fallback_error)));
	for (unsigned i = first; i <= last; i++)
		emit_rule(b, &rules[i]);
	emit(b, STMT(BPF_RET | BPF_K, return_value(p->fallback, p->fallback_error)));
}

/* Emit a search over rules[first..last], which are sorted by number. Each step halves them. */
static void emit_search(struct builder *b, const struct policy *p, unsigned first, unsigned last)
{
	const struct filter_rule *rules = b->c->rules;
	unsigned middle = first + (last - first + 1) / 2, jump;

	if (rules[first].nr == rules[last].nr) {
		emit_call(b, p, first, last);
		return;
	}
	/* Split before the first rule of a number that is not the lowest. */
	while (rules[middle].nr == rules[middle - 1].nr && middle - 1 > first)
		middle--;
	if (rules[middle].nr == rules[first].nr)
		while (rules[middle].nr == rules[first].nr)
			middle++;
	emit(b, JUMP(BPF_JMP | BPF_JGE | BPF_K, rules[middle].nr, 0, 1));
	jump = emit(b, STMT(BPF_JMP | BPF_JA, 0));
	emit_search(b, p, first, middle - 1);
	b->c->program[jump].k = b->n - jump - 1;
	emit_search(b, p, middle, last);
}

static void take_rules(const struct policy *p, enum policy_arch arch, enum policy_mode mode,
		       struct compiled *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < p->n_rules; i++) {
		const struct policy_rule *r = &p->rules[i];
		struct filter_rule f = {
			.syscall = r->syscall,
			.reason = r->reason,
			.error = r->error,
			.action = (uint8_t)r->action,
			.quiet = r->quiet,
			.hole = r->hole < 0 ? FILTER_NO_HOLE : (uint8_t)r->hole,
			.n_conditions = (uint8_t)r->n_conditions,
		};
		unsigned at = n;

		if (r->nr[arch] < 0 || (r->group >= 0 && mode == POLICY_ALWAYS &&
					p->groups[r->group].mode != POLICY_ALWAYS))
			continue;
		f.nr = (uint16_t)r->nr[arch];
		for (unsigned k = 0; k < r->n_conditions; k++)
			f.conditions[k] = (struct filter_condition){
				.mask = r->conditions[k].mask,
				.value = r->conditions[k].value,
				.arg = r->conditions[k].arg,
				.patch = (uint8_t)r->conditions[k].patch,
			};
		/* Sort by number; rules of one number stay in the policy's order. */
		while (at > 0 && c->rules[at - 1].nr > f.nr) {
			c->rules[at] = c->rules[at - 1];
			at--;
		}
		c->rules[at] = f;
		n++;
	}
	c->table.n_rules = (uint16_t)n;
}

int policy_compile(const struct policy *p, enum policy_arch arch, enum policy_mode mode,
		   struct compiled *ret)
{
	struct builder b = {.c = ret};

	*ret = (struct compiled){0};
	take_rules(p, arch, mode, ret);
	for (unsigned i = 0; i < p->n_holes; i++)
		ret->holes[i] = (struct filter_hole){p->holes[i].name, p->holes[i].text};

	emit(&b, STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
	emit(&b, JUMP(BPF_JMP | BPF_JEQ | BPF_K, policy_arch_audit(arch), 1, 0));
	ret->table.foreign[0] = (uint16_t)emit(&b, STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	emit(&b, STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	if (arch == POLICY_X86_64) {
		/* A tracer writes -1 to skip a call. */
		emit(&b, JUMP(BPF_JMP | BPF_JEQ | BPF_K, UINT32_MAX, 2, 0));
		emit(&b, JUMP(BPF_JMP | BPF_JSET | BPF_K, X32_BIT, 0, 1));
		ret->table.foreign[1] =
			(uint16_t)emit(&b, STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	}
	if (ret->table.n_rules)
		emit_search(&b, p, 0, ret->table.n_rules - 1u);
	else
		emit(&b, STMT(BPF_RET | BPF_K, return_value(p->fallback, p->fallback_error)));

	ret->table.arch = policy_arch_audit(arch);
	ret->table.n_program = (uint16_t)b.n;
	ret->table.n_holes = (uint16_t)p->n_holes;
	ret->table.program = ret->program;
	ret->table.rules = ret->rules;
	ret->table.holes = ret->holes;
	return b.overflow ? -E2BIG : 0;
}

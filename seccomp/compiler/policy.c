/* SPDX-License-Identifier: MIT */
/*
 * The parser and linter of policies: see policy.h. A line that does not parse is reported and
 * skipped, so that one run finds all errors.
 */
#include "seccomp/compiler/policy.h"

#include <ctype.h>
#include <seccomp.h>
#include <stdarg.h>

#include "common/util.h"

#define LINE_BYTES_MAX 1024u
#define CALLS_MAX      32u

struct parser {
	struct policy *p;
	FILE *out;
	unsigned line;
	unsigned findings;
};

/* A condition as written in the policy: it holds if one of its values matches. */
struct choice {
	uint8_t arg;
	unsigned n;
	struct policy_condition any[POLICY_VALUES_MAX];
};

static void _printf_(3, 4) report(struct parser *s, unsigned line, const char *fmt, ...)
{
	va_list ap;

	s->findings++;
	fprintf(s->out, "%s:%u: ", s->p->name, line);
	va_start(ap, fmt);
	vfprintf(s->out, fmt, ap);
	va_end(ap);
	fputc('\n', s->out);
}

static bool is_name(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	return len > 0 && len < POLICY_NAME_MAX && !name[len];
}

static char *trim(char *s)
{
	char *end = s + strlen(s);

	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return s + strspn(s, " \t");
}

/* Returns the next word of *rest, terminated, or NULL. *rest becomes the text after it. */
static char *next_word(char **rest)
{
	char *word = *rest + strspn(*rest, " \t");
	size_t len = strcspn(word, " \t");

	if (!len)
		return NULL;
	*rest = word + len;
	if (**rest)
		*(*rest)++ = '\0';
	return word;
}

static int parse_value(const char *s, struct policy_condition *ret)
{
	const bool negative = *s == '-';
	const char *digits = s + negative;
	unsigned long long v;
	char *end;

	ret->patch = FILTER_PATCH_NONE;
	if (!strcmp(digits, "@agent")) {
		ret->patch = negative ? FILTER_PATCH_MINUS_PID : FILTER_PATCH_PID;
		/* The value is PID 1 until the pid is known, as in filter_build(). */
		ret->value = negative ? UINT32_MAX : 1;
		return 0;
	}
	if (!strcmp(s, "@agent-uid")) {
		ret->patch = FILTER_PATCH_UID;
		ret->value = AGENT_UID_DEFAULT;
		return 0;
	}
	if (!isdigit((unsigned char)*digits))
		return policy_constant(s, &ret->value);
	errno = 0;
	v = strtoull(digits, &end, 0);
	if (*end || errno || v > UINT32_MAX)
		return -EINVAL;
	ret->value = negative ? 0u - (uint32_t)v : (uint32_t)v;
	return 0;
}

/* Parses the values of a list. Each gets the mask; with bits, each is its own mask. */
static bool parse_list(struct parser *s, char *list, char *separator, uint32_t mask, bool bits,
		       struct choice *c)
{
	char *save = NULL;

	for (char *v = strtok_r(list, separator, &save); v; v = strtok_r(NULL, separator, &save)) {
		struct policy_condition one = {.arg = c->arg, .mask = mask};

		if (c->n == POLICY_VALUES_MAX) {
			report(s, s->line, "more than %u values in one list: write two rules",
			       POLICY_VALUES_MAX);
			return false;
		}
		if (parse_value(v, &one) < 0) {
			report(s, s->line,
			       "unknown value '%s': write a number of at most 32 bits, or add the "
			       "constant to policy_names.c",
			       v);
			return false;
		}
		if (bits)
			one.mask = one.value;
		if (one.value & ~one.mask || (one.patch && one.mask != UINT32_MAX)) {
			report(s, s->line, "'%s' can never equal the masked argument: fix the mask",
			       v);
			return false;
		}
		if (bits && (!one.value || one.value & (one.value - 1))) {
			report(s, s->line, "'has %s': name single bits", v);
			return false;
		}
		c->any[c->n++] = one;
	}
	return c->n > 0;
}

/* argN == V | argN in V,V | argN & M == V | argN & M in V,V | argN has F|F */
static bool parse_condition(struct parser *s, char **rest, struct choice *c)
{
	char *arg = next_word(rest), *op = next_word(rest), *value;
	struct policy_condition mask = {.value = UINT32_MAX};

	*c = (struct choice){0};
	if (!arg || strncmp(arg, "arg", 3) || arg[3] < '0' || arg[3] > '5' || arg[4]) {
		report(s, s->line, "condition on '%s': write arg0 to arg5", arg ? arg : "");
		return false;
	}
	c->arg = (uint8_t)(arg[3] - '0');
	if (op && !strcmp(op, "&")) {
		value = next_word(rest);
		if (!value || parse_value(value, &mask) < 0 || mask.patch) {
			report(s, s->line, "unknown mask '%s': write a number or a constant",
			       value ? value : "");
			return false;
		}
		op = next_word(rest);
	}
	value = next_word(rest);
	if (op && value && !strcmp(op, "=="))
		return parse_list(s, value, "", mask.value, false, c);
	if (op && value && !strcmp(op, "in"))
		return parse_list(s, value, ",", mask.value, false, c);
	if (op && value && !strcmp(op, "has") && mask.value == UINT32_MAX)
		return parse_list(s, value, "|", mask.value, true, c);
	report(s, s->line, "operator '%s': write ==, in, has, or & MASK before == or in",
	       op ? op : "");
	return false;
}

static int find_hole(const struct policy *p, const char *name)
{
	for (unsigned i = 0; i < p->n_holes; i++)
		if (!strcmp(p->holes[i].name, name))
			return (int)i;
	return -1;
}

/* The numbers of a call. Returns false if no arch has it. */
static bool resolve(const char *name, int nr[_POLICY_ARCH_MAX])
{
	static const uint32_t tokens[] = {
		[POLICY_X86_64] = SCMP_ARCH_X86_64, [POLICY_AARCH64] = SCMP_ARCH_AARCH64};
	bool known = false;
	uint64_t number;

	if (name[0] == '#' && parse_u64(name + 1, 424, 0xffff, &number) == 0) {
		/* From 424 on all architectures share their numbers. */
		nr[POLICY_X86_64] = nr[POLICY_AARCH64] = (int)number;
		return true;
	}
	for (int a = 0; a < _POLICY_ARCH_MAX; a++) {
		/* Negative: libseccomp has the name, but this arch has no such call. */
		int n = seccomp_syscall_resolve_name_arch(tokens[a], name);

		nr[a] = n >= 0 ? n : -1;
		known = known || n >= 0;
	}
	return known;
}

static bool same_condition(const struct policy_condition *a, const struct policy_condition *b)
{
	return a->arg == b->arg && a->patch == b->patch && a->mask == b->mask &&
	       a->value == b->value;
}

/* Whether condition a is true for every value for which b is true. */
static bool implied(const struct policy_condition *a, const struct policy_condition *b)
{
	if (a->patch || b->patch)
		return same_condition(a, b);
	return a->arg == b->arg && (a->mask & ~b->mask) == 0 && (b->value & a->mask) == a->value;
}

static enum policy_mode mode_of(const struct policy *p, const struct policy_rule *r)
{
	return r->group < 0 ? POLICY_ALWAYS : p->groups[r->group].mode;
}

/* Whether rule a, which comes first, matches every call that b matches, for all options. */
static bool covers(const struct policy *p, const struct policy_rule *a, const struct policy_rule *b)
{
	if (strcmp(a->syscall, b->syscall) ||
	    (mode_of(p, a) != POLICY_ALWAYS && mode_of(p, a) != mode_of(p, b)) ||
	    (a->hole >= 0 && a->hole != b->hole) ||
	    (a->action == FILTER_WATCH && b->action != FILTER_WATCH))
		return false;
	for (unsigned i = 0; i < a->n_conditions; i++) {
		bool found = false;

		for (unsigned k = 0; k < b->n_conditions && !found; k++)
			found = implied(&a->conditions[i], &b->conditions[k]);
		if (!found)
			return false;
	}
	return true;
}

static void add_rule(struct parser *s, const struct policy_rule *rule)
{
	struct policy *p = s->p;

	for (unsigned i = 0; i < p->n_rules; i++) {
		const struct policy_rule *before = &p->rules[i];
		bool same = before->n_conditions == rule->n_conditions;

		if (!covers(p, before, rule))
			continue;
		for (unsigned k = 0; same && k < rule->n_conditions; k++)
			same = same_condition(&before->conditions[k], &rule->conditions[k]);
		report(s, s->line, "%s: %s line %u: remove this rule, or move it up", rule->syscall,
		       same ? "a duplicate of" : "never reached after", before->line);
		return;
	}
	if (p->n_rules == POLICY_RULES_MAX) {
		report(s, s->line, "more than %u rules", POLICY_RULES_MAX);
		return;
	}
	p->rules[p->n_rules++] = *rule;
}

/* Adds a rule for each combination of values. */
static void add_combinations(struct parser *s, struct policy_rule *rule,
			     const struct choice *choices, unsigned n)
{
	if (rule->n_conditions == n) {
		add_rule(s, rule);
		return;
	}
	for (unsigned i = 0; i < choices[rule->n_conditions].n; i++) {
		rule->conditions[rule->n_conditions] = choices[rule->n_conditions].any[i];
		rule->n_conditions++;
		add_combinations(s, rule, choices, n);
		rule->n_conditions--;
	}
}

static bool parse_clauses(struct parser *s, char **rest, struct policy_rule *rule,
			  struct choice *choices, unsigned *ret_n)
{
	unsigned n = 0;
	char *word;

	while ((word = next_word(rest))) {
		if ((n == 0 && !strcmp(word, "if")) || (n > 0 && !strcmp(word, "and"))) {
			if (n == FILTER_CONDITIONS_MAX) {
				report(s, s->line, "more than %u conditions",
				       (unsigned)FILTER_CONDITIONS_MAX);
				return false;
			}
			if (!parse_condition(s, rest, &choices[n]))
				return false;
			for (unsigned i = 0; i < n; i++) {
				if (choices[i].arg == choices[n].arg) {
					report(s, s->line,
					       "arg%u has two conditions: other launchers' formats "
					       "cannot say that, write two rules",
					       choices[n].arg);
					return false;
				}
			}
			n++;
		} else if (!strcmp(word, "hole")) {
			word = next_word(rest);
			rule->hole = word ? find_hole(s->p, word) : -1;
			if (rule->hole < 0) {
				report(s, s->line, "unknown hole '%s': declare it above",
				       word ? word : "");
				return false;
			}
			s->p->holes[rule->hole].used = true;
		} else {
			report(s, s->line, "'%s': expected if, and, hole or ': reason'", word);
			return false;
		}
	}
	*ret_n = n;
	return true;
}

static void parse_rule(struct parser *s, enum filter_action action, char *rest, const char *reason)
{
	struct policy_rule rule = {
		.line = s->line, .action = action, .group = (int)s->p->n_groups - 1, .hole = -1};
	struct choice choices[FILTER_CONDITIONS_MAX];
	char *word = next_word(&rest), *calls, *save = NULL;
	unsigned n;

	if (action == FILTER_REFUSE) {
		if (!word || policy_errno(word, &rule.error) < 0) {
			report(s, s->line, "refuse '%s': write an error such as EPERM",
			       word ? word : "");
			return;
		}
		word = next_word(&rest);
		if (word && !strcmp(word, "quietly")) {
			rule.quiet = true;
			word = next_word(&rest);
		}
	}
	calls = word;
	if (!calls) {
		report(s, s->line, "no system call named");
		return;
	}
	if (!parse_clauses(s, &rest, &rule, choices, &n))
		return;
	if (strlen(reason) < POLICY_REASON_MIN || strlen(reason) >= POLICY_TEXT_MAX) {
		report(s, s->line, "no reason: end the rule with ': why', %u to %u bytes",
		       POLICY_REASON_MIN, POLICY_TEXT_MAX - 1);
		return;
	}
	strcpy(rule.reason, reason);
	for (char *call = strtok_r(calls, ",", &save); call; call = strtok_r(NULL, ",", &save)) {
		if (strlen(call) >= POLICY_NAME_MAX || !resolve(call, rule.nr)) {
			report(s, s->line,
			       "unknown system call '%s': check its name, or write #NUMBER for a "
			       "new one",
			       call);
			continue;
		}
		strcpy(rule.syscall, call);
		rule.n_conditions = 0;
		add_combinations(s, &rule, choices, n);
	}
}

static bool check_text(struct parser *s, const char *what, const char *name, const char *text)
{
	if (!name || !is_name(name)) {
		report(s, s->line, "%s '%s': write small letters, digits and -", what,
		       name ? name : "");
		return false;
	}
	if (strlen(text) < POLICY_REASON_MIN || strlen(text) >= POLICY_TEXT_MAX) {
		report(s, s->line, "%s %s: say what it is after ':'", what, name);
		return false;
	}
	return true;
}

static void parse_group(struct parser *s, char *rest, const char *text)
{
	const char *name = next_word(&rest), *mode = next_word(&rest);
	struct policy_group *g;

	if (!check_text(s, "group", name, text))
		return;
	if (!mode || (strcmp(mode, "always") && strcmp(mode, "share-pidns")) || next_word(&rest)) {
		report(s, s->line, "group %s: write always or share-pidns after the name", name);
		return;
	}
	if (s->p->n_groups == POLICY_GROUPS_MAX) {
		report(s, s->line, "more than %u groups", POLICY_GROUPS_MAX);
		return;
	}
	g = &s->p->groups[s->p->n_groups++];
	strcpy(g->name, name);
	strcpy(g->text, text);
	g->mode = strcmp(mode, "always") ? POLICY_SHARE_PIDNS : POLICY_ALWAYS;
}

static void parse_hole(struct parser *s, char *rest, const char *text)
{
	const char *name = next_word(&rest);
	struct policy_hole *h;

	if (!check_text(s, "hole", name, text))
		return;
	if (find_hole(s->p, name) >= 0 || s->p->n_holes == POLICY_HOLES_MAX) {
		report(s, s->line, "hole %s: declared twice, or more than %u", name,
		       POLICY_HOLES_MAX);
		return;
	}
	h = &s->p->holes[s->p->n_holes++];
	strcpy(h->name, name);
	strcpy(h->text, text);
	h->line = s->line;
}

/* The action for calls without a rule. */
static void parse_default(struct parser *s, char *rest)
{
	const char *word = next_word(&rest), *error;
	struct policy *p = s->p;

	p->has_default = true;
	if (word && !strcmp(word, "allow")) {
		p->fallback = FILTER_ALLOW;
	} else if (word && !strcmp(word, "kill")) {
		p->fallback = FILTER_KILL;
	} else if (word && !strcmp(word, "refuse") && (error = next_word(&rest)) &&
		   policy_errno(error, &p->fallback_error) == 0) {
		p->fallback = FILTER_REFUSE;
	} else {
		p->has_default = false;
		report(s, s->line, "default '%s': write allow, kill or refuse ERRNO",
		       word ? word : "");
	}
}

static void parse_line(struct parser *s, char *line)
{
	static const struct {
		const char *word;
		enum filter_action action;
	} actions[] = {
		{"refuse", FILTER_REFUSE},
		{"watch", FILTER_WATCH},
		{"kill", FILTER_KILL},
		{"allow", FILTER_ALLOW},
	};
	char *colon = strstr(line, " : "), *reason = "", *rest, *word;

	if (colon) {
		*colon = '\0';
		reason = trim(colon + 3);
	}
	rest = trim(line);
	word = next_word(&rest);
	if (!word || *word == '#')
		return;
	for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
		if (!strcmp(word, actions[i].word)) {
			parse_rule(s, actions[i].action, rest, reason);
			return;
		}
	}
	if (!strcmp(word, "group")) {
		parse_group(s, rest, reason);
	} else if (!strcmp(word, "hole")) {
		parse_hole(s, rest, reason);
	} else if (!strcmp(word, "default") && !s->p->has_default) {
		parse_default(s, rest);
	} else if (!strcmp(word, "foreign-abi") && !s->p->has_foreign) {
		word = next_word(&rest);
		s->p->has_foreign = word && !strcmp(word, "kill");
		if (!s->p->has_foreign || strlen(reason) < POLICY_REASON_MIN)
			report(s, s->line, "foreign-abi: the only choice is kill, with a reason");
	} else {
		report(s, s->line,
		       "'%s': expected default, foreign-abi, group, hole, refuse, "
		       "watch, kill or allow, each of the first two once",
		       word);
	}
}

static void check_whole(struct parser *s)
{
	const struct policy *p = s->p;

	if (!p->has_default)
		report(s, s->line, "no default: add 'default allow' or 'default kill'");
	if (!p->has_foreign)
		report(s, s->line, "no foreign-abi: add 'foreign-abi kill : reason'");
	for (unsigned i = 0; i < p->n_holes; i++)
		if (!p->holes[i].used)
			report(s, p->holes[i].line, "hole %s: no rule uses it", p->holes[i].name);
	for (unsigned i = 0; i < p->n_rules; i++) {
		const struct policy_rule *r = &p->rules[i];

		if (p->has_default && r->action == p->fallback && r->action == FILTER_ALLOW)
			report(s, r->line, "%s: allowed by default already", r->syscall);
	}
}

unsigned policy_parse(struct policy *p, const char *name, FILE *in, FILE *out)
{
	struct parser s = {.p = p, .out = out};
	char line[LINE_BYTES_MAX];

	*p = (struct policy){.name = name};
	while (fgets(line, sizeof(line), in)) {
		s.line++;
		if (!strchr(line, '\n') && !feof(in)) {
			report(&s, s.line, "a line is longer than %u bytes", LINE_BYTES_MAX - 2);
			while (fgets(line, sizeof(line), in) && !strchr(line, '\n'))
				;
			continue;
		}
		parse_line(&s, line);
	}
	if (ferror(in))
		report(&s, s.line, "cannot read on");
	check_whole(&s);
	return s.findings;
}

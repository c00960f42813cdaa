/* SPDX-License-Identifier: MIT */
/*
 * The linter's findings, and the compiled filters: every rule of the policies with what matches it
 * and what nearly does, on both architectures, without a kernel.
 */
#include <linux/audit.h>

#include "common/util.h"
#include "guest-agent/probes/listener_rules.h"
#include "seccomp/compiler/compile.h"
#include "tests/unit/bpf_machine.h"
#include "tests/unit/unit.h"

#define AGENT_PID 4711
#define AGENT_UID 64043 /* not the default */

static struct policy policy;
static struct compiled compiled;
static struct sock_filter program[FILTER_PROGRAM_MAX];

static unsigned parse_text(const char *text, char **ret_out)
{
	size_t size;
	FILE *in = fmemopen((void *)text, strlen(text), "r"), *out = open_memstream(ret_out, &size);
	unsigned n = policy_parse(&policy, "p", in, out);

	fclose(in);
	fclose(out);
	return n;
}

#define HEAD "default allow\nforeign-abi kill : other numbers\nhole h : opens a hole\n"

static const struct {
	const char *text, *finding;
	unsigned n;
} lint[] = {
	{HEAD "refuse EPERM reboot hole h : ends the machine\n", "", 0},
	{HEAD "refuse EPERM rebot hole h : ends the machine\n", "p:4: unknown system call 'rebot'",
	 1},
	{HEAD "refuse EPERM reboot hole h\n", "p:4: no reason", 1},
	{HEAD "refuse EPERM reboot hole h : short\n", "p:4: no reason", 1},
	{HEAD "refuse EPERM reboot hole x : ends the machine\n", "p:4: unknown hole 'x'", 2},
	{HEAD "refuse EWHAT reboot hole h : ends the machine\n", "p:4: refuse 'EWHAT'", 2},
	{HEAD "refuse EPERM reboot : ends the machine\n", "p:3: hole h: no rule uses it", 1},
	{HEAD "refuse EPERM reboot,reboot hole h : ends the machine\n", "a duplicate of line 4", 1},
	{HEAD "refuse EPERM bpf hole h : all of them\nrefuse EPERM bpf hole h : again\n",
	 "p:5: no reason", 1},
	{HEAD
	 "refuse EPERM bpf hole h : all of them\nrefuse EPERM bpf if arg0 == 1 hole h : some of them\n",
	 "p:5: bpf: never reached after line 4", 1},
	{HEAD
	 "refuse EPERM bpf hole h : all of them\nrefuse EPERM bpf if arg0 == 1 : some of them\n",
	 "", 0},
	{HEAD "refuse EPERM bpf if arg0 & 1 == 1 : some of them\n"
	      "refuse EPERM bpf if arg0 == 3 hole h : one of them\n",
	 "p:5: bpf: never reached after", 1},
	{HEAD "refuse EPERM bpf if arg0 == NOPE hole h : some of them\n",
	 "p:4: unknown value 'NOPE'", 2},
	{HEAD "refuse EPERM bpf if arg6 == 1 hole h : some of them\n", "p:4: condition on 'arg6'",
	 2},
	{HEAD "refuse EPERM bpf if arg0 & 1 == 2 hole h : some of them\n", "can never equal", 2},
	{HEAD "refuse EPERM bpf if arg0 has 3 hole h : some of them\n", "name single bits", 2},
	{HEAD "refuse EPERM bpf if arg0 == 1 and arg0 == 2 hole h : some of them\n",
	 "arg0 has two conditions", 2},
	{HEAD "refuse EPERM bpf if arg0 < 1 hole h : some of them\n", "p:4: operator '<'", 2},
	{HEAD "refuse EPERM bpf if arg0 == 4294967296 hole h : some of them\n", "unknown value", 2},
	{HEAD "refuse EPERM bpf if arg0 == 4294967295 hole h : some of them\n", "", 0},
	{HEAD "refuse EPERM bpf if arg0 == 1 hole h : some of them\n"
	      "refuse EPERM bpf if arg0 == 1 hole h : the same ones\n",
	 "p:5: bpf: a duplicate of line 4", 1},
	{HEAD "refuse EPERM kill if arg0 == @agent hole h : the agent\n"
	      "refuse EPERM kill if arg0 == @agent hole h : it again\n",
	 "p:5: kill: a duplicate of line 4", 1},
	{HEAD "refuse EPERM kill if arg0 == @agent hole h : the agent\n"
	      "refuse EPERM kill if arg0 == -@agent hole h : its group\n",
	 "", 0},
	{"default what\nforeign-abi kill : other numbers\nrefuse EPERM bpf : all of them\n",
	 "p:1: default 'what': write allow", 2},
	{HEAD "hole h : opens it again\nrefuse EPERM bpf hole h : all of them\n",
	 "p:4: hole h: declared twice", 1},
	{HEAD "default kill\nrefuse EPERM bpf hole h : all of them\n",
	 "p:4: 'default': expected default", 1},
	{HEAD "foreign-abi kill : other numbers\nrefuse EPERM bpf hole h : all of them\n",
	 "p:4: 'foreign-abi': expected default", 1},
	{HEAD "allow bpf hole h : all of them\n", "p:4: bpf: allowed by default already", 1},
	{HEAD "refuse EPERM bpf unless hole h : all of them\n", "p:4: 'unless': expected", 2},
	{HEAD "refuse EPERM #466 hole h : a new call\n", "", 0},
	{HEAD "refuse EPERM #1 hole h : an old call\n", "unknown system call '#1'", 1},
	{HEAD "forbid bpf hole h : all of them\n", "p:4: 'forbid': expected", 2},
	{HEAD "group g sometimes : of something\nwatch bpf hole h : all of them\n",
	 "write always or", 1},
	{"refuse EPERM bpf : all of them\n", "p:1: no default", 2},
};

UNIT_LOOP_TEST(linter_finds, ARRAY_SIZE(lint))
{
	char *out = NULL;
	unsigned n = parse_text(lint[_i].text, &out);

	ck_assert_msg(n == lint[_i].n, "%s: %u findings: %s", lint[_i].text, n, out);
	ck_assert_msg(strstr(out, lint[_i].finding), "%s: %s", lint[_i].text, out);
	free(out);
}

/* The longest line that is read whole, and one that is a byte longer. */
UNIT_LOOP_TEST(a_line_at_the_limit, 2)
{
	static const char rule[] = "refuse EPERM bpf hole h", reason[] = " : all of them\n";
	const size_t len = 1022 + (size_t)_i;
	const unsigned findings = _i ? 2 : 0; /* the line, and a hole without a rule */
	char text[2048], *out = NULL, *line = stpcpy(text, HEAD);

	memset(line, ' ', len);
	memcpy(line, rule, strlen(rule));
	strcpy(line + len + 1 - strlen(reason), reason);
	ck_assert_uint_eq(parse_text(text, &out), findings);
	ck_assert_int_eq(strstr(out, "p:4: a line is longer than 1022 bytes\n") != NULL, _i);
	free(out);
}

static void load(const char *name)
{
	char path[512];
	FILE *in;

	snprintf(path, sizeof(path), "%s/%s", getenv("CELLOS_POLICIES"), name);
	in = fopen(path, "re");
	ck_assert_msg(in, "%s", path);
	ck_assert_uint_eq(policy_parse(&policy, name, in, stderr), 0);
	fclose(in);
}

/* What a condition compares with once the pid and the user of the agent are known. */
static uint32_t value_of(const struct policy_condition *c)
{
	switch (c->patch) {
	case FILTER_PATCH_PID: return AGENT_PID;
	case FILTER_PATCH_MINUS_PID: return (uint32_t)-AGENT_PID;
	case FILTER_PATCH_UID: return AGENT_UID;
	default: return c->value;
	}
}

/* What the policy says, read in its own order: not by way of the compiled tables. */
static const struct policy_rule *expect(enum policy_arch arch, enum policy_mode mode, unsigned hole,
					const struct seccomp_data *d)
{
	for (unsigned i = 0; i < policy.n_rules; i++) {
		const struct policy_rule *r = &policy.rules[i];
		bool all = r->nr[arch] == d->nr;

		if (mode == POLICY_ALWAYS && policy.groups[r->group].mode != POLICY_ALWAYS)
			continue;
		if (r->hole == (int)hole)
			continue;
		for (unsigned k = 0; all && k < r->n_conditions; k++) {
			const struct policy_condition *c = &r->conditions[k];
			uint32_t value = value_of(c);

			all = ((uint32_t)d->args[c->arg] & c->mask) == value;
		}
		if (all)
			return r;
	}
	return NULL;
}

static uint32_t expect_return(const struct policy_rule *r, bool notify)
{
	if (!r)
		return policy.fallback == FILTER_ALLOW ? SECCOMP_RET_ALLOW
						       : SECCOMP_RET_KILL_PROCESS;
	switch (r->action) {
	case FILTER_REFUSE:
		return notify && !r->quiet ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ERRNO | r->error;
	case FILTER_WATCH: return notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
	case FILTER_KILL: return SECCOMP_RET_KILL_PROCESS;
	default: return SECCOMP_RET_ALLOW;
	}
}

struct run {
	enum policy_arch arch;
	enum policy_mode mode;
	unsigned hole;
	bool notify;
	size_t n;
	unsigned tried;
};

static void try(struct run *run, const struct seccomp_data *d)
{
	uint32_t want = expect_return(expect(run->arch, run->mode, run->hole, d), run->notify);
	uint32_t got = bpf_machine_run(program, run->n, d);

	ck_assert_msg(got == want, "%s nr %d args %llx %llx %llx: 0x%x, not 0x%x",
		      policy_arch_name(run->arch), d->nr, (unsigned long long)d->args[0],
		      (unsigned long long)d->args[1], (unsigned long long)d->args[2], got, want);
	run->tried++;
}

/* The rule's own arguments; each bit of a compared one turned; the high halves set. */
static void try_rule(struct run *run, const struct policy_rule *r)
{
	const uint32_t foreign = run->notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_KILL_PROCESS;
	struct seccomp_data d = {.arch = policy_arch_audit(run->arch), .nr = r->nr[run->arch]}, m;

	try(run, &d);
	for (unsigned k = 0; k < r->n_conditions; k++)
		d.args[r->conditions[k].arg] = value_of(&r->conditions[k]);
	try(run, &d);
	for (unsigned a = 0; a < 3; a++) {
		for (unsigned bit = 0; bit < 64; bit++) {
			m = d;
			m.args[a] ^= UINT64_C(1) << bit;
			if (bit >= 32)
				ck_assert_uint_eq(bpf_machine_run(program, run->n, &d),
						  bpf_machine_run(program, run->n, &m));
			try(run, &m);
		}
		m = d;
		m.args[a] = (uint64_t)(int64_t)(int32_t)m.args[a];
		try(run, &m);
		m.args[a]++;
		try(run, &m);
		m.args[a] = 0;
		try(run, &m);
	}
	/* Foreign ABIs, whatever the number. */
	m = d;
	m.arch = AUDIT_ARCH_I386;
	ck_assert_uint_eq(bpf_machine_run(program, run->n, &m), foreign);
	m.arch = AUDIT_ARCH_ARM;
	ck_assert_uint_eq(bpf_machine_run(program, run->n, &m), foreign);
	m = d;
	m.nr |= 0x40000000;
	if (run->arch == POLICY_X86_64)
		ck_assert_uint_eq(bpf_machine_run(program, run->n, &m), foreign);
}

static void build(struct run *run)
{
	const struct filter_options o = {
		.protect_pid = AGENT_PID,
		.agent_uid = AGENT_UID,
		.notify = run->notify,
		.holes = run->hole < policy.n_holes ? 1u << run->hole : 0,
	};

	ck_assert_int_eq(policy_compile(&policy, run->arch, run->mode, &compiled), 0);
	run->n = filter_build(&compiled.table, &o, program);
}

static unsigned try_all(const char *name)
{
	unsigned tried = 0;

	load(name);
	for (int i = 0; i < 8; i++) {
		/* Each hole alone, and none: the last, or with notifications the only one. */
		for (unsigned hole = 0; hole <= (i & 4 ? 0 : policy.n_holes); hole++) {
			struct run run = {.arch = i & 1 ? POLICY_AARCH64 : POLICY_X86_64,
					  .mode = i & 2 ? POLICY_SHARE_PIDNS : POLICY_ALWAYS,
					  .notify = i & 4,
					  .hole = i & 4 ? POLICY_HOLES_MAX : hole};

			build(&run);
			for (unsigned k = 0; k < policy.n_rules; k++)
				if (policy.rules[k].nr[run.arch] >= 0)
					try_rule(&run, &policy.rules[k]);
			/* Every number there is, and some there is not. */
			for (int nr = 0; nr < 1024; nr++)
				try(&run, &(struct seccomp_data){
						  .nr = nr, .arch = policy_arch_audit(run.arch)});
			tried += run.tried;
		}
	}
	return tried;
}

UNIT_TEST(filters_do_what_the_policies_say)
{
	printf("workload: %u calls tried\n", try_all("workload.policy"));
	printf("agent: %u calls tried\n", try_all("agent.policy"));
}

#define X86(n, ...)                                                                                \
	(&(struct seccomp_data){.nr = n, .arch = AUDIT_ARCH_X86_64, .args = {__VA_ARGS__}})
#define ARM(n, ...)                                                                                \
	(&(struct seccomp_data){.nr = n, .arch = AUDIT_ARCH_AARCH64, .args = {__VA_ARGS__}})
#define REFUSED (SECCOMP_RET_ERRNO | EPERM)

/* Written by hand from the kernel's tables: the numbers and values are right, not only the same. */
static const struct {
	enum policy_arch arch;
	enum policy_mode mode;
	const struct seccomp_data *call;
	uint32_t result;
} known[] = {
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 40, 1), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 40 | 1ull << 32, 1), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 2, 1), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 16, 3, 11), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 16, 3, 9), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 16, 3, 0), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(41, 17, 3, 9), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(53, 40, 1), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(425, 0), SECCOMP_RET_ERRNO | ENOSYS},
	{POLICY_X86_64, POLICY_ALWAYS, X86(435, 0), SECCOMP_RET_ERRNO | ENOSYS},
	{POLICY_X86_64, POLICY_ALWAYS, X86(467, 0), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(56, 0x10000000), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(56, 0x3d0f00), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(272, 0x40000000), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(272, 0x400), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(323, 0), REFUSED},
	{POLICY_X86_64, POLICY_ALWAYS, X86(323, 1), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(62, 1, 9), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(101, 0), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_ALWAYS, X86(-1, 0), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, 1, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, 2 | 1ull << 32, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, AGENT_PID, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, (uint64_t)-AGENT_PID, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, 0xffffffff, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, (uint64_t)-2, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, 3, 9), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(62, 0, 9), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(234, (uint64_t)-5, AGENT_PID, 9), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(72, 5, 8, AGENT_PID), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(72, 5, 15), REFUSED},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(72, 5, 2, AGENT_PID), SECCOMP_RET_ALLOW},
	{POLICY_X86_64, POLICY_SHARE_PIDNS, X86(101, 0), REFUSED},
	{POLICY_AARCH64, POLICY_ALWAYS, ARM(198, 40, 1), REFUSED},
	{POLICY_AARCH64, POLICY_ALWAYS, ARM(199, 40, 1), REFUSED},
	{POLICY_AARCH64, POLICY_ALWAYS, ARM(198, 10, 1), SECCOMP_RET_ALLOW},
	{POLICY_AARCH64, POLICY_ALWAYS, ARM(220, 0x20000000), REFUSED},
	{POLICY_AARCH64, POLICY_ALWAYS, ARM(142, 0), REFUSED},
	{POLICY_AARCH64, POLICY_SHARE_PIDNS, ARM(129, AGENT_PID, 9), REFUSED},
	{POLICY_AARCH64, POLICY_SHARE_PIDNS, ARM(129, 5, 9), SECCOMP_RET_ALLOW},
	{POLICY_AARCH64, POLICY_SHARE_PIDNS, ARM(41, 0), REFUSED},
};

UNIT_LOOP_TEST(known_calls, ARRAY_SIZE(known))
{
	struct run run = {.arch = known[_i].arch, .mode = known[_i].mode, .hole = POLICY_HOLES_MAX};

	load("workload.policy");
	build(&run);
	ck_assert_uint_eq(bpf_machine_run(program, run.n, known[_i].call), known[_i].result);
}

/* The agent finds for each call that asks it the answer that the filter would have given. */
UNIT_TEST(the_agents_table_agrees)
{
	static struct listener_message m;
	unsigned asked = 0;

	load("workload.policy");
	for (int i = 0; i < 4; i++) {
		struct run run = {.arch = i & 1 ? POLICY_AARCH64 : POLICY_X86_64,
				  .mode = i & 2 ? POLICY_SHARE_PIDNS : POLICY_ALWAYS,
				  .hole = POLICY_HOLES_MAX,
				  .notify = true};
		const struct filter_options o = {
			.protect_pid = AGENT_PID, .agent_uid = AGENT_UID, .notify = true};

		build(&run);
		ck_assert_int_eq(filter_listener_message(&compiled.table, &o, &m), 0);
		if (run.arch == POLICY_X86_64)
			ck_assert_int_eq(
				listener_message_check(&m, LISTENER_MESSAGE_SIZE(m.n_rules)), 0);
		for (unsigned k = 0; k < policy.n_rules; k++) {
			const struct policy_rule *r = &policy.rules[k], *want;
			struct seccomp_data d = {.arch = m.arch, .nr = r->nr[run.arch]};
			const struct listener_rule *l;

			for (unsigned c = 0; c < r->n_conditions; c++)
				d.args[r->conditions[c].arg] = value_of(&r->conditions[c]);
			if (bpf_machine_run(program, run.n, &d) != SECCOMP_RET_USER_NOTIF)
				continue;
			asked++;
			want = expect(run.arch, run.mode, POLICY_HOLES_MAX, &d);
			l = listener_match(m.rules, m.n_rules, &d);
			ck_assert(l && want);
			ck_assert_uint_eq(l->error, want->error);
			ck_assert_uint_eq(l->action == LISTENER_WATCH,
					  want->action == FILTER_WATCH);
		}
	}
	ck_assert_uint_gt(asked, 300);
}

/*
 * The profile for other launchers, which do not know the agent's pid. It has no rule twice:
 * libseccomp refuses the second.
 */
UNIT_LOOP_TEST(the_oci_profile_has_no_rule_twice, 4)
{
	const enum policy_arch arch = _i & 1 ? POLICY_AARCH64 : POLICY_X86_64;
	const enum policy_mode mode = _i & 2 ? POLICY_SHARE_PIDNS : POLICY_ALWAYS;
	char *text = NULL, *save = NULL, *rules[1024];
	size_t size, n = 0;
	FILE *out = open_memstream(&text, &size);

	load("workload.policy");
	policy_emit_oci(&policy, arch, mode, out);
	fclose(out);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strstr(line, "\"names\""))
			continue;
		ck_assert_uint_lt(n, ARRAY_SIZE(rules));
		line[strlen(line) - (line[strlen(line) - 1] == ',')] = '\0';
		for (size_t i = 0; i < n; i++)
			ck_assert_str_ne(rules[i], line);
		rules[n++] = line;
	}
	ck_assert_uint_gt(n, 50);
	free(text);
}

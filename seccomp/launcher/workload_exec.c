/* SPDX-License-Identifier: MIT */
/*
 * cellos-workload-exec: applies the workload profile to itself and becomes COMMAND. The steps:
 *
 *   1. connect to the agent, while still in its pid namespace
 *   2. fork into a new pid namespace; the parent stays outside and passes signals and status on
 *   3. own session, mounts, descriptors, capabilities, no_new_privs
 *   4. install the filter and hand its descriptor over to the agent
 *   5. with --init: fork again; the parent reaps
 *   6. exec
 *
 * If a step before the exec fails, the launcher ends with 125: COMMAND never runs with half a
 * profile. It runs without an agent only with --no-listener.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/options.h"
#include "seccomp/launcher/launch.h"

#define PROGRAM "cellos-workload-exec"

/* Some libcs define CLONE_NEWPID in sched.h only with a feature macro. */
#define CLONE_NEWPID_FLAG 0x20000000

static void _printf_(1, 2) say(const char *fmt, ...)
{
	va_list ap;

	fputs(PROGRAM ": ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static _Noreturn void give_up(const struct step *step, int r)
{
	say("cannot %s: %s (errno %d); COMMAND was not run", step->name, strerror(-r), -r);
	_exit(EXIT_NOT_APPLIED);
}

static int allow(void *target, const struct option_row *row, const char *name,
		 char why[OPTION_WHY_MAX])
{
	/* Both modes have the same holes at the same places. */
	const struct filter_table *t = launch_table(true);
	struct launch_options *o = target;
	int hole;

	if (!name)
		name = "debug"; /* --allow-debug */
	hole = filter_find_hole(t, name);
	if (!strcmp(name, "list")) {
		for (unsigned i = 0; i < t->n_holes; i++)
			printf("%-12s %s\n", t->holes[i].name, t->holes[i].opens);
		exit(0);
	}
	(void)row;
	if (hole < 0) {
		snprintf(why, OPTION_WHY_MAX,
			 "expected the name of a hole; --allow list names them");
		return -EINVAL;
	}
	o->holes |= 1u << hole;
	say("warning: --allow %s opens a hole: %s", name, t->holes[hole].opens);
	return 0;
}

static int keep_capability(void *target, const struct option_row *row, const char *name,
			   char why[OPTION_WHY_MAX])
{
	struct launch_options *o = target;
	int cap = confine_capability(name);

	(void)row;
	if (cap < 0) {
		snprintf(why, OPTION_WHY_MAX, "expected the name of a capability");
		return -EINVAL;
	}
	o->cap_keep |= UINT64_C(1) << cap;
	if (confine_capability_hole(cap))
		say("warning: --cap-keep %s opens a hole: %s", confine_capability_name(cap),
		    confine_capability_hole(cap));
	return 0;
}

#define SETS_FLAG(member) OPTION_SETS_FLAG(struct launch_options, member)
#define SETS_TEXT(member) OPTION_SETS_TEXT(struct launch_options, member)
#define SETS_VERB(value)  OPTION_SETS_CONSTANT(struct launch_options, verb, value)

static const struct option_row rows[] = {
	{"init", NULL, "run COMMAND under a small PID 1 that reaps and passes signals on",
	 SETS_FLAG(init)},
	{"share-pidns", NULL, "no pid namespace: PID 1, PID 2 and the agent are protected by value",
	 SETS_FLAG(share_pidns)},
	{"protect-pid", "PID",
	 "with --share-pidns --no-listener: the pid to protect, if no\nagent can be asked",
	 OPTION_SETS_INT(struct launch_options, protect_pid, 1, INT32_MAX)},
	{"agent-uid", "UID", "the agent's user, which COMMAND is refused (default: ask the agent)",
	 OPTION_SETS_NUMBER(struct launch_options, agent_uid, 1, INT32_MAX)},
	{"drop-net-admin", NULL, "drop CAP_NET_ADMIN and CAP_NET_RAW, too",
	 SETS_FLAG(drop_net_admin)},
	{"listener", "PATH",
	 "where the agent takes notifications\n(default " LISTENER_SOCKET_PATH ")",
	 SETS_TEXT(listener)},
	{"ready-timeout", "MS", "wait so long for the agent (default 10000)",
	 OPTION_SETS_NUMBER(struct launch_options, ready_timeout_ms, 1, 3600000)},
	{"no-listener", NULL, "run COMMAND although the agent does not report its refusals",
	 SETS_FLAG(no_listener)},
	{"allow", "NAME", "leave out the rules of a hole; repeatable. --allow list names them",
	 OPTION_CALLS(allow)},
	{"allow-debug", NULL, "the same as --allow debug", OPTION_CALLS(allow)},
	{"cap-keep", "CAP", "do not take this capability; repeatable",
	 OPTION_CALLS(keep_capability)},
	{"print-filter", NULL, "the filter with its reasons, then exit", SETS_VERB(VERB_PRINT)},
	{"dry-run", NULL, "what would be done, then exit", SETS_VERB(VERB_PLAN)},
	{"check", NULL, "whether this kernel can do it, then exit: 0 or 125",
	 SETS_VERB(VERB_CHECK)},
	OPTION_ROW_VERSION,
	OPTION_ROW_HELP,
};

/* Ends the process unless the command line is right. */
static void parse_options(int argc, char **argv, struct launch_options *o)
{
	const struct option_program program = {
		.name = PROGRAM,
		.before = "Usage: " PROGRAM " [OPTIONS] -- COMMAND [ARG...]\n"
			  "Applies the workload profile and becomes COMMAND.\n",
		.after =
			"Exit status: COMMAND's; 125 the profile could not be applied, 126 COMMAND\n"
			"cannot be run, 127 it is not there, 64 usage.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), o}},
		.command = true,
	};
	int at = option_parse(&program, argc, argv, NULL);

	if (at == 0)
		exit(0);
	if (at > 0) {
		o->command = argv + at;
		if (o->verb != VERB_RUN || *o->command)
			return;
		option_usage_error(&program, "expected a COMMAND after the options");
	}
	exit(64);
}

/*
 * Connect to the agent, or end the launcher: a workload must not be able to make another one run
 * unreported. With --share-pidns the agent's pid is needed even if it takes no notifications.
 */
static struct agent meet_agent(struct launch_options *o)
{
	struct agent agent = {.connection = -1};
	struct step step;
	int r;

	if (o->no_listener)
		say("warning: --no-listener: the agent does not report what COMMAND is refused");
	if (o->no_listener && (!o->share_pidns || o->protect_pid))
		return agent;
	r = handover_connect(o, &agent, &step);
	if (r < 0)
		give_up(&step, r);
	if (o->protect_pid && o->protect_pid != agent.pid) {
		say("--protect-pid %d: the agent's pid is %d", o->protect_pid, agent.pid);
		exit(64);
	}
	o->protect_pid = agent.pid;
	if (agent.uid)
		o->agent_uid = agent.uid;
	if (o->no_listener)
		close_fd(take_fd(&agent.connection));
	return agent;
}

static int print_filter(const struct launch_options *o)
{
	static struct sock_filter program[FILTER_PROGRAM_MAX];
	const struct filter_table *t = launch_table(o->share_pidns);
	const struct filter_options f = {
		.protect_pid = o->protect_pid,
		.agent_uid = o->agent_uid,
		.holes = o->holes,
		.notify = !o->no_listener,
	};

	filter_print(t, program, filter_build(t, &f, program), stdout);
	return fflush(stdout) == 0 ? 0 : EXIT_NOT_APPLIED;
}

static _Noreturn void exec_command(char **command, const sigset_t *mask)
{
	int saved;

	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(command[0], command);
	saved = errno;
	say("cannot run %s: %s", command[0], strerror(saved));
	_exit(saved == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_EXEC);
}

/* PID 1 of the new namespace, or a subreaper; confined like COMMAND. */
static _Noreturn void run_init(const struct launch_options *o, const sigset_t *mask, int report)
{
	struct step step;
	int status, r;
	pid_t pid;

	step_set(&step, "become the reaper of orphans");
	if (getpid() != 1 && prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		give_up(&step, -errno);
	step_set(&step, "fork COMMAND");
	pid = fork();
	if (pid < 0)
		give_up(&step, -errno);
	if (pid == 0) {
		setsid();
		exec_command(o->command, mask);
	}
	step_set(&step, "wait for COMMAND");
	r = supervise(pid, true, &status);
	if (r < 0)
		give_up(&step, r);
	/* A PID 1 cannot end by a signal, so its parent does. */
	if (report >= 0)
		(void)!write(report, &status, sizeof(status));
	supervise_exit_as(status);
}

static _Noreturn void confine_and_run(const struct launch_options *o, int connection, int report,
				      pid_t parent, const sigset_t *mask)
{
	const int keep[] = {connection, report};
	const struct filter_options f = {
		.protect_pid = o->protect_pid,
		.agent_uid = o->agent_uid,
		.holes = o->holes,
		.notify = connection >= 0,
	};
	struct step step;
	int r;

	step_set(&step, "make a session of its own");
	if (setsid() < 0 && getsid(0) != getpid())
		give_up(&step, -errno);
	r = confine_mounts(o, &step);
	if (r == 0)
		r = confine_descriptors(keep, ARRAY_SIZE(keep), &step);
	if (r == 0)
		r = confine_privileges(o, &step);
	if (r == 0 && parent) {
		/* A change of credentials clears this setting, so it is made afterwards. */
		step_set(&step, "end with the launcher");
		r = prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? -errno : 0;
		if (r == 0 && o->share_pidns && getppid() != parent)
			r = -ECHILD;
	}
	if (r == 0)
		r = filter_install(launch_table(o->share_pidns), &f, connection, &step);
	if (r < 0)
		give_up(&step, r);
	close_fd(connection);
	if (o->init)
		run_init(o, mask, report);
	exec_command(o->command, mask);
}

/* The parent stays outside of the pid namespace, where the workload cannot see it. */
static _Noreturn void watch_over(pid_t child, int report)
{
	struct step step;
	int status, reported, r;

	step_set(&step, "wait for the workload");
	r = supervise(child, false, &status);
	if (r < 0)
		give_up(&step, r);
	/* COMMAND's own status, if its init lived to report it. */
	if (read(report, &reported, sizeof(reported)) == sizeof(reported))
		status = reported;
	supervise_exit_as(status);
}

int main(int argc, char **argv)
{
	struct launch_options o = {.listener = LISTENER_SOCKET_PATH,
				   .ready_timeout_ms = LAUNCH_TIMEOUT_MS};
	struct agent agent;
	int report[2];
	struct step step;
	sigset_t all, mask;
	pid_t pid, self = getpid();

	parse_options(argc, argv, &o);
	switch ((enum launch_verb)o.verb) {
	case VERB_PRINT: return print_filter(&o);
	case VERB_PLAN: return explain_plan(&o);
	case VERB_CHECK: return explain_check(&o);
	case VERB_RUN: break;
	}

	agent = meet_agent(&o);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);

	/* setsid(2) fails in a leader of a process group: that one has to fork. */
	if (o.share_pidns && (getpgrp() != self || getsid(0) == self))
		confine_and_run(&o, agent.connection, -1, 0, &mask);

	step_set(&step, "make a pipe");
	if (pipe2(report, O_CLOEXEC) < 0)
		give_up(&step, -errno);
	step_set(&step, "unshare the pid namespace");
	if (!o.share_pidns && syscall(SYS_unshare, CLONE_NEWPID_FLAG) < 0)
		give_up(&step, -errno);
	step_set(&step, "fork");
	pid = fork();
	if (pid < 0)
		give_up(&step, -errno);
	if (pid == 0) {
		close(report[0]);
		confine_and_run(&o, agent.connection, report[1], self, &mask);
	}
	close_fd(agent.connection);
	close(report[1]);
	watch_over(pid, report[0]);
}

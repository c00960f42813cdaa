/* SPDX-License-Identifier: MIT */
/*
 * cellos-workload-exec: applies the workload profile to itself and becomes COMMAND. The order of
 * things:
 *
 *   connect to the agent            while we are still in its pid namespace
 *   fork into a new pid namespace   the parent stays outside and passes signals and status on
 *   own session, mounts, descriptors, capabilities, no_new_privs
 *   the filter, its descriptor to the agent
 *   --init: fork again, and reap
 *   exec
 *
 * Whatever fails before the exec ends it with 125: COMMAND never runs with half a profile.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/options.h"
#include "seccomp/launcher/launch.h"

#define PROGRAM "cellos-workload-exec"

#define CLONE_NEWPID_FLAG 0x20000000 /* sched.h hides it behind a feature macro in some libcs */

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
	{"protect-pid", "PID", "the agent's pid (default: from the pid file)",
	 OPTION_SETS_INT(struct launch_options, protect_pid, 1, INT32_MAX)},
	{"pid-file", "PATH", "the agent's pid file (" LAUNCH_PID_FILE ")", SETS_TEXT(pid_file)},
	{"listener", "PATH", "where the agent takes notifications (" LISTENER_SOCKET_PATH ")",
	 SETS_TEXT(listener)},
	{"no-listener", NULL, "refuse without telling the agent", SETS_FLAG(no_listener)},
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

/* Paths are used after the mounts have changed and the working directory with them. */
static void find_agent(struct launch_options *o)
{
	char text[32] = "";
	uint64_t pid;
	_cleanup_close_ int fd = -1;

	if (!o->share_pidns || o->protect_pid)
		return;
	fd = open(o->pid_file, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
		text[strcspn(text, "\n")] = '\0';
		if (parse_u64(text, 1, INT32_MAX, &pid) == 0) {
			o->protect_pid = (pid_t)pid;
			return;
		}
	}
	say("warning: no agent's pid in %s and no --protect-pid: only PIDs 1 and 2 are protected",
	    o->pid_file);
}

static int connect_agent(const struct launch_options *o)
{
	struct step step;
	int fd = -1, r;

	if (o->no_listener)
		return -1;
	r = handover_connect(o->listener, &fd, &step);
	if (r < 0)
		say("warning: cannot %s: %s; refusals are silent, the agent is not told of them",
		    step.name, strerror(-r));
	return fd;
}

static int print_filter(const struct launch_options *o)
{
	static struct sock_filter program[FILTER_PROGRAM_MAX];
	const struct filter_table *t = launch_table(o->share_pidns);
	const struct filter_options f = {
		.protect_pid = o->protect_pid, .holes = o->holes, .notify = !o->no_listener};

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
	/* A PID 1 cannot end by a signal: its parent does. */
	if (report >= 0)
		(void)!write(report, &status, sizeof(status));
	supervise_exit_as(status);
}

static _Noreturn void confine_and_run(const struct launch_options *o, int connection, int report,
				      pid_t parent, const sigset_t *mask)
{
	const int keep[] = {connection, report};
	const struct filter_options f = {
		.protect_pid = o->protect_pid, .holes = o->holes, .notify = connection >= 0};
	struct step step;
	int r;

	step_set(&step, "make a session of its own");
	if (setsid() < 0 && getsid(0) != getpid())
		give_up(&step, -errno);
	r = confine_mounts(o, &step);
	if (r == 0)
		r = confine_descriptors(keep, ARRAY_SIZE(keep), &step);
	if (r == 0)
		r = confine_privileges(o->cap_keep, &step);
	if (r == 0 && parent) {
		/* After the change of credentials, which would clear it. */
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

/* Outside of the namespace, where the workload cannot see it. */
static _Noreturn void watch_over(pid_t child, int report)
{
	struct step step;
	int status, told, r;

	step_set(&step, "wait for the workload");
	r = supervise(child, false, &status);
	if (r < 0)
		give_up(&step, r);
	/* What its init says, if it came that far. */
	if (read(report, &told, sizeof(told)) == sizeof(told))
		status = told;
	supervise_exit_as(status);
}

int main(int argc, char **argv)
{
	struct launch_options o = {.listener = LISTENER_SOCKET_PATH, .pid_file = LAUNCH_PID_FILE};
	int connection, report[2];
	struct step step;
	sigset_t all, mask;
	pid_t pid, self = getpid();

	parse_options(argc, argv, &o);
	find_agent(&o);
	switch ((enum launch_verb)o.verb) {
	case VERB_PRINT: return print_filter(&o);
	case VERB_PLAN: return explain_plan(&o);
	case VERB_CHECK: return explain_check(&o);
	case VERB_RUN: break;
	}

	connection = connect_agent(&o);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);

	/* Only who leads no process group can have a session of its own without a fork. */
	if (o.share_pidns && (getpgrp() != self || getsid(0) == self))
		confine_and_run(&o, connection, -1, 0, &mask);

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
		confine_and_run(&o, connection, report[1], self, &mask);
	}
	close_fd(connection);
	close(report[1]);
	watch_over(pid, report[0]);
}

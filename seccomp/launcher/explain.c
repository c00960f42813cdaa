/* SPDX-License-Identifier: MIT */
/*
 * --dry-run prints the effects of the profile. --check finds out whether this kernel supports them:
 * it tries each one in a child with namespaces of its own.
 */
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "seccomp/launcher/launch.h"

#define NEWNS_NEWPID 0x20020000

int explain_plan(const struct launch_options *o)
{
	const struct filter_table *t = launch_table(o->share_pidns);
	unsigned left_out = 0;

	for (unsigned i = 0; i < t->n_rules; i++)
		if (t->rules[i].hole != FILTER_NO_HOLE && o->holes >> t->rules[i].hole & 1)
			left_out++;
	printf("layer 1, unreachable:\n  new       mount namespace, private%s\n",
	       o->share_pidns ? "" : "\n  new       pid namespace");
	confine_print(o, stdout);
	printf("  close     every descriptor but 0-2\n  set       no_new_privs, own session\n");
	printf("layer 2, refused:\n  filter    %u instructions, %u rules, %u left out\n",
	       t->n_program, t->n_rules, left_out);
	if (o->share_pidns)
		printf("  protect   PIDs 1, 2 and the agent's\n"
		       "  leaves    /proc/PID/root of others whose capabilities the workload has too\n");
	printf("  report    %s\n", o->no_listener ? "to nobody" : o->listener);
	printf("run%s:\n ", o->init ? " under an init" : "");
	for (char **arg = o->command; *arg; arg++)
		printf(" %s", *arg);
	putchar('\n');
	return fflush(stdout) == 0 ? 0 : EXIT_NOT_APPLIED;
}

static int check_action(uint32_t action)
{
	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0 ? -errno : 0;
}

static int check_kill(_unused_ const struct launch_options *o)
{
	return check_action(SECCOMP_RET_KILL_PROCESS);
}

static int check_notify(_unused_ const struct launch_options *o)
{
	return check_action(SECCOMP_RET_USER_NOTIF);
}

/* Run f in a child; its result is the child's exit status. */
static int in_child(int (*f)(const struct launch_options *), const struct launch_options *o)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(-f(o));
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

static int do_layer_1(const struct launch_options *o)
{
	struct step step;
	int r = confine_mounts(o, &step);

	if (r == 0)
		r = confine_privileges(o, &step);
	if (r < 0)
		fprintf(stderr, "cellos-workload-exec: cannot %s: %s\n", step.name, strerror(-r));
	return r;
}

static int do_namespace(const struct launch_options *o)
{
	if (!o->share_pidns && syscall(SYS_unshare, NEWNS_NEWPID) < 0)
		return -errno;
	return in_child(do_layer_1, o);
}

static int check_layer_1(const struct launch_options *o)
{
	return in_child(do_namespace, o);
}

static int do_filter(const struct launch_options *o)
{
	const struct filter_options f = {.protect_pid = o->protect_pid, .holes = o->holes};
	struct step step;
	int r = confine_privileges(o, &step);

	return r < 0 ? r : filter_install(launch_table(o->share_pidns), &f, -1, &step);
}

static int check_filter(const struct launch_options *o)
{
	return in_child(do_filter, o);
}

static int do_close(_unused_ const struct launch_options *o)
{
	struct step step;

	return confine_descriptors(NULL, 0, &step);
}

static int check_close(const struct launch_options *o)
{
	return in_child(do_close, o);
}

int explain_check(const struct launch_options *o)
{
	static const struct {
		const char *what;
		int (*check)(const struct launch_options *);
		bool needed;
	} checks[] = {
		{"seccomp can kill a process", check_kill, true},
		{"seccomp can ask the agent", check_notify, false},
		{"namespaces, mounts and capabilities", check_layer_1, true},
		{"descriptors can be closed", check_close, true},
		{"the filter can be installed", check_filter, true},
	};
	int result = 0;

	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		int r = checks[i].check(o);

		printf("%-40s %s\n", checks[i].what, r < 0 ? strerror(-r) : "yes");
		fflush(stdout);
		if (r < 0 && checks[i].needed)
			result = EXIT_NOT_APPLIED;
	}
	return result;
}

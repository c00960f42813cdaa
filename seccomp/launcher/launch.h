/* SPDX-License-Identifier: MIT */
/*
 * The parts of cellos-workload-exec. Each returns 0 or a negative errno, and *step names the step
 * that failed; only workload_exec.c writes to stderr. Single-threaded, uses libc only.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/util.h"
#include "seccomp/filter.h"

#define EXIT_NOT_APPLIED 125 /* COMMAND was not run */
#define EXIT_CANNOT_EXEC 126
#define EXIT_NOT_FOUND	 127
#define LAUNCH_TIMEOUT_MS                                                                          \
	10000u /* the time in which the agent must take the notification descriptor */
#define LAUNCH_STEP_MAX	  320u
#define LAUNCH_MOUNTS_MAX 4096u /* mounts of the guest; with more the profile is not applied */

struct step {
	char name[LAUNCH_STEP_MAX];
};

void _printf_(2, 3) step_set(struct step *step, const char *fmt, ...);

enum launch_verb { VERB_RUN, VERB_PRINT, VERB_PLAN, VERB_CHECK };

struct launch_options {
	int verb; /* enum launch_verb */
	bool share_pidns;
	bool init;
	bool no_listener;
	bool drop_net_admin;
	const char *listener; /* borrowed, like all strings here */
	unsigned ready_timeout_ms;
	pid_t protect_pid;  /* of --share-pidns: the agent. 0: not known */
	unsigned agent_uid; /* 0: the agent's answer decides, or AGENT_UID_DEFAULT */
	uint64_t cap_keep;  /* bit i: capability i */
	uint32_t holes;
	char **command;
};

/* The table for this machine and mode (workload_filter.c). */
const struct filter_table *launch_table(bool share_pidns);

/* Layer 1 (confine.c). Call the three functions in this order. */

/* A new mount namespace, in which the paths of confine.c are read-only or masked. */
int confine_mounts(const struct launch_options *o, struct step *step);

/* Close all descriptors but 0-2 and the n <= 4 of keep (-1: none). */
int confine_descriptors(const int *keep, size_t n, struct step *step);

/* Drop capabilities from every set, then set no_new_privs. */
int confine_privileges(const struct launch_options *o, struct step *step);

/* "CAP_SYS_ADMIN" or "sys_admin" -> its number, or -ENOENT. */
int confine_capability(const char *name);
const char *confine_capability_name(int capability);
/* The hole that --cap-keep opens for it, or NULL if the profile does not drop this capability. */
const char *confine_capability_hole(int capability);
/* Print a line for each path and capability. */
void confine_print(const struct launch_options *o, FILE *out);

/* Passing the notification descriptor on (handover.c, common/handover.h). */

struct agent {
	int connection; /* owned by the caller; -1: none */
	pid_t pid;
	uid_t uid; /* 0: the agent has no user of its own */
};

/*
 * Connect to the agent and wait until it has a free place, up to o->ready_timeout_ms. The kernel
 * gives the agent's pid (SO_PEERCRED), not a file.
 */
int handover_connect(const struct launch_options *o, struct agent *ret, struct step *step);
int handover_send(int connection, int listener, const struct listener_message *m,
		  struct step *step);

/*
 * Install the filter. With connection >= 0 the filter asks the agent, which has the descriptor on
 * return. After this the process can do little more than execve(2).
 */
int filter_install(const struct filter_table *t, const struct filter_options *o, int connection,
		   struct step *step);

/* Waiting for children (supervise.c). All signals must be blocked. */

/*
 * Pass signals on to child until it ends; its wait status is in *ret_status. reap: wait for other
 * children too, as an init must. Returns 0, or a negative errno if child is not ours.
 */
int supervise(pid_t child, bool reap, int *ret_status);
/* End this process as the wait status says: with the same code, or by the same signal. */
_Noreturn void supervise_exit_as(int status);

/* --check and --dry-run (explain.c). Return an exit code. */
int explain_check(const struct launch_options *o);
int explain_plan(const struct launch_options *o);

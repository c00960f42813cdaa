/* SPDX-License-Identifier: MIT */
/*
 * The parts of cellos-workload-exec. Each returns 0 or a negative errno and names in *step what it
 * was doing; only main() writes to stderr. Single-threaded, uses libc only.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/util.h"
#include "seccomp/filter.h"

#define EXIT_NOT_APPLIED  125 /* COMMAND was not run */
#define EXIT_CANNOT_EXEC  126
#define EXIT_NOT_FOUND	  127
#define LAUNCH_PID_FILE	  "/run/cellos-telemetry.pid"
#define LAUNCH_STEP_MAX	  320u
#define LAUNCH_MOUNTS_MAX 4096u /* mounts of the guest; more: the profile is not applied */

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
	const char *listener; /* borrowed, like all strings here */
	const char *pid_file;
	pid_t protect_pid; /* 0: see pid_file */
	uint64_t cap_keep; /* bit i: capability i */
	uint32_t holes;
	char **command;
};

/* The table for this machine and mode (workload_filter.c). */
const struct filter_table *launch_table(bool share_pidns);

/* Layer 1 (confine.c). Call in this order. */

/* In a new mount namespace: what is named in confine.c is read-only or masked. */
int confine_mounts(const struct launch_options *o, struct step *step);

/* All but 0-2 and those of keep (-1: none), of which there are n <= 4. */
int confine_descriptors(const int *keep, size_t n, struct step *step);

/* From every set, the bounding set last of all; then no_new_privs. */
int confine_privileges(uint64_t cap_keep, struct step *step);

/* Capabilities that the profile takes. Bit i: capability i. */
uint64_t confine_dropped(void);
/* "CAP_SYS_ADMIN" or "sys_admin" -> its number, or -ENOENT. */
int confine_capability(const char *name);
const char *confine_capability_name(int capability);
/* What giving it back opens, or NULL. */
const char *confine_capability_hole(int capability);
/* A line for each path: what is done with it. */
void confine_print(const struct launch_options *o, FILE *out);

/* The hand-over of the notification descriptor (handover.c, common/handover.h). */

/* A connection to the agent that has a place for us; the caller owns it. */
int handover_connect(const char *path, int *ret_fd, struct step *step);
int handover_send(int connection, int listener, const struct listener_message *m,
		  struct step *step);

/*
 * The filter; with connection >= 0 it asks the agent behind it, who has the descriptor on return.
 * After this the process may do little more than execve(2).
 */
int filter_install(const struct filter_table *t, const struct filter_options *o, int connection,
		   struct step *step);

/* Waiting for others (supervise.c). All signals must be blocked. */

/*
 * Passes signals on to child until it ends; returns its wait status. reap: others are waited for
 * too, as an init must. Negative errno if child is not ours.
 */
int supervise(pid_t child, bool reap, int *ret_status);
/* Ends this process as the status says, by the same signal if it was one. */
_Noreturn void supervise_exit_as(int status);

/* --check and --dry-run (explain.c). Return an exit code. */
int explain_check(const struct launch_options *o);
int explain_plan(const struct launch_options *o);

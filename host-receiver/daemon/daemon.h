/* SPDX-License-Identifier: MIT */
/*
 * The daemon: many cells, one evidence log, a control socket, metrics. This is its interface for
 * the verb `serve`. The room logs, like the verbs, because no caller above it would.
 */
#pragma once

/*
 * A file in state_dir. `log new` writes the operator's reason to it, and the next start begins a
 * new log.
 */
#define DAEMON_PLAN_FILE "new-log"

/* All borrowed for the call. */
struct daemon_options {
	const char *config_path;
	/* Users of the receiver and the signer (users.h); both NULL: the caller's own. */
	const char *user, *signer_user;
	const char *signer_state; /* the signer's folder; NULL: in state_dir */
};

/*
 * Serve the cells until SIGTERM or SIGINT. Returns the exit status of the process; errors were
 * logged.
 */
int daemon_run(const struct daemon_options *options);

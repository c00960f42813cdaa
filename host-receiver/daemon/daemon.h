/* SPDX-License-Identifier: MIT */
/*
 * The daemon: many cells, one evidence log, a control socket, metrics. This is its interface for
 * the verb `serve`. The room is on the verbs' level: it logs, because there is no caller that
 * would.
 */
#pragma once

/* In state_dir: the reason why the next start begins a new log, for `log new`. */
#define DAEMON_PLAN_FILE "new-log"

/* All borrowed for the call. */
struct daemon_options {
	const char *config_path;
	/* Users of the receiver and the signer (users.h); both NULL: the caller's own. */
	const char *user, *signer_user;
	const char *signer_state; /* the signer's folder; NULL: in state_dir */
};

/* Serve the cells of the configuration until SIGTERM or SIGINT. Returns the exit status of the
 * process; what went wrong was logged. */
int daemon_run(const struct daemon_options *options);

/* SPDX-License-Identifier: MIT */
/*
 * The daemon: many cells, one evidence log, a control socket, metrics. This is what the verb
 * `serve` sees of it. A room of the verbs' level: it logs, because nobody above it would.
 */
#pragma once

/*
 * Serve the cells of the configuration at this path until SIGTERM or SIGINT. Returns the exit
 * status of the process; what went wrong was logged. config_path is borrowed for the call.
 */
/* In state_dir: the reason why the next start begins a new log, for `log new`. */
#define DAEMON_PLAN_FILE "new-log"

int daemon_run(const char *config_path);

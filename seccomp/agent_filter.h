/* SPDX-License-Identifier: MIT */
/* The agent's own list of system calls (agent.policy), compiled into the program. */
#pragma once

/*
 * Install the filter: from now on a system call that is not in the list ends this process. Needs
 * no_new_privs. Call it when everything is open. Returns 0 or a negative errno. Does nothing in
 * builds whose run-time library (sanitizer, coverage) makes calls of its own.
 */
int agent_filter_install(void);

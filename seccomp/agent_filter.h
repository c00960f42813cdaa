/* SPDX-License-Identifier: MIT */
/*
 * The agent's own allow-list (agent.policy), compiled in.
 */
#pragma once

/*
 * From now on a system call that the list does not have ends this process. Needs no_new_privs; to
 * be called when everything is open. Returns 0 or a negative errno; 0 and nothing done in a build
 * whose run-time (sanitizer, coverage) makes calls of its own.
 */
int agent_filter_install(void);

/* SPDX-License-Identifier: MIT */
/* The allow-list of the host receiver (receiver.policy), compiled in. */
#pragma once

/*
 * Install the filter for all threads of this process and for the programs that it starts. From now
 * on a system call that is not in the list fails with ENOSYS, and a call that only an attacker
 * would make ends the process. Needs no_new_privs. Returns 0 or a negative errno. Returns 0 and
 * does nothing in builds whose run-time library (sanitizer, coverage) makes calls of its own.
 */
int receiver_filter_install(void);

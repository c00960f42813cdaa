/* SPDX-License-Identifier: MIT */
/* The allow-list of the host receiver (receiver.policy), compiled in. */
#pragma once

/*
 * From now on a system call that the list does not have fails with ENOSYS, and one that only an
 * attacker would make ends the process; counts for all of its threads and for the programs that it
 * starts. Needs no_new_privs. Returns 0 or a negative errno; 0 and nothing done in a build whose
 * run-time (sanitizer, coverage) makes calls of its own.
 */
int receiver_filter_install(void);

/* SPDX-License-Identifier: MIT */
/*
 * The allow-list of the host receiver's forwarder process (forwarder.policy), compiled in.
 */
#pragma once

/*
 * From now on a system call that the list does not have ends this process; counts for all of its
 * threads. Needs no_new_privs. Returns 0 or a negative errno; 0 and nothing done in a build whose
 * run-time (sanitizer, coverage) makes calls of its own.
 */
int forwarder_filter_install(void);

/* SPDX-License-Identifier: MIT */
/*
 * The allow-list of the host receiver's forwarder process (forwarder.policy), compiled in.
 */
#pragma once

/*
 * Install the filter for all threads of this process: from now on a system call that is not in the
 * list ends the process. Needs no_new_privs. Returns 0 or a negative errno. Returns 0 and does
 * nothing in builds whose run-time library (sanitizer, coverage) makes calls of its own.
 */
int forwarder_filter_install(void);

/* SPDX-License-Identifier: MIT */
/*
 * The agent gives up its own privileges, so that a bug in it gives an attacker little. It also
 * protects itself: the workload cannot reach it, and cannot use up its resources. Call each
 * function once, in this order:
 *
 *   harden_close_inherited()  before anything is opened
 *   harden_log()
 *   harden_limits()           of the whole guest, and of this process
 *   harden_identity()         a user of its own; then epoll and the sources are opened: what they
 *                             take is charged to the user that makes them
 *   harden()                  everything else, when the sources are open
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "guest-agent/probes/probe.h"

#define HARDEN_WHY_MAX 256u

/*
 * Close every descriptor that was inherited, but for those named. Called before anything is
 * opened. keep may hold -1s.
 */
void harden_close_inherited(const int *keep, size_t n);

/*
 * A log that the workload holds open, too, must not stop the agent: give stderr an open file of
 * its own that never blocks. A socket is written without blocking anyway. Returns 0 or a negative
 * errno.
 */
int harden_log(void);

/*
 * Raise what would make the agent fail because others use it up: its own resource limits and,
 * if sysctls, those of the whole guest. Also the last to be killed for memory. The same return as
 * harden().
 */
int harden_limits(bool sysctls, char ret_why[HARDEN_WHY_MAX]);

/*
 * Become that user and group, without supplementary groups, and keep the capabilities; the folder,
 * if it is there, becomes its property. uid 0, or a process that is not root: nothing. Returns 0
 * or a negative errno.
 */
int harden_identity(uid_t uid, const char *folder);

/*
 * Not dumpable, memory locked, capabilities cut to what the open sources need, no new privileges,
 * no system call but those of seccomp/agent.policy. Goes through all of it whatever fails; returns
 * 0, or the first negative errno with each step that failed and why in ret_why.
 */
int harden(const struct probe *const *probes, size_t n, char ret_why[HARDEN_WHY_MAX]);

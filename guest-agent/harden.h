/* SPDX-License-Identifier: MIT */
/*
 * What the agent takes from itself, so that a bug in it gives an attacker little and the workload
 * cannot get at it. Called once, when the sources are open and before the channel is.
 */
#pragma once

#include <stddef.h>

#include "guest-agent/probes/probe.h"

#define HARDEN_WHY_MAX 256u

/*
 * Close every descriptor that was inherited, but for those named. Called before anything is
 * opened. keep may hold -1s.
 */
void harden_close_inherited(const int *keep, size_t n);

/*
 * Not dumpable, last to be killed for memory, memory locked, capabilities cut to what the open
 * sources need, no new privileges, no system call but those of
 * seccomp/agent.policy. Goes through all of it whatever fails; returns 0, or the first
 * negative errno with each step that failed and why in ret_why.
 */
int harden(const struct probe *const *probes, size_t n, char ret_why[HARDEN_WHY_MAX]);

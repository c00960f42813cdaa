/* SPDX-License-Identifier: MIT */
/*
 * What the receiver gives up after its parent was forked, so that whoever takes it over cannot
 * reach into the parent or the signer: its user (where there are separate ones), all capabilities
 * but the one that reads nftables' counters, and new privileges. hidden.h takes files and the
 * tracing of other processes away. No state; the first function in one thread, before others are
 * started.
 */
#pragma once

#include "host-receiver/privilege/users.h"

/* Returns 0 or a negative errno: a step that every kernel has was refused. */
int receiver_give_up(const struct process_users *users);

/* After the start: the receiver's list of system calls (receiver.policy), for all threads. Returns 0
 * or a negative errno. */
int receiver_limit_calls(void);

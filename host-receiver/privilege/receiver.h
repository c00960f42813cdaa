/* SPDX-License-Identifier: MIT */
/*
 * Takes rights away from the receiver after its parent was forked, so that an attacker who controls
 * the receiver cannot reach the parent or the signer: its user (if there are separate ones), all
 * capabilities except the one that reads nftables' counters, and new privileges. hidden.h takes
 * files and the tracing of other processes away. No state. Call the first function on one thread,
 * before others are started.
 */
#pragma once

#include "host-receiver/privilege/users.h"

/* Returns 0, or a negative errno if a step was refused that every supported kernel allows. */
int receiver_give_up(const struct process_users *users);

/*
 * Install the receiver's filter of system calls (receiver.policy) for all threads. Call it after
 * the start. Returns 0 or a negative errno.
 */
int receiver_limit_calls(void);

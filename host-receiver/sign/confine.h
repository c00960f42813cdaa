/* SPDX-License-Identifier: MIT */
/*
 * What the receiver gives up after its parent was forked, so that whoever takes it over cannot
 * reach into the parent or the signer: no new privileges, a Landlock domain (a process may not
 * trace another one outside its own), and the capabilities that open other processes and the
 * kernel. No state; one thread, before others are started.
 */
#pragma once

#include <stdbool.h>

struct confinement {
	bool landlock; /* the kernel has it */
};

/* Returns 0 or a negative errno: a step that every kernel has was refused. */
int receiver_confine(struct confinement *ret);

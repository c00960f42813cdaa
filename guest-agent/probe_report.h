/* SPDX-License-Identifier: MIT */
/*
 * --probe: try every source for real and print what it can do on this kernel, which one the agent
 * would take, and what is missing for the others. Nothing is connected.
 */
#pragma once

#include "guest-agent/options.h"

/* Returns the exit status: 0 when --require would hold, else EXIT_NOT_READY. */
int probe_report(const struct options *options);

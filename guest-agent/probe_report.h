/* SPDX-License-Identifier: MIT */
/*
 * --probe: open every source and print what it can do on this kernel, which source the agent would
 * choose, and what the others lack. Nothing is connected.
 */
#pragma once

#include "guest-agent/options.h"

/* Returns the exit status: 0 if --require would hold, else EXIT_NOT_READY. */
int probe_report(const struct options *options);

/* SPDX-License-Identifier: MIT */
/*
 * Asking the VMM over its API socket to write its metrics now (PUT /actions FlushMetrics). One
 * fixed request of which only the status is read; nothing else of the API is used. Blocks for at
 * most FC_API_TIMEOUT_MS; any thread.
 */
#pragma once

#include "host-receiver/probes/host_probe.h"

#define FC_API_TIMEOUT_MS 1000u
#define FC_API_ANSWER_MAX 4096u /* bytes of an answer that are read */

/* Returns 0 once the VMM says that it has, or a negative errno. */
int fc_api_flush(const char *path, char why[PROBE_WHY_MAX]);

/* SPDX-License-Identifier: MIT */
/*
 * Ask the VMM over its API socket to write its metrics now (PUT /actions FlushMetrics). The request
 * is fixed, and only the status of the answer is read; nothing else of the API is used. Blocks for
 * at most FC_API_TIMEOUT_MS; any thread.
 */
#pragma once

#include "host-receiver/probes/host_probe.h"

#define FC_API_TIMEOUT_MS 1000u
#define FC_API_ANSWER_MAX 4096u /* bytes of an answer that are read */

/* Returns 0 if the VMM answered that it has written them, or a negative errno. */
int fc_api_flush(const char *path, char why[PROBE_WHY_MAX]);

/* SPDX-License-Identifier: MIT */
/* Which options a kernel must be built with for each source. No state. */
#pragma once

#include "guest-agent/probes/probe.h"

/* The CONFIG_ names that a source needs, separated by spaces; SOURCE_ANY: the best one's. */
const char *probe_kernel_options(enum probe_family family, const char *via);

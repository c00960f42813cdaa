/* SPDX-License-Identifier: MIT */
/* The inotify source as a helper of the fanotify source, for paths that fanotify cannot mark. */
#pragma once

#include "guest-agent/probes/probe.h"

/* An inotify source without paths. 0 or a negative errno; closed by inotify_ops.close(). */
int inotify_helper_open(const struct probe_config *config, struct probe **ret);

/* Watch one more path (borrowed) from now on. At most PROBE_INOTIFY_PATHS_MAX in all. */
void inotify_helper_add(struct probe *helper, const char *path);

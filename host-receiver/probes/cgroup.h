/* SPDX-License-Identifier: MIT */
/* The two steps of a reading of the cgroup probe, for its tests. Any thread. */
#pragma once

#include "host-receiver/probes/host_probe.h"

/* Returns a descriptor of the leaf, or a negative errno; -EXDEV: not of a cgroup v2 file system. */
int cgroup_open_leaf(const char *path, char why[PROBE_WHY_MAX]);

/* Read the three files of the opened leaf; errors and inputs show path. Returns as read(). */
int cgroup_read_at(int leaf_fd, const char *path, struct probe_reading *ret,
		   char why[PROBE_WHY_MAX]);

/* SPDX-License-Identifier: MIT */
/*
 * The options that name the probes' sources, checked. Names with a special meaning in a path, a
 * shell or a terminal are refused before anything is opened.
 */
#pragma once

#include "host-receiver/probes/host_probe.h"

#define PROBE_INTERVAL_DEFAULT_MS 5000u

/*
 * Set the option name if it is one of the probes'. Strings are borrowed. Returns 1: set, 0: no such
 * option here, or -EINVAL with what was expected (static).
 */
int probe_options_set(struct probe_options *options, const char *name, const char *value,
		      const char **ret_expected);

/* Check options that need each other. 0, or -EINVAL with a sentence (static). */
int probe_options_check(const struct probe_options *options, const char **ret_why);

/*
 * A source that exists must have the right type: a leaf of a cgroup v2 file system, a file or a
 * FIFO, reached without a symbolic link. A source may also come later. Opens nothing for reading.
 * Returns 0 or a negative errno.
 */
int probe_options_look(const struct probe_options *options, char why[PROBE_WHY_MAX]);

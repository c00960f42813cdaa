/* SPDX-License-Identifier: MIT */
/* The two steps of a reading of the tap_link probe, for its tests. Any thread. */
#pragma once

#include "host-receiver/probes/host_probe.h"

/* Returns a descriptor of the interface's folder in sysfs, or a negative errno. */
int tap_link_open(const char *iface, char why[PROBE_WHY_MAX]);

/* Read the files of the opened folder. As read(). */
int tap_link_read_at(int link_fd, const char *iface, struct probe_reading *ret,
		     char why[PROBE_WHY_MAX]);

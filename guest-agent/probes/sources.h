/* SPDX-License-Identifier: MIT */
/*
 * The sources, each in a file of its name; probe_table lists them.
 */
#pragma once

#include "guest-agent/probes/probe.h"

extern const struct probe_ops proc_connector_ops;
extern const struct probe_ops proc_walk_ops;
extern const struct probe_ops fanotify_ops;
extern const struct probe_ops inotify_ops;
extern const struct probe_ops cgroup_bpf_ops;
extern const struct probe_ops proc_net_ops;
extern const struct probe_ops seccomp_notify_ops;
extern const struct probe_ops audit_net_ops;
extern const struct probe_ops audit_capability_ops;

/* SPDX-License-Identifier: MIT */
/*
 * Every source, by family, in the order of preference.
 */
#include "guest-agent/probes/sources.h"

const struct probe_ops *const probe_table[] = {
	&proc_connector_ops, &proc_walk_ops, &cgroup_bpf_ops, &proc_net_ops, &seccomp_notify_ops,
	&inotify_ops,	     NULL,
};

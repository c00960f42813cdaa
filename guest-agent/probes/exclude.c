/* SPDX-License-Identifier: MIT */
/*
 * Processes that are not reported: see probe.h. A pid alone would exclude the next process that
 * gets the number, so each is known by its start time, too.
 */
#include "common/util.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_facts.h"

static uint64_t start_of(pid_t pid)
{
	struct proc_stat st;

	return facts_stat(pid, &st) < 0 ? 0 : st.start_ticks * PROC_TICK_NS;
}

void probe_exclude_now(struct probe_config *config)
{
	for (size_t i = 0; i < config->n_excluded; i++)
		config->excluded_start_ns[i] = start_of(config->excluded[i]);
}

bool probe_excludes_start(const struct probe_config *config, pid_t pid, uint64_t start_ns)
{
	if (pid == config->self)
		return true;
	for (size_t i = 0; i < config->n_excluded; i++)
		if (config->excluded[i] == pid && config->excluded_start_ns[i] &&
		    proc_same_start(config->excluded_start_ns[i], start_ns))
			return true;
	return false;
}

bool probe_excludes(const struct probe_config *config, pid_t pid)
{
	if (pid == config->self)
		return true;
	for (size_t i = 0; i < config->n_excluded; i++)
		if (config->excluded[i] == pid)
			return probe_excludes_start(config, pid, start_of(pid));
	return false;
}

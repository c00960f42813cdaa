/* SPDX-License-Identifier: MIT */
/*
 * --probe: try every source for real and print what it can do on this kernel.
 */
#include "common/util.h"
#include "guest-agent/agent.h"

int agent_probe(const struct options *options)
{
	static const char *const families[] = {
		[PROBE_PROCESS] = "process",
		[PROBE_NET] = "net",
		[PROBE_CAPABILITY] = "capability",
		[PROBE_FS] = "fs",
	};

	for (const struct probe_ops *const *p = probe_table; *p; p++) {
		char why[PROBE_WHY_MAX] = "";
		struct probe *probe = NULL;
		int r = (*p)->open(&options->probes, &probe, why);

		if (r == 0)
			(*p)->close(probe);
		if (r == 0)
			printf("%-10s %-14s available: %s; misses: %s%s\n", families[(*p)->family],
			       (*p)->via, (*p)->uses, (*p)->misses,
			       (*p)->opt_in ? "; only when asked for" : "");
		else
			printf("%-10s %-14s not available: %s (%s)\n", families[(*p)->family],
			       (*p)->via, why, strerror(-r));
	}
	return EXIT_SUCCESS;
}

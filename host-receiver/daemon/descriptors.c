/* SPDX-License-Identifier: MIT */
/*
 * How many file descriptors the daemon needs, and whether one more cell leaves enough of them. Loop
 * thread.
 */
#include <fcntl.h>
#include <sys/resource.h>

#include "common/log.h"
#include "host-receiver/daemon/internal.h"

#define DESCRIPTORS_A_CELL 3u  /* its socket, the socket's folder, its connection */
#define DESCRIPTORS_OWN	   64u /* log, state, loop, threads, probes */
#define DESCRIPTORS_KEPT   32u /* kept free of cells, for clients and the log */

uint64_t daemon_descriptors_needed(const struct config *config)
{
	return config->max_cells * DESCRIPTORS_A_CELL + CONTROL_CLIENTS_MAX + METRICS_CLIENTS_MAX +
	       DESCRIPTORS_OWN;
}

uint64_t daemon_descriptor_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : 0;
}

int daemon_check_descriptors(const struct daemon *d, char why[CELL_WHY_MAX])
{
	const struct cell_registry_stats *s = &d->registry.stats;
	struct rlimit limit;
	uint64_t needed;
	int fd;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	/*
	 * The kernel gives the lowest free number, so it shows about how many descriptors are open.
	 */
	fd = fcntl(d->state_fd, F_DUPFD_CLOEXEC, 0);
	close_fd(fd);
	needed =
		(uint64_t)MAX(fd, 0) + DESCRIPTORS_A_CELL + s->cells - s->active + DESCRIPTORS_KEPT;
	if (fd >= 0 && needed <= limit.rlim_cur)
		return 0;
	snprintf(
		why, CELL_WHY_MAX,
		"Too many open files: a cell needs %u and %u are kept for clients; raise the limit "
		"of %" PRIu64 " (RLIMIT_NOFILE)",
		DESCRIPTORS_A_CELL, DESCRIPTORS_KEPT, (uint64_t)limit.rlim_cur);
	return -EMFILE;
}

void daemon_raise_descriptor_limit(const struct config *config)
{
	const uint64_t needs = daemon_descriptors_needed(config);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_max < needs)
		log_warning("msg=\"RLIMIT_NOFILE is too low for max_cells: cells may be unserved; "
			    "raise it (LimitNOFILE=) or lower max_cells\" limit=%" PRIu64
			    " needed=%" PRIu64 " max_cells=%" PRIu64,
			    (uint64_t)limit.rlim_max, needs, config->max_cells);
}

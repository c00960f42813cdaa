/* SPDX-License-Identifier: MIT */
/*
 * /metrics, /healthz and /readyz over HTTP, on a thread of libmicrohttpd. The loop copies its
 * numbers here each second and never waits for that thread, so a slow client delays nothing but its
 * own page. The pages are described in docs/reference/metrics.md.
 */
#pragma once

#include "host-receiver/cell/cell.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/link.h"

#define METRICS_CLIENTS_MAX   256u
#define METRICS_PER_ADDRESS   4u /* connections from one address; a Unix socket has no such limit */
#define METRICS_REQUEST_MS    5000u /* a connection is closed after this time */
#define METRICS_LOOP_STALL_MS 5000u
#define METRICS_WHY_MAX	      512u

#define METRICS_REASONS_MAX 1024u

/* The daemon's own state; the loop publishes it together with the cells' numbers. */
struct metrics_health {
	unsigned cells_unserved;
	uint64_t oldest_inflight_ms;
	char algorithm[32], kid[SIGN_KID_MAX + 1], fingerprint[64];
	bool alarm; /* an alarm stands until it is acknowledged */
	bool forwards;
	struct forward_status forward;
	uint64_t forward_restarts;
	/* The reasons why /readyz fails, each in a line; "": it succeeds. */
	char reasons[METRICS_REASONS_MAX];
};

struct metrics_server;

/*
 * Listen, and start the thread. listen: ADDRESS:PORT or unix:/PATH. stats and log are borrowed
 * until metrics_server_free(). Returns 0 or a negative errno with a sentence in why.
 */
int metrics_server_new(const char *listen, const struct pipeline_stats *stats,
		       struct evidence_log *log, struct metrics_server **ret,
		       char why[METRICS_WHY_MAX]);

/*
 * Call it on the loop thread each second: /healthz fails if these calls stop. per_cell: copy also
 * the numbers of each cell. server may be NULL.
 */
void metrics_server_publish(struct metrics_server *server, const struct cell_registry *registry,
			    const struct metrics_health *health, bool per_cell);

/* End the thread, close and unlink the socket. server may be NULL. */
void metrics_server_free(struct metrics_server *server);

/* SPDX-License-Identifier: MIT */
/*
 * /metrics, /healthz and /readyz over HTTP, on a thread of libmicrohttpd. The loop copies its
 * numbers here each second and never waits for that thread, so a slow client delays only itself.
 */
#pragma once

#include "host-receiver/cell/cell.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/link.h"

#define METRICS_CLIENTS_MAX   256u
#define METRICS_PER_ADDRESS   4u    /* connections of one address; a Unix socket has none */
#define METRICS_REQUEST_MS    5000u /* a connection with its one request is cut after this time */
#define METRICS_LOOP_STALL_MS 5000u
#define METRICS_WHY_MAX	      512u

#define METRICS_REASONS_MAX 1024u

/* The daemon's own state; the loop publishes it together with the cells' numbers. */
struct metrics_health {
	unsigned cells_unserved;
	uint64_t oldest_inflight_ms;
	char algorithm[32], kid[SIGN_KID_MAX + 1], fingerprint[64];
	bool alarm; /* it stands until it is acknowledged */
	bool forwards;
	struct forward_status forward;
	uint64_t forward_restarts;
	/* The reasons why /readyz fails, a line each; "": it succeeds. */
	char reasons[METRICS_REASONS_MAX];
};

struct metrics_server;

/*
 * listen: ADDRESS:PORT, unix:/PATH. stats and log are borrowed until metrics_server_free(). Returns
 * 0 or a negative errno with a sentence in why.
 */
int metrics_server_new(const char *listen, const struct pipeline_stats *stats,
		       struct evidence_log *log, struct metrics_server **ret,
		       char why[METRICS_WHY_MAX]);

/* Call it on the loop thread each second: it also shows that the loop runs. per_cell: each cell's
 * numbers too. server may be NULL. */
void metrics_server_publish(struct metrics_server *server, const struct cell_registry *registry,
			    const struct metrics_health *health, bool per_cell);

void metrics_server_free(struct metrics_server *server);

/* SPDX-License-Identifier: MIT */
/*
 * The daemon's forwarder process (host-receiver/forward): starts it, starts it again after it has
 * ended, sends it the durable end of the log, and keeps its last status. Loop thread only.
 */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "host-receiver/config/config.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/link.h"

struct forwarding {
	const char *config_path;  /* borrowed */
	struct evidence_log *log; /* borrowed; NULL: stopped */
	uv_loop_t *loop;
	uv_process_t process;
	bool wanted;   /* [nats] url is set */
	bool running;  /* the process is not reaped */
	bool starting; /* no status of this process yet */
	int fd;	       /* owned; the link, -1: no process */
	struct link_order end;
	struct forward_status status;
	uint64_t next_start_ns, restarts;
	unsigned backoff_ms;
	uint64_t lag_ready_ms;
};

void forwarding_init(struct forwarding *f, uv_loop_t *loop, struct evidence_log *log,
		     const char *config_path);
/*
 * Call it before retention starts: it keeps the segments that a forwarder without a cursor will
 * read. Returns 0 or a negative errno.
 */
int forwarding_hold(const struct config *config, int cursors_fd);
/*
 * Start, stop or restart the forwarder for this configuration. changed: its settings have changed.
 */
void forwarding_configure(struct forwarding *f, const struct config *config, bool changed);
/* Call it each second: starts a forwarder that has ended, and checks its status. */
void forwarding_update(struct forwarding *f);
/* Call it after a commit: sends the new durable end of the log. */
void forwarding_progress(struct forwarding *f);
/* Close the link: the forwarder reads end of file and ends. */
void forwarding_stop(struct forwarding *f);

/* False, with the reason in why, when evidence has waited for longer than lag_ready. */
bool forwarding_is_ready(const struct forwarding *f, char why[256]);
/* For `status` and `forward status`; NULL: there is no forwarder. */
json_t *forwarding_describe(const struct forwarding *f);
/*
 * Make the forwarder send all evidence from this index or time on again. Returns 0 or a negative
 * errno.
 */
int forwarding_rewind(struct forwarding *f, enum link_order_kind kind, uint64_t value);

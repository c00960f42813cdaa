/* SPDX-License-Identifier: MIT */
/*
 * The observations about a process, except its executions (exec_hold.h): its start, its end, and
 * what else the connector reports. They are put into the queue at once; processes that --exclude
 * names are left out. Changes nothing but the queue. Single-threaded; no allocation.
 */
#pragma once

#include "guest-agent/event_queue.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/image_table.h"
#include "guest-agent/probes/pid_table.h"

/* Fill in the name of a process from /proc. False: it is not there any more. */
bool process_report_name(struct pid_entry *e);

/* at_ns: CLOCK_MONOTONIC, of the event. */
void process_report_spawned(const struct probe_config *config, struct event_queue *q,
			    const struct pid_entry *e, uint64_t at_ns);

/* status: as wait(2) gives it; NULL when it is not known. */
void process_report_exited(const struct probe_config *config, struct event_queue *q,
			   const struct pid_entry *e, const uint32_t *status, uint64_t at_ns);

/*
 * An event that is neither start, execution nor end. table and images give it the names that the
 * event lacks.
 */
void process_report_detail(const struct probe_config *config, struct event_queue *q,
			   struct pid_table *table, struct image_table *images,
			   const struct connector_event *ev);

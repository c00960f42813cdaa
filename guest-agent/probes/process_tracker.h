/* SPDX-License-Identifier: MIT */
/*
 * The processes that are alive, and what to report of them: turns the connector's events into
 * observations, with the names that the events lack, and repairs itself from /proc after a loss.
 *
 * An execution is reported when it is certain which program it executed (exec_hold.h); other events
 * of that process wait for it, and its end is reported after it.
 *
 * The repair takes several turns. First /proc is walked, a piece a turn. Then the socket must have
 * been empty once more, so that no queued event can still tell the same. Then the starts,
 * executions and ends that no event reported are reported, a piece a turn. An end found so has no
 * exit code. Which programs run is not known after a loss, and is learnt again when somebody asks.
 *
 * Single-threaded; allocates in process_tracker_init() only.
 */
#pragma once

#include "guest-agent/event_queue.h"
#include "guest-agent/probes/connector_message.h"
#include "guest-agent/probes/exec_hold.h"
#include "guest-agent/probes/exec_reader.h"
#include "guest-agent/probes/pid_table.h"
#include "guest-agent/probes/probe.h"
#include "guest-agent/probes/proc_facts.h"
#include "guest-agent/probes/process_past.h"
#include "guest-agent/probes/process_view.h"

enum tracker_state {
	TRACKER_STEADY,
	TRACKER_SCAN_WANTED,
	TRACKER_WALKING,
	TRACKER_SETTLING,
	TRACKER_REPORTING,
};

struct process_tracker {
	const struct probe_config *config; /* borrowed */
	struct pid_table *table;	   /* owned */
	struct image_table *images;	   /* owned */
	struct exec_holds *holds;	   /* owned */
	struct process_past *past;	   /* owned */
	enum tracker_state state;
	bool scan_again;
	uint32_t scan;	    /* number of the running or last walk */
	pid_t scan_pid;	    /* that the walk has come to and not read yet; 0: none */
	size_t place;	    /* of the report, in the table */
	uint64_t told_ns;   /* when the last report began */
	uint64_t empty_ns;  /* when the socket was last found empty */
	uint64_t behind_ns; /* since when it is not empty although it was read; 0: it was empty */
	uint64_t refused_told; /* of the table's refusals */
	struct proc_dir dir;
	/* The owner opens and closes it. While it is closed, proc_facts.h answers instead. */
	struct exec_reader reader;
};

/*
 * Learn, without reporting, who is alive already. Call it when events are queued up already.
 * 0 or a negative errno; process_tracker_done() is to be called in both cases.
 */
int process_tracker_init(struct process_tracker *t, const struct probe_config *config);
void process_tracker_done(struct process_tracker *t);

/* One event of the connector. Children of the agent itself are left out. */
void process_tracker_event(struct process_tracker *t, struct event_queue *q,
			   const struct connector_event *ev);

/* Events were lost. */
void process_tracker_repair(struct process_tracker *t, struct event_queue *q);

/* To be called when the socket has just been found empty. True while a repair is not finished. */
bool process_tracker_turn(struct process_tracker *t, struct event_queue *q, unsigned budget);

/*
 * To be called after events were read: report the executions whose hold is over. empty_ns: when the
 * socket was last found empty.
 */
void process_tracker_settle(struct process_tracker *t, struct event_queue *q, uint64_t now_ns,
			    uint64_t empty_ns);
/* Take the answers of the reader, and ask it for the next. Before process_tracker_settle(). */
void process_tracker_take(struct process_tracker *t);
/* Report all that is held, now. */
void process_tracker_flush(struct process_tracker *t, struct event_queue *q);

/*
 * Now and then: report the ends that became certain by the look of /proc only, the second time that
 * it shows them.
 */
void process_tracker_check(struct process_tracker *t, struct event_queue *q);

/* See process_view.h. All events up to at_ns must have been read. */
enum exe_answer process_tracker_exe(struct process_tracker *t, struct event_queue *q, pid_t pid,
				    uint64_t at_ns, const char **ret_exe, size_t *ret_len);
enum exe_answer process_tracker_exe_since(struct process_tracker *t, struct event_queue *q,
					  pid_t pid, uint64_t since_ns, const char **ret_exe,
					  size_t *ret_len);
int process_tracker_comm(struct process_tracker *t, pid_t pid, char ret_comm[static PROC_COMM_MAX]);

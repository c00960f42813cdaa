/* SPDX-License-Identifier: MIT */
/*
 * The stat and status of other processes, for the loop. Those of a process that has just executed
 * something come by exec_reader.h, if that is not late. A reader process reads them
 * (proc_reader.h), because who reads them can have to free that process's memory. An answer usually
 * takes some microseconds, and the loop waits for it. A late answer is no reason to wait longer:
 * the caller gets -EAGAIN and asks again in a later turn.
 *
 *   waits for answers, of more than FACTS_FREE_NS each    at most FACTS_WAIT_NS in FACTS_WINDOW_NS
 *   a reader that does not answer                         killed after READER_DEADLINE_NS
 *
 * Without a reader the files are read directly: in unit tests, in --probe, and where the guest lets
 * no child be started or confined. That is known before the workload begins.
 *
 * Single-threaded; no allocation.
 */
#pragma once

#include <errno.h>

#include "guest-agent/probes/proc_reader.h"

#define FACTS_FREE_NS	(1 * NSEC_PER_MSEC)
#define FACTS_WAIT_NS	(10 * NSEC_PER_MSEC)
#define FACTS_WINDOW_NS (50 * NSEC_PER_MSEC)
#define FACTS_START_NS	(2 * NSEC_PER_SEC) /* a reader that answers by then works */

/* Start the reader and wait for its first answer. False: there is none. */
bool facts_open(void);
void facts_close(void);
/* Now and then: wait for readers that were killed, and start one if there is none. */
void facts_tend(void);

/*
 * 0; -EAGAIN: ask again; -EBUSY: the reader did not answer, or there is none now; or the error of
 * the file, -ENOENT and -ESRCH when the process is gone.
 */
int facts_stat(pid_t pid, struct proc_stat *ret);
/* Of up to READER_PIDS_MAX processes at once, each with an error of its own. */
int facts_stats(const pid_t *pids, size_t n, struct reader_stat *ret);
/* Both. The status is read first, so it is of the process that the stat's start time names. */
int facts_both(pid_t pid, struct proc_status *ret_status, struct proc_stat *ret_stat);
/* Both, of a reader's answer. The same errors, but never -EAGAIN nor -EBUSY. */
int facts_parse(const struct reader_answer *a, struct proc_status *ret_status,
		struct proc_stat *ret_stat);

/* Whether an error of these says nothing of the process. */
static inline bool facts_are_late(int r)
{
	return r == -EAGAIN || r == -EBUSY;
}

/* SPDX-License-Identifier: MIT */
/*
 * The stat and status of other processes, for the loop. A reader process reads them
 * (proc_reader.h), because who reads them can have to free that process's memory. An answer usually
 * takes some microseconds, and the loop waits for it. A late answer is no reason to wait longer:
 * the caller gets -EAGAIN and asks again in a later turn.
 *
 *   waits for answers, of more than FACTS_FREE_NS each    at most FACTS_WAIT_NS in FACTS_WINDOW_NS
 *   a reader that does not answer                         killed after READER_DEADLINE_NS
 *
 * Without a reader - in unit tests and in --probe - the files are read directly.
 *
 * Single-threaded; no allocation.
 */
#pragma once

#include <errno.h>

#include "guest-agent/probes/proc_file.h"

#define FACTS_FREE_NS	(1 * NSEC_PER_MSEC)
#define FACTS_WAIT_NS	(10 * NSEC_PER_MSEC)
#define FACTS_WINDOW_NS (50 * NSEC_PER_MSEC)

/* Start the reader. 0 or a negative errno. */
int facts_open(void);
void facts_close(void);
/* Now and then: wait for readers that were killed, and start one if there is none. */
void facts_tend(void);

/*
 * 0; -EAGAIN: ask again; -EBUSY: there is no reader now, and none could be started; or the error of
 * the file, -ENOENT and -ESRCH when the process is gone.
 */
int facts_stat(pid_t pid, struct proc_stat *ret);
/* Both. The status is read first, so it is of the process that the stat's start time names. */
int facts_both(pid_t pid, struct proc_status *ret_status, struct proc_stat *ret_stat);

/* Whether an error of these says nothing of the process. */
static inline bool facts_are_late(int r)
{
	return r == -EAGAIN || r == -EBUSY;
}

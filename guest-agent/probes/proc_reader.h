/* SPDX-License-Identifier: MIT */
/*
 * A process of the agent's own that reads files of /proc which are another process's memory, or
 * make the reader hold that memory.
 *
 * cmdline is memory of the process: the reader of it waits for its locks and its page faults, which
 * the process can make last for ever. stat and status make the kernel hold the address space while
 * it writes them: if the process ends just then, the reader frees all of its memory, tens of
 * milliseconds for each GiB. So the agent's loop reads none of them. A child does, one request at a
 * time. If it does not answer in time, it is killed, another takes its place, and the pid that hung
 * it is left alone for a while. The child has no capability but SYS_PTRACE, no descriptor but its
 * end of the socket, and a seccomp list of its own.
 *
 *   state    leaves it by
 *   ABSENT   proc_reader_tend() starts a child              -> IDLE
 *   IDLE     proc_reader_ask()                              -> ASKED
 *   ASKED    proc_reader_answer(), or the deadline (killed) -> IDLE, ABSENT
 *
 * Single-threaded; never blocks, no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest-agent/probes/proc_file.h"

#define READER_CMDLINE_MAX 1100u /* bytes of arguments that are read */
#define READER_DEADLINE_NS (50 * NSEC_PER_MSEC)
#define READER_SKIP_NS	   (10 * NSEC_PER_SEC)
#define READER_SKIPPED_MAX 32u
#define READER_IN_VAIN_MAX 3u
#define READER_SLOWER_MAX  4u /* how often a deadline doubles */
#define READER_DYING_MAX   4u /* killed children that the kernel has not let go of yet */

#define READER_TEXTS	3u  /* files of one request */
#define READER_PIDS_MAX 16u /* processes of one request for READER_STATS */

/* The files of /proc/PID that a request asks for. */
enum reader_files { READER_STATS, READER_STATUS_STAT, READER_EXECUTED };

/* The places of the files in an answer. Those that were not asked for are empty. */
enum { READER_STATUS, READER_CMDLINE, READER_STAT };

/* An answer to READER_STATS has one of these for each pid. */
struct reader_stat {
	int error; /* 0 or a negative errno */
	struct proc_stat stat;
};

struct reader_answer {
	uint32_t number;
	int32_t len[READER_TEXTS]; /* of each file, or a negative errno */
	/* One text after the other; for READER_STATS in len[0] bytes structs reader_stat. */
	_Alignas(8) char data[PROC_STATUS_MAX + READER_CMDLINE_MAX + PROC_STAT_MAX];
};

_Static_assert(READER_PIDS_MAX * sizeof(struct reader_stat) <= PROC_STATUS_MAX, "they fit");

enum reader_state { READER_ABSENT, READER_IDLE, READER_ASKED };

struct proc_reader {
	enum reader_state state; /* READER_ABSENT before proc_reader_open() */
	int fd, child_fd;	 /* the two ends of a socket; child_fd is kept for the next child */
	pid_t child;
	pid_t dying[READER_DYING_MAX]; /* 0: none */
	uint32_t request;	       /* number of the last one */
	pid_t asked;		       /* whose files; of the first of several processes */
	uint64_t asked_ns, deadline_ns, skip_ns;
	size_t next_skipped;
	struct {
		pid_t pid;
		uint64_t until_ns;
	} skipped[READER_SKIPPED_MAX];
	unsigned in_vain; /* children killed since the last answer */
};

/*
 * skip_ns: how long a pid that hung the reader is left alone. 0 or a negative errno;
 * proc_reader_close() is to be called in both cases.
 */
int proc_reader_open(struct proc_reader *r, uint64_t skip_ns);
void proc_reader_close(struct proc_reader *r);

/*
 * n: 1, or up to READER_PIDS_MAX with READER_STATS. False if it cannot be asked now (it is not
 * IDLE); *ret_skip: it must not be asked for the first pid.
 */
bool proc_reader_ask(struct proc_reader *r, enum reader_files what, const pid_t *pids, size_t n,
		     uint64_t now_ns, bool *ret_skip);

/*
 * 0 and the answer, with the first pid in *ret_pid; -EAGAIN if there is none yet; -ETIMEDOUT if
 * none will come, with the pid.
 */
int proc_reader_answer(struct proc_reader *r, pid_t *ret_pid, struct reader_answer *ret,
		       uint64_t now_ns);

/* Start a child if there is none; wait for dead ones. */
void proc_reader_tend(struct proc_reader *r);

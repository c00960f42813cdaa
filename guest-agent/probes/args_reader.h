/* SPDX-License-Identifier: MIT */
/*
 * The arguments of executed programs, read by a process of its own.
 *
 * /proc/PID/cmdline is memory of that process: whoever reads it waits for its locks and its page
 * faults, which the process can make last for ever. So a child reads it, one request at a time; a
 * child that does not answer in time is killed, another takes its place, and the pid that hung it
 * is left alone for a while. The child has no capability but SYS_PTRACE, no descriptor but its end
 * of the socket, and a seccomp list of its own.
 *
 *   state    leaves it by
 *   ABSENT   args_reader_tend() starts a child              -> IDLE
 *   IDLE     args_reader_ask()                              -> ASKED
 *   ASKED    args_reader_answer(), or the deadline (killed) -> IDLE, ABSENT
 *
 * Single-threaded; never blocks, no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ARGS_ANSWER_MAX	 1100u /* bytes of arguments that are read */
#define ARGS_DEADLINE_NS (50 * NSEC_PER_MSEC)
#define ARGS_SKIP_NS	 (10 * NSEC_PER_SEC)
#define ARGS_SKIPPED_MAX 32u
#define ARGS_IN_VAIN_MAX 3u
#define ARGS_DYING_MAX	 4u /* killed children that the kernel has not let go of yet */

enum args_state { ARGS_ABSENT, ARGS_IDLE, ARGS_ASKED };

struct args_reader {
	enum args_state state;
	int fd, child_fd; /* the two ends of a socket; child_fd is kept for the next child */
	pid_t child;
	pid_t dying[ARGS_DYING_MAX]; /* 0: none */
	uint32_t request;	     /* number of the last one */
	pid_t asked;		     /* whose arguments */
	uint64_t deadline_ns;
	size_t next_skipped;
	struct {
		pid_t pid;
		uint64_t until_ns;
	} skipped[ARGS_SKIPPED_MAX];
	uint64_t hung;	  /* how many children were killed */
	unsigned in_vain; /* of them, since the last answer */
};

/* 0 or a negative errno; args_reader_close() is to be called in both cases. */
int args_reader_open(struct args_reader *r);
void args_reader_close(struct args_reader *r);

/*
 * False if it cannot be asked now (it is not IDLE); *ret_skip: it must not be asked for this pid.
 */
bool args_reader_ask(struct args_reader *r, pid_t pid, uint64_t now_ns, bool *ret_skip);

/*
 * The answer: the length of the arguments, or 0 if they cannot be read, with the pid in *ret_pid.
 * -EAGAIN if there is none yet.
 */
ssize_t args_reader_answer(struct args_reader *r, pid_t *ret_pid, char ret[static ARGS_ANSWER_MAX],
			   uint64_t now_ns);

/* Start a child if there is none; wait for dead ones. */
void args_reader_tend(struct args_reader *r);

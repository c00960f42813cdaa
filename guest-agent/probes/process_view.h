/* SPDX-License-Identifier: MIT */
/*
 * Questions of the other sources to the process source: which program did a process run at a
 * moment, and what is its name? Only the process connector knows the past; without it every answer
 * about a program is EXE_UNKNOWN.
 *
 * Single-threaded.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct event_queue;

/* An answer comes at the latest so long after the question was asked for the first time. */
#define EXE_WAIT_NS (150 * NSEC_PER_MSEC)

enum exe_answer {
	EXE_UNKNOWN, /* and it will not become known */
	EXE_WAIT,    /* ask again */
	EXE_KNOWN,
};

/* Read the events that are queued, so that questions about the past can be answered. */
void process_view_catch_up(struct event_queue *q);

/*
 * The program of pid at at_ns (CLOCK_MONOTONIC), which must be before the last catch_up. With
 * EXE_KNOWN *ret_exe is borrowed until the next call of any source.
 */
enum exe_answer process_view_exe(struct event_queue *q, pid_t pid, uint64_t at_ns,
				 const char **ret_exe, size_t *ret_len);

/* The same when only this is certain: what is asked about happened after since_ns, until until_ns.
 */
enum exe_answer process_view_exe_between(struct event_queue *q, pid_t pid, uint64_t since_ns,
					 uint64_t until_ns, const char **ret_exe, size_t *ret_len);

/*
 * Whether a process that lives has the user and the capabilities that it had then, as far as events
 * say: without the process connector always.
 */
bool process_view_same_user(struct event_queue *q, pid_t pid, uint64_t since_ns);

/*
 * The name of a process that lives, or that ended a moment ago; without the process connector only
 * of one that lives. Returns its length, 0 if unknown.
 */
int process_view_comm(pid_t pid, char ret_comm[static 16]);

/*
 * Call note(ctx) whenever events of processes have been read: a source whose own events carry no
 * time learns so that what it reads later happened later. NULL: no more.
 */
void process_view_notify(void (*note)(void *ctx), void *ctx);

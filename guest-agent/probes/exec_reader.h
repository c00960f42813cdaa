/* SPDX-License-Identifier: MIT */
/*
 * The reader process of executed processes: for each held execution it is asked once, for status,
 * arguments and stat together. The loop does not wait for the answer, and its descriptor wakes the
 * loop. So an execution costs one question and one wake-up.
 *
 * Its arguments are memory of the process, which can make the reader wait for READER_DEADLINE_NS.
 * So an execution without an answer after EXEC_ASK_NS gets its stat and status from the other
 * reader (proc_facts.h), which reads nothing that can wait.
 *
 *   question     leaves it by
 *   NOT_ASKED    exec_reader_want()                               -> TO_ASK
 *   TO_ASK       exec_reader_ask(), or the pid is left alone      -> ASKED, NOT_ASKED
 *   ASKED        exec_reader_take(): an answer, or none will come -> NOT_ASKED
 *
 * Single-threaded; no allocation.
 */
#pragma once

#include "guest-agent/probes/exec_hold.h"

#define EXEC_ASK_NS (5 * NSEC_PER_MSEC)

struct exec_reader {
	bool open, args;
	struct proc_reader reader;
	struct reader_answer answer;
};

/* args: arguments are wanted. 0, or a negative errno and x is closed. */
int exec_reader_open(struct exec_reader *x, bool args);
void exec_reader_close(struct exec_reader *x);
/* Now and then: wait for readers that were killed, and start one if there is none. */
void exec_reader_tend(struct exec_reader *x);

/* The reader is to be asked about h, whose stat and status are pending. */
void exec_reader_want(struct exec_reader *x, struct exec_held *h);
/* Ask it about the next, if it is free. */
void exec_reader_ask(struct exec_reader *x, struct exec_holds *holds);
/* Take an answer. Returns the execution that knows more now, or NULL. */
struct exec_held *exec_reader_take(struct exec_reader *x, struct exec_holds *holds);

/* SPDX-License-Identifier: MIT */
/*
 * Folding (wire.md section 4.3): equal observations within a second become one later observation
 * with their number. Without it one process that connects in a loop could fill the queue.
 *
 * Equal means the same source, pid, comm and details. The kernel uses pids again, so everything
 * about a pid is forgotten when a process with that number begins or ends. The beginning and the
 * end of a process are never folded: equal ones belong to different processes.
 *
 * The table is bounded. An observation without a place in it is not folded. No allocation after
 * fold_new(); single-threaded.
 */
#pragma once

#include "common/wire.h"

#define FOLD_WINDOW_MS 1000u
#define FOLD_ENTRIES   256u
#define FOLD_BYTES_MAX 440u /* of what makes two observations equal: longer ones are not folded */

struct fold;

/* NULL when there is no memory. */
struct fold *fold_new(void);
void fold_free(struct fold *fold);

/*
 * True: the observation repeats an earlier one and is counted in it. False: it is to be sent; equal
 * ones within the window will be its repeats. Nothing of d is borrowed.
 */
bool fold_take(struct fold *fold, const struct declaration *d);

/*
 * Take a finished count out as an observation with its repeat and last_ns: one whose window is over
 * at now_ns. Texts are borrowed until the next call. False: there is none. *ret_count is repeat.
 */
bool fold_due(struct fold *fold, uint64_t now_ns, struct declaration *ret, uint32_t *ret_count);

/* The same for what is known of a pid, whether its window is over or not; and forget the pid. */
bool fold_forget(struct fold *fold, uint32_t pid, struct declaration *ret, uint32_t *ret_count);

/* CLOCK_MONOTONIC: when fold_due() will have something; 0: nothing is counted. */
uint64_t fold_next_ns(const struct fold *fold);

/* SPDX-License-Identifier: MIT */
/*
 * The pipeline's threads. Workers write the lines of a batch and sign them, in any order. The one
 * committer hands the signed batches to the sink in the order of their numbers, a group at a time,
 * and puts them into p->committed for the loop thread. It tries again as long as the sink fails.
 *
 * pipeline.c starts and stops them. They reach the loop thread only by the wake-up p->progress.
 */
#pragma once

#include <stdbool.h>

struct pipeline;

/*
 * Start the committer and up to n workers. One worker is enough. False: no worker started; the
 * caller still calls pipeline_threads_stop().
 */
bool pipeline_threads_start(struct pipeline *p, unsigned n);
/*
 * End the retries, sign and commit the remaining batches as far as possible, and join the threads.
 */
void pipeline_threads_stop(struct pipeline *p);

/* SPDX-License-Identifier: MIT */
/*
 * The pipeline's threads. Workers write the lines of a batch and sign them, in any order. The one
 * committer hands the signed batches to the sink in the order of their numbers, a group at a time,
 * and puts them into p->committed for the loop thread. It tries again as long as the sink fails.
 *
 * pipeline.c starts and stops them; nothing here calls back to the loop thread but by the
 * p->progress wake-up.
 */
#pragma once

#include <stdbool.h>

struct pipeline;

/*
 * Start the committer and up to n workers. One worker is enough. False: no worker started; the
 * caller still calls pipeline_threads_stop().
 */
bool pipeline_threads_start(struct pipeline *p, unsigned n);
/* Ends the retries, signs and commits what can be, and joins the threads. */
void pipeline_threads_stop(struct pipeline *p);

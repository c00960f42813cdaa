/* SPDX-License-Identifier: MIT */
/*
 * Where committed lines go: standard output for `receive`, the evidence log for `serve`. The
 * pipeline's committer calls it from one thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct evidence_sink;

struct evidence_sink_ops {
	/*
	 * Make a group of whole lines durable, as the sink's sync mode says. lines[]: n > 0, each
	 * of one line or more, n_lines in all. All or nothing: after an error nothing of it counts
	 * as written, and the same group is given again later (the committer retries each second).
	 * Returns 0, or a negative errno; -EPIPE: nobody will ever read it, so there is no use in
	 * trying again.
	 */
	int (*commit)(struct evidence_sink *sink, const struct iovec *lines, size_t n,
		      uint64_t n_lines);
	/*
	 * What was committed is made durable in every mode. Returns 0 or a negative errno: the last
	 * of it may not be on disk. Frees the sink in both cases.
	 */
	int (*close)(struct evidence_sink *sink);
};

/* The first member of every sink. */
struct evidence_sink {
	const struct evidence_sink_ops *ops;
};

/* SPDX-License-Identifier: MIT */
/*
 * A sink that writes evidence to a descriptor: standard output of `receive`. A line counts as
 * written when write(2) has taken it; the reader must make it durable. Used on the committer's
 * thread.
 */
#pragma once

#include "host-receiver/evidence/sink.h"

/* fd is borrowed. NULL when there is no memory. */
struct evidence_sink *stdout_sink_new(int fd);

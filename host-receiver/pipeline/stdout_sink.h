/* SPDX-License-Identifier: MIT */
/*
 * Evidence to a descriptor of the verb: standard output. A line counts as written when write(2)
 * took it; the reader makes it durable. Used on the committer's thread.
 */
#pragma once

#include "host-receiver/evidence/sink.h"

/* fd is borrowed. NULL when there is no memory. */
struct evidence_sink *stdout_sink_new(int fd);

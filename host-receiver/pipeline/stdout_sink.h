/* SPDX-License-Identifier: MIT */
/*
 * Evidence to a descriptor that the verb was given: standard output. A line counts as written when
 * write(2) took it; making it durable is the reader's business. Used on the committer's thread.
 */
#pragma once

#include "host-receiver/evidence/sink.h"

/* fd is borrowed. NULL when there is no memory. */
struct evidence_sink *stdout_sink_new(int fd);

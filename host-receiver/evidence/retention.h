/* SPDX-License-Identifier: MIT */
/*
 * Which old segments the log may delete, and their deletion. A segment is deleted only after an
 * entry about it is durable; log.c does that in between. No state; the committer's thread.
 */
#pragma once

#include "host-receiver/evidence/folder.h"
#include "host-receiver/evidence/log.h"

/*
 * Choose whole segments of one origin, the oldest first, and describe them in *ret. A segment from
 * floor on is needed by a reader, and stays unless the log is larger than retain_size_hard. The
 * newest segment always stays. Returns their number. 0: there are none, or none above `noticed`,
 * the last one that was chosen before; then *ret is undefined.
 */
size_t retention_choose(const struct folder *folder, const struct evidence_limits *limits,
			uint64_t floor, uint64_t noticed, struct evidence_notice *ret);

/*
 * Delete the segments up to this number and remove them from the list. Returns their number;
 * *ret_error: 0, or the negative errno that stopped it.
 */
size_t retention_unlink(struct folder *folder, uint64_t last, int *ret_error);

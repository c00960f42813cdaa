/* SPDX-License-Identifier: MIT */
/*
 * [evidence] retain_cell_share: raises an alarm when one cell fills too large a part of the kept
 * evidence. Retention would soon delete the evidence of other cells to make room for it. Called
 * once a second. Loop thread.
 */
#include "common/log.h"
#include "host-receiver/daemon/internal.h"

/*
 * The size that counts as 100 %: the size that retention allows; without such a limit the size of
 * the log, but at least one segment.
 */
static uint64_t whole(const struct daemon *d)
{
	return d->config.retain_size ? d->config.retain_size
				     : MAX(evidence_log_bytes(d->log), d->config.rotate_size);
}

static void check_cell(struct daemon *d, struct cell *cell, uint64_t bytes, uint64_t limit)
{
	char text[CELL_ID_MAX + 128];

	if (bytes <= limit) {
		/* It is reported again only after it was below half of the limit. */
		cell->fills_log = cell->fills_log && bytes > limit / 2;
		return;
	}
	if (cell->fills_log)
		return;
	cell->fills_log = true;
	snprintf(text, sizeof(text),
		 "cell %s filled %" PRIu64 " MiB, more than %" PRIu64
		 " %% of the evidence that is kept",
		 cell->options.cell_id, bytes >> 20, d->config.retain_cell_share);
	log_error("msg=\"one cell fills the evidence log\" cell=%s bytes=%" PRIu64
		  " limit=%" PRIu64,
		  cell->options.cell_id, bytes, limit);
	daemon_raise_alarm(d, text);
}

void daemon_check_cell_shares(struct daemon *d)
{
	const uint64_t segments = evidence_log_segments(d->log);
	const uint64_t segment = evidence_log_end(d->log).segment;
	const uint64_t first = segment - MIN(segments - MIN(segments, UINT64_C(1)), segment);
	const uint64_t limit = whole(d) / 100 * d->config.retain_cell_share;

	for (struct cell *cell = d->registry.cells; cell; cell = cell->next) {
		const uint64_t bytes =
			kept_update(&cell->kept, cell->stream.account->bytes, segment, first);

		if (d->config.retain_cell_share > 0)
			check_cell(d, cell, bytes, limit);
	}
}

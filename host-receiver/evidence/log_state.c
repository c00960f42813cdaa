/* SPDX-License-Identifier: MIT */
#include "common/util.h"
#include "host-receiver/evidence/internal.h"

void evidence_log_set_limits(struct evidence_log *log, const struct evidence_limits *limits)
{
	pthread_mutex_lock(&log->lock);
	log->next_limits.rotate_size = limits->rotate_size;
	log->next_limits.rotate_age_ms = limits->rotate_age_ms;
	log->next_limits.retain_size = limits->retain_size;
	log->next_limits.retain_size_hard = limits->retain_size_hard;
	pthread_mutex_unlock(&log->lock);
}

void evidence_log_set_floor(struct evidence_log *log, uint64_t floor)
{
	log->floor = floor;
}

bool evidence_log_take_notice(struct evidence_log *log, struct evidence_notice *ret)
{
	bool any;

	pthread_mutex_lock(&log->lock);
	any = log->n_notices > 0;
	if (any) {
		*ret = log->notices[0];
		memmove(log->notices, log->notices + 1, --log->n_notices * sizeof(log->notices[0]));
	}
	pthread_mutex_unlock(&log->lock);
	return any;
}

void evidence_log_prune(struct evidence_log *log, uint64_t segment)
{
	log->prune = segment;
}

uint64_t evidence_log_segments(struct evidence_log *log)
{
	return log->shown_segments;
}

uint64_t evidence_log_bytes(struct evidence_log *log)
{
	return log->shown_bytes;
}

uint64_t evidence_log_deleted(struct evidence_log *log)
{
	return log->deleted;
}

uint64_t evidence_log_lost(struct evidence_log *log)
{
	return log->lost;
}

uint64_t evidence_log_size(struct evidence_log *log)
{
	return log->shown_size;
}

int evidence_log_background_error(struct evidence_log *log)
{
	const int error = log->sync_error;

	return error ? error : log->retain_error;
}

/* Called with the lock held. */
static struct evidence_position surviving(const struct evidence_log *log)
{
	return log->next_limits.sync == EVIDENCE_SYNC_OFF ? log->written : log->durable;
}

struct evidence_position evidence_log_end(struct evidence_log *log)
{
	struct evidence_position end;

	pthread_mutex_lock(&log->lock);
	end = surviving(log);
	pthread_mutex_unlock(&log->lock);
	return end;
}

void evidence_log_note_own(struct evidence_log *log, const char *origin, uint64_t sequence)
{
	pthread_mutex_lock(&log->lock);
	snprintf(log->mark.origin, sizeof(log->mark.origin), "%s", origin);
	log->mark.sequence = sequence;
	log->mark.segment = surviving(log).segment;
	log->mark.offset = surviving(log).offset;
	pthread_mutex_unlock(&log->lock);
}

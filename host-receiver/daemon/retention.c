/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/retention.h"

#include "common/log.h"

static void read_cursors(struct retention *r)
{
	r->error = evidence_cursor_floor(r->cursors_fd, &r->floor, r->bad);
}

static void apply(struct retention *r)
{
	const bool bad = r->error < 0 || *r->bad;

	evidence_log_set_floor(r->log, r->error < 0 ? 0 : r->floor);
	if (bad && !r->complained)
		log_error("msg=\"a cursor cannot be understood; no evidence is deleted\" "
			  "file=%s/cursors/%s why=\"%s\"",
			  r->state_dir, r->bad,
			  r->error < 0 ? strerror(-r->error) : "not a cursor");
	else if (!bad && r->complained)
		log_notice("msg=\"all cursors can be read again\"");
	r->complained = bad;
}

void retention_start(struct retention *r, struct evidence_log *log, int cursors_fd,
		     const char *state_dir)
{
	*r = (struct retention){.log = log, .cursors_fd = cursors_fd, .state_dir = state_dir};
	r->work.data = r;
	read_cursors(r);
	apply(r);
}

static void work_read(uv_work_t *work)
{
	read_cursors(work->data);
}

static void on_read(uv_work_t *work, int status)
{
	struct retention *r = work->data;

	(void)status;
	r->busy = false;
	if (r->log)
		apply(r);
}

void retention_update(struct retention *r, uv_loop_t *loop)
{
	if (!r->busy)
		r->busy = uv_queue_work(loop, &r->work, work_read, on_read) == 0;
}

void retention_stop(struct retention *r)
{
	r->log = NULL;
}

void retention_done(struct retention *r)
{
	close_fd(r->cursors_fd);
}

/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/forwarding.h"

#include <signal.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/util.h"
#include "host-receiver/evidence/cursor.h"

#define BACKOFF_MIN_MS 500u
#define BACKOFF_MAX_MS 30000u

void forwarding_init(struct forwarding *f, uv_loop_t *loop, struct evidence_log *log,
		     const char *config_path)
{
	*f = (struct forwarding){
		.config_path = config_path,
		.log = log,
		.loop = loop,
		.fd = -1,
		.backoff_ms = BACKOFF_MIN_MS,
	};
}

static void plan_restart(struct forwarding *f)
{
	f->next_start_ns = monotonic_ns() + f->backoff_ms * NSEC_PER_MSEC;
	f->backoff_ms = MIN(f->backoff_ms * 2, BACKOFF_MAX_MS);
}

static void on_closed(uv_handle_t *handle)
{
	struct forwarding *f = handle->data;

	f->running = false;
}

static void on_forwarder_exit(uv_process_t *process, int64_t status, int signal_number)
{
	struct forwarding *f = process->data;

	/* end_process() closed the link, so this end was expected. */
	const bool unexpected = f->fd >= 0;

	close_fd(take_fd(&f->fd));
	if (f->log && f->wanted && unexpected && status == LINK_EXIT_AGAIN) {
		f->next_start_ns = 0;
	} else if (f->log && f->wanted && unexpected) {
		f->restarts++;
		log_error("msg=\"the forwarder has ended; it is started again\" status=%" PRId64
			  " signal=%d after_ms=%u",
			  status, signal_number, f->backoff_ms);
		plan_restart(f);
	}
	uv_close((uv_handle_t *)process, on_closed);
}

static int spawn(struct forwarding *f, int child_fd)
{
	char *args[] = {(char *)"cellos-host-telemetry",
			(char *)"forward",
			(char *)"run",
			(char *)"--config",
			(char *)(uintptr_t)f->config_path,
			NULL};
	uv_stdio_container_t stdio[] = {
		{.flags = UV_IGNORE},
		{.flags = UV_IGNORE},
		{.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
		{.flags = UV_INHERIT_FD, .data.fd = child_fd},
	};
	const uv_process_options_t options = {
		.file = "/proc/self/exe",
		.args = args,
		.exit_cb = on_forwarder_exit,
		.stdio = stdio,
		.stdio_count = ARRAY_SIZE(stdio),
	};

	_Static_assert(ARRAY_SIZE(stdio) == LINK_FD + 1, "the link is the last of them");
	f->process.data = f;
	return uv_spawn(f->loop, &f->process, &options);
}

static void start(struct forwarding *f)
{
	_cleanup_close_ int child_fd = -1;
	int fds[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0) {
		log_error("msg=\"cannot start the forwarder\" why=\"%s\"", strerror(errno));
		plan_restart(f);
		return;
	}
	child_fd = fds[1];
	r = spawn(f, child_fd);
	f->running = true;
	if (r < 0) {
		log_error("msg=\"cannot start the forwarder\" why=\"%s\"", uv_strerror(r));
		close_fd(fds[0]);
		plan_restart(f);
		uv_close((uv_handle_t *)&f->process, on_closed);
		return;
	}
	f->fd = fds[0];
	f->starting = true;
	f->end = (struct link_order){0};
	forwarding_progress(f);
}

static void end_process(struct forwarding *f)
{
	if (f->fd < 0)
		return;
	close_fd(take_fd(&f->fd));
	uv_process_kill(&f->process, SIGTERM);
}

int forwarding_hold(const struct config *config, int cursors_fd)
{
	struct evidence_position at = {0};

	if (!*config->nats_url || evidence_cursor_load(cursors_fd, LINK_CURSOR, &at) != -ENOENT)
		return 0;
	return evidence_cursor_store(cursors_fd, LINK_CURSOR, &at);
}

void forwarding_configure(struct forwarding *f, const struct config *config, bool changed)
{
	f->lag_ready_ms = config->nats_lag_ready_ms;
	f->wanted = *config->nats_url;
	if (changed || !f->wanted)
		end_process(f);
	if (f->wanted)
		f->next_start_ns = 0;
	forwarding_update(f);
}

void forwarding_update(struct forwarding *f)
{
	struct forward_status status;

	while (f->fd >= 0 && link_take_status(f->fd, &status) == 1) {
		f->status = status;
		f->starting = false;
		f->backoff_ms = BACKOFF_MIN_MS;
	}
	if (f->log && f->wanted && !f->running && monotonic_ns() >= f->next_start_ns)
		start(f);
	forwarding_progress(f);
}

void forwarding_progress(struct forwarding *f)
{
	struct link_order order = {.kind = LINK_END};

	if (f->fd < 0 || !f->log)
		return;
	order.at = evidence_log_end(f->log);
	order.index = evidence_log_size(f->log);
	if (order.at.segment == f->end.at.segment && order.at.offset == f->end.at.offset)
		return;
	/* If the socket is full, forwarding_update() sends it a second later. */
	if (link_put_order(f->fd, &order) == 0)
		f->end = order;
}

void forwarding_stop(struct forwarding *f)
{
	f->log = NULL;
	end_process(f);
}

bool forwarding_is_ready(const struct forwarding *f, char why[256])
{
	if (!f->wanted || f->status.lag_ms < f->lag_ready_ms)
		return true;
	snprintf(why, 256, "evidence has not left this host for %" PRIu64 " s (%s): %.150s",
		 f->status.lag_ms / MSEC_PER_SEC, forward_error_name(f->status.error),
		 f->status.why);
	return false;
}

json_t *forwarding_describe(const struct forwarding *f)
{
	const struct forward_status *s = &f->status;
	json_t *errors;

	if (!f->wanted)
		return NULL;
	errors = json_object();
	for (int i = FORWARD_OK + 1; i < _FORWARD_ERROR_MAX; i++)
		if (s->errors[i] > 0)
			json_object_set_new(errors, forward_error_name((enum forward_error)i),
					    json_integer((json_int_t)s->errors[i]));
	return json_pack(
		"{s:s,s:s,s:s,s:s,s:s,s:b,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}",
		"state", f->fd < 0 || f->starting ? "starting" : forward_state_name(s->state),
		"server", s->server, "reason", s->error ? forward_error_name(s->error) : "", "why",
		s->why, "warnings", s->warnings, "landlock", (int)s->landlock, "index",
		(json_int_t)s->index, "read", (json_int_t)s->read, "published",
		(json_int_t)s->published, "acked", (json_int_t)s->acked, "duplicates",
		(json_int_t)s->duplicates, "retries", (json_int_t)s->retries, "skipped",
		(json_int_t)s->skipped, "cursorLost", (json_int_t)s->cursor_lost, "lagEvents",
		(json_int_t)s->lag_events, "lagMs", (json_int_t)s->lag_ms, "oldestUnackedMs",
		(json_int_t)s->unacked_ms, "restarts", (json_int_t)f->restarts, "errors", errors);
}

int forwarding_rewind(struct forwarding *f, enum link_order_kind kind, uint64_t value)
{
	const struct link_order order = {.kind = kind, .index = value, .realtime_ms = value};

	return f->fd < 0 ? -ENOTCONN : link_put_order(f->fd, &order);
}

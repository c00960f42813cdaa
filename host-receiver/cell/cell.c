/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/cell.h"

#include <fcntl.h>

#include "common/log.h"
#include "common/utf8.h"
#include "host-receiver/cell/report.h"

/* ---- the clock ---- */

static void sooner(uint64_t *next, uint64_t at_ns)
{
	if (at_ns != 0 && at_ns < *next)
		*next = at_ns;
}

static void judge_newcomer(struct cell *cell);

static uint64_t silence_due(const struct cell *cell)
{
	if (cell->silent || cell->removed)
		return 0;
	if (!cell->connected_ever)
		return cell->options.connect_within_ms
			       ? cell->added_ns + cell->options.connect_within_ms * NSEC_PER_MSEC
			       : 0;
	if (cell->watch_since_ns == 0 || cell->options.keepalive_ms == 0)
		return 0;
	return MAX(cell->watch_since_ns, cell->last_frame_ns) +
	       cell->options.keepalive_ms * NSEC_PER_MSEC;
}

static void on_timer(uv_timer_t *timer);

/* One timer a cell, set to the next thing that is due. */
static void arm_timer(struct cell *cell, uint64_t now_ns)
{
	uint64_t next = cell->checkpoint_at_ns;

	if (cell->removed)
		return;
	sooner(&next, silence_due(cell));
	sooner(&next, cell->throttled_until_ns);
	if (cell->newcomer)
		sooner(&next, cell->newcomer_until_ns);
	for (int kind = 0; kind < _LIMITED_MAX; kind++)
		if (cell->limited[kind].count > 0)
			sooner(&next, cell->limited[kind].due_ns);
	/* One more millisecond, so that it is never early. */
	uv_timer_start(&cell->timer, on_timer, age_ms(now_ns, next) + 1, 0);
}

static void on_listen(uv_poll_t *handle, int status, int events);

static bool succession(const struct cell *cell)
{
	return cell->newcomer && cell->active_dead && !cell->host->paused;
}

/*
 * Read the active connection and accept new ones, unless something speaks against it. Too much in
 * flight does not speak against accepting: what nobody reads says no more than that it is there.
 * But while the rest of a dead one is read and its successor waits, who comes next waits as well.
 */
static void poll_cell(struct cell *cell)
{
	const bool throttled = cell->throttled_until_ns != 0, paused = cell->host->paused;
	const bool listen = !throttled && !succession(cell) && !cell->removed;

	if (cell->active)
		connection_poll(cell->active, !throttled && !paused);
	if (listen == cell->listening)
		return;
	cell->listening = listen;
	if (listen)
		uv_poll_start(&cell->listen_poll, UV_READABLE, on_listen);
	else
		uv_poll_stop(&cell->listen_poll);
}

static void on_timer(uv_timer_t *timer)
{
	struct cell *cell = timer->data;
	const uint64_t now_ns = monotonic_ns(), due = silence_due(cell);

	if (cell->throttled_until_ns != 0 && now_ns >= cell->throttled_until_ns) {
		cell->throttled_until_ns = 0;
		poll_cell(cell);
	}
	if (due != 0 && now_ns >= due) {
		/* While reading is paused the guest cannot be heard: that is not its silence. */
		if (cell->host->paused && cell->active)
			cell->watch_since_ns = now_ns;
		else
			tell_silenced(cell, now_ns);
	}
	if (cell->newcomer && cell->newcomer_until_ns != 0 && now_ns >= cell->newcomer_until_ns)
		judge_newcomer(cell);
	/* With --once its end is that of the cell. */
	if (cell->removed)
		return;
	flush_limited(cell, now_ns, false);
	if (now_ns >= cell->checkpoint_at_ns)
		tell_checkpoint(cell, now_ns);
	arm_timer(cell, now_ns);
}

/* ---- connections ---- */

static void activate(struct cell *cell, struct connection *c)
{
	const uint64_t now_ns = monotonic_ns();

	cell->active = c;
	cell->active_dead = false;
	c->number = ++cell->n_connections;
	cell->connected_ever = true;
	cell->watch_since_ns = now_ns;
	cell->host->stats.connections++;
	cell->host->stats.active++;
	tell_connected(cell, c);
	poll_cell(cell);
	arm_timer(cell, now_ns);
}

static void settle_newcomer(struct cell *cell, bool active_is_dead);

/* End the active connection; the one that waited for it, if any, is next. */
static void disconnect(struct cell *cell, struct connection *c, const char *reason)
{
	tell_disconnected(cell, c, reason);
	cell->active = NULL;
	cell->host->stats.active--;
	connection_close(c);
	if (cell->newcomer)
		settle_newcomer(cell, true);
	if (cell->on_connection_ended && !cell->removed)
		cell->on_connection_ended(cell->ctx);
}

static void contest(struct cell *cell, enum limited_event kind, struct connection *c)
{
	cell->contested_peer = c->peer;
	cell->host->stats.contested++;
	connection_close(c);
	count_limited(cell, kind, 1, monotonic_ns());
	arm_timer(cell, monotonic_ns());
}

/* The active connection is gone, or it lives. */
static void settle_newcomer(struct cell *cell, bool active_is_dead)
{
	struct connection *c = take_ptr(cell->newcomer);

	if (active_is_dead)
		activate(cell, c);
	else
		contest(cell, LIMITED_SECOND_CONNECTION, c);
}

/* As connection_read(), of so many bytes in all, or a read more. */
static ssize_t drain(struct cell *cell, size_t most)
{
	size_t total = 0;
	ssize_t n = 1;

	while (n > 0 && total < most && (!cell->host->paused || cell->removed)) {
		n = connection_read(cell->active);
		total += (size_t)MAX(n, 0);
	}
	return n;
}

/*
 * Somebody waits for its place. What it still said is heard first, a turn's share of it at once,
 * and its end may be among it; while reading is paused it cannot be heard, and is asked later.
 */
static void question_active(struct cell *cell, uint64_t now_ns)
{
	ssize_t n = 1;

	cell->newcomer_until_ns = 0;
	if (cell->host->paused)
		return;
	cell->newcomer_until_ns = now_ns + CELL_CONTEST_MS * NSEC_PER_MSEC;
	if (cell->removed)
		n = drain(cell, CONNECTION_DRAIN_MAX);
	else if (cell->throttled_until_ns == 0)
		n = drain(cell, CONNECTION_READ_SIZE);
	if (!cell->newcomer)
		return;
	cell->active_dead = !connection_ask(cell->active);
	if (cell->active_dead && (n == 0 || cell->removed))
		disconnect(cell, cell->active, "superseded");
	poll_cell(cell);
}

/* The active connection has had its time to show that it is dead. */
static void judge_newcomer(struct cell *cell)
{
	if (cell->active_dead && drain(cell, CONNECTION_DRAIN_MAX) < 0)
		return;
	if (cell->host->paused)
		cell->newcomer_until_ns = 0;
	else if (cell->active_dead)
		disconnect(cell, cell->active, "superseded");
	else
		settle_newcomer(cell, false);
}

/* Returns whether the active connection was asked, and so perhaps read. */
static bool on_accepted(struct cell *cell, struct connection *c)
{
	const uint64_t now_ns = monotonic_ns();

	if (cell->options.check_peer_uid && c->peer.uid != cell->options.peer_uid) {
		contest(cell, LIMITED_PEER, c);
	} else if (!cell->active) {
		activate(cell, c);
	} else if (cell->newcomer) {
		contest(cell, LIMITED_SECOND_CONNECTION, c);
	} else {
		cell->newcomer = c;
		question_active(cell, now_ns);
		arm_timer(cell, now_ns);
		return true;
	}
	return false;
}

/* ---- reading, all at once ---- */

static void poll_all(struct cell_host *host)
{
	for (struct cell *cell = host->cells; cell; cell = cell->next)
		poll_cell(cell);
}

void cell_host_submitted(struct cell_host *host)
{
	if (host->paused || !pipeline_full(host->pipeline))
		return;
	host->paused = true;
	host->stats.reads_paused++;
	poll_all(host);
}

/* ---- frames ---- */

static void hear(struct cell *cell, uint64_t now_ns)
{
	const bool watched = !cell->silent && cell->watch_since_ns != 0;

	if (cell->silent) {
		const uint64_t since = cell->last_frame_ns    ? cell->last_frame_ns
				       : cell->watch_since_ns ? cell->watch_since_ns
							      : cell->added_ns;

		tell_resumed(cell, age_ms(since, now_ns));
		cell->silent = false;
		cell->host->stats.silent--;
	}
	cell->last_frame_ns = now_ns;
	if (cell->watch_since_ns == 0)
		cell->watch_since_ns = now_ns;
	/* A running watch finds the newer frame when its timer ends; a new one needs a timer. */
	if (!watched)
		arm_timer(cell, now_ns);
}

static enum wire_error refuse(struct cell *cell, struct connection *c,
			      const struct wire_refusal *refusal, uint64_t now_ns)
{
	size_t len;

	if (!wire_error_keeps_connection(refusal->error)) {
		tell_violation(cell, c, refusal);
		return refusal->error;
	}
	cell->frames_rejected++;
	cell->host->stats.rejected[refusal->error]++;
	if (refusal->error == WIRE_UNSUPPORTED_VERSION) {
		cell->refused_version = refusal->content_version;
		count_limited(cell, LIMITED_VERSION, 1, now_ns);
	} else {
		len = strnlen(refusal->source.data,
			      MIN(refusal->source.len, (size_t)WIRE_SOURCE_MAX));
		memcpy(cell->refused_source, refusal->source.data, len);
		cell->refused_source[len] = '\0';
		count_limited(cell, LIMITED_SOURCE, 1, now_ns);
	}
	arm_timer(cell, now_ns);
	return WIRE_OK;
}

static uint64_t detail_uint(const struct declaration *d, enum wire_key key, uint64_t otherwise)
{
	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == key)
			return d->details[i].uint;
	return otherwise;
}

/* The guest's totals feed checkpoints and metrics; they are its own word. */
static void note_totals(struct cell *cell, const struct declaration *d)
{
	struct cell_host_stats *stats = &cell->host->stats;
	const uint64_t dropped = detail_uint(d, WIRE_KEY_DROPPED, cell->guest_dropped);
	const uint64_t lost = detail_uint(d, WIRE_KEY_KERNEL_LOST, cell->guest_kernel_lost);

	cell->guest_observed = detail_uint(d, WIRE_KEY_OBSERVED, cell->guest_observed);
	cell->guest_sent = detail_uint(d, WIRE_KEY_SENT, cell->guest_sent);
	if (dropped > cell->guest_dropped)
		stats->guest_dropped += dropped - cell->guest_dropped;
	if (lost > cell->guest_kernel_lost)
		stats->guest_kernel_lost += lost - cell->guest_kernel_lost;
	cell->guest_dropped = dropped;
	cell->guest_kernel_lost = lost;
}

/*
 * A frame or a connection more. Above the cell's rate what comes is counted and refused, and how
 * much comes is bounded.
 */
static bool within_rate(struct cell *cell, uint64_t now_ns)
{
	if (token_bucket_take(&cell->bucket, cell->options.rate, now_ns))
		return true;
	cell->frames_rejected++;
	cell->host->stats.rate_limited++;
	count_limited(cell, LIMITED_RATE, 1, now_ns);
	if (cell->throttled_until_ns == 0) {
		cell->throttled_until_ns = now_ns + CELL_THROTTLE_MS * NSEC_PER_MSEC;
		poll_cell(cell);
		arm_timer(cell, now_ns);
	}
	return false;
}

static enum wire_error take_frame(struct cell *cell, struct connection *c, const uint8_t *body,
				  size_t len)
{
	const uint64_t now_ns = monotonic_ns();
	struct wire_refusal refusal;
	struct declaration d;
	struct gap gap;

	c->frames++;
	cell->frames++;
	cell->host->stats.frames++;
	hear(cell, now_ns);
	if (!within_rate(cell, now_ns))
		return WIRE_OK;
	if (wire_decode(body, len, &d, &refusal) != WIRE_OK)
		return refuse(cell, c, &refusal, now_ns);
	if (gap_tracker_frame(&cell->gap, &d, &gap))
		tell_gap(cell, &gap);
	if (d.source == WIRE_TELEMETRY_HEARTBEAT) {
		cell->heartbeat_ns = now_ns;
		note_totals(cell, &d);
		return WIRE_OK;
	}
	if (d.source == WIRE_TELEMETRY_BYE) {
		/* Its silence from now on is no news. */
		cell->watch_since_ns = 0;
		note_totals(cell, &d);
	}
	tell_declaration(cell, c, &d);
	observer_declared(cell->observer, &d, now_ns);
	return WIRE_OK;
}

static void free_cell(struct cell *cell)
{
	free(cell->uds_base);
	free(cell);
}

static void handle_closed(struct cell *cell)
{
	if (--cell->open_handles == 0 && cell->removed)
		free_cell(cell);
}

/* ---- what connections tell ---- */

static bool on_frame(void *ctx, struct connection *c, const uint8_t *body, size_t len)
{
	return take_frame(ctx, c, body, len) == WIRE_OK;
}

static void on_violation(void *ctx, struct connection *c, const struct wire_refusal *refusal)
{
	struct cell *cell = ctx;

	tell_violation(cell, c, refusal);
	/* As an event costs that a frame brings; what that lacks the next connection has to pay. */
	token_bucket_take(&cell->bucket, cell->options.rate, monotonic_ns());
}

static void on_bytes(void *ctx, size_t n)
{
	struct cell *cell = ctx;

	cell->bytes += n;
	cell->host->stats.bytes += n;
}

static void on_ended(void *ctx, struct connection *c, const char *reason)
{
	disconnect(ctx, c, reason);
}

static void on_connection_closed(void *ctx)
{
	handle_closed(ctx);
}

static const struct connection_ops connection_ops = {
	.frame = on_frame,
	.violation = on_violation,
	.bytes = on_bytes,
	.ended = on_ended,
	.closed = on_connection_closed,
};

/*
 * A full backlog blocks the whole VM: take what is there, whatever becomes of it. But in a turn of
 * the loop no more of the cell is read than its share, unless all must be taken now. Returns
 * whether nobody waits any more.
 */
static bool accept_some(struct cell *cell, bool all)
{
	const unsigned most = all ? CELL_BACKLOG + 1 : CELL_ACCEPTS_PER_TURN;

	for (unsigned i = 0; i < most; i++) {
		struct connection *c;
		int fd = spare_fd_accept(&cell->host->spare, cell->socket.fd);

		if (fd < 0 && fd != -EMFILE)
			return true;
		cell->n_accepted++;
		cell->host->stats.no_descriptor += fd < 0;
		if (!within_rate(cell, monotonic_ns()) || fd < 0) {
			close_fd(fd);
			continue;
		}
		c = connection_new(cell->host->loop, fd, cell->host->read_buffer, &connection_ops,
				   cell);
		if (!c)
			continue;
		cell->open_handles++;
		if (on_accepted(cell, c) && !all)
			break;
	}
	return false;
}

static void on_listen(uv_poll_t *handle, int status, int events)
{
	(void)status;
	(void)events;
	accept_some(handle->data, false);
}

/* ---- cells and their host ---- */

static void read_boot_id(char *out, size_t size)
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	out[MAX(n, 0)] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

int cell_host_init(struct cell_host *host, uv_loop_t *loop, struct pipeline *pipeline,
		   unsigned checkpoint_ms)
{
	*host = (struct cell_host){
		.loop = loop,
		.pipeline = pipeline,
		.checkpoint_ms = checkpoint_ms,
		.read_buffer = malloc(CONNECTION_READ_SIZE),
	};
	spare_fd_open(&host->spare);
	if (!host->read_buffer || probe_scheduler_new(loop, &host->probes) < 0)
		return -ENOMEM;
	if (gethostname(host->hostname, sizeof(host->hostname) - 1) < 0 ||
	    !utf8_valid(host->hostname, strlen(host->hostname)))
		host->hostname[0] = '\0';
	read_boot_id(host->boot_id, sizeof(host->boot_id));
	return 0;
}

void cell_host_close(struct cell_host *host)
{
	probe_scheduler_free(take_ptr(host->probes));
}

void cell_host_done(struct cell_host *host)
{
	/* Without it there was no beginning. */
	if (host->read_buffer)
		close_fd(host->spare.fd);
	free(host->read_buffer);
}

void cell_host_progress(struct cell_host *host)
{
	if (!host->paused || pipeline_full(host->pipeline))
		return;
	host->paused = false;
	poll_all(host);
	for (struct cell *cell = host->cells; cell; cell = cell->next) {
		const uint64_t now_ns = monotonic_ns();

		if (!cell->newcomer || cell->newcomer_until_ns != 0)
			continue;
		question_active(cell, now_ns);
		arm_timer(cell, now_ns);
	}
}

static void free_stream(void *arg)
{
	struct stream_identity *stream = arg;

	if (!stream)
		return;
	free(stream->cell_id);
	free(stream->run_id);
	free(stream->spec_hash);
	free(stream);
}

static struct stream_identity *new_stream(const struct cell_options *o,
					  const uint8_t stream_id[static UUID_SIZE])
{
	struct stream_identity *stream = calloc(1, sizeof(*stream));

	if (!stream)
		return NULL;
	stream->cell_id = strdup(o->cell_id);
	stream->run_id = strdup(o->run_id);
	stream->spec_hash = strdup(o->spec_hash);
	if (!stream->cell_id || !stream->run_id || !stream->spec_hash) {
		free_stream(stream);
		return NULL;
	}
	memcpy(stream->stream_id, stream_id, UUID_SIZE);
	return stream;
}

void cell_stream_id(uint8_t ret[static UUID_SIZE])
{
	struct uuid_source random = {0};

	uuid_generate(&random, ret);
}

static void on_handle_closed(uv_handle_t *handle)
{
	handle_closed(handle->data);
}

/* ---- what the host sees itself ---- */

/* Who comes behind a newcomer that waits for a dead connection's place waits too. */
static bool accept_waiting(struct cell *cell)
{
	if (cell->removed)
		return true;
	return !succession(cell) && accept_some(cell, true);
}

static void count_vmm_connections(struct cell *cell, uint64_t n)
{
	const uint64_t now_ns = monotonic_ns();

	count_limited(cell, LIMITED_VMM_COUNTS, n, now_ns);
	arm_timer(cell, now_ns);
}

/* All that happened is told. */
static void end_cell(struct cell *cell)
{
	struct cell_host *host = cell->host;
	void (*on_sealed)(void *ctx) = cell->on_sealed;
	void *ctx = cell->sealed_ctx;

	flush_limited(cell, monotonic_ns(), true);
	tell_sealed(cell, cell->end_reason);
	pipeline_defer(host->pipeline, free_stream, cell->stream);
	observer_free(take_ptr(cell->observer));
	host->ending--;
	handle_closed(cell);
	/* The last: it may be the end of everything. */
	if (on_sealed)
		on_sealed(ctx);
}

static const struct observer_ops observer_ops = {
	.accept_waiting = accept_waiting,
	.contested = count_vmm_connections,
	.finished = end_cell,
};

int cell_add(struct cell_host *host, const struct cell_options *options, bool replace_socket,
	     const uint8_t stream_id[static UUID_SIZE], const uint8_t *previous, struct cell **ret,
	     char why[CELL_WHY_MAX])
{
	struct cell *cell = calloc(1, sizeof(*cell));
	int r;

	if (!cell)
		return -ENOMEM;
	cell->host = host;
	cell->options = *options;
	cell->uds_base = strdup(options->uds_base);
	cell->stream = new_stream(options, stream_id);
	r = cell->uds_base && cell->stream
		    ? cell_socket_bind(&cell->socket, options, replace_socket, why)
		    : -ENOMEM;
	if (r == 0 && uv_poll_init(host->loop, &cell->listen_poll, cell->socket.fd) < 0) {
		cell_socket_close(&cell->socket);
		r = -ENOMEM;
	}
	if (r < 0) {
		free_stream(cell->stream);
		free_cell(cell);
		return r;
	}
	cell->options.uds_base = cell->uds_base;
	cell->options.cell_id = cell->stream->cell_id;
	cell->options.run_id = cell->stream->run_id;
	cell->options.spec_hash = cell->stream->spec_hash;
	uv_timer_init(host->loop, &cell->timer);
	cell->open_handles = 2;
	cell->listen_poll.data = cell->timer.data = cell;
	cell->next = host->cells;
	cell->link = &host->cells;
	if (cell->next)
		cell->next->link = &cell->next;
	host->cells = cell;
	host->stats.cells++;

	cell->added_ns = monotonic_ns();
	tell_opened(cell, previous);
	/* Evidence without the probes is better than none. */
	if (observer_new(cell, &observer_ops, previous != NULL, &cell->observer) < 0)
		log_error("msg=\"no memory for the probes\" cell=%s", cell->options.cell_id);
	/* These texts are the caller's still. */
	cell->options.probes = (struct probe_options){0};
	cell->checkpoint_at_ns = cell->added_ns + host->checkpoint_ms * NSEC_PER_MSEC;
	poll_cell(cell);
	arm_timer(cell, cell->added_ns);
	*ret = cell;
	return 0;
}

static bool may_drain(const struct cell_host *host)
{
	return host->drain_until_ns == 0 ||
	       (!pipeline_full(host->pipeline) && monotonic_ns() < host->drain_until_ns);
}

void cell_remove(struct cell *cell, const char *reason)
{
	struct cell_host *host = cell->host;
	const struct connection *heard = NULL;

	cell->removed = true;
	poll_cell(cell);
	/* Who has connected already is heard, and who waits for the place of one that has ended. */
	accept_some(cell, true);
	while (cell->active && cell->active != heard && may_drain(host)) {
		heard = cell->active;
		drain(cell, CONNECTION_DRAIN_MAX);
	}
	if (cell->newcomer)
		settle_newcomer(cell, false);
	if (cell->active)
		disconnect(cell, cell->active, "shutdown");
	uv_close((uv_handle_t *)&cell->listen_poll, on_handle_closed);
	uv_close((uv_handle_t *)&cell->timer, on_handle_closed);
	cell_socket_close(&cell->socket);
	*cell->link = cell->next;
	if (cell->next)
		cell->next->link = cell->link;
	host->stats.cells--;
	host->stats.silent -= cell->silent;
	/* It lives until it has said its last, as it does until its handles are closed. */
	cell->open_handles++;
	cell->end_reason = reason;
	host->ending++;
	if (cell->observer)
		observer_finish(cell->observer);
	else
		end_cell(cell);
}

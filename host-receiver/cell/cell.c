/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/cell.h"

#include <fcntl.h>

#include "common/log.h"
#include "common/utf8.h"

/* ---- events of the receiver's own
 * ---------------------------------------------------------------- */

static struct event *begin(struct cell *cell, enum event_type type)
{
	cell->host->stats.events[type]++;
	return pipeline_event(cell->host->pipeline, type, cell->stream, ++cell->sequence);
}

static void submit(struct cell *cell, struct event *e)
{
	pipeline_submit(cell->host->pipeline, e);
}

static uint64_t age_ms(uint64_t since_ns, uint64_t now_ns)
{
	return now_ns > since_ns ? (now_ns - since_ns) / NSEC_PER_MSEC : 0;
}

static void add_peer(struct event *e, const struct ucred *peer)
{
	event_add_uint(e, EVENT_KEY_PEER_PID, (uint64_t)peer->pid);
	event_add_uint(e, EVENT_KEY_PEER_UID, peer->uid);
	event_add_uint(e, EVENT_KEY_PEER_GID, peer->gid);
}

static void tell_opened(struct cell *cell, const uint8_t *previous)
{
	struct event *e = begin(cell, EVENT_STREAM_OPENED);
	char id[UUID_STRING_MAX];

	event_add_text(e, EVENT_KEY_RECEIVER_VERSION, wire_text(CELLOS_VERSION));
	event_add_text(e, EVENT_KEY_HOSTNAME, wire_text(cell->host->hostname));
	event_add_text(e, EVENT_KEY_HOST_BOOT_ID, wire_text(cell->host->boot_id));
	event_add_uint(e, EVENT_KEY_KEEPALIVE_MS, cell->options.keepalive_ms);
	if (previous) {
		uuid_format(previous, id);
		event_add_text(e, EVENT_KEY_PREVIOUS_STREAM_ID,
			       pipeline_copy(cell->host->pipeline, wire_text(id)));
	}
	submit(cell, e);
}

static void add_totals(const struct cell *cell, struct event *e, uint64_t now_ns)
{
	event_add_uint(e, EVENT_KEY_EVENTS, cell->sequence);
	event_add_uint(e, EVENT_KEY_FRAMES, cell->frames);
	event_add_uint(e, EVENT_KEY_FRAMES_REJECTED, cell->frames_rejected);
	event_add_uint(e, EVENT_KEY_BYTES, cell->bytes);
	event_add_uint(e, EVENT_KEY_GUEST_OBSERVED, cell->guest_observed);
	event_add_uint(e, EVENT_KEY_GUEST_SENT, cell->guest_sent);
	event_add_uint(e, EVENT_KEY_GUEST_DROPPED, cell->guest_dropped);
	event_add_uint(e, EVENT_KEY_GUEST_KERNEL_LOST, cell->guest_kernel_lost);
	event_add_uint(e, EVENT_KEY_GAPS, cell->gaps);
	if (cell->heartbeat_ns)
		event_add_uint(e, EVENT_KEY_LAST_HEARTBEAT_AGE_MS,
			       age_ms(cell->heartbeat_ns, now_ns));
	else
		event_add_null(e, EVENT_KEY_LAST_HEARTBEAT_AGE_MS);
}

/* A stream that wrote nothing since its last checkpoint has nothing to tell. */
static void tell_checkpoint(struct cell *cell, uint64_t now_ns)
{
	struct event *e;

	cell->checkpoint_at_ns = now_ns + cell->host->checkpoint_ms * NSEC_PER_MSEC;
	if (cell->sequence == cell->checkpoint_sequence)
		return;
	e = begin(cell, EVENT_STREAM_CHECKPOINT);
	add_totals(cell, e, now_ns);
	submit(cell, e);
	cell->checkpoint_sequence = cell->sequence;
}

static void tell_sealed(struct cell *cell, const char *reason)
{
	struct event *e = begin(cell, EVENT_STREAM_SEALED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	add_totals(cell, e, monotonic_ns());
	submit(cell, e);
}

static void tell_contested(struct cell *cell, const char *reason, uint64_t count)
{
	struct event *e = begin(cell, EVENT_CHANNEL_CONTESTED);

	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	event_add_uint(e, EVENT_KEY_COUNT, count);
	add_peer(e, &cell->contested_peer);
	submit(cell, e);
}

static void tell_limited(struct cell *cell, enum limited_event kind, uint64_t count)
{
	struct event *e;

	switch (kind) {
	case LIMITED_VERSION:
		e = begin(cell, EVENT_VERSION_REJECTED);
		event_add_uint(e, EVENT_KEY_CONTENT_VERSION, cell->refused_version);
		break;
	case LIMITED_SOURCE:
		e = begin(cell, EVENT_UNKNOWN_SOURCE);
		event_add_text(
			e, EVENT_KEY_SOURCE,
			pipeline_copy(cell->host->pipeline, wire_text(cell->refused_source)));
		break;
	case LIMITED_RATE:
		e = begin(cell, EVENT_RATE_LIMITED);
		event_add_uint(e, EVENT_KEY_LIMIT, cell->options.rate);
		break;
	case LIMITED_SECOND_CONNECTION: tell_contested(cell, "second_connection", count); return;
	case LIMITED_PEER: tell_contested(cell, "peer_credentials", count); return;
	default: return;
	}
	event_add_uint(e, EVENT_KEY_COUNT, count);
	submit(cell, e);
}

static void count_limited(struct cell *cell, enum limited_event kind, uint64_t now_ns)
{
	const uint64_t count = once_a_second_add(&cell->limited[kind], now_ns);

	if (count > 0)
		tell_limited(cell, kind, count);
}

static void flush_limited(struct cell *cell, uint64_t now_ns, bool force)
{
	for (int kind = 0; kind < _LIMITED_MAX; kind++) {
		const uint64_t count = once_a_second_take(&cell->limited[kind], now_ns, force);

		if (count > 0)
			tell_limited(cell, (enum limited_event)kind, count);
	}
}

/* ---- the clock
 * ---------------------------------------------------------------------------------------- */

static void sooner(uint64_t *next, uint64_t at_ns)
{
	if (at_ns != 0 && at_ns < *next)
		*next = at_ns;
}

static void settle_newcomer(struct cell *cell, bool active_is_dead);

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

static void tell_silenced(struct cell *cell, uint64_t now_ns)
{
	struct event *e = begin(cell, EVENT_AGENT_SILENCED);

	event_add_text(e, EVENT_KEY_REASON,
		       wire_text(cell->connected_ever ? "no_frames" : "never_connected"));
	event_add_uint(e, EVENT_KEY_WINDOW_MS,
		       cell->connected_ever ? cell->options.keepalive_ms
					    : cell->options.connect_within_ms);
	if (cell->last_frame_ns)
		event_add_uint(e, EVENT_KEY_LAST_FRAME_AGE_MS, age_ms(cell->last_frame_ns, now_ns));
	else
		event_add_null(e, EVENT_KEY_LAST_FRAME_AGE_MS);
	event_add_bool(e, EVENT_KEY_CONNECTED, cell->active != NULL);
	submit(cell, e);
	cell->silent = true;
	cell->host->stats.silent++;
	log_warning("msg=\"agent silenced\" cell=%s stream_sequence=%" PRIu64,
		    cell->stream->cell_id, cell->sequence);
}

static void on_timer(uv_timer_t *timer);

/* One timer a cell, set to the next thing that is due. */
static void arm_timer(struct cell *cell, uint64_t now_ns)
{
	uint64_t next = cell->checkpoint_at_ns;

	if (cell->removed)
		return;
	sooner(&next, silence_due(cell));
	if (cell->newcomer)
		sooner(&next, cell->newcomer_until_ns);
	for (int kind = 0; kind < _LIMITED_MAX; kind++)
		if (cell->limited[kind].count > 0)
			sooner(&next, cell->limited[kind].due_ns);
	/* One more millisecond, so that it is never early. */
	uv_timer_start(&cell->timer, on_timer, age_ms(now_ns, next) + 1, 0);
}

static void on_timer(uv_timer_t *timer)
{
	struct cell *cell = timer->data;
	const uint64_t now_ns = monotonic_ns(), due = silence_due(cell);

	if (due != 0 && now_ns >= due) {
		/* While reading is paused the guest cannot be heard: that is not its silence. */
		if (cell->host->paused && cell->active)
			cell->watch_since_ns = now_ns;
		else
			tell_silenced(cell, now_ns);
	}
	if (cell->newcomer && now_ns >= cell->newcomer_until_ns)
		settle_newcomer(cell, false);
	flush_limited(cell, now_ns, false);
	if (now_ns >= cell->checkpoint_at_ns)
		tell_checkpoint(cell, now_ns);
	arm_timer(cell, now_ns);
}

/* ---- connections
 * ----------------------------------------------------------------------------------------- */

static void activate(struct cell *cell, struct connection *c)
{
	const uint64_t now_ns = monotonic_ns();
	struct event *e;

	cell->active = c;
	c->number = ++cell->n_connections;
	cell->connected_ever = true;
	cell->watch_since_ns = now_ns;
	cell->host->stats.connections++;
	cell->host->stats.active++;
	e = begin(cell, EVENT_AGENT_CONNECTED);
	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	add_peer(e, &c->peer);
	submit(cell, e);
	connection_poll(c, !cell->host->paused);
	arm_timer(cell, now_ns);
}

/* End the active connection; the one that waited for it, if any, is next. */
void cell_disconnected(struct cell *cell, struct connection *c, const char *reason)
{
	struct event *e = begin(cell, EVENT_AGENT_DISCONNECTED);

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_text(e, EVENT_KEY_REASON, wire_text(reason));
	event_add_uint(e, EVENT_KEY_FRAMES, c->frames);
	event_add_uint(e, EVENT_KEY_BYTES, c->bytes);
	submit(cell, e);
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
	count_limited(cell, kind, monotonic_ns());
	arm_timer(cell, monotonic_ns());
}

/* The active connection is gone, or it had its time to show that it is dead and did not. */
static void settle_newcomer(struct cell *cell, bool active_is_dead)
{
	struct connection *c = take_ptr(cell->newcomer);

	if (active_is_dead && !cell->removed)
		activate(cell, c);
	else if (active_is_dead)
		connection_close(c);
	else
		contest(cell, LIMITED_SECOND_CONNECTION, c);
}

/*
 * Somebody waits for its place. What it still said is heard first, and its end may be among it;
 * while reading is paused it cannot be heard, and so is not taken for dead.
 */
static void question_active(struct cell *cell)
{
	if (cell->host->paused)
		return;
	connection_drain(cell->active);
	if (cell->newcomer && !connection_ask(cell->active))
		cell_disconnected(cell, cell->active, "superseded");
}

static void on_accepted(struct cell *cell, struct connection *c)
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
		cell->newcomer_until_ns = now_ns + CELL_CONTEST_MS * NSEC_PER_MSEC;
		question_active(cell);
		arm_timer(cell, now_ns);
	}
}

static void on_listen(uv_poll_t *handle, int status, int events)
{
	struct cell *cell = handle->data;

	(void)status;
	(void)events;
	/* A full backlog blocks the whole VM: take what is there, whatever becomes of it. */
	for (unsigned i = 0; i < CELL_ACCEPTS_PER_TURN; i++) {
		struct connection *c;
		int fd = accept4(cell->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		c = connection_new(cell, cell->host->loop, fd);
		if (c)
			on_accepted(cell, c);
	}
}

/* ---- frames
 * ------------------------------------------------------------------------------------------------
 */

void cell_violation(struct cell *cell, struct connection *c, const struct wire_refusal *refusal)
{
	struct event *e = begin(cell, EVENT_CHANNEL_VIOLATION);

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_text(e, EVENT_KEY_REASON, wire_text(wire_error_name(refusal->error)));
	if (refusal->field)
		event_add_text(e, EVENT_KEY_FIELD, wire_text(refusal->field));
	event_add_uint(e, EVENT_KEY_OFFSET, refusal->offset);
	submit(cell, e);
	cell->frames_rejected++;
	cell->host->stats.rejected[refusal->error]++;
}

static void hear(struct cell *cell, uint64_t now_ns)
{
	const bool watched = !cell->silent && cell->watch_since_ns != 0;

	if (cell->silent) {
		const uint64_t since = cell->last_frame_ns    ? cell->last_frame_ns
				       : cell->watch_since_ns ? cell->watch_since_ns
							      : cell->added_ns;
		struct event *e = begin(cell, EVENT_AGENT_RESUMED);

		event_add_uint(e, EVENT_KEY_SILENT_MS, age_ms(since, now_ns));
		submit(cell, e);
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
		cell_violation(cell, c, refusal);
		return refusal->error;
	}
	cell->frames_rejected++;
	cell->host->stats.rejected[refusal->error]++;
	if (refusal->error == WIRE_UNSUPPORTED_VERSION) {
		cell->refused_version = refusal->content_version;
		count_limited(cell, LIMITED_VERSION, now_ns);
	} else {
		len = strnlen(refusal->source.data,
			      MIN(refusal->source.len, (size_t)WIRE_SOURCE_MAX));
		memcpy(cell->refused_source, refusal->source.data, len);
		cell->refused_source[len] = '\0';
		count_limited(cell, LIMITED_SOURCE, now_ns);
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

static void tell_gap(struct cell *cell, const struct gap *gap)
{
	struct event *e = begin(cell, EVENT_TELEMETRY_GAP);

	cell->gaps++;
	cell->host->stats.gaps++;
	event_add_text(e, EVENT_KEY_SESSION,
		       pipeline_copy(cell->host->pipeline, wire_text(cell->gap.session)));
	event_add_uint(e, EVENT_KEY_FIRST_MISSING, gap->first);
	event_add_uint(e, EVENT_KEY_LAST_MISSING, gap->last);
	submit(cell, e);
}

static void tell_declaration(struct cell *cell, const struct connection *c,
			     const struct declaration *d)
{
	struct pipeline *p = cell->host->pipeline;
	struct event *e = begin(cell, event_type_of_source(d->source));

	event_add_uint(e, EVENT_KEY_CONNECTION, c->number);
	event_add_uint(e, EVENT_KEY_CONTENT_VERSION, d->content_version);
	event_add_text(e, EVENT_KEY_PROBE_SOURCE, wire_text(wire_source_name(d->source)));
	event_add_uint(e, EVENT_KEY_GUEST_PID, d->guest_pid);
	event_add_text(e, EVENT_KEY_GUEST_COMM, pipeline_copy(p, d->guest_comm));
	event_add_uint(e, EVENT_KEY_GUEST_MONOTONIC_NS, d->guest_monotonic_ns);
	if (d->seq > 0)
		event_add_uint(e, EVENT_KEY_SEQ, d->seq);
	if (d->n_details > 0)
		event_add_details(e, pipeline_copy_details(p, d->details, d->n_details),
				  d->n_details);
	submit(cell, e);
}

enum wire_error cell_frame(struct cell *cell, struct connection *c, const uint8_t *body, size_t len)
{
	const uint64_t now_ns = monotonic_ns();
	struct wire_refusal refusal;
	struct declaration d;
	struct gap gap;

	c->frames++;
	cell->frames++;
	cell->host->stats.frames++;
	hear(cell, now_ns);
	if (!token_bucket_take(&cell->bucket, cell->options.rate, now_ns)) {
		cell->frames_rejected++;
		cell->host->stats.rate_limited++;
		count_limited(cell, LIMITED_RATE, now_ns);
		return WIRE_OK;
	}
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
	/* With so much in flight that the guest must wait, so must the rest of what was read: a
	 * turn reads no more than CONNECTION_READ_SIZE, which is the most by which it is passed. */
	if (pipeline_full(cell->host->pipeline))
		cell_host_pause(cell->host);
	return WIRE_OK;
}

/* ---- cells and their host
 * -------------------------------------------------------------------------------------- */

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
	if (!host->read_buffer)
		return -ENOMEM;
	if (gethostname(host->hostname, sizeof(host->hostname) - 1) < 0 ||
	    !utf8_valid(host->hostname, strlen(host->hostname)))
		host->hostname[0] = '\0';
	read_boot_id(host->boot_id, sizeof(host->boot_id));
	return 0;
}

void cell_host_done(struct cell_host *host)
{
	free(host->read_buffer);
}

static void poll_all(struct cell_host *host, bool on)
{
	for (struct cell *cell = host->cells; cell; cell = cell->next)
		if (cell->active)
			connection_poll(cell->active, on);
}

void cell_host_pause(struct cell_host *host)
{
	if (host->paused)
		return;
	host->paused = true;
	host->stats.reads_paused++;
	poll_all(host, false);
}

void cell_host_progress(struct cell_host *host)
{
	if (!host->paused || pipeline_full(host->pipeline))
		return;
	host->paused = false;
	poll_all(host, true);
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

static struct stream_identity *new_stream(const struct cell_options *o)
{
	struct stream_identity *stream = calloc(1, sizeof(*stream));
	struct uuid_source random = {0};

	if (!stream)
		return NULL;
	stream->cell_id = strdup(o->cell_id);
	stream->run_id = strdup(o->run_id);
	stream->spec_hash = strdup(o->spec_hash);
	if (!stream->cell_id || !stream->run_id || !stream->spec_hash) {
		free_stream(stream);
		return NULL;
	}
	uuid_generate(&random, stream->stream_id);
	return stream;
}

static void free_cell(struct cell *cell)
{
	free(cell->uds_base);
	free(cell);
}

void cell_handle_closed(struct cell *cell)
{
	if (--cell->open_handles == 0 && cell->removed)
		free_cell(cell);
}

static void on_handle_closed(uv_handle_t *handle)
{
	cell_handle_closed(handle->data);
}

int cell_add(struct cell_host *host, const struct cell_options *options, bool replace_socket,
	     const uint8_t *previous, struct cell **ret, char why[CELL_WHY_MAX])
{
	struct cell *cell = calloc(1, sizeof(*cell));
	int r;

	if (!cell)
		return -ENOMEM;
	cell->host = host;
	cell->options = *options;
	cell->uds_base = strdup(options->uds_base);
	cell->stream = new_stream(options);
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
	cell->checkpoint_at_ns = cell->added_ns + host->checkpoint_ms * NSEC_PER_MSEC;
	uv_poll_start(&cell->listen_poll, UV_READABLE, on_listen);
	arm_timer(cell, cell->added_ns);
	*ret = cell;
	return 0;
}

void cell_remove(struct cell *cell, const char *reason)
{
	struct cell_host *host = cell->host;

	cell->removed = true;
	uv_poll_stop(&cell->listen_poll);
	/* Who has connected already is heard. */
	on_listen(&cell->listen_poll, 0, UV_READABLE);
	if (cell->active)
		connection_drain(cell->active);
	if (cell->newcomer)
		settle_newcomer(cell, false);
	if (cell->active)
		cell_disconnected(cell, cell->active, "shutdown");
	flush_limited(cell, monotonic_ns(), true);
	tell_sealed(cell, reason);
	pipeline_defer(host->pipeline, free_stream, cell->stream);

	uv_close((uv_handle_t *)&cell->listen_poll, on_handle_closed);
	uv_close((uv_handle_t *)&cell->timer, on_handle_closed);
	cell_socket_close(&cell->socket);
	*cell->link = cell->next;
	if (cell->next)
		cell->next->link = cell->link;
	host->stats.cells--;
	host->stats.silent -= cell->silent;
}

/* SPDX-License-Identifier: MIT */
/*
 * The connections of a cell:
 *
 *   state            | what it means                     | leaves by              -> next
 *   -----------------+-----------------------------------+-----------------------------------------
 *   CELL_ALONE       | no connection                     | accept                 -> CONNECTED
 *   CELL_CONNECTED   | one is active                     | it ends                -> ALONE
 *                    |                                   | accept of a newcomer   -> ASKING,
 *                    |                                   |   or, while paused     -> ASK_LATER
 *   CELL_ASKING      | the active one was asked whether  | it ends                -> CONNECTED (n)
 *                    | it lives; a newcomer waits        | it is dead             -> SUCCEEDING
 *                    |                                   | CELL_CONTEST_MS pass   -> CONNECTED
 *   CELL_ASK_LATER   | as ASKING, but nothing is read    | it ends                -> CONNECTED (n)
 *                    | now, so it cannot be asked        | reading goes on        -> ASKING
 *   CELL_SUCCEEDING  | the active one is dead; the rest  | it ends, its rest was  -> CONNECTED (n)
 *                    | of it is read; a newcomer waits   |   read, CONTEST_MS pass
 *                    |                                   | the time is over while paused
 *                    |                                   |                        -> ASK_LATER
 *
 * (n): the newcomer is the active one then. Only ALONE and CONNECTED have no newcomer. A cell that
 * is removed ends in ALONE, whatever its state was.
 *
 * An entry point is a function that libuv, the host view or a verb calls. Each ends with
 * cell_update(), which derives from the state what is polled and when the timer is due. Nothing
 * else starts or stops a poll or the timer.
 */
#include "host-receiver/cell/cell.h"

#include <fcntl.h>

#include "common/log.h"
#include "common/utf8.h"

/* ---- what follows from the state ---- */

static void sooner(uint64_t *next, uint64_t at_ns)
{
	if (at_ns != 0 && at_ns < *next)
		*next = at_ns;
}

/* When the guest counts as silent; 0: never. */
static uint64_t silence_due(const struct cell *cell)
{
	if (cell->silent)
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

static uint64_t next_due(const struct cell *cell)
{
	uint64_t next = cell->checkpoint_at_ns;

	sooner(&next, silence_due(cell));
	sooner(&next, cell->throttled_until_ns);
	if (cell->state == CELL_ASKING || cell->state == CELL_SUCCEEDING)
		sooner(&next, cell->answer_until_ns);
	for (int kind = 0; kind < _LIMITED_MAX; kind++)
		if (cell->limited[kind].count > 0)
			sooner(&next, cell->limited[kind].due_ns);
	return next;
}

static void on_timer(uv_timer_t *timer);
static void on_listen(uv_poll_t *handle, int status, int events);

/*
 * Poll what the state wants, and set the timer. A timer that is due too early stays: it finds
 * nothing and is set again then. So a frame, which moves the silence, costs no timer.
 *
 * Too much in flight does not speak against accepting: what nobody reads only says that it is
 * there. But while the rest of a dead connection is read, those after its successor wait.
 */
static void cell_update(struct cell *cell)
{
	const bool throttled = cell->throttled_until_ns != 0, paused = cell->host->paused;
	const bool listen = !throttled && !(cell->state == CELL_SUCCEEDING && !paused);
	uint64_t next;

	if (cell->removed || cell->quiet)
		return;
	if (cell->active)
		connection_poll(cell->active, !throttled && !paused);
	if (listen && !cell->listening)
		uv_poll_start(&cell->listen_poll, UV_READABLE, on_listen);
	else if (!listen && cell->listening)
		uv_poll_stop(&cell->listen_poll);
	cell->listening = listen;
	next = next_due(cell);
	if (cell->timer_at_ns != 0 && cell->timer_at_ns <= next)
		return;
	cell->timer_at_ns = next;
	/* One more millisecond, so that it is never early. */
	uv_timer_start(&cell->timer, on_timer, age_ms(monotonic_ns(), next) + 1, 0);
}

/* ---- reports ---- */

static struct report_totals totals(const struct cell *cell)
{
	struct report_totals t = {
		.frames = cell->frames,
		.frames_rejected = cell->frames_rejected,
		.bytes = cell->bytes,
		.gaps = cell->gaps,
		.guest_observed = cell->guest_observed,
		.guest_sent = cell->guest_sent,
		.guest_dropped = cell->guest_dropped,
		.guest_kernel_lost = cell->guest_kernel_lost,
		.heartbeat_ns = cell->heartbeat_ns,
	};

	t.reads_vmm = host_view_vmm_bytes(cell->view, &t.vmm_bytes);
	return t;
}

/* A stream that wrote nothing since its last checkpoint has no new one. */
static void checkpoint(struct cell *cell, uint64_t now_ns)
{
	const struct report_totals t = totals(cell);

	cell->checkpoint_at_ns = now_ns + cell->host->checkpoint_ms * NSEC_PER_MSEC;
	if (cell->stream.sequence == cell->checkpoint_sequence)
		return;
	report_checkpoint(&cell->stream, &t, now_ns);
	cell->checkpoint_sequence = cell->stream.sequence;
}

static void report_limited(struct cell *cell, enum limited_event kind, uint64_t count)
{
	struct stream *s = &cell->stream;

	switch (kind) {
	case LIMITED_VERSION: report_version_rejected(s, cell->refused_version, count); break;
	case LIMITED_SOURCE:
		report_unknown_source(s, wire_text(cell->refused_source), count);
		break;
	case LIMITED_RATE: report_rate_limited(s, cell->options.rate, count); break;
	case LIMITED_SECOND_CONNECTION:
		report_contested(s, "second_connection", &cell->contested_peer, count);
		break;
	case LIMITED_PEER:
		report_contested(s, "peer_credentials", &cell->contested_peer, count);
		break;
	case LIMITED_VMM_COUNTS: report_contested(s, "vmm_counts_more", NULL, count); break;
	case _LIMITED_MAX: break;
	}
}

/* Count n: reported now, or with others later. */
static void count_limited(struct cell *cell, enum limited_event kind, uint64_t n, uint64_t now_ns)
{
	const uint64_t count = once_a_second_add(&cell->limited[kind], n, now_ns);

	if (count > 0)
		report_limited(cell, kind, count);
}

/* Report what is due, or with force everything. */
static void flush_limited(struct cell *cell, uint64_t now_ns, bool force)
{
	for (int kind = 0; kind < _LIMITED_MAX; kind++) {
		const uint64_t count = once_a_second_take(&cell->limited[kind], now_ns, force);

		if (count > 0)
			report_limited(cell, (enum limited_event)kind, count);
	}
}

static void set_silent(struct cell *cell, uint64_t now_ns)
{
	const struct report_silenced silence = {
		.reason = cell->connected_ever ? "no_frames" : "never_connected",
		.window_ms = cell->connected_ever ? cell->options.keepalive_ms
						  : cell->options.connect_within_ms,
		.last_frame_ns = cell->last_frame_ns,
		.connected = cell->active != NULL,
	};

	report_silenced(&cell->stream, &silence, now_ns);
	cell->silent = true;
	cell->host->stats.silent++;
	log_warning("msg=\"agent silenced\" cell=%s stream_sequence=%" PRIu64,
		    cell->options.cell_id, cell->stream.sequence);
}

/* ---- connections ---- */

static void activate(struct cell *cell, struct connection *c)
{
	cell->active = c;
	cell->state = CELL_CONNECTED;
	c->number = ++cell->n_connections;
	cell->connected_ever = true;
	cell->watch_since_ns = monotonic_ns();
	cell->host->stats.connections++;
	cell->host->stats.active++;
	report_connected(&cell->stream, c->number, &c->peer);
}

/* End the active connection. The newcomer, if there is one, takes its place. */
static void disconnect(struct cell *cell, const char *reason)
{
	struct connection *c = take_ptr(cell->active), *newcomer = take_ptr(cell->newcomer);
	const struct report_disconnected end = {
		.connection = c->number,
		.frames = c->frames,
		.bytes = c->bytes,
		.reason = reason,
	};

	report_disconnected(&cell->stream, &end);
	cell->host->stats.active--;
	connection_close(c);
	cell->state = CELL_ALONE;
	if (newcomer)
		activate(cell, newcomer);
	if (cell->on_connection_ended && !cell->removed)
		cell->on_connection_ended(cell->ctx);
}

static void contest(struct cell *cell, enum limited_event kind, struct connection *c)
{
	cell->contested_peer = c->peer;
	cell->host->stats.contested++;
	connection_close(c);
	count_limited(cell, kind, 1, monotonic_ns());
}

/* The active connection lives. */
static void refuse_newcomer(struct cell *cell)
{
	contest(cell, LIMITED_SECOND_CONNECTION, take_ptr(cell->newcomer));
	cell->state = CELL_CONNECTED;
}

/*
 * As connection_read(), until `most` bytes were read or one read more.
 *
 * Re-entry: each read may end the connection from within, and then disconnect() has run already:
 * the active connection is another one or none, and with --once the whole cell may be removed. So
 * after every return, and after each read, cell->state and cell->active are looked at afresh; -1
 * says that the connection which was active before is gone.
 */
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
 * A newcomer waits for the place of the active connection. What that one still said is read first,
 * a turn's share of it at once; its end may be among it. While reading is paused it is asked later.
 */
static void question_active(struct cell *cell, uint64_t now_ns)
{
	ssize_t n = 1;

	if (cell->host->paused) {
		cell->state = CELL_ASK_LATER;
		return;
	}
	cell->state = CELL_ASKING;
	cell->answer_until_ns = now_ns + CELL_CONTEST_MS * NSEC_PER_MSEC;
	if (cell->removed)
		n = drain(cell, CONNECTION_DRAIN_MAX);
	else if (cell->throttled_until_ns == 0)
		n = drain(cell, CONNECTION_READ_SIZE);
	if (cell->state != CELL_ASKING || connection_ask(cell->active))
		return;
	cell->state = CELL_SUCCEEDING;
	if (n == 0 || cell->removed)
		disconnect(cell, "superseded");
}

/* The active connection has had its time to show whether it is dead. */
static void judge_newcomer(struct cell *cell)
{
	if (cell->state == CELL_SUCCEEDING && drain(cell, CONNECTION_DRAIN_MAX) < 0)
		return;
	if (cell->host->paused)
		cell->state = CELL_ASK_LATER;
	else if (cell->state == CELL_SUCCEEDING)
		disconnect(cell, "superseded");
	else
		refuse_newcomer(cell);
}

/* Returns whether the active connection was asked, and so perhaps read. */
static bool take_connection(struct cell *cell, struct connection *c)
{
	if (cell->options.check_peer_uid && c->peer.uid != cell->options.peer_uid) {
		contest(cell, LIMITED_PEER, c);
		return false;
	}
	if (!cell->active) {
		activate(cell, c);
		return false;
	}
	if (cell->newcomer) {
		contest(cell, LIMITED_SECOND_CONNECTION, c);
		return false;
	}
	cell->newcomer = c;
	question_active(cell, monotonic_ns());
	return true;
}

/* ---- frames ---- */

/* A frame came: silence is over, or begins to be watched. */
static void note_frame(struct cell *cell, uint64_t now_ns)
{
	if (cell->silent) {
		const uint64_t since = cell->last_frame_ns    ? cell->last_frame_ns
				       : cell->watch_since_ns ? cell->watch_since_ns
							      : cell->added_ns;

		report_resumed(&cell->stream, age_ms(since, now_ns));
		cell->silent = false;
		cell->host->stats.silent--;
	}
	cell->last_frame_ns = now_ns;
	if (cell->watch_since_ns == 0)
		cell->watch_since_ns = now_ns;
}

static void count_violation(struct cell *cell, const struct connection *c,
			    const struct wire_refusal *refusal)
{
	report_violation(&cell->stream, c->number, refusal);
	cell->frames_rejected++;
	cell->host->stats.rejected[refusal->error]++;
}

/* Returns whether the connection may stay. */
static bool refuse_frame(struct cell *cell, struct connection *c,
			 const struct wire_refusal *refusal, uint64_t now_ns)
{
	size_t len;

	if (!wire_error_keeps_connection(refusal->error)) {
		count_violation(cell, c, refusal);
		return false;
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
	return true;
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
 * One more frame or connection. Above the cell's rate it is counted and refused, and for a while
 * nothing is read.
 */
static bool within_rate(struct cell *cell, uint64_t now_ns)
{
	if (token_bucket_take(&cell->bucket, cell->options.rate, now_ns))
		return true;
	cell->frames_rejected++;
	cell->host->stats.rate_limited++;
	count_limited(cell, LIMITED_RATE, 1, now_ns);
	if (cell->throttled_until_ns == 0)
		cell->throttled_until_ns = now_ns + CELL_THROTTLE_MS * NSEC_PER_MSEC;
	return false;
}

static void note_gap(struct cell *cell, const struct gap *gap)
{
	cell->gaps++;
	cell->host->stats.gaps++;
	report_gap(&cell->stream, cell->gap.session, gap);
}

/* Returns whether the connection may stay. */
static bool take_frame(struct cell *cell, struct connection *c, const uint8_t *body, size_t len)
{
	const uint64_t now_ns = monotonic_ns();
	struct wire_refusal refusal;
	struct declaration d;
	struct gap gap;

	c->frames++;
	cell->frames++;
	cell->host->stats.frames++;
	note_frame(cell, now_ns);
	if (!within_rate(cell, now_ns))
		return true;
	if (wire_decode(body, len, &d, &refusal) != WIRE_OK)
		return refuse_frame(cell, c, &refusal, now_ns);
	if (gap_tracker_frame(&cell->gap, &d, &gap))
		note_gap(cell, &gap);
	if (d.source == WIRE_TELEMETRY_HEARTBEAT) {
		cell->heartbeat_ns = now_ns;
		note_totals(cell, &d);
		return true;
	}
	if (d.source == WIRE_TELEMETRY_BYE) {
		/* After a bye silence is expected. */
		cell->watch_since_ns = 0;
		note_totals(cell, &d);
	}
	report_declaration(&cell->stream, c->number, &d);
	host_view_declared(cell->view, &d, now_ns);
	return true;
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

/* ---- what connections call ---- */

static void on_readable(void *ctx, struct connection *c)
{
	struct cell *cell = ctx;

	connection_read(c);
	cell_update(cell);
}

static bool on_frame(void *ctx, struct connection *c, const uint8_t *body, size_t len)
{
	return take_frame(ctx, c, body, len);
}

static void on_violation(void *ctx, struct connection *c, const struct wire_refusal *refusal)
{
	struct cell *cell = ctx;

	count_violation(cell, c, refusal);
	/* It costs what a frame costs. If the bucket is empty, the next connection is refused. */
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
	(void)c;
	disconnect(ctx, reason);
}

static void on_connection_closed(void *ctx)
{
	handle_closed(ctx);
}

static const struct connection_ops connection_ops = {
	.readable = on_readable,
	.frame = on_frame,
	.violation = on_violation,
	.bytes = on_bytes,
	.ended = on_ended,
	.closed = on_connection_closed,
};

/*
 * A full backlog blocks the whole VM, so connections are accepted whatever becomes of them. But in
 * a turn of the loop no more of the cell is read than its share, unless all must be taken now.
 * Returns whether none waits any more.
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
		if (take_connection(cell, c) && !all)
			break;
	}
	return false;
}

static void on_listen(uv_poll_t *handle, int status, int events)
{
	struct cell *cell = handle->data;

	(void)status;
	(void)events;
	accept_some(cell, false);
	cell_update(cell);
}

static void on_timer(uv_timer_t *timer)
{
	struct cell *cell = timer->data;
	const uint64_t now_ns = monotonic_ns(), due = silence_due(cell);

	cell->timer_at_ns = 0;
	if (now_ns >= cell->throttled_until_ns)
		cell->throttled_until_ns = 0;
	if (due != 0 && now_ns >= due) {
		/* While reading is paused no frame of the guest can arrive: that is no silence. */
		if (cell->host->paused && cell->active)
			cell->watch_since_ns = now_ns;
		else
			set_silent(cell, now_ns);
	}
	if ((cell->state == CELL_ASKING || cell->state == CELL_SUCCEEDING) &&
	    now_ns >= cell->answer_until_ns)
		judge_newcomer(cell);
	/* With --once the end of a connection is the end of the cell. */
	if (cell->removed)
		return;
	flush_limited(cell, now_ns, false);
	if (now_ns >= cell->checkpoint_at_ns)
		checkpoint(cell, now_ns);
	cell_update(cell);
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
	/* Without a buffer cell_host_init() was never called. */
	if (host->read_buffer)
		close_fd(host->spare.fd);
	free(host->read_buffer);
}

void cell_host_full(struct cell_host *host)
{
	if (host->paused)
		return;
	host->paused = true;
	host->stats.reads_paused++;
	for (struct cell *cell = host->cells; cell; cell = cell->next)
		cell_update(cell);
}

void cell_host_progress(struct cell_host *host)
{
	if (!host->paused || pipeline_full(host->pipeline))
		return;
	host->paused = false;
	for (struct cell *cell = host->cells, *next; cell; cell = next) {
		next = cell->next;
		if (cell->state == CELL_ASK_LATER)
			question_active(cell, monotonic_ns());
		cell_update(cell);
	}
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

/* While a dead connection has a successor, the connections after that one wait. */
static bool on_accept_waiting(void *owner, uint64_t *ret)
{
	struct cell *cell = owner;
	bool none_waits = true;

	if (!cell->removed) {
		none_waits = (cell->state != CELL_SUCCEEDING || cell->host->paused) &&
			     accept_some(cell, true);
		cell_update(cell);
	}
	*ret = cell->n_accepted;
	return none_waits;
}

static void on_vmm_contested(void *owner, uint64_t n)
{
	struct cell *cell = owner;

	count_limited(cell, LIMITED_VMM_COUNTS, n, monotonic_ns());
	cell_update(cell);
}

static void on_probed(void *owner, enum probe_kind kind, bool failed)
{
	struct cell_host_stats *stats = &((struct cell *)owner)->host->stats;

	if (failed)
		stats->probe_failures[kind]++;
	else
		stats->probe_readings[kind]++;
}

/* Everything that happened is reported. */
static void end_cell(void *owner)
{
	struct cell *cell = owner;
	struct cell_host *host = cell->host;
	void (*on_sealed)(void *ctx) = cell->on_sealed;
	void *ctx = cell->sealed_ctx;
	const uint64_t now_ns = monotonic_ns();
	const struct report_totals t = totals(cell);

	flush_limited(cell, now_ns, true);
	report_sealed(&cell->stream, cell->end_reason, &t, now_ns);
	stream_close(&cell->stream);
	host_view_free(take_ptr(cell->view));
	host->ending--;
	handle_closed(cell);
	/* The last step: it may be the end of everything. */
	if (on_sealed)
		on_sealed(ctx);
}

static const struct host_view_ops host_view_ops = {
	.accept_waiting = on_accept_waiting,
	.contested = on_vmm_contested,
	.probed = on_probed,
	.finished = end_cell,
};

/* ---- add and remove ---- */

/* The socket, the stream and the texts; nothing is polled yet. */
static int build_cell(struct cell *cell, const struct cell_options *o, bool replace_socket,
		      const uint8_t stream_id[static UUID_SIZE], char why[CELL_WHY_MAX])
{
	int r;

	cell->options = *o;
	cell->uds_base = strdup(o->uds_base);
	if (!cell->uds_base ||
	    stream_open(&cell->stream, cell->host->pipeline, cell->host->stats.events, o->cell_id,
			o->run_id, o->spec_hash, stream_id) < 0)
		return -ENOMEM;
	r = cell_socket_bind(&cell->socket, o, replace_socket, why);
	if (r < 0)
		return r;
	if (uv_poll_init(cell->host->loop, &cell->listen_poll, cell->socket.fd) < 0) {
		cell_socket_close(&cell->socket);
		return -ENOMEM;
	}
	cell->options.uds_base = cell->uds_base;
	cell->options.cell_id = cell->stream.identity->cell_id;
	cell->options.run_id = cell->stream.identity->run_id;
	cell->options.spec_hash = cell->stream.identity->spec_hash;
	uv_timer_init(cell->host->loop, &cell->timer);
	cell->open_handles = 2;
	cell->listen_poll.data = cell->timer.data = cell;
	return 0;
}

static void begin_view(struct cell *cell, bool taken_over)
{
	const struct host_view_options options = {
		.probes = &cell->options.probes,
		.witness_before_ms = cell->options.witness_before_ms,
		.witness_after_ms = cell->options.witness_after_ms,
		.taken_over = taken_over,
	};

	/* Evidence without the probes is better than none. */
	if (host_view_new(cell->host->probes, &options, &cell->stream, &host_view_ops, cell,
			  &cell->view) < 0)
		log_error("msg=\"no memory for the probes\" cell=%s", cell->options.cell_id);
	/* Its texts are borrowed from the caller. */
	cell->options.probes = (struct probe_options){0};
}

int cell_add(struct cell_host *host, const struct cell_options *options, bool replace_socket,
	     const uint8_t stream_id[static UUID_SIZE], const uint8_t *previous, struct cell **ret,
	     char why[CELL_WHY_MAX])
{
	const struct report_opened opened = {
		.hostname = host->hostname,
		.boot_id = host->boot_id,
		.origin = log_stream_origin(host->log_stream),
		.keepalive_ms = options->keepalive_ms,
		.previous = previous,
	};
	struct cell *cell = calloc(1, sizeof(*cell));
	int r;

	if (!cell)
		return -ENOMEM;
	cell->host = host;
	r = build_cell(cell, options, replace_socket, stream_id, why);
	if (r < 0) {
		stream_close(&cell->stream);
		free_cell(cell);
		return r;
	}
	cell->next = host->cells;
	cell->link = &host->cells;
	if (cell->next)
		cell->next->link = &cell->next;
	host->cells = cell;
	host->stats.cells++;
	cell->added_ns = monotonic_ns();
	cell->checkpoint_at_ns = cell->added_ns + host->checkpoint_ms * NSEC_PER_MSEC;
	report_opened(&cell->stream, &opened);
	begin_view(cell, previous != NULL);
	cell_update(cell);
	*ret = cell;
	return 0;
}

/* Read what the active connection, and then its successor, sent so far. */
static void drain_all(struct cell *cell)
{
	const struct connection *read = NULL;

	while (cell->active && cell->active != read) {
		read = cell->active;
		drain(cell, CONNECTION_DRAIN_MAX);
	}
}

void cell_quiesce(struct cell *cell)
{
	cell->quiet = true;
	uv_poll_stop(&cell->listen_poll);
	uv_timer_stop(&cell->timer);
	cell_socket_close(&cell->socket);
	if (cell->active)
		connection_poll(cell->active, false);
	if (cell->newcomer) {
		/* It contested nothing: it only came too late. */
		connection_close(take_ptr(cell->newcomer));
		cell->state = CELL_CONNECTED;
	}
}

void cell_remove(struct cell *cell, const char *reason)
{
	struct cell_host *host = cell->host;

	cell->removed = true;
	if (cell->active)
		connection_poll(cell->active, false);
	/* Those that have connected already are read, and the successor of a dead connection. */
	if (!cell->quiet) {
		accept_some(cell, true);
		drain_all(cell);
	}
	if (cell->newcomer)
		refuse_newcomer(cell);
	if (cell->active)
		disconnect(cell, "shutdown");
	uv_close((uv_handle_t *)&cell->listen_poll, on_handle_closed);
	uv_close((uv_handle_t *)&cell->timer, on_handle_closed);
	cell_socket_close(&cell->socket);
	*cell->link = cell->next;
	if (cell->next)
		cell->next->link = cell->link;
	host->stats.cells--;
	host->stats.silent -= cell->silent;
	/* It lives until it is sealed and until its handles are closed. */
	cell->open_handles++;
	cell->end_reason = reason;
	host->ending++;
	if (cell->view)
		host_view_finish(cell->view);
	else
		end_cell(cell);
}

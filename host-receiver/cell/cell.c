/* SPDX-License-Identifier: MIT */
/*
 * The life of a cell: what it polls, its timer, its reports, and how it is added and removed.
 * connections.c has the states of its connections.
 *
 * An entry point is a function that libuv, the pipeline, the host view or a verb calls. Each ends
 * with cell_update(), which derives from the state what is polled, whether the cell may be read,
 * and when the timer is due. Nothing else starts or stops a poll or the timer.
 *
 * Reading: a poll only puts the cell into a queue. turns.c calls on_turn() for the queued cells,
 * before the loop sleeps again.
 */
#include "host-receiver/cell/cell.h"

#include "common/log.h"
#include "host-receiver/cell/connections.h"
#include "host-receiver/cell/frames.h"

/* ---- what follows from the state ---- */

static void sooner(uint64_t *next, uint64_t at_ns)
{
	if (at_ns != 0 && at_ns < *next)
		*next = at_ns;
}

static uint64_t next_due(const struct cell *cell)
{
	uint64_t next = cell->checkpoint_at_ns;

	sooner(&next, keepalive_due(&cell->keepalive));
	sooner(&next, ceilings_due(&cell->ceilings));
	sooner(&next, cell->accept_again_ns);
	sooner(&next, cell->read_again_ns);
	sooner(&next, cell->ack_due_ns);
	if (cell->state == CELL_ASKING)
		sooner(&next, cell->answer_until_ns);
	sooner(&next, limited_due(&cell->limited));
	return next;
}

/* Charge all events and bytes that were made for the cell since the last call, for any reason. */
static void charge(struct cell *cell, uint64_t now_ns)
{
	const uint64_t events = cell->stream.sequence + cell->eventless;
	const uint64_t bytes = cell->stream.account->bytes;

	if (events == cell->charged_events && bytes == cell->charged_bytes)
		return;
	ceilings_charge(&cell->ceilings, events - cell->charged_events, bytes - cell->charged_bytes,
			now_ns);
	cell->charged_events = events;
	cell->charged_bytes = bytes;
}

static bool may_read(struct cell *cell, uint64_t now_ns)
{
	const struct pipeline_account *account = cell->stream.account;
	const enum ceiling before = cell->ceilings.paused_by;
	enum ceiling by;
	bool allowed;

	if (!cell->active || cell->state == CELL_SETTLING) {
		ceilings_stop(&cell->ceilings, now_ns);
		return false;
	}
	allowed = ceilings_allow(&cell->ceilings,
				 account->inflight >= pipeline_share_max(cell->registry->pipeline),
				 now_ns);
	by = cell->ceilings.paused_by;
	if (by != before && by != _CEILING_MAX)
		cell->registry->stats.limit_hits[by]++;
	return allowed && !cell->registry->paused;
}

static void on_timer(uv_timer_t *timer);
static void on_listen(uv_poll_t *handle, int status, int events);

static void poll_listener(struct cell *cell, bool listen)
{
	if (listen && !cell->listening)
		uv_poll_start(&cell->listen_poll, UV_READABLE, on_listen);
	else if (!listen && cell->listening)
		uv_poll_stop(&cell->listen_poll);
	cell->listening = listen;
}

/*
 * Derive the polls and the timer from the state. A timer that is due too early is left: it finds
 * nothing to do and is then set again. So a frame, which delays the silence, sets no timer.
 *
 * Connections are accepted even if the cell may not be read, because a full backlog would freeze
 * its VM. Only while the rest of a dead connection is read, the connections after its successor
 * wait.
 */
void cell_update(struct cell *cell)
{
	const uint64_t now_ns = monotonic_ns();
	bool waits;
	uint64_t next;

	if (cell->removed || cell->quiet)
		return;
	charge(cell, now_ns);
	cell->may_read = may_read(cell, now_ns);
	if (cell->may_read && cell->state == CELL_ASK_LATER)
		connections_ask(cell, now_ns);
	if (!cell->may_read) {
		turns_remove(&cell->registry->turns, &cell->flow);
	} else if (cell->state == CELL_SUCCEEDING) {
		/* A dead connection may never become readable, so no poll would report it. */
		turns_add(&cell->registry->turns, &cell->flow, true);
	}
	/* A cell that is queued for its turn needs no poll. */
	waits = turns_parked(&cell->registry->turns, &cell->flow);
	keepalive_reading(&cell->keepalive, !cell->active || (cell->may_read && !waits), now_ns);
	if (cell->active)
		connection_poll(cell->active, cell->may_read && !waits && cell->read_again_ns == 0,
				cell->active->ack_left > 0);
	poll_listener(cell, cell->accept_again_ns == 0 &&
				    !(cell->state == CELL_SUCCEEDING && !cell->registry->paused));
	next = next_due(cell);
	if (cell->timer_at_ns != 0 && cell->timer_at_ns <= next)
		return;
	cell->timer_at_ns = next;
	/* One more millisecond, so that it is never early. */
	uv_timer_start(&cell->timer, on_timer, age_ms(now_ns, next) + 1, 0);
}

/* ---- reports ---- */

static struct report_totals totals(const struct cell *cell)
{
	struct report_totals t = {
		.frames = cell->frames,
		.frames_rejected = cell->frames_rejected,
		.bytes = cell->bytes,
		.gaps = cell->gaps,
		.repeated = cell->repeated,
		.guest = cell->guest.grown,
		.heartbeat_ns = cell->heartbeat_ns,
	};

	t.reads_vmm = host_view_vmm_bytes(cell->view, &t.vmm_bytes);
	return t;
}

/* A stream that wrote nothing since its last checkpoint has no new one. */
static void checkpoint(struct cell *cell, uint64_t now_ns)
{
	const struct report_totals t = totals(cell);

	cell->checkpoint_at_ns = now_ns + cell->registry->checkpoint_ms * NSEC_PER_MSEC;
	if (cell->stream.sequence == cell->checkpoint_sequence)
		return;
	report_checkpoint(&cell->stream, &t, now_ns);
	cell->checkpoint_sequence = cell->stream.sequence;
}

/* Make the reports of ceilings and refusals that are due, or with force all of them. */
static void flush_limited(struct cell *cell, uint64_t now_ns, bool force)
{
	limited_flush(&cell->limited, &cell->stream, now_ns, force);
	for (enum ceiling i = 0; i < _CEILING_MAX; i++) {
		const uint64_t amount = ceilings_report(&cell->ceilings, i, now_ns, force);

		if (amount > 0)
			report_rate_limited(&cell->stream, i, amount);
	}
}

static void set_silent(struct cell *cell, uint64_t now_ns)
{
	struct report_silenced silence = {
		.last_frame_ns = cell->keepalive.last_frame_ns,
		.connected = cell->active != NULL,
	};

	silence.reason = keepalive_reason(&cell->keepalive, &silence.window_ms);
	report_silenced(&cell->stream, &silence, now_ns);
	cell->keepalive.silent = true;
	cell->registry->stats.silent++;
	log_warning("msg=\"agent silenced\" cell=%s stream_sequence=%" PRIu64,
		    cell->options.cell_id, cell->stream.sequence);
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
	struct turns *turns = &cell->registry->turns;

	(void)c;
	turns_add(turns, &cell->flow, cell->stream.account->inflight < CELL_QUIET_BYTES);
	if (turns_parked(turns, &cell->flow))
		cell_update(cell);
}

static void on_writable(void *ctx, struct connection *c)
{
	struct cell *cell = ctx;

	if (connection_flush(c))
		connections_acknowledge(cell, monotonic_ns());
	cell_update(cell);
}

static bool on_frame(void *ctx, struct connection *c, const uint8_t *body, size_t len)
{
	(void)c;
	return frame_take(ctx, body, len);
}

static void on_violation(void *ctx, struct connection *c, const struct wire_refusal *refusal)
{
	(void)c;
	frame_violation(ctx, refusal);
}

static void on_bytes(void *ctx, size_t n)
{
	struct cell *cell = ctx;

	cell->bytes += n;
	cell->registry->stats.bytes += n;
}

static void on_ended(void *ctx, struct connection *c, const char *reason)
{
	if (c->at_end)
		connections_end(ctx, reason);
	else
		connections_settle_then_end(ctx, reason);
}

static void on_connection_closed(void *ctx)
{
	handle_closed(ctx);
}

const struct connection_ops cell_connection_ops = {
	.readable = on_readable,
	.writable = on_writable,
	.frame = on_frame,
	.violation = on_violation,
	.bytes = on_bytes,
	.ended = on_ended,
	.closed = on_connection_closed,
};

static void on_listen(uv_poll_t *handle, int status, int events)
{
	struct cell *cell = handle->data;

	(void)status;
	(void)events;
	connections_accept(cell, false);
	cell_update(cell);
}

static bool silence_is_due(const struct cell *cell, uint64_t now_ns)
{
	const uint64_t due = keepalive_due(&cell->keepalive);

	return due != 0 && now_ns >= due;
}

/*
 * libuv runs timers before it polls sockets, and this process may have been stopped for a while. If
 * a connection or bytes have arrived that were not read yet, the guest is not silent: the next
 * timer checks again.
 */
static void judge_silence(struct cell *cell, uint64_t now_ns)
{
	if (!silence_is_due(cell, now_ns))
		return;
	if (!cell->active && cell->listening)
		connections_accept(cell, false);
	if (silence_is_due(cell, now_ns) && !(cell->active && connection_unread(cell->active) > 0))
		set_silent(cell, now_ns);
}

static void on_timer(uv_timer_t *timer)
{
	struct cell *cell = timer->data;
	const uint64_t now_ns = monotonic_ns();

	cell->timer_at_ns = 0;
	if (now_ns >= cell->accept_again_ns)
		cell->accept_again_ns = 0;
	if (now_ns >= cell->read_again_ns)
		cell->read_again_ns = 0;
	judge_silence(cell, now_ns);
	connections_on_time(cell, now_ns);
	connections_acknowledge(cell, now_ns);
	flush_limited(cell, now_ns, false);
	if (now_ns >= cell->checkpoint_at_ns)
		checkpoint(cell, now_ns);
	cell_update(cell);
}

/* ---- whose turn it is ---- */

_Static_assert(TURNS_READ_SIZE <= CONNECTION_READ_SIZE, "what a turn asks for can be read at once");

static struct cell *cell_of(struct fair_flow *f)
{
	return (struct cell *)(void *)((char *)f - offsetof(struct cell, flow));
}

static void pause_after_piece(struct cell *cell, bool piece)
{
	if (!piece) {
		cell->piece_pause_ms = 0;
		return;
	}
	cell->piece_pause_ms = cell->piece_pause_ms
				       ? MIN(2 * cell->piece_pause_ms, CELL_PIECE_PAUSE_MAX_MS)
				       : CELL_PIECE_PAUSE_MS;
	cell->read_again_ns = monotonic_ns() + cell->piece_pause_ms * NSEC_PER_MSEC;
}

static void on_turn(struct turns *t, struct fair_flow *f)
{
	struct cell *cell = cell_of(f);
	const struct pipeline_account *account = cell->stream.account;
	const uint64_t bytes = account->bytes, frames = cell->frames;
	const struct connection *c = cell->active;
	const ssize_t n = connections_read(cell, TURNS_READ_SIZE);
	size_t cost;

	if (cell->removed || cell->quiet) {
		turns_remove(t, f);
		return;
	}
	cost = CELL_READ_COST + (size_t)(account->bytes - bytes) +
	       (size_t)(cell->frames - frames) * CELL_FRAME_COST;
	fair_served(&t->queue, f, cost, n == TURNS_READ_SIZE && cell->active == c);
	if (cell->active == c)
		pause_after_piece(cell, n > 0 && n < (ssize_t)TURNS_READ_SIZE && c->have > 0);
	cell_update(cell);
}

static void on_parked(struct fair_flow *f)
{
	cell_update(cell_of(f));
}

const struct turns_ops cell_turns_ops = {.read = on_turn, .parked = on_parked};

/* ---- what is durable ---- */

static void finish_removal(struct cell *cell);

void cell_durable(struct pipeline_account *account)
{
	struct cell *cell = account->owner;
	struct session *s = sessions_find_id(&cell->sessions, account->durable.session);

	if (s)
		s->settled = MAX(s->settled, account->durable.seq);
	connections_acknowledge(cell, monotonic_ns());
	if (cell->state == CELL_SETTLING && connections_settled(cell)) {
		connections_settle_then_end(cell, cell->settling_reason);
		if (cell->removed)
			finish_removal(cell);
	}
	cell_update(cell);
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
		none_waits = (cell->state != CELL_SUCCEEDING || cell->registry->paused) &&
			     connections_accept(cell, true);
		cell_update(cell);
	}
	*ret = cell->n_accepted;
	return none_waits;
}

static void on_vmm_contested(void *owner, uint64_t n)
{
	struct cell *cell = owner;

	limited_count(&cell->limited, &cell->stream, LIMITED_VMM_COUNTS, n, monotonic_ns());
	cell_update(cell);
}

static void on_probed(void *owner, enum probe_kind kind, bool failed)
{
	struct cell_registry_stats *stats = &((struct cell *)owner)->registry->stats;

	if (failed)
		stats->probe_failures[kind]++;
	else
		stats->probe_readings[kind]++;
}

/* Everything that happened is reported. */
static void end_cell(void *owner)
{
	struct cell *cell = owner;
	struct cell_registry *registry = cell->registry;
	void (*on_sealed)(void *ctx) = cell->on_sealed;
	void *ctx = cell->sealed_ctx;
	const uint64_t now_ns = monotonic_ns();
	const struct report_totals t = totals(cell);
	const struct report_numbers numbers = {
		.session = sessions_newest(&cell->sessions),
		.unread_bytes = cell->unread_bytes,
	};

	flush_limited(cell, now_ns, true);
	report_sealed(&cell->stream, cell->end_reason, &t, &numbers, now_ns);
	stream_close(&cell->stream);
	host_view_free(take_ptr(cell->view));
	registry->ending--;
	handle_closed(cell);
	/* The last step, because it may end the process. */
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

struct ceiling_rates cell_rates(const struct cell *cell)
{
	const struct ceiling_rates *otherwise = &cell->registry->rates;
	const struct cell_options *o = &cell->options;

	return (struct ceiling_rates){
		.events = o->rate ? o->rate : otherwise->events,
		.bytes = o->rate_bytes ? o->rate_bytes : otherwise->bytes,
		.connections = o->rate_connections ? o->rate_connections : otherwise->connections,
	};
}

static void borrow_names(struct cell *cell)
{
	cell->options.cell_id = cell->stream.identity->cell_id;
	cell->options.run_id = cell->stream.identity->run_id;
	cell->options.spec_hash = cell->stream.identity->spec_hash;
}

/* Make the socket, the stream and the texts. Nothing is polled yet. */
static int build_cell(struct cell *cell, const struct cell_options *o, bool replace_socket,
		      const uint8_t stream_id[static UUID_SIZE], char why[CELL_WHY_MAX])
{
	int r;

	cell->options = *o;
	cell->uds_base = strdup(o->uds_base);
	if (!cell->uds_base ||
	    stream_open(&cell->stream, cell->registry->pipeline, cell->registry->stats.events, cell,
			o->cell_id, o->run_id, o->spec_hash, stream_id) < 0)
		return -ENOMEM;
	r = cell_socket_bind(&cell->socket, o, replace_socket, cell->registry->parent, why);
	if (r < 0)
		return r;
	if (uv_poll_init(cell->registry->loop, &cell->listen_poll, cell->socket.listener.fd) < 0) {
		cell_socket_close(&cell->socket);
		return -ENOMEM;
	}
	cell->options.uds_base = cell->uds_base;
	borrow_names(cell);
	uv_timer_init(cell->registry->loop, &cell->timer);
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
	if (host_view_new(cell->registry->probes, &options, &cell->stream, &host_view_ops, cell,
			  &cell->view) < 0)
		log_error("msg=\"no memory for the probes\" cell=%s", cell->options.cell_id);
	/* The probes' texts are borrowed from the caller, so they must not be used after this. */
	cell->options.probes = (struct probe_options){0};
}

void cell_open_stream(struct cell *cell, const struct stream_end *previous)
{
	const struct cell_registry *registry = cell->registry;
	const struct report_opened opened = {
		.hostname = registry->hostname,
		.boot_id = registry->boot_id,
		.origin = log_stream_origin(registry->log_stream),
		.keepalive_ms = cell->options.keepalive_ms,
		.previous = previous,
	};

	report_opened(&cell->stream, &opened);
}

int cell_seal_stream(struct cell *cell, const char *reason,
		     const uint8_t stream_id[static UUID_SIZE], struct stream_end *ret_end)
{
	const uint64_t now_ns = monotonic_ns();
	const struct report_totals t = totals(cell);
	const struct report_numbers numbers = {.session = sessions_newest(&cell->sessions)};
	int r;

	flush_limited(cell, now_ns, true);
	report_sealed(&cell->stream, reason, &t, &numbers, now_ns);
	charge(cell, now_ns);
	memcpy(ret_end->stream_id, cell->stream.identity->stream_id, UUID_SIZE);
	ret_end->sequence = cell->stream.sequence;
	r = stream_succeed(&cell->stream, stream_id);
	if (r < 0)
		return r;
	borrow_names(cell);
	cell->charged_events = cell->eventless;
	cell->checkpoint_sequence = 0;
	cell->frames = cell->frames_rejected = cell->bytes = cell->gaps = cell->repeated = 0;
	return 0;
}

int cell_add(struct cell_registry *registry, const struct cell_options *options,
	     bool replace_socket, const uint8_t stream_id[static UUID_SIZE],
	     const struct stream_end *previous, struct cell **ret, char why[CELL_WHY_MAX])
{
	const uint64_t now_ns = monotonic_ns();
	struct cell *cell = calloc(1, sizeof(*cell));
	struct ceiling_rates rates;
	int r;

	if (!cell)
		return -ENOMEM;
	cell->registry = registry;
	r = build_cell(cell, options, replace_socket, stream_id, why);
	if (r < 0) {
		stream_close(&cell->stream);
		free_cell(cell);
		return r;
	}
	cell->next = registry->cells;
	cell->link = &registry->cells;
	if (cell->next)
		cell->next->link = &cell->next;
	registry->cells = cell;
	registry->stats.cells++;
	keepalive_init(&cell->keepalive, options->keepalive_ms, options->connect_within_ms, now_ns);
	rates = cell_rates(cell);
	ceilings_init(&cell->ceilings, &rates, now_ns);
	cell->checkpoint_at_ns = now_ns + registry->checkpoint_ms * NSEC_PER_MSEC;
	cell_open_stream(cell, previous);
	begin_view(cell, previous != NULL);
	cell_update(cell);
	*ret = cell;
	return 0;
}

/*
 * Whether to read the remaining bytes before the end. An agent with acknowledgements sends them
 * again to the next run, if there will be one.
 */
static bool may_drain(const struct cell *cell)
{
	return !cell->acks || !cell->registry->comes_back ||
	       strcmp(cell->end_reason, "shutdown") != 0;
}

/* Read the bytes that the active connection, and then its successor, have sent so far. */
static void drain_all(struct cell *cell)
{
	const struct connection *c = NULL;
	size_t left = 0;

	while (cell->active && cell->state != CELL_SETTLING && may_drain(cell)) {
		ssize_t n;

		if (cell->active != c)
			left = CONNECTION_DRAIN_MAX;
		c = cell->active;
		n = connections_read(cell, left);
		if (n == 0 || (n > 0 && (left -= (size_t)n) == 0))
			break;
	}
}

void cell_quiesce(struct cell *cell)
{
	cell->quiet = cell->hurry = true;
	turns_remove(&cell->registry->turns, &cell->flow);
	uv_poll_stop(&cell->listen_poll);
	uv_timer_stop(&cell->timer);
	cell_socket_close(&cell->socket);
	if (cell->active)
		connection_poll(cell->active, false, false);
	connections_dismiss_newcomer(cell);
	connections_acknowledge(cell, monotonic_ns());
}

/* No connection is left: make the last readings, then seal. */
static void finish_removal(struct cell *cell)
{
	if (cell->view)
		host_view_finish(cell->view);
	else
		end_cell(cell);
}

void cell_remove(struct cell *cell, const char *reason)
{
	struct cell_registry *registry = cell->registry;

	cell->removed = true;
	cell->end_reason = reason;
	turns_remove(&registry->turns, &cell->flow);
	/* Connections in the backlog are accepted, and replace dead ones. */
	if (!cell->quiet)
		connections_accept(cell, true);
	uv_close((uv_handle_t *)&cell->listen_poll, on_handle_closed);
	uv_close((uv_handle_t *)&cell->timer, on_handle_closed);
	cell_socket_close(&cell->socket);
	*cell->link = cell->next;
	if (cell->next)
		cell->next->link = cell->link;
	registry->stats.cells--;
	registry->stats.silent -= cell->keepalive.silent;
	/* It lives until it is sealed and until its handles are closed. */
	cell->open_handles++;
	registry->ending++;
	if (!cell->quiet)
		drain_all(cell);
	connections_refuse_newcomer(cell);
	if (cell->active) {
		connection_poll(cell->active, false, false);
		if (cell->state != CELL_SETTLING)
			connections_settle_then_end(cell, "shutdown");
	}
	if (!cell->active)
		finish_removal(cell);
}

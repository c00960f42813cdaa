/* SPDX-License-Identifier: MIT */
/*
 * The connections of a cell:
 *
 *   state            | what it means                     | leaves by              -> next
 *   -----------------+-----------------------------------+-----------------------------------------
 *   CELL_ALONE       | no connection                     | accept                 -> CONNECTED
 *   CELL_CONNECTED   | one is active                     | it ends                -> ALONE
 *                    |                                   | accept of a newcomer   -> ASKING,
 *                    |                                   |   or, if it may not be
 *                    |                                   |   read now             -> ASK_LATER
 *                    |                                   | a frame is refused     -> SETTLING
 *   CELL_ASKING      | the active one was asked whether  | it ends                -> CONNECTED (n)
 *                    | it lives; a newcomer waits        | it is dead             -> SUCCEEDING
 *                    |                                   | CELL_CONTEST_MS pass   -> CONNECTED
 *   CELL_ASK_LATER   | as ASKING, but its answer could   | it ends                -> CONNECTED (n)
 *                    | not be read now                   | it may be read         -> ASKING
 *   CELL_SUCCEEDING  | the active one is dead; the rest  | its rest was read      -> CONNECTED (n)
 *                    | of it is read; a newcomer waits   |
 *   CELL_SETTLING    | the active one will be closed and | all that was read is   -> ALONE, or
 *                    | is read no more; its agent waits  |   durable and          -> CONNECTED (n)
 *                    | for an acknowledgement            |   acknowledged
 *
 * (n): the newcomer is the active one then. A newcomer waits in ASKING, ASK_LATER and SUCCEEDING,
 * and perhaps in SETTLING. A cell that is removed ends in ALONE, whatever its state was.
 */
#include "host-receiver/cell/connections.h"

void connections_acknowledge(struct cell *cell, uint64_t now_ns)
{
	const struct session *s = cell->numbering.session;
	struct connection *c = cell->active;

	if (!c || !s || !cell->acks || s->settled <= c->acked) {
		cell->ack_due_ns = 0;
		return;
	}
	if (!cell->hurry && s->settled - c->acked < cell->ack_step) {
		if (cell->ack_due_ns == 0)
			cell->ack_due_ns = now_ns + CELL_ACK_MS * NSEC_PER_MSEC;
		if (now_ns < cell->ack_due_ns)
			return;
	}
	cell->ack_due_ns = 0;
	/* If it would block, this is called again when the connection is writable. */
	connection_ack(c, s->settled);
}

bool connections_settled(const struct cell *cell)
{
	return cell->stream.account->inflight == 0 || pipeline_dead(cell->stream.pipeline);
}

static void activate(struct cell *cell, struct connection *c)
{
	cell->active = c;
	cell->state = CELL_CONNECTED;
	c->number = ++cell->n_connections;
	keepalive_connected(&cell->keepalive, monotonic_ns());
	cell->numbering = (struct numbering){0};
	cell->acks = cell->hurry = cell->lie_noted = false;
	cell->ack_due_ns = cell->read_again_ns = 0;
	cell->piece_pause_ms = 0;
	cell->registry->stats.connections++;
	cell->registry->stats.active++;
	report_connected(&cell->stream, c->number, &c->peer);
}

void connections_end(struct cell *cell, const char *reason)
{
	struct connection *c = take_ptr(cell->active), *newcomer = take_ptr(cell->newcomer);
	const struct report_disconnected end = {
		.connection = c->number,
		.frames = c->frames,
		.bytes = c->bytes,
		.reason = reason,
		.numbers = {.session = cell->numbering.session,
			    .unread_bytes = connection_unread(c)},
	};

	report_disconnected(&cell->stream, &end);
	cell->unread_bytes = end.numbers.unread_bytes;
	cell->registry->stats.active--;
	turns_remove(&cell->registry->turns, &cell->flow);
	connection_close(c);
	cell->state = CELL_ALONE;
	cell->numbering.session = NULL;
	if (newcomer)
		activate(cell, newcomer);
	if (cell->on_connection_ended && !cell->removed)
		cell->on_connection_ended(cell->ctx);
}

void connections_settle_then_end(struct cell *cell, const char *reason)
{
	cell->hurry = true;
	if (cell->acks && cell->numbering.session && !connections_settled(cell)) {
		cell->state = CELL_SETTLING;
		cell->settling_reason = reason;
		return;
	}
	connections_acknowledge(cell, monotonic_ns());
	connections_end(cell, reason);
}

/* From now on no connection waits for the place of the active one. */
static struct connection *take_newcomer(struct cell *cell)
{
	if (cell->state != CELL_SETTLING)
		cell->state = CELL_CONNECTED;
	return take_ptr(cell->newcomer);
}

static void contest(struct cell *cell, enum limited_kind kind, struct connection *c)
{
	cell->registry->stats.contested++;
	limited_contest(&cell->limited, &cell->stream, kind, &c->peer, monotonic_ns());
	connection_close(c);
}

void connections_refuse_newcomer(struct cell *cell)
{
	if (cell->newcomer)
		contest(cell, LIMITED_SECOND_CONNECTION, take_newcomer(cell));
}

void connections_dismiss_newcomer(struct cell *cell)
{
	if (cell->newcomer)
		connection_close(take_newcomer(cell));
}

void connections_ask(struct cell *cell, uint64_t now_ns)
{
	if (!cell->may_read) {
		cell->state = CELL_ASK_LATER;
		return;
	}
	cell->state = CELL_ASKING;
	cell->answer_until_ns = now_ns + CELL_CONTEST_MS * NSEC_PER_MSEC;
	/* The bytes that it has sent are read like all others, and then its end. */
	if (!connection_ask(cell->active))
		cell->state = CELL_SUCCEEDING;
}

void connections_on_time(struct cell *cell, uint64_t now_ns)
{
	if (cell->state != CELL_ASKING || now_ns < cell->answer_until_ns)
		return;
	if (cell->may_read)
		connections_refuse_newcomer(cell);
	else
		cell->state = CELL_ASK_LATER;
}

void connections_take(struct cell *cell, struct connection *c)
{
	if (cell->options.check_peer_uid && c->peer.uid != cell->options.peer_uid) {
		contest(cell, LIMITED_PEER, c);
	} else if (!cell->active) {
		activate(cell, c);
		/*
		 * Several connections may be accepted in one turn, and the next one needs this
		 * value in connections_ask().
		 */
		cell->may_read = !cell->registry->paused;
	} else if (cell->newcomer) {
		contest(cell, LIMITED_SECOND_CONNECTION, c);
	} else {
		cell->newcomer = c;
		if (cell->state != CELL_SETTLING)
			connections_ask(cell, monotonic_ns());
	}
}

/* Whether the cell may have one more connection; counts and reports those above its rate. */
static bool may_connect(struct cell *cell, uint64_t now_ns)
{
	uint64_t count;

	if (ceilings_connect(&cell->ceilings, now_ns, &count))
		return true;
	cell->registry->stats.limit_hits[CEILING_CONNECTIONS]++;
	cell->accept_again_ns = now_ns + CELL_ACCEPT_PAUSE_MS * NSEC_PER_MSEC;
	if (count > 0)
		report_rate_limited(&cell->stream, CEILING_CONNECTIONS, count);
	return false;
}

bool connections_accept(struct cell *cell, bool all)
{
	const unsigned most = all ? LISTENER_BACKLOG + 1 : CELL_ACCEPTS_PER_TURN;

	for (unsigned i = 0; i < most; i++) {
		struct connection *c;
		int fd = spare_fd_accept(&cell->registry->spare, cell->socket.listener.fd);

		if (fd < 0 && fd != -EMFILE)
			return true;
		cell->n_accepted++;
		cell->registry->stats.no_descriptor += fd < 0;
		if (!may_connect(cell, monotonic_ns()) || fd < 0) {
			close_fd(fd);
			continue;
		}
		c = connection_new(cell->registry->loop, fd, cell->registry->read_buffer,
				   &cell_connection_ops, cell);
		if (!c)
			continue;
		cell->open_handles++;
		connections_take(cell, c);
		if (cell->state == CELL_SUCCEEDING && !all)
			break;
	}
	return false;
}

ssize_t connections_read(struct cell *cell, size_t size)
{
	struct connection *c = cell->active;
	ssize_t n = connection_read(c, size);

	if (n == 0 && cell->state == CELL_SUCCEEDING && cell->active == c) {
		connections_end(cell, "superseded");
		return -1;
	}
	return n;
}

/* SPDX-License-Identifier: MIT */
/*
 * Which connection of a cell is the active one, and which one may take its place. The table of the
 * states is at the top of connections.c. Only connections.c changes cell->state, cell->active and
 * cell->newcomer. It also sends the acknowledgements, because a connection ends after its last one.
 *
 * It polls nothing and sets no timer: cell_update() does that after each of these calls. Loop
 * thread.
 */
#pragma once

#include "host-receiver/cell/cell.h"

/*
 * Accept a turn's share of the connections that wait, or all of them. A full backlog blocks the
 * whole VM, so even a connection that the cell may not have is accepted, and closed. Returns
 * whether no more connections wait.
 */
bool connections_accept(struct cell *cell, bool all);

/* Takes c: it becomes active, waits as the newcomer, or is refused and closed. */
void connections_take(struct cell *cell, struct connection *c);

/*
 * Read the active connection once, at most so many bytes. Returns what connection_read() returns.
 *
 * Re-entry: a read may call connections_end(). When it returns, the active connection may be
 * another one or none, and with --once the whole cell may be removed and sealed. So the caller
 * reads cell->state, cell->active and cell->removed again.
 */
ssize_t connections_read(struct cell *cell, size_t size);

/* End the active connection now. The newcomer, if there is one, takes its place. */
void connections_end(struct cell *cell, const char *reason);
/* The same, but the agent first gets its last acknowledgement: CELL_SETTLING until then. */
void connections_settle_then_end(struct cell *cell, const char *reason);

/*
 * Acknowledge the settled part of the session, if it is large enough, if it is due, or if
 * cell->hurry is set.
 */
void connections_acknowledge(struct cell *cell, uint64_t now_ns);
/* Nothing of the cell is in flight, or it will never be written. */
bool connections_settled(const struct cell *cell);

/* Ask whether the active connection lives, because a newcomer waits for its place. */
void connections_ask(struct cell *cell, uint64_t now_ns);
/* When the time for the answer is over, the active connection counts as alive. */
void connections_on_time(struct cell *cell, uint64_t now_ns);
/*
 * Close the newcomer, if there is one. The first function reports it as a contest, the second
 * reports nothing.
 */
void connections_refuse_newcomer(struct cell *cell);
void connections_dismiss_newcomer(struct cell *cell);

/* SPDX-License-Identifier: MIT */
/*
 * Applies a frame to its cell: numbers, silence, totals, and the events that the frame makes. Only
 * cell.c calls it, for the active connection. It never ends a connection itself. Loop thread.
 */
#pragma once

#include "host-receiver/cell/cell.h"

/* A whole frame. Returns whether the connection may stay. */
bool frame_take(struct cell *cell, const uint8_t *body, size_t len);

/* A wire error outside a whole frame, after which the connection ends. */
void frame_violation(struct cell *cell, const struct wire_refusal *refusal);

/* SPDX-License-Identifier: MIT */
/*
 * What the other sources ask the net source. Single-threaded.
 */
#pragma once

#include <stdbool.h>

/* Whether it reports raw inet sockets by itself. */
bool net_view_sees_raw_sockets(void);

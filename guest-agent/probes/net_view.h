/* SPDX-License-Identifier: MIT */
/*
 * Questions of the other sources to the net source. Single-threaded.
 */
#pragma once

#include <stdbool.h>

/* Whether the net source reports raw inet sockets, so that no other source has to. */
bool net_view_sees_raw_sockets(void);

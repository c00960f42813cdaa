/* SPDX-License-Identifier: MIT */
/*
 * sd_notify(3) without its library: a datagram to $NOTIFY_SOCKET. Does nothing where there is no
 * service manager. Any thread.
 */
#pragma once

#include <stdint.h>

/* Lines of NAME=VALUE. */
void notify_manager(const char *state);

/* The period in which the manager expects WATCHDOG=1, in milliseconds; 0: it expects none. */
uint64_t notify_watchdog_ms(void);

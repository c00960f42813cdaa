/* SPDX-License-Identifier: MIT */
/*
 * sd_notify(3) without its library: sends a datagram to $NOTIFY_SOCKET. Without a service manager
 * it does nothing. Any thread.
 */
#pragma once

#include <stdint.h>

/* Send lines of NAME=VALUE. */
void notify_manager(const char *state);

/* The period in which the manager expects WATCHDOG=1, in milliseconds; 0: it expects none. */
uint64_t notify_watchdog_ms(void);

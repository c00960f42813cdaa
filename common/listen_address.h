/* SPDX-License-Identifier: MIT */
/* The TCP address that a server listens on, as text. No state; any thread. */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

/*
 * ADDRESS:PORT, or [ADDRESS]:PORT for IPv6 (also with %INTERFACE), all in numbers: no name is
 * looked up. False: text is something else, and *ret is unchanged.
 */
bool listen_address_parse(const char *text, struct sockaddr_storage *ret);

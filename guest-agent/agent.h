/* SPDX-License-Identifier: MIT */
/*
 * The agent itself: sources -> queue -> channel, one epoll loop, one thread. Everything is
 * allocated before it is ready; after that it neither allocates nor blocks.
 */
#pragma once

#include "guest-agent/options.h"

/* Exit statuses of the program beside sysexits.h's. */
enum {
	EXIT_FORK_FAILED = 2,
	EXIT_NOT_READY = 3,
	EXIT_RUNNING = 5,
};

/*
 * Run until SIGTERM. on_ready is called once: connected, sources open, hello sent. options is
 * borrowed. Returns the exit status, after a message.
 */
int agent_run(const struct options *options, void (*on_ready)(void *ctx), void *ctx);

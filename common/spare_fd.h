/* SPDX-License-Identifier: MIT */
/*
 * A file descriptor in reserve, for a listener that is polled. Without a free descriptor accept4(2)
 * fails and the connection stays in the backlog, which would wake the loop without end. Then the
 * reserve is closed, the connection is accepted and closed at once, and the reserve is opened
 * again.
 *
 * One instance for each thread. Does not log: report() is called when a shortage begins and when it
 * has ended.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SPARE_FD_SHORTAGE_S 10u /* a shortage ends after so long without a refusal */

struct spare_fd {
	int fd; /* owned; -1: another thread took it, and it is opened again later */
	bool shortage;
	uint64_t refused;			       /* connections since the shortage began */
	uint64_t last_ns;			       /* the last of them */
	void (*report)(bool begins, uint64_t refused); /* optional */
};

void spare_fd_open(struct spare_fd *s);

/*
 * Returns a descriptor; -EMFILE: a connection was closed because no descriptor was free; or another
 * error of accept4(2), -EAGAIN: the backlog is empty.
 */
int spare_fd_accept(struct spare_fd *s, int listener);

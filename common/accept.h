/* SPDX-License-Identifier: MIT */
/*
 * accept(2) for a listener that is polled: without a descriptor left, who connects would wait in
 * the backlog, and wake the loop without end. So one descriptor is kept in reserve: it is given up
 * for the moment in which such a connection is taken and closed.
 *
 * For one thread each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ACCEPT_SHORTAGE_S 10u /* so long without a refusal, and the shortage is over */

struct spare_fd {
	int fd; /* owned; -1: somebody else had it, and it is tried again */
	bool shortage;
	uint64_t refused; /* connections since the shortage began */
	uint64_t last_ns; /* the last of them */
};

void spare_fd_open(struct spare_fd *s);

/*
 * Returns a descriptor; -EMFILE when one was closed for want of descriptors; or what accept4(2)
 * says, -EAGAIN when nobody waits. Logs when a shortage begins and when it has ended.
 */
int accept_or_refuse(int listener, struct spare_fd *s);

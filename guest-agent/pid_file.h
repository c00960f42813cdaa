/* SPDX-License-Identifier: MIT */
/*
 * The pid file: the process that holds its lock is the agent of this machine. It is locked before
 * anything is opened, filled when the agent is ready, and empty or removed when the agent has
 * ended.
 */
#pragma once

/*
 * Create and lock the file; a symbolic link is not followed. Returns a descriptor that the caller
 * owns and keeps open, or a negative errno: -EWOULDBLOCK: another agent has held the lock for a
 * second.
 */
int pid_file_lock(const char *path);

/* Both take the descriptor; -1 does nothing. Return 0 or a negative errno. */
int pid_file_write(int fd);
int pid_file_remove(int fd, const char *path);

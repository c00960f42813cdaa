/* SPDX-License-Identifier: MIT */
/*
 * Small files that are never half written, even if the process or the machine dies. The new
 * contents are written to another name and synced; then the name is changed and the folder is
 * synced. No state; any thread.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/*
 * The end of the name while the file is not complete. No cell id and no other name here contains
 * '#'.
 */
#define DURABLE_STAGED_SUFFIX "#new"

/* Replace the file by data. Returns 0, or a negative errno; then the old file is unchanged. */
int durable_write(int dir_fd, const char *name, const void *data, size_t len, mode_t mode);

/*
 * The same in steps. For one file: stage it, then commit it. For many files: stage each, syncfs(2)
 * the folder, publish each, and fsync(2) the folder. A staged file can be discarded instead.
 */
int durable_stage(int dir_fd, const char *name, const void *data, size_t len, mode_t mode);
int durable_commit(int dir_fd, const char *name);
int durable_publish(int dir_fd, const char *name);
int durable_discard(int dir_fd, const char *name);

/*
 * Read the file, but at most size - 1 bytes, as a string. A FIFO or a link is not followed or
 * waited for. Returns the length, or a negative errno with an empty string.
 */
ssize_t durable_read(int dir_fd, const char *name, char *ret, size_t size);

/* Remove name; durable when it returns 0. 0 or a negative errno. */
int durable_remove(int dir_fd, const char *name);

/* Write all of data, with as many calls as that takes. 0 or a negative errno. */
int write_all(int fd, const void *data, size_t len);

/* SPDX-License-Identifier: MIT */
/*
 * Small files that are there whole or not at all, whatever ends the process or the machine: written
 * beside their place, synced, renamed into it, the folder synced. No state; any thread.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* What a name has while it is not whole; no cell id and no other name here contains '#'. */
#define DURABLE_STAGED_SUFFIX "#new"

/* Replace name in the folder by data. Returns 0, or a negative errno and the old file is still
 * there. */
int durable_write(int dir_fd, const char *name, const void *data, size_t len, mode_t mode);

/*
 * The same in steps. For one file: stage it, commit it. For many at once: stage each, syncfs(2) the
 * folder, publish each, and fsync(2) the folder. What is staged can be discarded instead.
 */
int durable_stage(int dir_fd, const char *name, const void *data, size_t len, mode_t mode);
int durable_commit(int dir_fd, const char *name);
int durable_publish(int dir_fd, const char *name);
int durable_discard(int dir_fd, const char *name);

/* Remove name for good. 0 or a negative errno. */
int durable_remove(int dir_fd, const char *name);

/* All of data, however many calls it takes. 0 or a negative errno. */
int write_all(int fd, const void *data, size_t len);

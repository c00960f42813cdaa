/* SPDX-License-Identifier: MIT */
/*
 * Opening and reading the small files of sysfs and of control groups, as what they are and nothing
 * else: never through a symbolic link that leads out, never more than was asked for. openat2(2),
 * Linux 5.6. No state; any thread.
 */
#pragma once

#include <stdint.h>

#include "host-receiver/probes/probe.h"

#define PROBE_FILE_MAX (64u * 1024u)

/* error: a positive errno. Says "path: what: the error" and returns -error. */
int probe_explain(char why[PROBE_WHY_MAX], int error, const char *path, const char *what);

/*
 * Open an absolute path without following a symbolic link anywhere on the way. flags as open(2)'s.
 * Returns a descriptor or a negative errno.
 */
int probe_open_path(const char *path, int flags);

/* Open what lies beneath dir_fd, symbolic links included as long as they stay beneath it. */
int probe_open_beneath(int dir_fd, const char *name, int flags);

/*
 * Read all of the file NAME in dir_fd, a regular file and no link, as a string. Returns its length;
 * -EFBIG above PROBE_FILE_MAX, -EINVAL when it is no regular file, or another negative errno. buf
 * holds PROBE_FILE_MAX + 1 bytes.
 */
int probe_read_file(int dir_fd, const char *name, char *buf);

/* SPDX-License-Identifier: MIT */
/*
 * Opening and reading the small files of sysfs and of control groups: never through a symbolic
 * link, never more bytes than asked for. Paths are walked a component at a time, because openat2(2)
 * fails under RestrictSUIDSGID= of systemd.exec(5). No state; any thread.
 */
#pragma once

#include <stdint.h>

#include "host-receiver/probes/host_probe.h"

#define PROBE_FILE_MAX (64u * 1024u)

/* error: a positive errno. Writes "path: what: the error" to why and returns -error. */
int probe_explain(char why[PROBE_WHY_MAX], int error, const char *path, const char *what);

/*
 * Open path, absolute or beneath dir_fd, without following a symbolic link and without "..". flags
 * as open(2)'s. Returns a descriptor or a negative errno; -ELOOP: a symbolic link.
 */
int probe_open_at(int dir_fd, const char *path, int flags);
int probe_open_path(const char *path, int flags);

/*
 * Read all of the file NAME in dir_fd, a regular file and no link, as a string. Returns its length;
 * -EFBIG above PROBE_FILE_MAX, -EINVAL when it is no regular file, or another negative errno. buf
 * holds PROBE_FILE_MAX + 1 bytes.
 */
int probe_read_file(int dir_fd, const char *name, char *buf);

/* SPDX-License-Identifier: MIT */
/*
 * Where a reader of the evidence log goes on after a restart: a small file that is there whole
 * whatever happens. No state; any thread.
 */
#pragma once

#include "host-receiver/evidence/reader.h"

/* Returns 0; -ENOENT: there is none yet; -EBADMSG: it is not a cursor; or another errno. */
int evidence_cursor_load(int dir_fd, const char *name, struct evidence_position *ret);
/* Durable when it returns 0; after an error the old one is still there. */
int evidence_cursor_store(int dir_fd, const char *name, const struct evidence_position *at);

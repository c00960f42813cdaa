/* SPDX-License-Identifier: MIT */
/*
 * What the forwarder can still do once a server could have taken it over: read evidence, its
 * credentials and what names and certificates need; write its cursors; talk over the network. No
 * other file, no capability, no signal, no program. One thread, before libnats is opened.
 */
#pragma once

#include <sys/stat.h>

#include "host-receiver/forward/settings.h"

/* The files that are granted one by one: four of the settings, and what resolves names. */
#define RESTRICT_FILES_MAX 16u

/*
 * A file that is replaced by rename is another file, and not granted: the forwarder then has to
 * start again. Strings are the settings'.
 */
struct restriction {
	struct {
		const char *path;
		dev_t dev;
		ino_t ino; /* 0: it was not there */
	} files[RESTRICT_FILES_MAX];
	unsigned n_files;
	bool landlock; /* the kernel has it */
};

/* The folders forward/ and cursors/ of the state are there. Returns 0 or a negative errno. */
int restrict_forwarder(const struct forward_settings *settings, struct restriction *ret);

/* The path of a file that was replaced since then, made or removed; NULL: none was. */
const char *restrict_replaced(const struct restriction *restriction);

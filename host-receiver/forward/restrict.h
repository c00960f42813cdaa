/* SPDX-License-Identifier: MIT */
/*
 * Confines the forwarder, in case a server takes it over. It can still read evidence, its
 * credentials and the files for names and certificates, write its cursors, and use the network. It
 * has no other file, no capability, no signal and no program. One thread, before libnats is opened.
 */
#pragma once

#include <sys/stat.h>

#include "host-receiver/forward/settings.h"

/* Files that are granted one by one: four of the settings, and those for resolving names. */
#define RESTRICT_FILES_MAX 16u

/*
 * A file that was replaced by rename(2) is another file and not granted; then the forwarder has to
 * start again. The settings own the strings.
 */
struct restriction {
	struct {
		const char *path;
		dev_t dev;
		ino_t ino; /* 0: there was no file */
	} files[RESTRICT_FILES_MAX];
	unsigned n_files;
	bool landlock; /* the kernel supports it */
};

/* The folders forward/ and cursors/ of the state must exist. Returns 0 or a negative errno. */
int restrict_forwarder(const struct forward_settings *settings, struct restriction *ret);

/* The path of a file that was replaced, created or removed since then; NULL: none. */
const char *restrict_replaced(const struct restriction *restriction);

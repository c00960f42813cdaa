/* SPDX-License-Identifier: MIT */
/*
 * Takes rights away from a process of the receiver before it reads anything from others:
 * capabilities, and access to every path that it does not need (Landlock). Each process lists the
 * rights that it keeps. No state. Landlock and capabilities belong to a thread, so call these
 * functions before other threads are started.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A path and the access to it; of a folder, also to everything below it. A path that does not exist
 * is skipped. The access is to the file or folder that is there now: if a file will be replaced by
 * rename(2), name its folder.
 */
struct confine_path {
	const char *path;
	bool write; /* also create, change, rename and remove */
};

struct confine_access {
	const struct confine_path *paths;
	size_t n_paths;
	bool no_listening; /* no TCP port can be bound (Linux 6.7) */
	bool no_signals;   /* no signal to a process outside of this domain (Linux 6.12) */
};

/*
 * Enter a Landlock domain: this access to files is allowed, and no other. Needs no_new_privs.
 * Returns 1; 0: the kernel has no Landlock; or a negative errno.
 */
int confine_landlock(const struct confine_access *access);

/*
 * Drop all other capabilities from the bounding set. Call it before a change of user, which takes
 * the right to do this away. Without CAP_SETPCAP the set stays as it is, which is harmless with
 * no_new_privs.
 */
void confine_bounding_set(uint64_t keep);
/* Drop all capabilities but these; bit i is capability number i. Returns 0 or -errno. */
int confine_capabilities(uint64_t keep);

/* Set no_new_privs: no program that is started later gets more rights than this process has. */
int confine_no_new_privileges(void);

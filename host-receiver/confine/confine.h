/* SPDX-License-Identifier: MIT */
/*
 * What a process of the receiver gives up before it reads anything from others: capabilities, and
 * every path that it does not need (Landlock). Each process says what it keeps. No state. Landlock
 * and capabilities belong to a thread: call before other threads are started.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A path and what is done with it: of a folder, with everything below it. A path that does not
 * exist is left out. The grant is to the file or folder that is there now: where a file will be
 * replaced by rename, name its folder.
 */
struct confine_path {
	const char *path;
	bool write; /* also create, change, rename and remove */
};

struct confine_access {
	const struct confine_path *paths;
	size_t n_paths;
	bool no_listening; /* no TCP port is bound (Linux 6.7) */
	bool no_signals;   /* none to processes outside of this domain (Linux 6.12) */
};

/*
 * Enter a Landlock domain that has this access and no other to files. Needs no_new_privs. Returns
 * 1; 0: the kernel has no Landlock; or a negative errno.
 */
int confine_landlock(const struct confine_access *access);

/* Before a change of user, which takes the right away: drop all others from the bounding set. It
 * stays without CAP_SETPCAP; without new privileges it gives nothing. */
void confine_bounding_set(uint64_t keep);
/* Keep these capabilities at most; a set bit is a capability's number. Returns 0 or -errno. */
int confine_capabilities(uint64_t keep);

/* From now on no program that is started gets more than this process has. */
int confine_no_new_privileges(void);

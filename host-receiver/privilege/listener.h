/* SPDX-License-Identifier: MIT */
/*
 * The listening socket of a cell at <BASE>_9001 (host-receiver.md section 2). The socket has its
 * mode and owner from the moment it exists. They are never changed by path, because the folder may
 * belong to a jailed VMM that could replace the name. So the folder is opened once, and all later
 * calls use that descriptor. With an owner, files are accessed as that owner, so that no capability
 * over files is needed. One thread, because of setfsuid(2) and umask(2).
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#define LISTENER_BACKLOG 4096
#define LISTENER_WHY_MAX 400u

struct listener_options {
	const char *base; /* borrowed */
	bool set_owner;
	uid_t uid;
	gid_t gid;
	mode_t mode;
	/*
	 * Set it when the caller's records show that an earlier run made the socket at this path.
	 * If nobody listens there, the socket is replaced. Any other file is refused and left
	 * alone.
	 */
	bool replace;
};

struct listener {
	int fd;	    /* listening, non-blocking; owned */
	int dir_fd; /* O_PATH of the folder; owned */
	char name[NAME_MAX + 1];
	dev_t dev; /* of the socket's inode, */
	ino_t ino; /* so that only our own socket is ever unlinked */
};

/* Returns 0, or a negative errno with a sentence in why: -EEXIST and -EADDRINUSE: the path is
 * taken. */
int listener_bind(struct listener *listener, const struct listener_options *options,
		  char why[LISTENER_WHY_MAX]);

/*
 * Remove the socket that a dead receiver left at the path. The caller must have a record of an
 * earlier bind at this path. A socket that somebody listens on stays.
 */
void listener_remove_stale(const struct listener_options *options);

/*
 * Unlink the path, if it is still this socket. It never unlinks anything but a socket with such a
 * name.
 */
void listener_unlink(const struct listener *listener, bool set_owner, uid_t uid, gid_t gid);

/* Close the descriptors; the path stays. */
void listener_close(struct listener *listener);

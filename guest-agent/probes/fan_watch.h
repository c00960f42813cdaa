/* SPDX-License-Identifier: MIT */
/*
 * The paths that the fanotify source watches, and their marks in the kernel.
 *
 * For each path these are marked: the object itself; in a directory, its files too, so that a write
 * through another hard link or a mapping shows; the directory that has the path's name; and the
 * directories above it, whose renaming takes the path away. No file system is marked: unrelated
 * writes would fill the queue. Events name objects by handles. A handle is noted when its mark is
 * made, so no object has to be opened to know what an event is about.
 *
 * Reports nothing. Part of its owner; no allocation; single-threaded. fanotify(7),
 * open_by_handle_at(2).
 */
#pragma once

#include <linux/fanotify.h>
#include <stdbool.h>

#include "guest-agent/probes/fan_marks.h"
#include "guest-agent/probes/probe.h"

#define FAN_WATCHES_MAX PROBE_INOTIFY_PATHS_MAX

/* Events by what they are about: the object is gone; a name in it; its contents. */
#define FAN_WATCH_GONE	 (FAN_DELETE_SELF | FAN_MOVE_SELF)
#define FAN_WATCH_NAMES	 (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO)
#define FAN_WATCH_WRITES (FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB)

/* The table at the top of fanotify.c says what moves a path between these. */
enum fan_watch_state { WATCH_MISSING, WATCH_MARKED, WATCH_LEFT };

struct fan_watch {
	const char *path; /* borrowed */
	enum fan_watch_state state;
	bool directory;
	bool verify;	/* its name may lead elsewhere; the owner's */
	bool announced; /* its coming back was reported by an event already; the owner's */
	int mount_fd;	/* owned: a directory of its file system, or -1 */
	int list_fd;	/* owned: its directory while its files are being marked, or -1 */
	struct fan_object object;
};

struct fan_watches {
	int group;	    /* owned: the fanotify group, or -1 */
	uint64_t unwatched; /* paths and files without a mark; the owner counts them as lost */
	size_t stale;	    /* marks that no path wants any more */
	size_t n;
	struct fan_watch watches[FAN_WATCHES_MAX];
	struct fan_marks marks;
	_Alignas(8) char entries[4096];
};

/*
 * ws: zeroed. n: at most FAN_WATCHES_MAX paths, which are borrowed. The caller sets the group
 * afterwards.
 */
void fan_watches_init(struct fan_watches *ws, const char *const *paths, size_t n);
void fan_watches_close(struct fan_watches *ws);

/*
 * Look the path up and mark it anew; its files are marked afterwards, by
 * fan_watches_mark_children(). Returns 0 or a negative errno; fan_watch_unmarkable() tells which
 * ones are final.
 */
int fan_watch_mark(struct fan_watches *ws, unsigned watch);
/* Whether the error says that the file system cannot be marked, not that the path is missing. */
bool fan_watch_unmarkable(int r);
/* The path is watched by other means from now on. */
void fan_watch_leave(struct fan_watches *ws, unsigned watch);
/* Whether the path still leads to the object that is marked. */
bool fan_watch_leads_there(const struct fan_watch *w);

/*
 * Mark the file of this name in the directory. False when there is no room for more: writes to the
 * file by this name still show, writes by another name do not.
 */
bool fan_watch_mark_child(struct fan_watches *ws, unsigned watch, int dir, const char *name);
/*
 * Mark some more of the files in watched directories. A workload decides how many there are, so
 * this goes step by step. True while there are more.
 */
bool fan_watches_mark_children(struct fan_watches *ws);
/* Remove some of the stale marks. True while there are more. */
bool fan_watches_sweep(struct fan_watches *ws);

/*
 * Open an object of the path's file system by its handle, as O_PATH: nothing happens to the file.
 * Returns a descriptor or a negative number.
 */
int fan_watch_open(const struct fan_watch *w, const struct fan_object *object);

/* SPDX-License-Identifier: MIT */
/*
 * Watched paths and their marks: see fan_watch.h.
 */
#include "guest-agent/probes/fan_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "common/util.h"

#define ANCESTORS_MAX 32u
#define FD_PATH_MAX   40u
#define SWEEP_STEP    64u

/* linux/fcntl.h, Linux 6.5: a handle that need not be openable. */
#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200
#endif
/* struct file_handle */
#define HANDLE_MAX 128u

void fan_watches_init(struct fan_watches *ws, const char *const *paths, size_t n)
{
	ws->group = -1;
	ws->n = n;
	fan_marks_init(&ws->marks);
	for (size_t i = 0; i < n; i++)
		ws->watches[i] =
			(struct fan_watch){.path = paths[i], .mount_fd = -1, .list_fd = -1};
}

void fan_watches_close(struct fan_watches *ws)
{
	for (size_t i = 0; i < ws->n; i++) {
		close_fd(ws->watches[i].list_fd);
		close_fd(ws->watches[i].mount_fd);
	}
	close_fd(ws->group);
}

/* What each role's mark asks for. */
static uint64_t mask_of(enum fan_role role, bool directory)
{
	switch (role) {
	case FAN_ROLE_SELF:
		return FAN_WATCH_WRITES | FAN_WATCH_GONE |
		       (directory ? FAN_WATCH_NAMES | FAN_EVENT_ON_CHILD | FAN_ONDIR : 0);
	case FAN_ROLE_CHILD: return FAN_WATCH_WRITES;
	case FAN_ROLE_PARENT: return FAN_WATCH_NAMES | FAN_WATCH_GONE | FAN_ONDIR;
	default: return FAN_WATCH_GONE | FAN_ONDIR;
	}
}

static int object_of(int fd, struct fan_object *ret)
{
	struct {
		uint32_t bytes;
		int32_t type;
		uint8_t data[HANDLE_MAX];
	} handle = {.bytes = HANDLE_MAX};
	struct fan_object object = {0};
	struct statfs fs;
	int mount_id;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	if (syscall(SYS_name_to_handle_at, fd, "", &handle, &mount_id, AT_EMPTY_PATH) < 0) {
		handle.bytes = HANDLE_MAX;
		if (syscall(SYS_name_to_handle_at, fd, "", &handle, &mount_id,
			    AT_EMPTY_PATH | AT_HANDLE_FID) < 0)
			return -errno;
	}
	if (handle.bytes > FAN_HANDLE_MAX)
		return -EOVERFLOW;
	memcpy(object.fsid, &fs.f_fsid, sizeof(object.fsid));
	object.type = handle.type;
	object.len = handle.bytes;
	memcpy(object.bytes, handle.data, handle.bytes);
	*ret = object;
	return 0;
}

static int mark_fd(const struct fan_watches *ws, unsigned flags, uint64_t mask, int fd)
{
	char path[FD_PATH_MAX];

	/* By name: the call takes no descriptor that was opened with O_PATH. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return syscall(SYS_fanotify_mark, ws->group, flags, mask, AT_FDCWD, path) < 0 ? -errno : 0;
}

/* Mark what fd leads to. 0, also when it is marked already, or a negative errno. */
static int add_mark(struct fan_watches *ws, unsigned watch, enum fan_role role, int fd,
		    struct fan_object *ret)
{
	struct fan_object object;
	int r = object_of(fd, &object);

	if (r < 0)
		return r;
	if (ret)
		*ret = object;
	for (struct fan_mark *m = fan_marks_find(&ws->marks, &object); m;
	     m = fan_marks_next(&ws->marks, m))
		if (m->watch == watch && m->role == role)
			return 0;
	r = mark_fd(ws, FAN_MARK_ADD, mask_of(role, ws->watches[watch].directory), fd);
	if (r < 0)
		return r;
	return fan_marks_add(&ws->marks, &object, watch, role) ? 0 : -ENOSPC;
}

int fan_watch_open(const struct fan_watch *w, const struct fan_object *object)
{
	struct {
		uint32_t bytes;
		int32_t type;
		uint8_t data[FAN_HANDLE_MAX];
	} handle = {.bytes = object->len, .type = object->type};

	if (w->mount_fd < 0 || object->fsid[0] != w->object.fsid[0] ||
	    object->fsid[1] != w->object.fsid[1])
		return -EXDEV;
	memcpy(handle.data, object->bytes, object->len);
	return (int)syscall(SYS_open_by_handle_at, w->mount_fd, &handle, O_PATH | O_CLOEXEC);
}

/* Remove a mark, in the kernel too unless the object has another one. */
static void remove_mark(struct fan_watches *ws, struct fan_mark *m)
{
	const struct fan_object object = m->object;
	_cleanup_close_ int fd = -1;

	fan_marks_remove(&ws->marks, m);
	if (fan_marks_find(&ws->marks, &object))
		return;
	for (size_t i = 0; fd < 0 && i < ws->n; i++)
		fd = fan_watch_open(&ws->watches[i], &object);
	if (fd >= 0)
		mark_fd(ws, FAN_MARK_REMOVE,
			FAN_WATCH_NAMES | FAN_WATCH_WRITES | FAN_WATCH_GONE | FAN_EVENT_ON_CHILD |
				FAN_ONDIR,
			fd);
}

/* A directory can have many files. Their marks become stale, and fan_watches_sweep() removes them.
 */
static void unmark(struct fan_watches *ws, unsigned watch)
{
	struct fan_mark *m;
	size_t place = 0;

	while ((m = fan_marks_walk(&ws->marks, &place))) {
		if (m->watch != watch)
			continue;
		if (m->role != FAN_ROLE_CHILD) {
			remove_mark(ws, m);
			continue;
		}
		m->watch = FAN_WATCH_STALE;
		ws->stale++;
	}
}

bool fan_watches_sweep(struct fan_watches *ws)
{
	struct fan_mark *m;
	size_t place = 0;

	for (unsigned i = 0; i < SWEEP_STEP && ws->stale;) {
		m = fan_marks_walk(&ws->marks, &place);
		if (m->watch != FAN_WATCH_STALE)
			continue;
		remove_mark(ws, m);
		ws->stale--;
		i++;
	}
	return ws->stale > 0;
}

bool fan_watch_mark_child(struct fan_watches *ws, unsigned watch, int dir, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (ws->marks.n >= FAN_CHILDREN_MAX)
		return false;
	fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return true;
	return add_mark(ws, watch, FAN_ROLE_CHILD, fd, NULL) == 0;
}

/* False at the end of the directory. */
static bool mark_children_step(struct fan_watches *ws, unsigned watch)
{
	struct entry {
		uint64_t ino;
		int64_t off;
		uint16_t len;
		uint8_t type;
		char name[];
	};
	struct fan_watch *w = &ws->watches[watch];
	const long n = syscall(SYS_getdents64, w->list_fd, ws->entries, sizeof(ws->entries));
	bool room = true;

	for (long at = 0; at < n && room;) {
		const struct entry *e = (const struct entry *)(ws->entries + at);

		if (e->type == DT_REG || e->type == DT_UNKNOWN)
			room = fan_watch_mark_child(ws, watch, w->list_fd, e->name);
		at += e->len;
	}
	ws->unwatched += !room;
	if (room && n > 0)
		return true;
	close_fd(take_fd(&w->list_fd));
	return false;
}

bool fan_watches_mark_children(struct fan_watches *ws)
{
	for (unsigned i = 0; i < ws->n; i++)
		if (ws->watches[i].list_fd >= 0 && mark_children_step(ws, i))
			return true;
	return false;
}

/* The directory with the path's name, and those above it. */
static void mark_ancestors(struct fan_watches *ws, unsigned watch)
{
	struct fan_watch *w = &ws->watches[watch];
	char path[PATH_MAX];
	size_t len = strlen(w->path);
	enum fan_role role = FAN_ROLE_PARENT;
	int dir = -1;

	if (len >= sizeof(path))
		return;
	memcpy(path, w->path, len + 1);
	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	while (len && path[len - 1] != '/')
		len--;
	/* A name without a folder is in the working directory, which is /. */
	path[len] = '\0';
	dir = openat(AT_FDCWD, len ? path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	close_fd(w->mount_fd);
	w->mount_fd = dir;
	if (dir < 0)
		return;
	for (unsigned i = 0; i < ANCESTORS_MAX && dir >= 0; i++) {
		struct fan_object object, above;
		int up;

		if (add_mark(ws, watch, role, dir, &object) < 0)
			break;
		role = FAN_ROLE_ANCESTOR;
		up = openat(dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir != w->mount_fd)
			close_fd(dir);
		dir = up;
		/* The root is its own parent. */
		if (up >= 0 && object_of(up, &above) == 0 && fan_same_object(&object, &above))
			break;
	}
	if (dir != w->mount_fd)
		close_fd(dir);
}

bool fan_watch_unmarkable(int r)
{
	return r < 0 && r != -ENOENT && r != -ENOTDIR && r != -EACCES && r != -ELOOP;
}

int fan_watch_mark(struct fan_watches *ws, unsigned watch)
{
	struct fan_watch *w = &ws->watches[watch];
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	unmark(ws, watch);
	close_fd(take_fd(&w->list_fd));
	w->state = WATCH_MISSING;
	w->object.len = 0;
	mark_ancestors(ws, watch);
	fd = openat(AT_FDCWD, w->path, O_PATH | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	w->directory = S_ISDIR(st.st_mode);
	r = add_mark(ws, watch, FAN_ROLE_SELF, fd, &w->object);
	if (r < 0)
		return r;
	w->state = WATCH_MARKED;
	if (!w->directory)
		return 0;
	w->list_fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (w->list_fd < 0)
		return 0;
	close_fd(w->mount_fd);
	w->mount_fd = fcntl(w->list_fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

bool fan_watch_leads_there(const struct fan_watch *w)
{
	_cleanup_close_ int fd = openat(AT_FDCWD, w->path, O_PATH | O_CLOEXEC);
	struct fan_object object;

	return fd >= 0 && w->object.len && object_of(fd, &object) == 0 &&
	       fan_same_object(&object, &w->object);
}

void fan_watch_leave(struct fan_watches *ws, unsigned watch)
{
	struct fan_watch *w = &ws->watches[watch];

	unmark(ws, watch);
	w->state = WATCH_LEFT;
	close_fd(take_fd(&w->list_fd));
	close_fd(take_fd(&w->mount_fd));
}

/* SPDX-License-Identifier: MIT */
#include "host-receiver/privilege/listener.h"

#include <fcntl.h>

#include "common/unix_path.h"
#include "common/util.h"
#include "common/wire.h"
#include "host-receiver/privilege/users.h"

#define SUFFIX	  "_9001"
#define FOR_OWNER "(the folder must be writable by --socket-owner)"
_Static_assert(WIRE_VSOCK_PORT == 9001, "SUFFIX names it");

static int explain(char why[LISTENER_WHY_MAX], int error, const char *base, const char *what)
{
	snprintf(why, LISTENER_WHY_MAX, "%.120s" SUFFIX ": %s: %s%s", base, what, strerror(error),
		 error == EROFS
			 ? " (for the unit: ReadWritePaths= must name the folder, and it must "
			   "be there when the daemon starts)"
			 : "");
	return -error;
}

/* Try it as this process, and if that is not permitted, as the owner. */
static int open_component(int at_fd, const char *name, int flags, const struct listener_options *o)
{
	const int all = O_PATH | O_DIRECTORY | O_CLOEXEC | flags;
	struct user_acting was;
	int fd = openat(at_fd, name, all), error;

	if (fd >= 0 || errno != EACCES || !o->set_owner)
		return fd < 0 ? -errno : fd;
	was = users_act_as(o->uid, o->gid);
	fd = openat(at_fd, name, all);
	error = errno;
	users_act_back(&was);
	return fd < 0 ? -error : fd;
}

/*
 * Open the folders one after the other, because some may be closed to the owner and others to this
 * process. Changes path.
 */
static int open_path(char *path, const struct listener_options *o)
{
	int fd = open_component(AT_FDCWD, *path == '/' ? "/" : ".", 0, o);
	char *rest = NULL;

	for (char *name = strtok_r(path, "/", &rest), *next; fd >= 0 && name; name = next) {
		_cleanup_close_ int parent = fd;

		next = strtok_r(NULL, "/", &rest);
		fd = open_component(parent, name, next ? 0 : O_NOFOLLOW, o);
	}
	return fd;
}

/* Split BASE into the folder, opened, and the socket's name in it. */
static int open_folder(struct listener *s, const struct listener_options *o,
		       char why[LISTENER_WHY_MAX])
{
	const char *base = o->base, *slash = strrchr(base, '/'), *name = slash ? slash + 1 : base;
	_cleanup_free_ char *folder =
		slash ? strndup(base, slash == base ? 1 : (size_t)(slash - base)) : strdup(".");
	int fd;

	if (!folder)
		return -ENOMEM;
	if (snprintf(s->name, sizeof(s->name), "%s" SUFFIX, name) >= (int)sizeof(s->name))
		return explain(why, ENAMETOOLONG, base, "the name");
	fd = open_path(folder, o);
	if (fd < 0) {
		/* open_path() has cut the copy into pieces. */
		const int all = slash == base || !slash ? 1 : (int)(slash - base);
		const int len = MIN(all, 160);

		snprintf(why, LISTENER_WHY_MAX, "%.*s: cannot open the folder: %s%s", len,
			 slash ? base : ".", strerror(-fd),
			 fd == -ENOTDIR ? " (a symbolic link is not followed)" : "");
		return fd;
	}
	s->dir_fd = fd;
	return 0;
}

/* The socket's address through the folder's descriptor: short, however long the path is. */
static int make_address(const struct listener *s, struct sockaddr_un *ret, const char *base,
			char why[LISTENER_WHY_MAX])
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", s->dir_fd,
		     s->name) >= (int)sizeof(ret->sun_path))
		return explain(why, ENAMETOOLONG, base, "the last part of the path");
	return 0;
}

/* Remove a stale socket from the path, if this receiver made it. */
static int clear_path(const struct listener *s, const struct sockaddr_un *address,
		      const struct listener_options *o, char why[LISTENER_WHY_MAX])
{
	const char *base = o->base;
	struct stat st;
	int alive;

	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0
				       : explain(why, errno, base,
						 errno == EACCES && o->set_owner
							 ? "cannot look at it " FOR_OWNER
							 : "cannot look at it");
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, LISTENER_WHY_MAX,
			 "%.120s" SUFFIX ": exists and is not a socket; left alone", base);
		return -EEXIST;
	}
	alive = unix_path_is_alive(address);
	if (alive < 0)
		return explain(why, -alive, base, "cannot ask whether somebody listens there");
	if (alive) {
		snprintf(why, LISTENER_WHY_MAX,
			 "%.120s" SUFFIX ": somebody listens there already; left alone", base);
		return -EADDRINUSE;
	}
	if (!o->replace) {
		snprintf(why, LISTENER_WHY_MAX,
			 "%.120s" SUFFIX ": a socket that this receiver did not make; remove it if "
			 "nobody needs it",
			 base);
		return -EEXIST;
	}
	if (unlinkat(s->dir_fd, s->name, 0) < 0)
		return explain(why, errno, base, "cannot remove the stale socket");
	return 0;
}

/*
 * bind(2) creates the inode with the mode of the unbound socket without the bits of the umask, and
 * with the caller's fsuid and fsgid. The umask is restored at once.
 */
static int bind_inode(int fd, const struct sockaddr_un *address)
{
	const mode_t mask = umask(0);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;

	umask(mask);
	return r;
}

static int check_inode(struct listener *s, const struct listener_options *o,
		       char why[LISTENER_WHY_MAX])
{
	struct stat st;

	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return explain(why, errno, o->base, "the socket vanished");
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if (o->set_owner && (st.st_uid != o->uid || st.st_gid != o->gid))
		return explain(why, EPERM, o->base,
			       "cannot give it to --socket-owner (that needs root)");
	return 0;
}

static int make_socket(struct listener *s, const struct listener_options *o,
		       const struct sockaddr_un *address, char why[LISTENER_WHY_MAX])
{
	int r;

	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || fchmod(s->fd, o->mode) < 0)
		return explain(why, errno, o->base, "cannot make a socket");
	r = bind_inode(s->fd, address);
	if (r < 0)
		return explain(why, -r, o->base,
			       r != -EACCES   ? "cannot bind"
			       : o->set_owner ? "cannot bind " FOR_OWNER
					      : "cannot bind (name the folder's owner by "
						"--socket-owner, or let the receiver's group "
						"write to it)");
	r = check_inode(s, o, why);
	if (r == 0 && listen(s->fd, LISTENER_BACKLOG) < 0)
		r = explain(why, errno, o->base, "cannot listen");
	if (r < 0 && s->ino != 0)
		listener_unlink(s, false, 0, 0);
	return r;
}

static int bind_in_folder(struct listener *s, const struct listener_options *o,
			  char why[LISTENER_WHY_MAX])
{
	struct sockaddr_un address;
	int r = make_address(s, &address, o->base, why);

	if (r == 0)
		r = clear_path(s, &address, o, why);
	return r < 0 ? r : make_socket(s, o, &address, why);
}

int listener_bind(struct listener *s, const struct listener_options *o, char why[LISTENER_WHY_MAX])
{
	struct user_acting was = {0};
	int r;

	*s = (struct listener){.fd = -1, .dir_fd = -1};
	r = open_folder(s, o, why);
	if (r < 0)
		return r;
	if (o->set_owner)
		was = users_act_as(o->uid, o->gid);
	r = bind_in_folder(s, o, why);
	if (o->set_owner)
		users_act_back(&was);
	if (r < 0)
		listener_close(s);
	return r;
}

void listener_remove_stale(const struct listener_options *o)
{
	struct listener_options replaced = *o;
	struct listener s = {.fd = -1, .dir_fd = -1};
	struct user_acting was = {0};
	struct sockaddr_un address;
	char why[LISTENER_WHY_MAX];

	replaced.replace = true;
	if (open_folder(&s, o, why) < 0)
		return;
	if (o->set_owner)
		was = users_act_as(o->uid, o->gid);
	if (make_address(&s, &address, o->base, why) == 0)
		clear_path(&s, &address, &replaced, why);
	if (o->set_owner)
		users_act_back(&was);
	listener_close(&s);
}

static bool is_listener_name(const char *name)
{
	const size_t len = strlen(name), suffix = strlen(SUFFIX);

	return len >= suffix && strcmp(name + len - suffix, SUFFIX) == 0 && !strchr(name, '/');
}

void listener_unlink(const struct listener *s, bool set_owner, uid_t uid, gid_t gid)
{
	struct user_acting was = {0};
	struct stat st;

	if (!is_listener_name(s->name))
		return;
	if (set_owner)
		was = users_act_as(uid, gid);
	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode) &&
	    st.st_dev == s->dev && st.st_ino == s->ino)
		unlinkat(s->dir_fd, s->name, 0);
	if (set_owner)
		users_act_back(&was);
}

void listener_close(struct listener *s)
{
	close_fd(take_fd(&s->fd));
	close_fd(take_fd(&s->dir_fd));
	s->ino = 0;
}

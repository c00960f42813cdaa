/* SPDX-License-Identifier: MIT */
#include "host-receiver/cell/socket.h"

#include <fcntl.h>
#include <sys/fsuid.h>

#include "common/unix_path.h"
#include "common/util.h"
#include "common/wire.h"

#define SUFFIX "_9001"
_Static_assert(WIRE_VSOCK_PORT == 9001, "SUFFIX names it");

static int explain(char why[CELL_WHY_MAX], int error, const char *base, const char *what)
{
	snprintf(why, CELL_WHY_MAX, "%.120s" SUFFIX ": %s: %s%s", base, what, strerror(error),
		 error == EROFS
			 ? " (for the unit: ReadWritePaths= must name the folder, and it must "
			   "be there when the daemon starts)"
			 : "");
	return -error;
}

/* Split BASE into the folder, opened, and the socket's name in it. */
static int open_folder(struct cell_socket *s, const char *base, char why[CELL_WHY_MAX])
{
	const char *slash = strrchr(base, '/'), *name = slash ? slash + 1 : base;
	_cleanup_free_ char *folder =
		slash ? strndup(base, slash == base ? 1 : (size_t)(slash - base)) : strdup(".");

	if (!folder)
		return -ENOMEM;
	if (snprintf(s->name, sizeof(s->name), "%s" SUFFIX, name) >= (int)sizeof(s->name))
		return explain(why, ENAMETOOLONG, base, "the name");
	s->dir_fd = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->dir_fd < 0) {
		snprintf(why, CELL_WHY_MAX, "%.160s: cannot open the folder: %s%s", folder,
			 strerror(errno),
			 errno == ENOTDIR ? " (a symbolic link is not followed)" : "");
		return -errno;
	}
	return 0;
}

/* The socket's address through the folder's descriptor: short, however long the path is. */
static int make_address(const struct cell_socket *s, struct sockaddr_un *ret, const char *base,
			char why[CELL_WHY_MAX])
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%s", s->dir_fd,
		     s->name) >= (int)sizeof(ret->sun_path))
		return explain(why, ENAMETOOLONG, base, "the last part of the path");
	return 0;
}

/* Remove a stale socket from the path, if it is ours to remove. */
static int clear_path(const struct cell_socket *s, const struct sockaddr_un *address,
		      const char *base, bool replace, char why[CELL_WHY_MAX])
{
	struct stat st;
	int alive;

	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : explain(why, errno, base, "cannot look at it");
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(why, CELL_WHY_MAX,
			 "%.120s" SUFFIX ": exists and is not a socket; left alone", base);
		return -EEXIST;
	}
	alive = unix_path_is_alive(address);
	if (alive < 0)
		return explain(why, -alive, base, "cannot ask whether somebody listens there");
	if (alive) {
		snprintf(why, CELL_WHY_MAX,
			 "%.120s" SUFFIX ": somebody listens there already; left alone", base);
		return -EADDRINUSE;
	}
	if (!replace) {
		snprintf(why, CELL_WHY_MAX,
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
 * bind(2) creates the inode with the mode of the unbound socket, less the umask, and the caller's
 * fsuid and fsgid. The ids are this thread's own, and the umask is set back at once.
 */
static int bind_as(int fd, const struct sockaddr_un *address, const struct cell_options *o)
{
	const mode_t mask = umask(0);
	int uid = -1, gid = -1, r = 0;

	if (o->set_owner) {
		/* Group first: without the uid's privileges it could not be set. */
		gid = setfsgid(o->socket_gid);
		uid = setfsuid(o->socket_uid);
	}
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		r = -errno;
	if (o->set_owner) {
		setfsuid((uid_t)uid);
		setfsgid((gid_t)gid);
	}
	umask(mask);
	return r;
}

static int check_inode(struct cell_socket *s, const struct cell_options *o, char why[CELL_WHY_MAX])
{
	struct stat st;

	if (fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return explain(why, errno, o->uds_base, "the socket vanished");
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if (o->set_owner && (st.st_uid != o->socket_uid || st.st_gid != o->socket_gid))
		return explain(why, EPERM, o->uds_base,
			       "cannot give it to --socket-owner (that needs root)");
	return 0;
}

int cell_socket_bind(struct cell_socket *s, const struct cell_options *o, bool replace,
		     char why[CELL_WHY_MAX])
{
	struct sockaddr_un address;
	int r;

	*s = (struct cell_socket){.fd = -1, .dir_fd = -1};
	r = open_folder(s, o->uds_base, why);
	if (r == 0)
		r = make_address(s, &address, o->uds_base, why);
	if (r == 0)
		r = clear_path(s, &address, o->uds_base, replace, why);
	if (r < 0)
		goto fail;
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || fchmod(s->fd, o->socket_mode) < 0) {
		r = explain(why, errno, o->uds_base, "cannot make a socket");
		goto fail;
	}
	r = bind_as(s->fd, &address, o);
	if (r < 0) {
		explain(why, -r, o->uds_base,
			r == -EACCES && o->set_owner
				? "cannot bind (the folder must be writable by --socket-owner)"
				: "cannot bind");
		goto fail;
	}
	r = check_inode(s, o, why);
	if (r == 0 && listen(s->fd, CELL_BACKLOG) < 0)
		r = explain(why, errno, o->uds_base, "cannot listen");
	if (r == 0)
		return 0;
fail:
	cell_socket_close(s);
	return r;
}

void cell_socket_remove_stale(const struct cell_options *o)
{
	struct cell_socket s = {.fd = -1, .dir_fd = -1};
	struct sockaddr_un address;
	char why[CELL_WHY_MAX];

	if (open_folder(&s, o->uds_base, why) == 0 &&
	    make_address(&s, &address, o->uds_base, why) == 0)
		clear_path(&s, &address, o->uds_base, true, why);
	close_fd(s.dir_fd);
}

void cell_socket_close(struct cell_socket *s)
{
	struct stat st;

	/* The listener first, then the name: at every instant a connect is refused. */
	close_fd(take_fd(&s->fd));
	if (s->ino != 0 && fstatat(s->dir_fd, s->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_dev == s->dev && st.st_ino == s->ino)
		unlinkat(s->dir_fd, s->name, 0);
	s->ino = 0;
	close_fd(take_fd(&s->dir_fd));
}

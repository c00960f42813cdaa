/* SPDX-License-Identifier: MIT */
#include "host-receiver/daemon/check.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sysexits.h>

#include "common/listen_address.h"
#include "common/unix_path.h"
#include "host-receiver/daemon/internal.h"

/* With less free space the log would stop at once. */
#define FREE_SPACE_MIN (UINT64_C(16) * 1024 * 1024)

struct check {
	const char *path;
	const struct config *config;
	const struct process_users *users;
	struct signing_key *key; /* owned; NULL: it was refused, or not read yet */
	bool runs;		 /* a daemon answers at the control socket */
	unsigned errors;
};

static _printf_(3, 0) void print_line(const struct check *c, const char *key, const char *fmt,
				      va_list ap)
{
	fprintf(stderr, "%s: %s: ", c->path, key);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

static _printf_(3, 4) void complain(struct check *c, const char *key, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line(c, key, fmt, ap);
	va_end(ap);
	c->errors++;
}

/* fmt begins with "warning: ". */
static _printf_(3, 4) void warn(const struct check *c, const char *key, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	print_line(c, key, fmt, ap);
	va_end(ap);
}

/* ---- as the daemon's user ---- */

static int become(uid_t uid)
{
	const struct passwd *user = getpwuid(uid);

	if (user ? initgroups(user->pw_name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0
		 : setgroups(0, NULL) < 0)
		return -errno;
	return setuid(uid) < 0 ? -errno : 0;
}

/* Root may open every file, so a check as root would find no error. */
static void become_daemon(struct check *c)
{
	struct stat st;
	int r;

	if (c->users->separate) {
		r = users_become(&c->users->receiver, true, false);
		if (r < 0)
			complain(c, "--user", "%s: %s", c->users->receiver.name, strerror(-r));
		return;
	}
	if (geteuid() != 0 || stat(c->config->state_dir, &st) < 0 || st.st_uid == 0)
		return;
	r = become(st.st_uid);
	if (r < 0)
		warn(c, "[receiver] state_dir", "warning: cannot check as its owner, uid %u: %s",
		     (unsigned)st.st_uid, strerror(-r));
	else
		fprintf(stderr, "%s: checked as uid %u, the owner of state_dir\n", c->path,
			(unsigned)st.st_uid);
}

/* ---- folders and groups ---- */

/* The daemon creates the files in this folder itself. */
static bool check_folder(struct check *c, const char *key, const char *folder)
{
	_cleanup_close_ int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		complain(c, key, "%s: %s", folder, strerror(errno));
	else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
		complain(c, key, "%s: uid %u cannot write to it: %s", folder, (unsigned)geteuid(),
			 strerror(errno));
	else
		return true;
	return false;
}

/* The folder in which a socket will be bound, and the file at the socket's path. */
static bool check_socket(struct check *c, const char *key, const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	struct stat st;

	if (!folder || !check_folder(c, key, folder))
		return false;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
		complain(c, key, "%s: exists and is not a socket", path);
		return false;
	}
	return true;
}

static void check_control(struct check *c)
{
	const char *path = c->config->control_socket, *group = c->config->control_group;
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path)) {
		complain(c, "[receiver] control_socket", "expected at most 107 bytes");
	} else if (check_socket(c, "[receiver] control_socket", path)) {
		strcpy(address.sun_path, path);
		c->runs = unix_path_is_alive(&address) == 1;
	}
	if (*group && !getgrnam(group))
		complain(c, "[receiver] control_group", "%s: no such group", group);
}

static void check_evidence(struct check *c)
{
	const char *dir = c->config->evidence_dir;
	uint64_t free_bytes, all_bytes;
	struct statvfs fs;

	if (!check_folder(c, "[evidence] dir", dir))
		return;
	if (statvfs(dir, &fs) < 0) {
		complain(c, "[evidence] dir", "%s: %s", dir, strerror(errno));
		return;
	}
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	all_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
	if (free_bytes < FREE_SPACE_MIN)
		complain(c, "[evidence] dir", "%s: only %" PRIu64 " bytes are free", dir,
			 free_bytes);
	if (c->config->retain_size == 0)
		warn(c, "[evidence] retain_size",
		     "warning: everything is kept: %" PRIu64 " MiB are free in %s",
		     free_bytes >> 20, dir);
	else if (c->config->retain_size > all_bytes)
		warn(c, "[evidence] retain_size", "warning: the file system of %s is smaller", dir);
}

/* ---- ports, limits, the key ---- */

static void check_port(struct check *c, const char *listen)
{
	struct sockaddr_storage address;
	_cleanup_close_ int fd = -1;
	const int one = 1;

	if (!listen_address_parse(listen, &address))
		return;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	    bind(fd, (const struct sockaddr *)&address,
		 address.ss_family == AF_INET ? sizeof(struct sockaddr_in)
					      : sizeof(struct sockaddr_in6)) == 0)
		return;
	/* The running daemon may have this port. */
	if (errno == EADDRINUSE && c->runs)
		return;
	complain(c, "[metrics] listen", "%s: %s", listen, strerror(errno));
}

static void check_metrics(struct check *c)
{
	const char *listen = c->config->metrics_listen;

	if (strncmp(listen, "unix:", 5) == 0)
		check_socket(c, "[metrics] listen", listen + 5);
	else if (strcmp(listen, "off") != 0)
		check_port(c, listen);
}

static void check_limits(struct check *c)
{
	const uint64_t needs = daemon_descriptors_needed(c->config),
		       limit = daemon_descriptor_limit();

	if (limit < needs)
		warn(c, "[receiver] max_cells",
		     "warning: %" PRIu64 " cells need %" PRIu64
		     " file descriptors; the limit here (RLIMIT_NOFILE) is %" PRIu64,
		     c->config->max_cells, needs, limit);
}

static void check_key(struct check *c)
{
	char why[SIGN_WHY_MAX] = "no memory";

	if (daemon_check_key(c->config, c->users, &c->key, why) < 0)
		complain(c, "[signing]", "%s", why);
}

/* Checks with the rights of the receiver's user. */
static void check_separation(struct check *c)
{
	const char *file = c->config->sign_key_file;

	if (*file && daemon_can_open(file))
		complain(c, "[signing] key_file",
			 "%s: the receiver's user can open it; expected a file of root or of the "
			 "signer's user, closed to others",
			 file);
}

/* Prints the line that begins with OK if there was no error. */
static void conclude(struct check *c)
{
	enum sign_algorithm algorithm;

	if (!c->key)
		return;
	algorithm = signing_key_algorithm(c->key);
	if (algorithm == SIGN_OFF)
		warn(c, "[signing]", "warning: evidence would not be signed");
	if (c->errors == 0 && algorithm == SIGN_OFF)
		puts("OK: not signed");
	else if (c->errors == 0)
		printf("OK: signed by %s (%s)\n", signing_key_kid(c->key),
		       sign_algorithm_name(algorithm));
	signing_key_free(c->key);
}

int daemon_check(const char *path, const struct config *config, const struct process_users *users)
{
	struct check c = {.path = path, .config = config, .users = users};

	if (users->separate)
		check_key(&c);
	become_daemon(&c);
	check_folder(&c, "[receiver] state_dir", config->state_dir);
	check_control(&c);
	check_evidence(&c);
	check_metrics(&c);
	check_limits(&c);
	if (users->separate)
		check_separation(&c);
	else
		check_key(&c);
	conclude(&c);
	return c.errors == 0 ? EX_OK : EX_CONFIG;
}

/* SPDX-License-Identifier: MIT */
#include "host-receiver/privilege/hidden.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/util.h"

#define READ_ACCESS LANDLOCK_ACCESS_FS_READ_FILE

/* The rest of each hidden path below one folder of the walk. */
struct rest {
	size_t n;
	const char *paths[HIDDEN_MAX];
};

static void allow(int ruleset, int fd)
{
	const struct landlock_path_beneath_attr rule = {
		.allowed_access = READ_ACCESS,
		.parent_fd = fd,
	};

	syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static const char *skip_slashes(const char *path)
{
	while (*path == '/')
		path++;
	return path;
}

/* Select the hidden paths below this entry. Returns whether the entry itself is hidden. */
static bool descend(const struct rest *rest, const char *name, struct rest *ret)
{
	const size_t len = strlen(name);

	*ret = (struct rest){0};
	for (size_t i = 0; i < rest->n; i++) {
		const char *path = rest->paths[i];

		if (strncmp(path, name, len) != 0 || (path[len] && path[len] != '/'))
			continue;
		path = skip_slashes(path + len);
		if (!*path)
			return true;
		ret->paths[ret->n++] = path;
	}
	return false;
}

/* If the folder cannot be listed, nothing in it is allowed. Closes fd. */
static void allow_beside(int ruleset, int fd, const struct rest *rest)
{
	DIR *dir = fdopendir(fd);
	const struct dirent *entry;

	if (!dir) {
		close_fd(fd);
		return;
	}
	while ((entry = readdir(dir))) {
		struct rest below;
		struct stat st;
		int child;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    descend(rest, entry->d_name, &below))
			continue;
		child = openat(dirfd(dir), entry->d_name,
			       below.n > 0 ? O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
					   : O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (child < 0)
			continue;
		if (below.n > 0) {
			allow_beside(ruleset, child, &below);
			continue;
		}
		/* Links are skipped: their target is allowed or hidden at its own place. */
		if (fstat(child, &st) == 0 && !S_ISLNK(st.st_mode))
			allow(ruleset, child);
		close_fd(child);
	}
	closedir(dir);
}

/* The path with its links resolved, as far as this process may read them. */
static void resolve(const char *path, char ret[static PATH_MAX])
{
	_cleanup_free_ char *parent = strdup(path);
	char *slash = parent ? strrchr(parent, '/') : NULL;

	if (realpath(path, ret))
		return;
	if (slash && slash != parent) {
		*slash = '\0';
		if (realpath(parent, ret) && strlen(ret) + strlen(slash + 1) + 2 <= PATH_MAX) {
			strcat(ret, "/");
			strcat(ret, slash + 1);
			return;
		}
	}
	snprintf(ret, PATH_MAX, "%s", path);
}

static void allow_all_but(int ruleset, const char *const *paths, size_t n)
{
	char(*resolved)[PATH_MAX] = calloc(n, sizeof(*resolved));
	struct rest rest = {.n = n};
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; resolved && i < n; i++) {
		resolve(paths[i], resolved[i]);
		rest.paths[i] = skip_slashes(resolved[i]);
	}
	if (root >= 0 && resolved)
		allow_beside(ruleset, root, &rest);
	free(resolved);
}

bool hidden_enter(const char *const *paths, size_t n)
{
	const struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
				     (n > 0 ? READ_ACCESS : 0),
	};
	_cleanup_close_ int fd =
		(int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);

	if (fd < 0)
		return false;
	if (n > 0)
		allow_all_but(fd, paths, MIN(n, (size_t)HIDDEN_MAX));
	return syscall(SYS_landlock_restrict_self, fd, 0) == 0;
}

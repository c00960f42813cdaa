/* SPDX-License-Identifier: MIT */
#include "host-receiver/forward/restrict.h"

#include <limits.h>

#include "common/util.h"
#include "host-receiver/confine/confine.h"
#include "seccomp/forwarder_filter.h"

/* Files that getaddrinfo(3) reads (nsswitch.conf(5)). */
static const char *const name_files[] = {
	"/etc/gai.conf",      "/etc/host.conf",	  "/etc/hosts",	   "/etc/localtime",
	"/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/services", "/etc/ld.so.cache",
};

/*
 * Libraries of the name service, the system's certificates and OpenSSL's configuration; the folder
 * of a resolver that /etc/resolv.conf points to.
 */
static const char *const folders[] = {
	"/lib",
	"/lib64",
	"/usr/lib",
	"/usr/lib64",
	"/etc/ssl",
	"/etc/pki",
	"/usr/share/ca-certificates",
	"/usr/local/share/ca-certificates",
	"/run/systemd/resolve",
	"/run/resolvconf",
	"/run/nscd",
};

#define PATHS_MAX (RESTRICT_FILES_MAX + ARRAY_SIZE(folders) + 3)

static void find(const char *path, dev_t *ret_dev, ino_t *ret_ino)
{
	struct stat st;

	*ret_dev = 0;
	*ret_ino = 0;
	if (stat(path, &st) < 0)
		return;
	*ret_dev = st.st_dev;
	*ret_ino = st.st_ino;
}

static void add_file(struct restriction *r, const char *path)
{
	if (!path || !*path || r->n_files == RESTRICT_FILES_MAX)
		return;
	r->files[r->n_files].path = path;
	find(path, &r->files[r->n_files].dev, &r->files[r->n_files].ino);
	r->n_files++;
}

static int enter_landlock(const struct forward_settings *s, struct restriction *r)
{
	char forward[PATH_MAX], cursors[PATH_MAX];
	struct confine_path paths[PATHS_MAX];
	struct confine_access access = {
		.paths = paths,
		.no_listening = true,
		.no_signals = true,
	};
	size_t n = 0;
	int result;

#ifdef CELLOS_FOREIGN_RUNTIME
	/* Sanitizers read /proc, coverage writes its files. */
	return 0;
#endif
	snprintf(forward, sizeof(forward), "%s/forward", s->state_dir);
	snprintf(cursors, sizeof(cursors), "%s/cursors", s->state_dir);
	paths[n++] = (struct confine_path){.path = s->evidence_dir};
	paths[n++] = (struct confine_path){.path = forward, .write = true};
	paths[n++] = (struct confine_path){.path = cursors, .write = true};
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		paths[n++] = (struct confine_path){.path = folders[i]};
	for (unsigned i = 0; i < r->n_files; i++)
		paths[n++] = (struct confine_path){.path = r->files[i].path};
	access.n_paths = n;
	result = confine_landlock(&access);
	r->landlock = result == 1;
	return MIN(result, 0);
}

int restrict_forwarder(const struct forward_settings *s, struct restriction *ret)
{
	const char *const own[] = {s->credentials, s->tls_ca, s->tls_cert, s->tls_key};
	struct restriction r = {0};
	int result;

	_Static_assert(ARRAY_SIZE(own) + ARRAY_SIZE(name_files) <= RESTRICT_FILES_MAX, "room");
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		add_file(&r, own[i]);
	for (size_t i = 0; i < ARRAY_SIZE(name_files); i++)
		add_file(&r, name_files[i]);
	result = confine_no_new_privileges();
	if (result == 0)
		result = enter_landlock(s, &r);
	if (result == 0)
		result = confine_capabilities(0);
	if (result == 0)
		result = forwarder_filter_install();
	if (result == 0)
		*ret = r;
	return result;
}

const char *restrict_replaced(const struct restriction *r)
{
	for (unsigned i = 0; i < r->n_files; i++) {
		dev_t dev;
		ino_t ino;

		find(r->files[i].path, &dev, &ino);
		if (dev != r->files[i].dev || ino != r->files[i].ino)
			return r->files[i].path;
	}
	return NULL;
}

/* SPDX-License-Identifier: MIT */
/*
 * host.cgroup: the kernel's counters of the VMM's control group: memory.events, cpu.stat and
 * pids.events of a cgroup v2 leaf. If a controller is off, its file is missing, and the evidence
 * has null. The leaf may come and go, so it is opened at each reading. It must be on a cgroup v2
 * file system, and no symbolic link may lead to it.
 */
#include "host-receiver/probes/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "common/util.h"
#include "host-receiver/probes/flat_keyed.h"
#include "host-receiver/probes/probe_file.h"

static const struct {
	const char *file, *key;
} files[] = {
	/* In the canonical order of the keys. */
	{"cpu.stat", "cpu_stat"},
	{"memory.events", "memory_events"},
	{"pids.events", "pids_events"},
};

struct cgroup {
	char path[PROBE_PATH_MAX + 1]; /* of the leaf */
};

static bool wanted(const struct probe_options *options)
{
	return options->cgroup != NULL;
}

static struct host_probe *open_probe(const struct probe_options *options)
{
	struct cgroup *cgroup = calloc(1, sizeof(*cgroup));

	if (cgroup)
		snprintf(cgroup->path, sizeof(cgroup->path), "%s", options->cgroup);
	return (struct host_probe *)cgroup;
}

static void close_probe(struct host_probe *probe)
{
	free(probe);
}

int cgroup_open_leaf(const char *path, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int fd = probe_open_path(path, O_PATH | O_DIRECTORY);
	struct statfs fs;

	if (fd < 0)
		return probe_explain(why, -fd, path, "the control group");
	if (fstatfs(fd, &fs) < 0)
		return probe_explain(why, errno, path, "");
	if (fs.f_type != CGROUP2_SUPER_MAGIC) {
		snprintf(why, PROBE_WHY_MAX, "%.200s: not in a cgroup v2 file system", path);
		return -EXDEV;
	}
	return take_fd(&fd);
}

static int read_one(int leaf_fd, const char *path, const char *file, struct json_writer *w,
		    char why[PROBE_WHY_MAX])
{
	_cleanup_free_ char *text = malloc(PROBE_FILE_MAX + 1);
	_cleanup_free_ struct flat_keyed *pairs = malloc(sizeof(*pairs));
	const char *what;
	unsigned line;
	int r;

	if (!text || !pairs)
		return -ENOMEM;
	r = probe_read_file(leaf_fd, file, text);
	if (r == -ENOENT) {
		json_put_null(w);
		return 0;
	}
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "%.200s/%s: %s", path, file,
			 r == -EFBIG	? "more than 64 KiB"
			 : r == -EINVAL ? "not a regular file"
					: strerror(-r));
		return r;
	}
	r = flat_keyed_parse(text, (size_t)r, pairs, &line, &what);
	if (r < 0) {
		snprintf(why, PROBE_WHY_MAX, "%.200s/%s:%u: %s", path, file, line, what);
		return r;
	}
	flat_keyed_write(pairs, w);
	return 0;
}

static int read_all(int leaf_fd, const char *path, struct json_writer *w, char why[PROBE_WHY_MAX])
{
	json_put_begin_object(w);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int r;

		json_put_key(w, files[i].key);
		r = read_one(leaf_fd, path, files[i].file, w, why);
		if (r < 0)
			return r;
	}
	json_put_end_object(w);
	return 0;
}

/* The inputs of the reading. The specification gives the order of the files. */
static char *write_inputs(const char *path)
{
	static const char *const names[] = {"memory.events", "cpu.stat", "pids.events"};
	const size_t size = 2 * PROBE_PATH_MAX + 256;
	struct json_writer w;
	char *text = malloc(size);
	size_t len;

	if (!text)
		return NULL;
	json_writer_init(&w, text, size);
	json_put_begin_object(&w);
	json_put_kv_string(&w, "cgroupLeaf", path);
	json_put_key(&w, "files");
	json_put_begin_array(&w);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		json_put_string(&w, names[i], strlen(names[i]));
	json_put_end_array(&w);
	json_put_end_object(&w);
	if (json_writer_done(&w, &len) < 0 || len == size) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

int cgroup_read_at(int leaf_fd, const char *path, struct probe_reading *ret,
		   char why[PROBE_WHY_MAX])
{
	struct probe_reading reading = {.n_parts = 1, .taken_ns = monotonic_ns()};
	struct json_writer w;
	int r;

	reading.inputs = write_inputs(path);
	reading.outputs = malloc(PROBE_OUTPUT_MAX);
	r = reading.inputs && reading.outputs ? 0 : -ENOMEM;
	if (r == 0) {
		json_writer_init(&w, reading.outputs, PROBE_OUTPUT_MAX);
		r = read_all(leaf_fd, path, &w, why);
	}
	if (r == 0 && json_writer_done(&w, &reading.part_end[0]) < 0)
		r = probe_explain(why, EFBIG, path, "the three files together");
	if (r < 0) {
		probe_reading_done(&reading);
		return r;
	}
	*ret = reading;
	return 1;
}

static int read_probe(struct host_probe *probe, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	const struct cgroup *cgroup = (const struct cgroup *)probe;
	_cleanup_close_ int fd = cgroup_open_leaf(cgroup->path, why);

	return fd < 0 ? fd : cgroup_read_at(fd, cgroup->path, ret, why);
}

const struct host_probe_ops probe_cgroup = {
	.name = "cgroup",
	.source = "host.cgroup",
	.needs = "a cgroup v2 leaf that may be read",
	.event = EVENT_HOST_CGROUP,
	.wanted = wanted,
	.open = open_probe,
	.read = read_probe,
	.close = close_probe,
};

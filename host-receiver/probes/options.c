/* SPDX-License-Identifier: MIT */
#include "host-receiver/probes/options.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/stat.h>

#include "common/utf8.h"
#include "common/util.h"
#include "host-receiver/probes/cgroup.h"
#include "host-receiver/probes/nftables.h"
#include "host-receiver/probes/probe_file.h"

#define INTERVAL_MIN_MS 100u
#define INTERVAL_MAX_MS 86400000u

static const char expected_path[] =
	"an absolute path of at most 1024 bytes, without .. and control characters";

static bool path_valid(const char *path)
{
	const size_t len = strlen(path);

	if (*path != '/' || len > PROBE_PATH_MAX || len < 2 || !utf8_valid(path, len))
		return false;
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	return !strstr(path, "/../") && (len < 3 || strcmp(path + len - 3, "/..") != 0);
}

/*
 * The kernel's rule (dev_valid_name()), and stricter: the name becomes part of a path and is
 * printed.
 */
static bool iface_valid(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789_.-";
	const size_t len = strlen(name);

	return len >= 1 && len < IFNAMSIZ && strspn(name, allowed) == len &&
	       strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool table_valid(const char *text)
{
	char family[8], table[NFT_TABLE_MAX + 1];

	return nft_table_parse(text, family, table);
}

int probe_options_set(struct probe_options *options, const char *name, const char *value,
		      const char **ret_expected)
{
	const struct {
		const char *name;
		const char **field;
		bool (*valid)(const char *value);
		const char *expected;
	} texts[] = {
		{"cgroup", &options->cgroup, path_valid, expected_path},
		{"fc-metrics", &options->fc_metrics, path_valid, expected_path},
		{"fc-api", &options->fc_api, path_valid, expected_path},
		{"tap", &options->tap, iface_valid, "an interface's name: 1..15 of [A-Za-z0-9_.-]"},
		{"nft-table", &options->nft_table, table_valid,
		 "[FAMILY/]TABLE: ip, ip6, inet, arp, bridge or netdev, and 1..255 of "
		 "[A-Za-z0-9_.-]"},
	};
	uint64_t ms;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (strcmp(texts[i].name, name) != 0)
			continue;
		*ret_expected = texts[i].expected;
		*texts[i].field = value;
		return texts[i].valid(value) ? 1 : -EINVAL;
	}
	if (strcmp(name, "probe-interval") != 0)
		return 0;
	*ret_expected = "a whole number of 100..86400000";
	if (parse_u64(value, INTERVAL_MIN_MS, INTERVAL_MAX_MS, &ms) < 0)
		return -EINVAL;
	options->interval_ms = (unsigned)ms;
	return 1;
}

int probe_options_check(const struct probe_options *options, const char **ret_why)
{
	if (options->fc_api && !options->fc_metrics) {
		*ret_why = "--fc-api needs --fc-metrics: that file gets the flushed metrics";
		return -EINVAL;
	}
	return 0;
}

static int look_at(const char *option, const char *path, bool (*is_right)(mode_t mode),
		   const char *expected, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int fd = path ? probe_open_path(path, O_PATH) : -ENOENT;
	char own[PROBE_WHY_MAX];
	struct stat st;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0) {
		const int r = probe_explain(own, fd < 0 ? -fd : errno, path, "");

		snprintf(why, PROBE_WHY_MAX, "--%s %.300s", option, own);
		return r;
	}
	if (is_right(st.st_mode))
		return 0;
	snprintf(why, PROBE_WHY_MAX, "--%s %.200s: is no %s", option, path, expected);
	return -EINVAL;
}

static bool is_file_or_fifo(mode_t mode)
{
	return S_ISREG(mode) || S_ISFIFO(mode);
}

static bool is_socket(mode_t mode)
{
	return S_ISSOCK(mode);
}

int probe_options_look(const struct probe_options *options, char why[PROBE_WHY_MAX])
{
	char own[PROBE_WHY_MAX];
	int r;

	if (options->cgroup) {
		_cleanup_close_ int fd = cgroup_open_leaf(options->cgroup, own);

		if (fd < 0 && fd != -ENOENT) {
			snprintf(why, PROBE_WHY_MAX, "--cgroup %.300s", own);
			return fd;
		}
	}
	r = look_at("fc-metrics", options->fc_metrics, is_file_or_fifo, "file and no FIFO", why);
	if (r == 0)
		r = look_at("fc-api", options->fc_api, is_socket, "socket", why);
	return r;
}

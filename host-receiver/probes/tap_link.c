/* SPDX-License-Identifier: MIT */
/*
 * host.tap_link: the state and the counters of the cell's network interface on the host, from
 * /sys/class/net/IFACE (Documentation/ABI/testing/sysfs-class-net and -statistics). A packet that
 * the guest sends counts as received by the interface.
 */
#include "host-receiver/probes/tap_link.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sys/vfs.h>

#include "common/util.h"
#include "host-receiver/probes/probe_file.h"

#define SYSFS		"/sys"
#define CLASS_NET	"class/net/"
#define OPERSTATE_MAX	32u
#define LINK_OUTPUT_MAX 512u

struct tap_link {
	char iface[IFNAMSIZ];
};

static const struct {
	const char *file, *key;
} counters[] = {
	/* In the canonical order of the keys. */
	{"statistics/rx_bytes", "rxBytes"},
	{"statistics/rx_packets", "rxPackets"},
	{"statistics/tx_bytes", "txBytes"},
	{"statistics/tx_packets", "txPackets"},
};

static bool wanted(const struct probe_options *options)
{
	return options->tap != NULL;
}

static struct host_probe *open_probe(const struct probe_options *options)
{
	struct tap_link *link = calloc(1, sizeof(*link));

	if (link)
		snprintf(link->iface, sizeof(link->iface), "%s", options->tap);
	return (struct host_probe *)link;
}

static void close_probe(struct host_probe *probe)
{
	free(probe);
}

/* The interface's folder, read from its link in the class: "../../devices/..". */
static int open_device(int class_fd, int sys_fd, const char *iface)
{
	static const char up[] = "../../";
	char target[512];
	const ssize_t len = readlinkat(class_fd, iface, target, sizeof(target) - 1);

	if (len < 0)
		return -errno;
	target[len] = '\0';
	if (strncmp(target, up, sizeof(up) - 1) != 0)
		return -ELOOP;
	return probe_open_at(sys_fd, target + sizeof(up) - 1, O_PATH | O_DIRECTORY);
}

int tap_link_open(const char *iface, char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int sys_fd = probe_open_path(SYSFS, O_PATH | O_DIRECTORY);
	_cleanup_close_ int class_fd =
		sys_fd < 0 ? -1 : probe_open_at(sys_fd, CLASS_NET, O_PATH | O_DIRECTORY);
	struct statfs fs;
	int fd;

	if (sys_fd < 0 || fstatfs(sys_fd, &fs) < 0)
		return probe_explain(why, sys_fd < 0 ? -sys_fd : errno, SYSFS, "");
	if (fs.f_type != SYSFS_MAGIC) {
		snprintf(why, PROBE_WHY_MAX, SYSFS ": not a sysfs file system");
		return -EXDEV;
	}
	if (class_fd < 0)
		return probe_explain(why, -class_fd, SYSFS "/" CLASS_NET, "");
	fd = open_device(class_fd, sys_fd, iface);
	if (fd == -ENOENT)
		snprintf(why, PROBE_WHY_MAX, "no interface %s in " SYSFS "/" CLASS_NET, iface);
	else if (fd < 0)
		probe_explain(why, -fd, iface, SYSFS "/" CLASS_NET);
	return fd;
}

static int explain_file(char why[PROBE_WHY_MAX], const char *iface, const char *file, int r,
			const char *what)
{
	snprintf(why, PROBE_WHY_MAX, SYSFS "/" CLASS_NET "%s/%s: %s", iface, file,
		 what		? what
		 : r == -EFBIG	? "more than 64 KiB"
		 : r == -EINVAL ? "not a regular file"
				: strerror(-r));
	return r;
}

/* The file's one word, trimmed. */
static int read_word(int link_fd, const char *file, char *buf, struct wire_text *ret)
{
	int len = probe_read_file(link_fd, file, buf);

	if (len < 0)
		return len;
	ret->data = buf + strspn(buf, " \t\r\n");
	ret->len = strcspn(ret->data, " \t\r\n");
	if (ret->data + ret->len + strspn(ret->data + ret->len, " \t\r\n") != buf + len)
		return -EBADMSG;
	return 0;
}

static int read_counter(int link_fd, const char *iface, const char *file, char *buf, uint64_t *ret,
			char why[PROBE_WHY_MAX])
{
	struct wire_text word = {0};
	char digits[24];
	int r = read_word(link_fd, file, buf, &word);

	if (r < 0 && r != -EBADMSG)
		return explain_file(why, iface, file, r, NULL);
	if (r == 0 && word.len < sizeof(digits)) {
		memcpy(digits, word.data, word.len);
		digits[word.len] = '\0';
		if (parse_u64(digits, 0, UINT64_MAX, ret) == 0)
			return 0;
	}
	snprintf(why, PROBE_WHY_MAX,
		 SYSFS "/" CLASS_NET "%s/%s:1: the value is not an unsigned 64-bit number", iface,
		 file);
	return -EBADMSG;
}

/* "0" or "1"; null while the link is administratively down: the kernel answers EINVAL then. */
static int put_carrier(int link_fd, const char *iface, char *buf, struct json_writer *w,
		       char why[PROBE_WHY_MAX])
{
	_cleanup_close_ int fd = probe_open_at(link_fd, "carrier", O_RDONLY | O_NONBLOCK);
	ssize_t n = fd < 0 ? fd : read(fd, buf, OPERSTATE_MAX);

	if (fd < 0)
		return explain_file(why, iface, "carrier", fd, NULL);
	json_put_key(w, "carrier");
	if (n < 0 && errno == EINVAL) {
		json_put_null(w);
		return 0;
	}
	if (n < 0)
		return explain_file(why, iface, "carrier", -errno, NULL);
	if (n < 1 || (*buf != '0' && *buf != '1') || (n > 1 && buf[1] != '\n') || n > 2)
		return explain_file(why, iface, "carrier", -EBADMSG, "neither 0 nor 1");
	json_put_string(w, buf, 1);
	return 0;
}

static int put_operstate(int link_fd, const char *iface, char *buf, struct json_writer *w,
			 char why[PROBE_WHY_MAX])
{
	struct wire_text word = {0};
	const int r = read_word(link_fd, "operstate", buf, &word);

	if (r < 0 && r != -EBADMSG)
		return explain_file(why, iface, "operstate", r, NULL);
	for (size_t i = 0; i < word.len; i++)
		if (word.data[i] <= ' ' || word.data[i] > '~')
			word.len = 0;
	if (r < 0 || word.len == 0 || word.len > OPERSTATE_MAX)
		return explain_file(why, iface, "operstate", -EBADMSG, "not a word");
	json_put_kv_text(w, "operstate", word);
	return 0;
}

static int put_all(int link_fd, const char *iface, struct probe_reading *reading,
		   struct json_writer *w, char why[PROBE_WHY_MAX])
{
	_cleanup_free_ char *buf = malloc(PROBE_FILE_MAX + 1);
	int r;

	if (!buf)
		return -ENOMEM;
	json_put_begin_object(w);
	r = put_carrier(link_fd, iface, buf, w, why);
	if (r == 0)
		r = put_operstate(link_fd, iface, buf, w, why);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(counters); i++) {
		uint64_t v;

		r = read_counter(link_fd, iface, counters[i].file, buf, &v, why);
		if (r < 0)
			break;
		json_put_kv_uint(w, counters[i].key, v);
		if (strcmp(counters[i].key, "rxPackets") == 0)
			reading->packets = v;
	}
	json_put_end_object(w);
	return r;
}

int tap_link_read_at(int link_fd, const char *iface, struct probe_reading *ret,
		     char why[PROBE_WHY_MAX])
{
	struct probe_reading reading = {.n_parts = 1, .taken_ns = monotonic_ns()};
	struct json_writer w;
	int r = -ENOMEM;

	reading.outputs = malloc(LINK_OUTPUT_MAX);
	/* The name was checked: it needs no escape. */
	if (asprintf(&reading.inputs, "{\"iface\":\"%s\",\"sysfs\":\"" SYSFS "/" CLASS_NET "%s\"}",
		     iface, iface) < 0)
		reading.inputs = NULL;
	if (reading.outputs && reading.inputs) {
		json_writer_init(&w, reading.outputs, LINK_OUTPUT_MAX);
		r = put_all(link_fd, iface, &reading, &w, why);
		if (r == 0)
			r = json_writer_done(&w, &reading.part_end[0]);
	}
	if (r < 0) {
		probe_reading_done(&reading);
		return r;
	}
	*ret = reading;
	return 1;
}

static int read_probe(struct host_probe *probe, struct probe_reading *ret, char why[PROBE_WHY_MAX])
{
	const struct tap_link *link = (const struct tap_link *)probe;
	_cleanup_close_ int fd = tap_link_open(link->iface, why);

	return fd < 0 ? fd : tap_link_read_at(fd, link->iface, ret, why);
}

const struct host_probe_ops probe_tap_link = {
	.name = "tap_link",
	.source = "host.tap_link",
	.needs = "the interface, in the network namespace that /sys was mounted in",
	.event = EVENT_HOST_TAP_LINK,
	.wanted = wanted,
	.open = open_probe,
	.read = read_probe,
	.close = close_probe,
};

/* SPDX-License-Identifier: MIT */
/*
 * The values that the details of a frame may have: tables with the words of wire.md section 4. Only
 * the host checks values.
 */
#include "common/wire.h"

#include <string.h>

#include "common/util.h"

static const char *const families[] = {"inet", "inet6", "vsock", NULL};
static const char *const socket_families[] = {"inet", "inet6", "packet", "netlink", NULL};
static const char *const process_via[] = {"proc-connector", "proc-walk", "none", NULL};
static const char *const net_via[] = {"cgroup-bpf", "audit", "proc-net", "none", NULL};
static const char *const capability_via[] = {"seccomp-notify", "seccomp-notify-stale", "audit",
					     "none", NULL};
static const char *const fs_via[] = {"fanotify", "fanotify+inotify", "inotify", "none", NULL};
static const char *const inotify_events[] = {"modify",	   "create",   "delete", "attrib",
					     "moved_from", "moved_to", NULL};
static const char *const fanotify_events[] = {"modify", "close_write", "create",   "delete",
					      "attrib", "moved_from",  "moved_to", NULL};

static bool is_word(const char *const *words, struct wire_text value)
{
	for (; *words; words++)
		if (strlen(*words) == value.len && memcmp(*words, value.data, value.len) == 0)
			return true;
	return false;
}

/* One or more words, joined by commas. */
static bool is_word_list(const char *const *words, struct wire_text value)
{
	const char *comma;

	while ((comma = memchr(value.data, ',', value.len))) {
		const size_t len = (size_t)(comma - value.data);

		if (!is_word(words, (struct wire_text){value.data, len}))
			return false;
		value.data += len + 1;
		value.len -= len + 1;
	}
	return is_word(words, value);
}

static bool all_of(struct wire_text value, const char *allowed)
{
	for (size_t i = 0; i < value.len; i++)
		if (!value.data[i] || !strchr(allowed, value.data[i]))
			return false;
	return true;
}

/*
 * Check the form only, because the kernel's list of errors grows. "#123" is an error without a
 * known name.
 */
static bool is_errno(struct wire_text value)
{
	const struct wire_text rest = {value.data + 1, value.len - 1};

	if (value.len < 2)
		return false;
	if (value.data[0] == '#')
		return all_of(rest, "0123456789");
	return value.data[0] == 'E' && all_of(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
}

static bool is_result(struct wire_text value)
{
	return is_word((const char *const[]){"ok", NULL}, value) || is_errno(value);
}

static bool is_session(struct wire_text value)
{
	return value.len == WIRE_SESSION_SIZE && all_of(value, "0123456789abcdef");
}

/* Each row has either words or a function. */
static const struct {
	uint64_t sources; /* mask of 1 << wire_source; 0: every source that has the key */
	enum wire_key key;
	const char *const *words;
	bool list;
	bool (*check)(struct wire_text value);
} rules[] = {
	{UINT64_C(1) << WIRE_NET_SOCKET_CREATED, WIRE_KEY_FAMILY, .words = socket_families},
	{0, WIRE_KEY_FAMILY, .words = families},
	{UINT64_C(1) << WIRE_FS_CHANGED, WIRE_KEY_EVENT, .words = fanotify_events, .list = true},
	{0, WIRE_KEY_EVENT, .words = inotify_events, .list = true},
	{0, WIRE_KEY_ERROR, .check = is_errno},
	{0, WIRE_KEY_RESULT, .check = is_result},
	{0, WIRE_KEY_SESSION, .check = is_session},
	{0, WIRE_KEY_PROCESS_VIA, .words = process_via},
	{0, WIRE_KEY_NET_VIA, .words = net_via},
	{0, WIRE_KEY_CAPABILITY_VIA, .words = capability_via},
	{0, WIRE_KEY_FS_VIA, .words = fs_via},
};

static bool text_allowed(enum wire_source source, const struct wire_detail *detail)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (rules[i].key != detail->key ||
		    (rules[i].sources && !(rules[i].sources & UINT64_C(1) << source)))
			continue;
		if (rules[i].check)
			return rules[i].check(detail->text);
		return rules[i].list ? is_word_list(rules[i].words, detail->text)
				     : is_word(rules[i].words, detail->text);
	}
	return true;
}

/* Ports of AF_VSOCK have 32 bits, all others 16. */
static uint64_t port_max(const struct declaration *d)
{
	static const char *const vsock[] = {"vsock", NULL};

	for (size_t i = 0; i < d->n_details; i++)
		if (d->details[i].key == WIRE_KEY_FAMILY && is_word(vsock, d->details[i].text))
			return UINT32_MAX;
	return WIRE_PORT_MAX;
}

bool wire_detail_allowed(const struct declaration *d, const struct wire_detail *detail)
{
	if (detail->type == WIRE_TYPE_TEXT)
		return text_allowed(d->source, detail);
	switch (detail->key) {
	case WIRE_KEY_PORT: return detail->uint <= port_max(d);
	case WIRE_KEY_NEXT_SEQ:
	case WIRE_KEY_ASSIGNED: return detail->uint <= WIRE_SEQ_MAX;
	default: return true;
	}
}

/* SPDX-License-Identifier: MIT */
/*
 * Events of fanotify: see fan_event.h.
 */
#include "guest-agent/probes/fan_event.h"

#include <linux/fanotify.h>

#include "common/util.h"
#include "guest-agent/probes/flag_names.h"

/* struct file_handle's head: bytes, type. */
struct handle_head {
	uint32_t bytes;
	int32_t type;
};

static void parse_record(const uint8_t *record, size_t len, struct fan_event *ev)
{
	const size_t at = sizeof(struct fanotify_event_info_header);
	const uint8_t type = record[offsetof(struct fanotify_event_info_header, info_type)];
	struct fan_object object = {0};
	struct handle_head head;
	size_t name_at;

	if (len < at + sizeof(object.fsid) + sizeof(head))
		return;
	memcpy(object.fsid, record + at, sizeof(object.fsid));
	memcpy(&head, record + at + sizeof(object.fsid), sizeof(head));
	name_at = at + sizeof(object.fsid) + sizeof(head);
	if (head.bytes > len - name_at || head.bytes > FAN_HANDLE_MAX)
		return;
	memcpy(object.bytes, record + name_at, head.bytes);
	object.len = head.bytes;
	object.type = head.type;
	name_at += head.bytes;
	switch (type) {
	case FAN_EVENT_INFO_TYPE_FID: ev->object = object; break;
	case FAN_EVENT_INFO_TYPE_DFID: ev->dir = object; break;
	case FAN_EVENT_INFO_TYPE_DFID_NAME:
		ev->dir = object;
		ev->name = (const char *)record + name_at;
		ev->name_len = strnlen(ev->name, MIN(len - name_at, (size_t)FAN_NAME_MAX));
		break;
	default: break;
	}
}

ssize_t fan_event_next(const uint8_t *data, size_t left, struct fan_event *ret)
{
	struct fanotify_event_metadata meta;
	size_t at;

	if (left == 0)
		return 0;
	if (left < sizeof(meta))
		return -EBADMSG;
	memcpy(&meta, data, sizeof(meta));
	if (meta.vers != FANOTIFY_METADATA_VERSION || meta.event_len < meta.metadata_len ||
	    meta.metadata_len < sizeof(meta) || meta.event_len > left)
		return -EBADMSG;
	*ret = (struct fan_event){.mask = meta.mask, .pid = meta.pid};
	at = meta.metadata_len;
	while (meta.event_len - at >= sizeof(struct fanotify_event_info_header)) {
		struct fanotify_event_info_header head;

		memcpy(&head, data + at, sizeof(head));
		if (head.len < sizeof(head) || head.len > meta.event_len - at)
			return -EBADMSG;
		parse_record(data + at, head.len, ret);
		at += head.len;
	}
	return (ssize_t)meta.event_len;
}

size_t fan_event_names(uint64_t mask, char *out, size_t size)
{
	static const struct flag_name names[] = {
		{FAN_MODIFY, "modify"},	    {FAN_CLOSE_WRITE, "close_write"},
		{FAN_CREATE, "create"},	    {FAN_DELETE | FAN_DELETE_SELF, "delete"},
		{FAN_ATTRIB, "attrib"},	    {FAN_MOVED_FROM | FAN_MOVE_SELF, "moved_from"},
		{FAN_MOVED_TO, "moved_to"},
	};

	return flag_names_join(names, ARRAY_SIZE(names), mask, out, size);
}

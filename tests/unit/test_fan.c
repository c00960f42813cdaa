/* SPDX-License-Identifier: MIT */
/* Events of fanotify, and the table of marked objects. */
#include <linux/fanotify.h>

#include "common/util.h"
#include "guest-agent/probes/fan_event.h"
#include "tests/unit/unit.h"

static struct fan_object object_of(uint32_t number)
{
	struct fan_object o = {.fsid = {1, 2}, .type = 1, .len = 8};

	memcpy(o.bytes, &number, sizeof(number));
	return o;
}

UNIT_TEST(test_marks)
{
	static struct fan_marks m;
	const struct fan_object one = object_of(1), two = object_of(2);
	struct fan_object longer = one, other_fs = one;
	struct fan_mark *mark;
	size_t place = 0;
	unsigned n = 0;

	longer.len = 9;
	other_fs.fsid[1] = 3;
	fan_marks_init(&m);
	ck_assert_ptr_null(fan_marks_find(&m, &one));
	ck_assert_ptr_nonnull(fan_marks_add(&m, &one, 0, FAN_ROLE_SELF));
	ck_assert_ptr_nonnull(fan_marks_add(&m, &one, 1, FAN_ROLE_CHILD));
	ck_assert_ptr_nonnull(fan_marks_add(&m, &two, 2, FAN_ROLE_SELF));
	ck_assert_ptr_null(fan_marks_find(&m, &longer));
	ck_assert_ptr_null(fan_marks_find(&m, &other_fs));
	for (mark = fan_marks_find(&m, &one); mark; mark = fan_marks_next(&m, mark))
		n |= 1u << mark->watch;
	ck_assert_uint_eq(n, 3);
	while ((mark = fan_marks_walk(&m, &place)))
		fan_marks_remove(&m, mark);
	ck_assert_uint_eq(m.n, 0);
	ck_assert_ptr_null(fan_marks_find(&m, &one));
	ck_assert_ptr_null(fan_marks_find(&m, &two));
}

UNIT_TEST(test_marks_are_bounded)
{
	static struct fan_marks m;
	struct fan_object o;

	fan_marks_init(&m);
	for (uint32_t i = 0; i < FAN_MARKS_MAX; i++) {
		o = object_of(i);
		ck_assert_ptr_nonnull(fan_marks_add(&m, &o, 0, FAN_ROLE_CHILD));
	}
	o = object_of(FAN_MARKS_MAX);
	ck_assert_ptr_null(fan_marks_add(&m, &o, 0, FAN_ROLE_CHILD));
	o = object_of(7);
	fan_marks_remove(&m, fan_marks_find(&m, &o));
	o = object_of(FAN_MARKS_MAX);
	ck_assert_ptr_nonnull(fan_marks_add(&m, &o, 0, FAN_ROLE_CHILD));
	ck_assert_ptr_nonnull(fan_marks_find(&m, &o));
}

/* An event as the kernel writes it, with one record of each kind. */
struct raw {
	struct fanotify_event_metadata meta;
	struct {
		struct fanotify_event_info_header head;
		int32_t fsid[2];
		uint32_t bytes;
		int32_t type;
		uint8_t handle[8];
		char name[8];
	} dir;
	struct {
		struct fanotify_event_info_header head;
		int32_t fsid[2];
		uint32_t bytes;
		int32_t type;
		uint8_t handle[8];
	} object;
};

static struct raw raw_event(void)
{
	return (struct raw){
		.meta = {.event_len = sizeof(struct raw),
			 .vers = FANOTIFY_METADATA_VERSION,
			 .metadata_len = sizeof(struct fanotify_event_metadata),
			 .mask = FAN_MODIFY | FAN_CLOSE_WRITE,
			 .fd = FAN_NOFD,
			 .pid = 77},
		.dir = {.head = {.info_type = FAN_EVENT_INFO_TYPE_DFID_NAME,
				 .len = sizeof(((struct raw *)0)->dir)},
			.fsid = {1, 2},
			.bytes = 8,
			.type = 1,
			.handle = {5},
			.name = "name"},
		.object = {.head = {.info_type = FAN_EVENT_INFO_TYPE_FID,
				    .len = sizeof(((struct raw *)0)->object)},
			   .fsid = {1, 2},
			   .bytes = 8,
			   .type = 1,
			   .handle = {6}},
	};
}

UNIT_TEST(test_event)
{
	struct raw raw = raw_event();
	const struct fan_object dir = object_of(5), object = object_of(6);
	struct fan_event ev;

	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), sizeof(raw));
	ck_assert_uint_eq(ev.mask, FAN_MODIFY | FAN_CLOSE_WRITE);
	ck_assert_int_eq(ev.pid, 77);
	ck_assert(fan_same_object(&ev.dir, &dir));
	ck_assert(fan_same_object(&ev.object, &object));
	ck_assert_uint_eq(ev.name_len, 4);
	ck_assert_mem_eq(ev.name, "name", 4);
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, 0, &ev), 0);
	/* A name without its end, and a handle that is longer than any we note. */
	memset(raw.dir.name, 'x', sizeof(raw.dir.name));
	raw.object.bytes = FAN_HANDLE_MAX + 1;
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), sizeof(raw));
	ck_assert_uint_eq(ev.name_len, sizeof(raw.dir.name));
	ck_assert_uint_eq(ev.object.len, 0);
}

UNIT_TEST(test_event_makes_no_sense)
{
	struct raw raw = raw_event();
	struct fan_event ev;

	/* Cut after each byte. */
	for (size_t len = 1; len < sizeof(raw); len++)
		ck_assert_int_eq(fan_event_next((uint8_t *)&raw, len, &ev), -EBADMSG);
	raw.meta.vers++;
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), -EBADMSG);
	raw = raw_event();
	raw.meta.metadata_len = sizeof(raw) + 1;
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), -EBADMSG);
	raw = raw_event();
	raw.dir.head.len = 0;
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), -EBADMSG);
	raw = raw_event();
	raw.object.head.len++;
	ck_assert_int_eq(fan_event_next((uint8_t *)&raw, sizeof(raw), &ev), -EBADMSG);
}

UNIT_TEST(test_event_names)
{
	char names[80];
	const uint64_t all = FAN_MODIFY | FAN_CLOSE_WRITE | FAN_CREATE | FAN_DELETE | FAN_ATTRIB |
			     FAN_MOVED_FROM | FAN_MOVED_TO;

	ck_assert_uint_eq(fan_event_names(all, names, sizeof(names)), strlen(names));
	ck_assert_str_eq(names, "modify,close_write,create,delete,attrib,moved_from,moved_to");
	fan_event_names(FAN_MOVE_SELF, names, sizeof(names));
	ck_assert_str_eq(names, "moved_from");
	fan_event_names(FAN_DELETE_SELF | FAN_ONDIR, names, sizeof(names));
	ck_assert_str_eq(names, "delete");
}

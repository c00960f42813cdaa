/* SPDX-License-Identifier: MIT */
/* What read(2) gives of a fanotify group: events with their records of handles and names. */
#include "common/util.h"
#include "guest-agent/probes/fan_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_object(const struct fan_object *o)
{
	if (o->len > FAN_HANDLE_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fan_marks marks;
	ssize_t len;

	fan_marks_init(&marks);
	for (size_t at = 0; at < size; at += (size_t)len) {
		char names[80];
		struct fan_event ev;

		len = fan_event_next(data + at, size - at, &ev);
		if (len <= 0)
			break;
		if ((size_t)len > size - at || ev.name_len > FAN_NAME_MAX)
			abort();
		if (ev.name_len &&
		    ((const uint8_t *)ev.name < data + at ||
		     (const uint8_t *)ev.name + ev.name_len > data + at + len))
			abort();
		check_object(&ev.dir);
		check_object(&ev.object);
		if (fan_event_names(ev.mask, names, sizeof(names)) >= sizeof(names))
			abort();
		/* Equal handles are one object, different ones are not. */
		if (ev.object.len && fan_marks_add(&marks, &ev.object, 0, FAN_ROLE_SELF) &&
		    !fan_marks_find(&marks, &ev.object))
			abort();
	}
	return 0;
}

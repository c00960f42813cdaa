/* SPDX-License-Identifier: MIT */
/* A request on the control socket: the options of a cell, as they are taken and as they are
 * remembered. */
#include <jansson.h>

#include "common/util.h"
#include "host-receiver/cell/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool read_given(const json_t *options, struct option_texts *ret)
{
	char why[CELL_WHY_MAX] = "";
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)options, name, value)
	{
		const struct wire_text text = {
			.data = json_string_value(value),
			.len = json_string_length(value),
		};

		if (!json_is_string(value))
			return false;
		if (option_texts_add(ret, wire_text(name), text, why) < 0) {
			if (!*why)
				abort();
			return false;
		}
	}
	return true;
}

/* A state that can be formatted reads back to the same options. */
static void check_state(const struct option_texts *given, const json_t *options)
{
	static const uint8_t stream_id[UUID_SIZE];
	const struct evidence_position since = {.segment = 1};
	_cleanup_free_ char *text = NULL;
	json_t *again;

	if (cell_state_format(given, stream_id, &since, &text) < 0)
		return;
	again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	if (!json_equal(json_object_get(again, "options"), options))
		abort();
	json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *request = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *options = json_object_get(request, "options");
	struct option_texts given = {0};
	char why[CELL_WHY_MAX] = "";
	struct cell_options o;

	if (json_is_object(options) && read_given(options, &given)) {
		cell_options_defaults(&o);
		if (option_texts_apply(&given, &o, why) == 0)
			check_state(&given, options);
		else if (!*why)
			abort();
	}
	option_texts_free(&given);
	json_decref(request);
	return 0;
}

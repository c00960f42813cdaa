/* SPDX-License-Identifier: MIT */
/* A request on the control socket: the options of a cell, as they are taken and as they are
 * remembered. */
#include "common/util.h"
#include "host-receiver/cell/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t stream_id[UUID_SIZE];
	const struct evidence_position since = {.segment = 1};
	json_t *request = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	json_t *options = json_object_get(request, "options"), *again;
	char why[CELL_WHY_MAX] = "";
	struct cell_options o;

	if (json_is_object(options)) {
		_cleanup_free_ char *text = NULL;

		cell_options_defaults(&o);
		if (cell_options_from_json(&o, options, why) < 0) {
			if (!*why)
				abort();
			json_decref(request);
			return 0;
		}
		text = cell_state_format(options, stream_id, &since);
		again = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
		if (!json_equal(json_object_get(again, "options"), options))
			abort();
		json_decref(again);
	}
	json_decref(request);
	return 0;
}

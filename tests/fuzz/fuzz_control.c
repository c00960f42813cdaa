/* SPDX-License-Identifier: MIT */
/* The options of a control request, as the daemon checks them. */
#include "common/util.h"
#include "host-receiver/cell/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *request = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	const json_t *options = json_object_get(request, "options");
	char why[CELL_WHY_MAX] = "";
	struct cell_options o;

	cell_options_defaults(&o);
	if (json_is_object(options)) {
		if (cell_options_from_json(&o, options, why) < 0 && !*why)
			abort();
		if (!*why && (!o.cell_id || strlen(o.cell_id) > CELL_ID_MAX || !o.uds_base))
			abort();
	}
	json_decref(request);
	return 0;
}

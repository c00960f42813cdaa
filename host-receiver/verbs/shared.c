/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/shared.h"

#include <sysexits.h>

int shared_read_config(const char *path, struct config *ret)
{
	struct config_errors errors;
	const int r = config_read(path, ret, &errors);

	if (r < 0)
		fputs(errors.text ? errors.text : "no memory\n", stderr);
	config_errors_free(&errors);
	return r < 0 ? EX_CONFIG : EX_OK;
}

const char *shared_text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

json_int_t shared_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

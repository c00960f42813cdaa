/* SPDX-License-Identifier: MIT */
/*
 * Names of flags: see flag_names.h.
 */
#include "guest-agent/probes/flag_names.h"

#include <stdio.h>

size_t flag_names_join(const struct flag_name *names, size_t n, uint64_t mask, char *out,
		       size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		if (mask & names[i].bits)
			len += (size_t)snprintf(out + len, size - len, "%s%s", len ? "," : "",
						names[i].name);
	return len;
}

/* SPDX-License-Identifier: MIT */
/*
 * The programs' own tables of events, a JSON object a line: what the reference must say.
 */
#include <inttypes.h>
#include <stdio.h>

#include "host-receiver/event/event.h"

static void print_keys(const char *name, uint64_t keys)
{
	const char *between = "";

	printf(",\"%s\":{", name);
	for (; keys; keys &= keys - 1) {
		const enum wire_key key = (enum wire_key)__builtin_ctzll(keys);
		static const char *const types[] = {
			[WIRE_TYPE_UINT] = "uint",
			[WIRE_TYPE_TEXT] = "text",
			[WIRE_TYPE_BOOL] = "bool",
		};

		printf("%s\"%s\":\"%s\"", between, wire_key_name(key), types[wire_key_type(key)]);
		between = ",";
	}
	putchar('}');
}

static void print_camel(uint64_t keys)
{
	const char *between = "";

	printf(",\"camel\":{");
	for (; keys; keys &= keys - 1) {
		const enum wire_key key = (enum wire_key)__builtin_ctzll(keys);

		printf("%s\"%s\":\"%s\"", between, wire_key_name(key), wire_key_camel(key).data);
		between = ",";
	}
	putchar('}');
}

int main(void)
{
	for (int i = 0; i < _EVENT_TYPE_MAX; i++) {
		const enum event_type type = (enum event_type)i;

		printf("{\"name\":\"%s\",\"type\":\"%s\",\"source\":\"%s\"", event_short_name(type),
		       event_type_name(type), event_source_name(type));
		if (i >= EVENT_GUEST_FIRST && i <= EVENT_GUEST_LAST) {
			const enum wire_source source = (enum wire_source)(i - EVENT_GUEST_FIRST);

			print_keys("required", wire_source_required(source));
			print_keys("allowed", wire_source_allowed(source));
			print_camel(wire_source_allowed(source));
		}
		puts("}");
	}
	return 0;
}

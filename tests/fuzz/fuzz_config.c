/* SPDX-License-Identifier: MIT */
/* The configuration: what is taken can be dumped, and the dump says the same; what is refused is
 * refused with a place. */
#include "common/util.h"
#include "host-receiver/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_text(const void *data, size_t size, struct config *config,
		     struct config_errors *errors)
{
	FILE *f = fmemopen((void *)(uintptr_t)data, size, "r");
	int r;

	if (!f)
		abort();
	r = config_read_file(f, "the.conf", config, errors);
	fclose(f);
	return r;
}

static char *dump(const struct config *config, size_t *ret_len)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_len);

	config_dump(config, f);
	fclose(f);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config config, again;
	struct config_errors errors, more;

	if (size == 0)
		return 0;
	if (read_text(data, size, &config, &errors) < 0) {
		if (!errors.text || strncmp(errors.text, "the.conf", 8) != 0)
			abort();
	} else {
		_cleanup_free_ char *first = NULL, *second = NULL;
		size_t len;

		first = dump(&config, &len);
		if (read_text(first, len, &again, &more) < 0)
			abort();
		second = dump(&again, &len);
		if (strcmp(first, second) != 0)
			abort();
		config_free(&again);
		config_errors_free(&more);
	}
	config_free(&config);
	config_errors_free(&errors);
	return 0;
}

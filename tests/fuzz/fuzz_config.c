/* SPDX-License-Identifier: MIT */
/* A configuration file: whatever is refused is refused with a reason, what is taken reads back. */
#include "common/util.h"
#include "host-receiver/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_errors errors;
	struct config config;
	FILE *f;
	int r;

	if (size == 0)
		return 0;
	f = fmemopen((void *)(uintptr_t)data, size, "r");
	r = config_read_file(f, "f", &config, &errors);
	fclose(f);
	if ((r < 0) != (errors.n > 0))
		abort();
	config_errors_free(&errors);
	config_free(&config);
	return 0;
}

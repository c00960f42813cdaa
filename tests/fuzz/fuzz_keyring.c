/* SPDX-License-Identifier: MIT */
/* A file of keys: it is taken whole, or refused with a reason. */
#include "common/util.h"
#include "host-receiver/sign/keyring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int algorithm = SIGN_ED25519; algorithm <= SIGN_HMAC_SHA256; algorithm++) {
		struct keyring *ring = keyring_new();
		char why[KEYRING_WHY_MAX] = "";
		int r = keyring_parse(ring, (const char *)data, size, "file",
				      (enum sign_algorithm)algorithm, why);

		if (r < 0 && !*why)
			abort();
		keyring_free(ring);
	}
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* A keyring's file. */
#include <fcntl.h>

#include "common/util.h"
#include "host-receiver/sign/keyring.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keyring *ring = keyring_new();
	char path[64], why[KEYRING_WHY_MAX] = "";
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "/tmp/cellos-fuzz-keyring-%d", getpid());
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	for (int algorithm = SIGN_ED25519; algorithm <= SIGN_HMAC_SHA256; algorithm++)
		if (keyring_load(ring, path, (enum sign_algorithm)algorithm, why) < 0 && !*why)
			abort();
	keyring_free(ring);
	unlink(path);
	return 0;
}

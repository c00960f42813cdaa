/* SPDX-License-Identifier: MIT */
/*
 * What no receiver can save on this machine: bench_bare BYTES FOLDER prints the nanoseconds of CPU
 * that one crypto_sign_detached() and one HMAC of so many bytes take, and that appending so many to
 * a new file in the folder takes, in groups of 256, each synced. bench_receiver.py compares.
 */
#include <fcntl.h>

#include <sodium.h>

#include "common/util.h"

#define SECONDS 1
#define GROUP	256u
#define GROUPS	1024u

static uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* Of a line, or 0: it cannot be written there. */
static uint64_t measure_append(const char *dir, size_t size)
{
	_cleanup_close_ int fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	_cleanup_free_ char *group = calloc(GROUP, size);
	const uint64_t begin = cpu_ns();

	for (size_t i = 0; i < GROUPS; i++)
		if (fd < 0 || !group || write(fd, group, GROUP * size) != (ssize_t)(GROUP * size) ||
		    fdatasync(fd) < 0)
			return 0;
	return (cpu_ns() - begin) / (GROUP * GROUPS);
}

int main(int argc, char **argv)
{
	static uint8_t data[65536];
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	uint8_t signature[crypto_sign_BYTES], mac[crypto_auth_hmacsha256_BYTES];
	uint64_t size, begin, n;

	if (argc != 3 || parse_u64(argv[1], 1, sizeof(data), &size) < 0 || sodium_init() < 0)
		return EXIT_FAILURE;
	crypto_sign_keypair(public_key, secret);
	randombytes_buf(data, size);
	begin = cpu_ns();
	for (n = 0; cpu_ns() - begin < SECONDS * NSEC_PER_SEC; n++) {
		data[0]++;
		crypto_sign_detached(signature, NULL, data, size, secret);
	}
	printf("ed25519 %" PRIu64 "\n", (cpu_ns() - begin) / n);
	begin = cpu_ns();
	for (n = 0; cpu_ns() - begin < SECONDS * NSEC_PER_SEC; n++) {
		data[0]++;
		crypto_auth_hmacsha256(mac, data, size, secret);
	}
	printf("hmac-sha256 %" PRIu64 "\n", (cpu_ns() - begin) / n);
	printf("append %" PRIu64 "\n", measure_append(argv[2], size));
	return EXIT_SUCCESS;
}

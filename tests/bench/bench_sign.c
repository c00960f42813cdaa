/* SPDX-License-Identifier: MIT */
/*
 * bench_sign FILE ALGORITHM: what signing alone costs: libsodium's bare signature over the bytes of
 * the events in FILE (evidence of the receiver, unsigned), in CPU nanoseconds each. Prints
 * "signed COUNT BYTES NANOSECONDS".
 */
#include <sodium.h>
#include <stdio.h>

#include "common/util.h"

#define LINES_MAX 20000u
#define ROUND_NS  (2 * NSEC_PER_SEC)

int main(int argc, char **argv)
{
	const bool hmac = argc > 2 && strcmp(argv[2], "hmac-sha256") == 0;
	unsigned char public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	unsigned char signature[crypto_sign_BYTES], mac[crypto_auth_hmacsha256_BYTES];
	FILE *f = argc > 1 ? fopen(argv[1], "r") : NULL;
	char **lines = calloc(LINES_MAX, sizeof(char *));
	size_t *lens = calloc(LINES_MAX, sizeof(size_t)), size = 0, n = 0, bytes = 0;
	uint64_t count = 0, begin_ns;
	ssize_t len;

	if (!f || !lines || !lens || sodium_init() < 0) {
		fprintf(stderr, "bench_sign: FILE ALGORITHM\n");
		return EXIT_FAILURE;
	}
	crypto_sign_keypair(public_key, secret);
	while (n < LINES_MAX && (len = getline(&lines[n], &size, f)) > 0) {
		lens[n] = (size_t)len - 1;
		bytes += lens[n++];
		size = 0;
	}
	begin_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (; n > 0 && clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin_ns < ROUND_NS; count++) {
		const unsigned char *line = (const unsigned char *)lines[count % n];

		if (hmac) {
			/* With a key of any length, as the receiver's. */
			crypto_auth_hmacsha256_state state;

			crypto_auth_hmacsha256_init(&state, secret, 32);
			crypto_auth_hmacsha256_update(&state, line, lens[count % n]);
			crypto_auth_hmacsha256_final(&state, mac);
		} else {
			crypto_sign_detached(signature, NULL, line, lens[count % n], secret);
		}
	}
	printf("signed %" PRIu64 " %zu %" PRIu64 "\n", count, n ? bytes / n : 0,
	       (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin_ns) / (count ? count : 1));
	return EXIT_SUCCESS;
}

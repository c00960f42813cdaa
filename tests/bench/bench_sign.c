/* SPDX-License-Identifier: MIT */
/*
 * What bare signatures cost on this machine: bench_sign BYTES prints the nanoseconds of CPU that
 * one crypto_sign_detached() and one HMAC of so many bytes take. bench_receiver.py compares.
 */
#include <sodium.h>

#include "common/util.h"

#define SECONDS 1

static uint64_t cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int main(int argc, char **argv)
{
	static uint8_t data[65536];
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	uint8_t signature[crypto_sign_BYTES], mac[crypto_auth_hmacsha256_BYTES];
	uint64_t size, begin, n;

	if (argc != 2 || parse_u64(argv[1], 1, sizeof(data), &size) < 0 || sodium_init() < 0)
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
	return EXIT_SUCCESS;
}

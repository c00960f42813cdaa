/* SPDX-License-Identifier: MIT */
/*
 * The receiver's side of the signer process. A channel serves one thread at a time. If the signer
 * dies, the next call starts another one and repeats its request: the caller waits a little longer,
 * and nothing is lost.
 */
#pragma once

#include <sys/types.h>

#include "host-receiver/sign/protocol.h"

struct sign_client;

struct sign_client_options {
	int keeper_fd; /* of keeper_start(); taken */
	pid_t keeper_pid;
	const char *state; /* the signer's folder, "": in memory only; borrowed for the call */
	unsigned channels; /* 1 + the workers */
	bool allow_unlocked;
	/*
	 * Called on any thread when the signer has died too often: nothing can be signed any more.
	 */
	void (*on_lost)(const char *why);
};

/* Returns 0 or -ENOMEM. The signer is started with the first key. */
int sign_client_new(const struct sign_client_options *options, struct sign_client **ret);
void sign_client_free(struct sign_client *client);

/* A key that the parent has read, without its secret. */
struct sign_key_info {
	uint32_t number; /* SIGN_NO_KEY with SIGN_OFF */
	enum sign_algorithm algorithm;
	char kid[SIGN_KID_MAX + 1];
	uint8_t public_key[32];
};

/* See signing_key_open(). One thread. */
int sign_client_open_key(struct sign_client *client, const struct signing_options *options,
			 struct sign_key_info *ret, char why[SIGN_WHY_MAX]);

/* The parent binds the socket as its owner: see listener.h. One thread. */
int sign_client_listen(struct sign_client *client, const struct listener_options *options,
		       struct listener *ret, char why[LISTENER_WHY_MAX]);
void sign_client_clear(struct sign_client *client, const struct listener_options *options);
void sign_client_unlink(struct sign_client *client, const struct listener *listener, uid_t uid,
			gid_t gid);
/* The parent opens the configuration file. Returns a descriptor or a negative errno. */
int sign_client_open_config(struct sign_client *client);

/* See core.h. For channel 0's thread. */
int sign_client_memory(struct sign_client *client, struct sign_memory *ret);
int sign_client_retreat(struct sign_client *client, const char *origin, uint64_t size);
int sign_client_extend(struct sign_client *client, const struct tree_hash *leaves, size_t n,
		       const char *note, size_t note_len);
int sign_client_append(struct sign_client *client, uint32_t key, uint32_t previous,
		       const char *origin, uint64_t first, const struct tree_hash *leaves, size_t n,
		       uint64_t durable, char ret[static LINE_NOTE_MAX]);

/*
 * The memory for the entries of sign_client_sign(), one after another: SIGN_SHARED_SIZE bytes. Each
 * call of that function may move it.
 */
char *sign_client_entries(struct sign_client *client, unsigned channel);
/* Sign n entries of these lengths. Returns the bytes of a signature or a negative errno. */
int sign_client_sign(struct sign_client *client, unsigned channel, uint32_t key,
		     const uint32_t *lengths, unsigned n,
		     uint8_t ret[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX]);
unsigned sign_client_channels(const struct sign_client *client);

/*
 * When the oldest waiting call began to wait for the signer, CLOCK_MONOTONIC; 0: no call waits. Any
 * thread.
 */
uint64_t sign_client_waiting_ns(const struct sign_client *client);
/* 0: none runs. Any thread. */
int sign_client_pid(const struct sign_client *client);
/* Why there is no signer since the last attempt to start one; "": there is. Any thread. */
void sign_client_down(struct sign_client *client, char ret[static SIGN_WHY_MAX]);
uint64_t sign_client_restarts(const struct sign_client *client);

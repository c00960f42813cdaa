/* SPDX-License-Identifier: MIT */
/*
 * The messages between receiver, parent and signer: fixed structs on SOCK_SEQPACKET socket pairs of
 * one machine and one build, so in the machine's order. Everything long (leaves, entries) lies in
 * shared memory that the receiver writes and the signer copies before it reads it.
 *
 *	receiver -> parent:  KEY, START, LISTEN, CLEAR, UNLINK, CONFIG
 *	receiver -> signer:  MEMORY, RETREAT, EXTEND, APPEND, SIGN, on any channel
 *	parent   -> signer:  struct sign_key_transfer
 */
#pragma once

#include "host-receiver/privilege/listener.h"
#include "host-receiver/sign/core.h"
#include "host-receiver/sign/signing_key.h"

#define SIGN_CHANNELS_MAX 65u			/* the committer's and one of each worker */
#define SIGN_SHARED_SIZE  (16u * 1024u * 1024u) /* of a channel; touched as it is needed */
#define SIGN_BATCH_MAX	  256u			/* entries of one SIGN */
#define SIGN_ENTRY_MAX	  65535u
#define SIGN_KEYS_MAX	  8u /* how many keys are known at a time: the newest ones */
#define SIGN_NO_KEY	  UINT32_MAX
#define SIGN_PATH_MAX	  4096u

/* ---- to the parent ---- */

enum parent_op {
	PARENT_KEY,    /* read a key; the signer gets it, the receiver its public half */
	PARENT_START,  /* start a signer; the reply carries its sockets and memories */
	PARENT_LISTEN, /* bind a socket for its owner; the reply carries it and its folder */
	PARENT_CLEAR,  /* remove a stale socket as its owner */
	PARENT_UNLINK, /* unlink a socket as its owner; the request carries its folder */
	PARENT_CONFIG, /* the reply carries the configuration file, open for reading */
	_PARENT_OP_MAX,
};

/* A path's text is in parent_request.path. */
struct parent_socket {
	uid_t uid;
	gid_t gid;
	mode_t mode;
	bool replace;
	char name[NAME_MAX + 1];
	dev_t dev;
	ino_t ino;
};

struct parent_request {
	enum parent_op op;
	/* PARENT_KEY; has: 0 = take it from the environment. The file is path. */
	bool has_algorithm, has_kid, has_file, allow_unlocked;
	char algorithm[64], kid[SIGN_KID_MAX + 2];
	/*
	 * PARENT_START: path is the folder of the state; "": the state is in memory only. All later
	 * signers use the folder of the first.
	 */
	uint32_t channels;
	struct parent_socket socket; /* LISTEN, CLEAR, UNLINK; path is the base */
	char path[SIGN_PATH_MAX];
};

struct parent_reply {
	int32_t result; /* 0 or a negative errno */
	uint32_t key;	/* its number, from 0 */
	enum sign_algorithm algorithm;
	char kid[SIGN_KID_MAX + 1];
	uint8_t public_key[32];
	int32_t signer_pid;
	struct parent_socket socket; /* of LISTEN: name, dev and ino */
	char why[SIGN_WHY_MAX];
};

/* ---- to the signer ---- */

enum sign_op {
	SIGN_OP_MEMORY,
	SIGN_OP_RETREAT, /* origin, first: the size */
	SIGN_OP_EXTEND,	 /* n leaves and then a note of len bytes in the shared memory */
	SIGN_OP_APPEND,	 /* origin, first, n leaves in the shared memory, durable, key, previous */
	SIGN_OP_SIGN,	 /* n entries side by side in the shared memory, key */
	_SIGN_OP_MAX,
};

struct sign_request {
	enum sign_op op;
	uint32_t key, previous; /* SIGN_NO_KEY: none */
	uint32_t n, len;
	uint64_t first, durable;
	char origin[NOTE_ORIGIN_MAX + 1];
	uint32_t lengths[SIGN_BATCH_MAX];
};

struct sign_reply {
	int32_t result; /* of APPEND the note's length, of SIGN the bytes of a signature */
	union {
		char note[LINE_NOTE_MAX];
		struct sign_memory memory;
		uint8_t signatures[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX];
	};
};

/* Sent by the parent. Both sides wipe it after use. */
struct sign_key_transfer {
	uint32_t key;
	bool allow_unlocked;
	struct signing_key_bytes bytes;
};

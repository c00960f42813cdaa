/* SPDX-License-Identifier: MIT */
/*
 * The signer's protocol against the real process, as a receiver that was taken over would speak it:
 * requests in any order that are right, nearly right and noise, on several channels. For
 * CELLOS_FUZZ_SECONDS; run by tools/fuzz, built with its sanitizers.
 *
 * The signer must answer each whole request, end only when a channel breaks the protocol or is
 * closed, never by a signal, and never sign two trees of one origin that do not extend each other:
 * of each size one root.
 */
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/sign/process.h"

#define CHANNELS 3u
#define LIFE	 400u /* requests of one process */
#define SIZES	 4096u
#define ORIGIN	 "example.org/host/0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11"

struct signer {
	pid_t pid;
	int parent_fd, fds[CHANNELS];
	uint8_t *shared[CHANNELS];
	uint64_t size; /* of the tree that it signed last, as far as we know */
	/* Of each size that it signed: the note's body line with the root. */
	char roots[SIZES][64];
	char note[LINE_NOTE_MAX];
};

static uint64_t seed;
static unsigned long requests, answers, notes, lives;

static uint64_t roll(uint64_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % n;
}

static _Noreturn void fail(const struct signer *s, const char *what)
{
	fprintf(stderr, "signer %d: %s\n", s->pid, what);
	abort();
}

static struct signing_key *new_key(enum sign_algorithm algorithm)
{
	struct signing_key_bytes bytes = {.algorithm = algorithm, .kid = "k1"};
	struct signing_key *key;

	crypto_sign_keypair(bytes.public_key, bytes.secret);
	if (signing_key_import(&bytes, true, &key) < 0)
		abort();
	return key;
}

static _Noreturn void run_child(const struct signer *s, int parent_fd, const int fds[CHANNELS],
				int ready_fd)
{
	struct signing_key *keys[SIGN_KEYS_MAX] = {0};
	uint32_t numbers[SIGN_KEYS_MAX];
	void *shared[CHANNELS];

	for (uint32_t i = 0; i < SIGN_KEYS_MAX; i++)
		numbers[i] = SIGN_NO_KEY;
	for (unsigned i = 0; i < CHANNELS; i++) {
		shared[i] = s->shared[i];
		close(s->fds[i]);
	}
	close(s->parent_fd);
	keys[0] = new_key(SIGN_ED25519_LOG);
	keys[1] = new_key(SIGN_ED25519);
	keys[2] = new_key(SIGN_ED25519_LOG);
	numbers[0] = 0;
	numbers[1] = 1;
	numbers[2] = 2;
	sign_process_run(&(struct sign_process_options){.parent_fd = parent_fd,
							.channel_fds = fds,
							.shared = shared,
							.channels = CHANNELS,
							.state_fd = -1,
							.allow_unlocked = true,
							.keys = keys,
							.key_numbers = numbers},
			 ready_fd);
}

static void begin(struct signer *s)
{
	int theirs[CHANNELS], parent[2], ready[2], pair[2];
	int32_t r = -1;

	memset(s, 0, sizeof(*s));
	if (pipe(ready) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, parent) < 0)
		abort();
	s->parent_fd = parent[0];
	for (unsigned i = 0; i < CHANNELS; i++) {
		s->shared[i] = mmap(NULL, SIGN_SHARED_SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (s->shared[i] == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
			abort();
		s->fds[i] = pair[0];
		theirs[i] = pair[1];
	}
	s->pid = fork();
	if (s->pid == 0)
		run_child(s, parent[1], theirs, ready[1]);
	close(ready[1]);
	close(parent[1]);
	for (unsigned i = 0; i < CHANNELS; i++)
		close(theirs[i]);
	if (s->pid < 0 || read(ready[0], &r, sizeof(r)) != (ssize_t)sizeof(r) || r < 0)
		fail(s, "does not begin");
	close(ready[0]);
	lives++;
}

static void end(struct signer *s)
{
	int status;

	for (unsigned i = 0; i < CHANNELS; i++)
		close(s->fds[i]);
	close(s->parent_fd);
	if (waitpid(s->pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail(s, "does not end with 0");
	for (unsigned i = 0; i < CHANNELS; i++)
		munmap(s->shared[i], SIGN_SHARED_SIZE);
}

/* ---- requests ---- */

static uint32_t odd_number(uint32_t usual)
{
	static const uint32_t edges[] = {0,	  1,	   2,	       255,	   256,
					 257,	  65535,   65536,      UINT32_MAX, INT32_MAX,
					 524288u, 524289u, 0x80000000u};

	return roll(8) ? usual : edges[roll(ARRAY_SIZE(edges))];
}

static uint64_t odd_size(uint64_t usual)
{
	switch (roll(10)) {
	case 0: return usual + 1;
	case 1: return usual ? usual - 1 : 0;
	case 2: return UINT64_MAX;
	case 3: return TREE_SIZE_MAX;
	case 4: return roll(SIZES);
	default: return usual;
	}
}

static void fill(uint8_t *memory, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t)) {
		const uint64_t word = roll(UINT64_MAX);

		memcpy(memory + i, &word, MIN(sizeof(word), len - i));
	}
}

/* Entries side by side, most of them as they must be. */
static void fill_entries(struct signer *s, unsigned channel, struct sign_request *q)
{
	size_t at = 0;

	for (uint32_t i = 0; i < MIN(q->n, SIGN_BATCH_MAX); i++) {
		uint32_t len = (uint32_t)roll(200) + 1;

		q->lengths[i] = roll(40) ? len : odd_number(len);
		fill(s->shared[channel] + at, len);
		for (uint32_t k = 0; k < len; k++)
			if (s->shared[channel][at + k] == '\n')
				s->shared[channel][at + k] = ' ';
		s->shared[channel][at] = roll(40) ? '{' : 'x';
		at += len;
	}
}

static void make(struct signer *s, unsigned channel, struct sign_request *q)
{
	memset(q, 0, sizeof(*q));
	q->op = roll(30) ? (enum sign_op)roll(_SIGN_OP_MAX) : (enum sign_op)roll(UINT32_MAX);
	q->key = odd_number((uint32_t)roll(3));
	q->previous = roll(4) ? SIGN_NO_KEY : odd_number(0);
	q->n = odd_number((uint32_t)roll(12) + 1);
	q->first = odd_size(s->size);
	strcpy(q->origin, ORIGIN);
	if (roll(15) == 0)
		fill((uint8_t *)q->origin, sizeof(q->origin));
	fill(s->shared[channel], MIN((size_t)q->n, (size_t)300) * sizeof(struct tree_hash));
	if (q->op == SIGN_OP_EXTEND) {
		const size_t leaves = (size_t)(q->n % 300) * sizeof(struct tree_hash);

		q->len = odd_number((uint32_t)strlen(s->note));
		memcpy(s->shared[channel] + leaves, s->note, sizeof(s->note));
		if (roll(3) == 0)
			s->shared[channel][leaves + roll(200)] ^= (uint8_t)(1u << roll(8));
	}
	if (q->op == SIGN_OP_SIGN)
		fill_entries(s, channel, q);
}

/* ---- answers ---- */

/* A note that it signed: of one size only ever one root. */
static void check_note(struct signer *s, const char *text, size_t len)
{
	const char *why;
	struct note note;
	char root[64];

	if (note_parse(text, len, &note, &why) < 0)
		fail(s, "a note that is none");
	if (strcmp(note.checkpoint.origin, ORIGIN) != 0 || note.checkpoint.size >= SIZES)
		return;
	sodium_bin2hex(root, sizeof(root), note.checkpoint.root.bytes, 31);
	if (!*s->roots[note.checkpoint.size])
		strcpy(s->roots[note.checkpoint.size], root);
	else if (strcmp(s->roots[note.checkpoint.size], root) != 0)
		fail(s, "two roots of one size");
	s->size = note.checkpoint.size;
	memcpy(s->note, text, len);
	s->note[len] = '\0';
	notes++;
}

/* False: the signer has ended. */
static bool exchange(struct signer *s, unsigned channel)
{
	/* Now and then a request that is too short ends it, as it must. */
	const size_t size =
		roll(300) ? sizeof(struct sign_request) : roll(sizeof(struct sign_request));
	struct pollfd fd = {.fd = s->fds[channel], .events = POLLIN};
	static struct sign_request q;
	static struct sign_reply reply;
	ssize_t n;

	make(s, channel, &q);
	requests++;
	if (send(fd.fd, &q, size, MSG_NOSIGNAL) < 0)
		return false;
	if (poll(&fd, 1, 120000) != 1)
		fail(s, "does not answer");
	n = recv(fd.fd, &reply, sizeof(reply), 0);
	if (n <= 0) {
		if (size == sizeof(q))
			fail(s, "ends at a whole request");
		return false;
	}
	answers++;
	if (q.op == SIGN_OP_APPEND && reply.result > 0)
		check_note(s, reply.note, (size_t)reply.result);
	return true;
}

int main(void)
{
	const char *seconds = getenv("CELLOS_FUZZ_SECONDS"), *given = getenv("CELLOS_SEED");
	const uint64_t until =
		monotonic_ns() + (uint64_t)(seconds ? atoi(seconds) : 5) * NSEC_PER_SEC;
	static struct signer s;

	if (sodium_init() < 0)
		return EXIT_FAILURE;
	seed = (given ? strtoull(given, NULL, 0) : monotonic_ns()) | 1;
	fprintf(stderr, "CELLOS_SEED=%llu\n", (unsigned long long)seed);
	while (monotonic_ns() < until) {
		begin(&s);
		for (unsigned i = 0; i < LIFE && exchange(&s, (unsigned)roll(CHANNELS)); i++)
			;
		end(&s);
	}
	printf("%-12s %8s %12lu requests, %lu answered, %lu notes, of %lu signers\n", "signer",
	       seconds ? seconds : "5", requests, answers, notes, lives);
	return EXIT_SUCCESS;
}

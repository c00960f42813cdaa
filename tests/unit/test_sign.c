/* SPDX-License-Identifier: MIT */
/* Signing and judging: the golden stream signed again, and what a forger might do to it. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <sodium.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/sign/keyring.h"
#include "host-receiver/sign/signer.h"
#include "host-receiver/privilege/receiver.h"
#include "host-receiver/privilege/hidden.h"
#include "tests/unit/sign_client.h"
#include "tests/unit/evidence.h"

#define KEY "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static char *lines[LINES_MAX]; /* of evidence-good.jsonl, without '\n' */
static size_t n_lines;

static void read_lines(void)
{
	n_lines = read_golden_lines(lines);
}

UNIT_TEST(the_golden_stream_is_signed_again)
{
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX], out[8192];
	const struct signing_options options = {
		.algorithm = "ed25519", .kid = "vector-key-1", .key_file = key};
	char *seed = read_vector("seed.txt");
	struct json_document *doc = json_document_new(JSON_DOCUMENT_MAX);
	static uint8_t signatures[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX];
	struct sign_client *client;
	struct signer *signer;
	uint32_t size;
	int fd = mkstemp(key);

	ck_assert_int_eq(write(fd, seed, strlen(seed)), (ssize_t)strlen(seed));
	close(fd);
	client = unit_sign_client();
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	for (size_t i = 0; i < n_lines; i++) {
		char event[4096];
		struct signer_event e = {.json = event};
		const struct json_node *node;
		struct json_writer w;
		const char *bad;
		size_t len, offset;

		ck_assert_int_eq(json_document_read(doc, lines[i], strlen(lines[i]), &bad, &offset),
				 0);
		node = json_member(doc, json_member(doc, json_document_root(doc), "data"), "event");
		json_writer_init(&w, event, sizeof(event));
		json_write_canonical(doc, node, &w);
		ck_assert_int_eq(json_writer_done(&w, &e.json_len), 0);
		ck_assert(json_member_string(doc, node, "id", &e.id) &&
			  json_member_string(doc, node, "source", &e.source) &&
			  json_member_string(doc, node, "time", &e.time));
		memcpy(sign_client_entries(client, 1), event, e.json_len);
		size = (uint32_t)e.json_len;
		ck_assert_int_eq(signer_sign(signer, 1, &size, 1, signatures), 64);
		ck_assert_int_eq(
			signer_write_line(signer, &e, signatures[0], 64, out, sizeof(out), &len),
			0);
		ck_assert_uint_eq(len, strlen(lines[i]) + 1);
		ck_assert_int_eq(memcmp(out, lines[i], len - 1), 0);
		ck_assert_int_eq(out[len - 1], '\n');
		/* At the line's length it fits, below it does not. */
		ck_assert_int_eq(signer_write_line(signer, &e, signatures[0], 64, out, len, &len),
				 0);
		ck_assert_int_eq(
			signer_write_line(signer, &e, signatures[0], 64, out, len - 1, &len),
			-ENOBUFS);
	}
	signer_free(signer);
	sign_client_free(client);
	json_document_free(doc);
	free(seed);
}

UNIT_TEST(a_public_key_is_no_hmac_key)
{
	/* Who knows the public key makes a MAC with it and calls that the algorithm. */
	char *text = read_vector("keyring.json");
	struct keyring *ring = ring_of(text, SIGN_ED25519);
	struct keyring_key key;

	ck_assert(keyring_find(ring, SIGN_ED25519, wire_text("vector-key-1"), &key));
	ck_assert(!keyring_find(ring, SIGN_HMAC_SHA256, wire_text("vector-key-1"), &key));
	ck_assert(!keyring_find(ring, SIGN_ED25519, wire_text("vector-key-"), &key));
	keyring_free(ring);
	free(text);
}

UNIT_TEST(keyrings_are_refused_with_a_reason)
{
	static const struct {
		const char *json, *why;
	} bad[] = {
		{"", "test:"},
		{"[]", "expected an object"},
		{"{\"a\":1}", "base64url"},
		{"{\"a\":\"!\"}", "base64url"},
		{"{\"a\":\"AAAA\"}", "3 bytes"},
		{"{\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\xc3\x89\"}", "base64url"},
		{"{\"a b\":\"AAAA\"}", "kid"},
		{"{\"\":\"AAAA\"}", "kid"},
		{"{\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\","
		 "\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
		 "twice"},
		{"{\"a\":{}}", "key"},
		{"{\"a\":{\"key\":1}}", "base64url"},
		{"{\"a\":{\"key\":\"" KEY "\",\"more\":1}}", "none of"},
		{"{\"a\":{\"key\":\"" KEY "\",\"origins\":[]}}", "1..64"},
		{"{\"a\":{\"key\":\"" KEY "\",\"origins\":\"x\"}}", "list"},
		{"{\"a\":{\"key\":\"" KEY "\",\"origins\":[\"a b\"]}}", "prefixes"},
		{"{\"a\":{\"key\":\"" KEY "\",\"notAfterSize\":\"1\"}}", "number"},
		{"{\"a\":{\"key\":\"" KEY "\",\"notAfterSize\":9223372036854775808}}", "number"},
		{"{\n\n\"a\":}", "test:3:"},
		{KEY "\n", "this is a secret seed"},
		{"{\"a\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}", "33 bytes"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct keyring *ring = keyring_new();
		char why[KEYRING_WHY_MAX] = "";

		ck_assert_int_lt(keyring_parse(ring, bad[i].json, strlen(bad[i].json), "test",
					       SIGN_ED25519, why),
				 0);
		ck_assert_msg(strstr(why, bad[i].why) != NULL, "%s: %s", bad[i].json, why);
		keyring_free(ring);
	}
}

/* Every kid of a keyring is there, not only the first. */
UNIT_TEST(all_kids_of_a_keyring_count)
{
	struct keyring *ring = ring_of(
		"{\"a\":\"" KEY "\",\"b\":{\"key\":\"" KEY "\"},\"c\":\"" KEY "\"}", SIGN_ED25519);
	struct keyring_key key;

	ck_assert_uint_eq(keyring_count(ring), 3);
	for (const char *kid = "abc"; *kid; kid++)
		ck_assert(keyring_find(ring, SIGN_ED25519,
				       (struct wire_text){.data = kid, .len = 1}, &key));
	keyring_free(ring);
}

/* A key may be for some logs only, and for a log up to a size only. */
UNIT_TEST(a_key_counts_where_it_is_for)
{
	static const struct {
		const char *value;
		enum keyring_verdict want;
	} cases[] = {
		{"\"%s\"", KEYRING_SIGNED},
		{"{\"key\":\"%s\"}", KEYRING_SIGNED},
		{"{\"key\":\"%s\",\"origins\":[\"other\",\"example.org/host-7\"]}", KEYRING_SIGNED},
		{"{\"key\":\"%s\",\"origins\":[\"example.org/\"]}", KEYRING_SIGNED},
		{"{\"key\":\"%s\",\"origins\":[\"example.org/host\"]}", KEYRING_NOT_FOR_IT},
		{"{\"key\":\"%s\",\"origins\":[\"xexample.org\"]}", KEYRING_NOT_FOR_IT},
		{"{\"key\":\"%s\",\"notAfterSize\":21}", KEYRING_NOT_FOR_IT},
		{"{\"key\":\"%s\",\"notAfterSize\":22}", KEYRING_SIGNED},
	};
	static const char golden[] = GOLDEN_LOG_KEY;
	char *text = read_vector("log/kept.checkpoint"), json[512];
	struct tree_hasher *hasher = tree_hasher_new();
	struct note note;
	const char *why, *kid;

	ck_assert_int_eq(note_parse(text, strlen(text), &note, &why), 0);
	for (size_t i = 0; i <= ARRAY_SIZE(cases); i++) {
		char value[256] = "\"" KEY "\"";
		enum keyring_verdict verdict, want = KEYRING_UNKNOWN_KEY;
		struct keyring *ring;

		if (i < ARRAY_SIZE(cases)) {
			const char *at = strstr(cases[i].value, "%s");

			snprintf(value, sizeof(value), "%.*s%s%s", (int)(at - cases[i].value),
				 cases[i].value, golden, at + 2);
			want = cases[i].want;
		}
		snprintf(json, sizeof(json), "{\"k\":%s}", value);
		ring = ring_of(json, SIGN_ED25519);
		ck_assert_int_eq(keyring_check_note(ring, hasher, &note, &verdict, &kid), 0);
		ck_assert_msg(verdict == want, "%s: %d", value, (int)verdict);
		keyring_free(ring);
	}
	tree_hasher_free(hasher);
	free(text);
}

/* The name that a checkpoint's line gives its key is a name that this key has. */
UNIT_TEST(a_line_names_a_key_of_its_note)
{
	static const struct {
		const char *ring, *kid;
		int want;
	} cases[] = {
		{"{\"a\":\"" GOLDEN_LOG_KEY "\"}", "a", 1},
		{"{\"a\":\"" KEY "\",\"b\":\"" GOLDEN_LOG_KEY "\"}", "b", 1},
		/* The ring's key of this name is another one. */
		{"{\"a\":\"" KEY "\"}", "a", 0},
		{"{\"a\":\"" KEY "\",\"b\":\"" GOLDEN_LOG_KEY "\"}", "a", 0},
		/* All keys of the note are known by other names. */
		{"{\"a\":\"" GOLDEN_LOG_KEY "\"}", "c", 0},
		{"{\"a\":\"" KEY "\",\"b\":\"" GOLDEN_LOG_KEY "\"}", "c", 0},
		/* The note's key is not in the ring. */
		{"{\"a\":\"" KEY "\"}", "c", 1},
	};
	char *text = read_vector("log/kept.checkpoint");
	struct tree_hasher *hasher = tree_hasher_new();
	struct note note;
	const char *why;

	ck_assert_int_eq(note_parse(text, strlen(text), &note, &why), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct keyring *ring = ring_of(cases[i].ring, SIGN_ED25519);

		ck_assert_msg(keyring_kid_fits(ring, hasher, &note, wire_text(cases[i].kid)) ==
				      cases[i].want,
			      "kid %s of %s", cases[i].kid, cases[i].ring);
		keyring_free(ring);
	}
	tree_hasher_free(hasher);
	free(text);
}

/* What somebody could do who has taken the receiver over. */
static int reach_into(int pid)
{
	const struct process_users users = {0};
	char path[64], data[8];
	struct iovec here = {.iov_base = data, .iov_len = sizeof(data)}, there = here;

	if (receiver_give_up(&users) < 0 || !hidden_enter(NULL, 0))
		return 1;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	if (open(path, O_RDONLY | O_CLOEXEC) >= 0)
		return 2;
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0 || errno != EPERM)
		return 3;
	return ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 ? 4 : 0;
}

UNIT_TEST(a_confined_receiver_cannot_reach_into_the_signer)
{
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX];
	const struct signing_options options = {
		.algorithm = "hmac-sha256", .kid = "k", .key_file = key};
	struct sign_client *client = unit_sign_client();
	struct signer *signer;
	int fd = mkstemp(key), status;
	pid_t child;

	ck_assert_int_eq(write(fd, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 44), 44);
	close(fd);
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	ck_assert_int_gt(sign_client_pid(client), 0);
	child = unit_fork();
	if (child == 0)
		_exit(reach_into(sign_client_pid(client)));
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	signer_free(signer);
	sign_client_free(client);
}

static bool unlinked(struct sign_client *client, const char *folder, const char *name)
{
	struct listener l = {.fd = -1, .dir_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC)};
	struct stat st;
	bool gone;

	strcpy(l.name, name);
	ck_assert_int_eq(fstatat(l.dir_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	l.dev = st.st_dev;
	l.ino = st.st_ino;
	sign_client_unlink(client, &l, geteuid(), getegid());
	gone = fstatat(l.dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
	unlinkat(l.dir_fd, name, 0);
	close(l.dir_fd);
	return gone;
}

/* The parent removes sockets of cells, and no other file that the receiver may name. */
UNIT_TEST(the_parent_removes_only_sockets_of_cells)
{
	char folder[] = "/tmp/cellos-unlink-XXXXXX", path[64];
	struct sign_client *client = unit_sign_client();

	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/v_9001", folder);
	ck_assert_int_eq(mknod(path, S_IFSOCK | 0600, 0), 0);
	ck_assert(unlinked(client, folder, "v_9001"));
	ck_assert_int_eq(mknod(path, S_IFREG | 0600, 0), 0);
	ck_assert(!unlinked(client, folder, "v_9001"));
	snprintf(path, sizeof(path), "%s/v_900", folder);
	ck_assert_int_eq(mknod(path, S_IFSOCK | 0600, 0), 0);
	ck_assert(!unlinked(client, folder, "v_900"));
	ck_assert_int_eq(rmdir(folder), 0);
	sign_client_free(client);
}

/* A request that the parent refuses has failed, for the parent's reason. */
UNIT_TEST(what_the_parent_refuses_has_failed)
{
	char folder[] = "/tmp/cellos-listen-XXXXXX", base[64], why[LISTENER_WHY_MAX] = "";
	struct listener_options options = {
		.base = base, .set_owner = true, .uid = geteuid(), .gid = getegid(), .mode = 0600};
	struct sign_client *client = unit_sign_client();
	struct listener l;

	ck_assert_ptr_nonnull(mkdtemp(folder));
	snprintf(base, sizeof(base), "%s/absent/v", folder);
	ck_assert_int_eq(sign_client_listen(client, &options, &l, why), -ENOENT);
	ck_assert_msg(strstr(why, strerror(ENOENT)) != NULL, "%s", why);
	/* This parent has no configuration file. */
	ck_assert_int_lt(sign_client_open_config(client), 0);
	snprintf(base, sizeof(base), "%s/v", folder);
	ck_assert_msg(sign_client_listen(client, &options, &l, why) == 0, "%s", why);
	sign_client_unlink(client, &l, options.uid, options.gid);
	listener_close(&l);
	ck_assert_int_eq(rmdir(folder), 0);
	sign_client_free(client);
}

static pid_t ended_child(void)
{
	const pid_t pid = unit_fork();
	siginfo_t info;

	if (pid == 0)
		_exit(0);
	ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	return pid;
}

UNIT_TEST(without_its_parent_a_receiver_opens_nothing)
{
	const struct signing_options signing = {
		.algorithm = "ed25519", .kid = "k", .key_file = "x"};
	const struct listener_options listener = {.base = "/tmp/absent"};
	struct sign_client_options options = {.state = "", .keeper_pid = ended_child()};
	char why[SIGN_WHY_MAX];
	struct sign_client *client;
	struct signer *signer;
	struct listener l;
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	close(fds[1]);
	options.keeper_fd = fds[0];
	ck_assert_int_eq(sign_client_new(&options, &client), 0);
	ck_assert_int_eq(sign_client_listen(client, &listener, &l, why), -EPIPE);
	ck_assert_str_eq(why, "the parent process is gone");
	ck_assert_int_eq(signer_open(client, &signing, &signer, why), -EPIPE);
	ck_assert_str_eq(why, "the parent process is gone");
	ck_assert_int_eq(sign_client_open_config(client), -EPIPE);
	sign_client_free(client);
}

/* The end waits for the parent, so that the signer's state is on disk, and for no other child. */
UNIT_TEST(the_end_waits_for_the_parent_only)
{
	const pid_t other = ended_child();
	struct sign_client_options options = {.state = ""};
	const struct keeper_options keeper = {0};
	struct sign_client *client;

	ck_assert_int_eq(keeper_start(&keeper, &options.keeper_fd, &options.keeper_pid), 0);
	ck_assert_int_eq(sign_client_new(&options, &client), 0);
	sign_client_free(client);
	ck_assert_int_eq(waitpid(options.keeper_pid, NULL, 0), -1);
	ck_assert_int_eq(errno, ECHILD);
	ck_assert_int_eq(waitpid(other, NULL, 0), other);
}

/* The memory of the tree: what it lets be signed. */
UNIT_TEST(only_what_extends_the_last_tree_is_signed)
{
	static uint8_t signatures[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX];
	static struct tree_hash leaves[8];
	const uint32_t size = 16;
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX];
	const struct signing_options options = {
		.algorithm = "ed25519-log", .kid = "k", .key_file = key};
	struct sign_client *client = unit_sign_client();
	char note[LINE_NOTE_MAX], again[LINE_NOTE_MAX];
	struct signer *signer;
	struct tree_signer *tree;
	int fd = mkstemp(key), len;

	ck_assert_int_eq(write(fd, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", 44), 44);
	close(fd);
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	for (uint8_t i = 0; i < ARRAY_SIZE(leaves); i++)
		leaves[i].bytes[0] = i;
	signer_set_origin(signer, "a/1");
	tree = signer_tree(signer);
	ck_assert_str_eq(tree->kid, "k");
	len = tree->ops->append(tree, 0, leaves, 3, 0, note);
	ck_assert_int_gt(len, 0);
	ck_assert_uint_eq(strlen(note), (size_t)len);
	/* Once more the same, as a receiver asks that did not get the note. */
	ck_assert_int_eq(tree->ops->append(tree, 0, leaves, 3, 0, again), len);
	ck_assert_str_eq(note, again);
	/* Another history of the same size, a shorter one, a hole. */
	ck_assert_int_eq(tree->ops->append(tree, 0, leaves + 1, 3, 0, again), -ESTALE);
	ck_assert_int_eq(tree->ops->append(tree, 0, leaves, 2, 0, again), -ESTALE);
	ck_assert_int_eq(tree->ops->append(tree, 4, leaves, 1, 4, again), -ESTALE);
	ck_assert_int_gt(tree->ops->append(tree, 3, leaves + 3, 2, 3, note), 0);
	ck_assert_int_eq(tree->ops->append(tree, 0, leaves, 3, 0, again), -ESTALE);
	/* The first signature ends the time in which it can go back. */
	ck_assert_int_eq(sign_client_retreat(client, "a/1", 3), -EPERM);
	/* An entry must not be a note. */
	memcpy(sign_client_entries(client, 1), note, 16);
	ck_assert_int_lt(sign_client_sign(client, 1, 0, &size, 1, signatures), 0);
	/* Another log begins at 0 only. */
	signer_set_origin(signer, "a/2");
	ck_assert_int_eq(tree->ops->append(tree, 5, leaves, 1, 5, again), -ESTALE);
	ck_assert_int_gt(tree->ops->append(tree, 0, leaves, 1, 0, again), 0);
	signer_set_origin(signer, "a/1");
	ck_assert_int_eq(tree->ops->append(tree, 0, leaves, 1, 0, again), -ESTALE);
	signer_free(signer);
	sign_client_free(client);
}

/*
 * An entry is signed, and nothing that could be a note: an entry begins with a brace and is one
 * line.
 */
UNIT_TEST(the_signer_signs_entries_only)
{
	static uint8_t signatures[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX];
	static const struct {
		const char *begin;
		uint32_t len;
		int want;
	} cases[] = {
		{"{", 1, 64},
		{"{\"a\":1}", 7, 64},
		{"", 0, -EINVAL},
		{"x", 1, -EINVAL},
		{" {}", 3, -EINVAL},
		{"\n{}", 3, -EINVAL},
		{"{\n}", 3, -EINVAL},
		{"{}\n", 3, -EINVAL},
		{"example.org/a\n1\n", 16, -EINVAL},
		{"{", SIGN_ENTRY_MAX - 1, 64},
		{"{", SIGN_ENTRY_MAX, 64},
		{"{", SIGN_ENTRY_MAX + 1, -EINVAL},
	};
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX];
	const struct signing_options options = {
		.algorithm = "ed25519", .kid = "k", .key_file = key};
	struct sign_client *client = unit_sign_client();
	struct signer *signer;
	int fd = mkstemp(key);

	ck_assert_int_eq(write(fd, KEY "\n", 44), 44);
	close(fd);
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *entries = sign_client_entries(client, 1);
		const size_t begin = strlen(cases[i].begin);
		const uint32_t lengths[] = {1, cases[i].len};

		/* The second of two, too: then neither is signed. */
		entries[0] = '{';
		memset(entries + 1, ' ', SIGN_ENTRY_MAX + 1);
		memcpy(entries + 1, cases[i].begin, begin);
		ck_assert_msg(sign_client_sign(client, 1, 0, lengths, 2, signatures) ==
				      cases[i].want,
			      "case %zu", i);
		memmove(entries, entries + 1, SIGN_ENTRY_MAX + 1);
		ck_assert_msg(sign_client_sign(client, 1, 0, lengths + 1, 1, signatures) ==
				      cases[i].want,
			      "case %zu alone", i);
	}
	signer_free(signer);
	sign_client_free(client);
}

/* ---- a host without memory, or without memory that can be locked ---- */

/* Calls that fail here, in the parent or in the signer. The linker puts the functions below in. */
enum refusal {
	REFUSE_NOTHING,
	REFUSE_MAPPING,	    /* the receiver's, of the memory that it shares with the signer */
	REFUSE_MEMORY_FILE, /* the parent's */
	REFUSE_THREAD,	    /* the signer's */
	REFUSE_LOCK,	    /* the signer's, of the memory of its keys */
	_REFUSAL_MAX,
};

static _Atomic int *refused; /* shared with both processes */

static bool is_refused(enum refusal which)
{
	return refused && *refused == (int)which;
}

void *__real_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	if (is_refused(REFUSE_MAPPING) && fd >= 0 && protection & PROT_WRITE) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return __real_mmap64(at, size, protection, flags, fd, offset);
}

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
	if (is_refused(REFUSE_MEMORY_FILE)) {
		errno = ENOMEM;
		return -1;
	}
	return __real_memfd_create(name, flags);
}

int __real_mlock(const void *at, size_t size);
int __wrap_mlock(const void *at, size_t size);
int __wrap_mlock(const void *at, size_t size)
{
	if (is_refused(REFUSE_LOCK)) {
		errno = ENOMEM;
		return -1;
	}
	return __real_mlock(at, size);
}

int __real_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*f)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*f)(void *),
			  void *arg);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, void *(*f)(void *), void *arg)
{
	return is_refused(REFUSE_THREAD) ? EAGAIN : __real_pthread_create(ret, attr, f, arg);
}

/* Returns when the process has ended, with all of its threads and descriptors. */
static void kill_signer(struct sign_client *client)
{
	const int pid = sign_client_pid(client);
	struct pollfd fd = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

	ck_assert_int_ge(fd.fd, 0);
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(poll(&fd, 1, -1), 1);
	close(fd.fd);
}

static int sign_one(struct sign_client *client)
{
	static uint8_t signatures[SIGN_BATCH_MAX][SIGN_SIGNATURE_MAX];
	const uint32_t size = 2;

	memcpy(sign_client_entries(client, 1), "{}", size);
	return sign_client_sign(client, 1, 0, &size, 1, signatures);
}

/*
 * While no signer can be started, or reached, a request fails and says why. The next one tries it
 * again, on any channel and however often. None of that counts as a death of the signer.
 */
UNIT_LOOP_TEST(a_request_without_memory_fails_and_the_next_one_may_succeed, _REFUSAL_MAX - 1)
{
	static const struct {
		int error;
		const char *why;
	} wants[_REFUSAL_MAX] = {
		[REFUSE_MAPPING] = {-ENOMEM, "no memory is shared with it: Cannot allocate memory"},
		[REFUSE_MEMORY_FILE] = {-ENOMEM, "the signer process cannot start: Cannot allocate "
						 "memory"},
		[REFUSE_THREAD] = {-EAGAIN, "the signer process cannot start: Resource temporarily "
					    "unavailable"},
		[REFUSE_LOCK] = {-ENOMEM,
				 "the signer process cannot start: Cannot allocate memory"},
	};
	char key[] = "/tmp/cellos-seed-XXXXXX", why[SIGN_WHY_MAX];
	const struct signing_options options = {
		.algorithm = "ed25519", .kid = "k", .key_file = key};
	const enum refusal refusal = (enum refusal)(_i + 1);
	const struct tree_hash leaf = {0};
	struct sign_memory memory;
	struct sign_client *client;
	struct signer *signer;
	int fd = mkstemp(key);

	refused = mmap(NULL, sizeof(*refused), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ck_assert_ptr_ne(refused, MAP_FAILED);
	ck_assert_int_eq(write(fd, KEY "\n", 44), 44);
	close(fd);
	client = unit_sign_client_of(refusal != REFUSE_LOCK);
	ck_assert_msg(signer_open(client, &options, &signer, why) == 0, "%s", why);
	unlink(key);
	ck_assert_int_eq(sign_one(client), 64);
	ck_assert_int_eq(sign_client_memory(client, &memory), 0);

	*refused = refusal;
	kill_signer(client);
	for (unsigned i = 0; i < 5; i++) {
		ck_assert_int_eq(sign_one(client), wants[refusal].error);
		ck_assert_int_eq(sign_client_memory(client, &memory), wants[refusal].error);
		sign_client_down(client, why);
		ck_assert_str_eq(why, wants[refusal].why);
	}
	*refused = REFUSE_NOTHING;
	ck_assert_int_eq(sign_one(client), 64);
	ck_assert_int_eq(sign_client_memory(client, &memory), 0);
	sign_client_down(client, why);
	ck_assert_str_eq(why, "");
	ck_assert_uint_eq(sign_client_restarts(client), 1);
	/* Only the first signer of a receiver may go back, or forward without a signature. */
	ck_assert_int_eq(sign_client_retreat(client, "a/1", 0), -EPERM);
	ck_assert_int_eq(sign_client_extend(client, &leaf, 1, "", 0), -EPERM);
	signer_free(signer);
	sign_client_free(client);
	munmap(take_ptr(refused), sizeof(*refused));
}

UNIT_SUITE(.setup_once = read_lines);

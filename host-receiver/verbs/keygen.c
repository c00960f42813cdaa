/* SPDX-License-Identifier: MIT */
/*
 * keygen: makes a new Ed25519 seed in DIR/KID.seed (mode 0600) and adds its public key to
 * DIR/keyring.json. It never overwrites a seed: if the kid exists, it refuses. The keyring is
 * replaced as a whole, by rename(2).
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>

#include <sodium.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/sign/keyring.h"
#include "host-receiver/verbs/verbs.h"

#define KEYRING_NAME	 "keyring.json"
#define KEYRING_NEW_NAME ".keyring.json.new"

struct keygen {
	const char *kid, *dir;
};

static int set_kid(void *target, const struct option_row *row, const char *value,
		   char why[OPTION_WHY_MAX])
{
	struct keygen *k = target;

	(void)row;
	if (!kid_valid(value, strlen(value))) {
		snprintf(why, OPTION_WHY_MAX, "expected 1..%u bytes of [A-Za-z0-9._:-]", KID_MAX);
		return -EINVAL;
	}
	k->kid = value;
	return 0;
}

static const struct option_row rows[] = {
	{"kid", "KID", "name of the key in the evidence: 1..128 bytes of [A-Za-z0-9._:-]",
	 OPTION_CALLS(set_kid)},
	{"out", "DIR", "the folder", OPTION_SETS_TEXT(struct keygen, dir)},
	OPTION_ROW_HELP,
};

static int fail(const char *dir, const char *name, const char *what)
{
	fprintf(stderr, "keygen: %s/%s: %s: %s\n", dir, name, what, strerror(errno));
	return EX_CANTCREAT;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/*
 * Write a whole file with this name, or nothing: the file gets its name after its bytes are on
 * disk. Returns 0, -EEXIST, or another negative errno.
 */
static int publish(int dir_fd, const char *name, mode_t mode, const char *data, size_t len)
{
	char path[64];
	_cleanup_close_ int fd = openat(dir_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
	int r;

	if (fd < 0 && errno != EOPNOTSUPP && errno != EISDIR)
		return -errno;
	if (fd >= 0) {
		r = write_all(fd, data, len);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (r == 0 && linkat(AT_FDCWD, path, dir_fd, name, AT_SYMLINK_FOLLOW) < 0)
			r = -errno;
		return r;
	}
	/* The file system has no O_TMPFILE, so a file that is only half written must be removed. */
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	r = write_all(fd, data, len);
	if (r < 0)
		unlinkat(dir_fd, name, 0);
	return r;
}

/* ---- the keyring ---- */

struct keyring_text {
	char *data; /* sodium_malloc; NULL: there is no keyring yet */
	size_t len;
};

/* Returns EX_OK, or another status after a message. */
static int load_keyring(const struct keygen *k, struct keyring_text *ret)
{
	char why[KEYRING_WHY_MAX] = "no memory";
	_cleanup_free_ char *path = NULL;
	struct keyring *ring;
	struct keyring_key known;
	int r, status = EX_CONFIG;

	if (asprintf(&path, "%s/" KEYRING_NAME, k->dir) < 0) {
		errno = ENOMEM;
		return fail(k->dir, KEYRING_NAME, "cannot read");
	}
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return EX_OK;
	ring = keyring_new();
	r = ring ? keyring_load(ring, path, SIGN_ED25519, why) : -ENOMEM;
	if (r == 0 && keyring_find(ring, SIGN_ED25519, wire_text(k->kid), &known)) {
		snprintf(why, sizeof(why), "%.200s: has a kid %s already; choose another", path,
			 k->kid);
		status = EX_CANTCREAT;
		r = -EEXIST;
	}
	keyring_free(ring);
	if (r == 0)
		r = key_read_file(path, false, &ret->data, &ret->len, why, sizeof(why));
	if (r < 0)
		fprintf(stderr, "keygen: %s\n", why);
	return r < 0 ? status : EX_OK;
}

/* The text of the new keyring: the old members unchanged, and the new one, each in a line. */
static int format_keyring(const struct keygen *k, const struct keyring_text *old,
			  const char *public_key, FILE *f)
{
	struct json_document *doc = json_document_new(old->len);
	_cleanup_free_ char *buf = malloc(old->len + 1);
	const struct json_node *member = NULL;
	const char *phrase;
	size_t offset;
	int r = doc && buf ? 0 : -ENOMEM;

	if (r == 0 && old->data) {
		r = json_document_read(doc, old->data, old->len, &phrase, &offset);
		member = r == 0 ? json_child(doc, json_document_root(doc)) : NULL;
	}
	fputs("{\n", f);
	for (; r == 0 && member; member = json_sibling(doc, member)) {
		struct json_writer w;
		size_t len;

		json_writer_init(&w, buf, old->len + 1);
		json_write_canonical(doc, member, &w);
		r = json_writer_done(&w, &len);
		if (r == 0)
			fprintf(f, " \"%.*s\": %.*s,\n", (int)member->key.len, member->key.data,
				(int)len, buf);
	}
	fprintf(f, " \"%s\": \"%s\"\n}\n", k->kid, public_key);
	json_document_free(doc);
	return r;
}

/* *ret_named: the keyring has the key, whatever the status is. */
static int write_keyring(const struct keygen *k, int dir_fd, const struct keyring_text *old,
			 const char *public_key, bool *ret_named)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r = f ? format_keyring(k, old, public_key, f) : -ENOMEM;

	/* glibc's fclose() succeeds without memory for the text: then there is none. */
	if (f && (fclose(f) == EOF || !text))
		r = -ENOMEM;
	/* Remove the temporary file of an interrupted run. */
	unlinkat(dir_fd, KEYRING_NEW_NAME, 0);
	if (r == 0)
		r = publish(dir_fd, KEYRING_NEW_NAME, 0644, text, len);
	if (r == 0 && renameat(dir_fd, KEYRING_NEW_NAME, dir_fd, KEYRING_NAME) < 0)
		r = -errno;
	*ret_named = r == 0;
	if (r == 0 && fsync(dir_fd) < 0)
		r = -errno;
	errno = -r;
	return r < 0 ? fail(k->dir, KEYRING_NAME, "cannot write") : EX_OK;
}

/* ---- the seed ---- */

/*
 * If an interrupted run wrote its seed but not the keyring, that seed is used. A file that is no
 * seed belongs to somebody else and is not changed. Returns EX_OK, or another status after a
 * message.
 */
static int adopt_seed(const struct keygen *k, const char *name, uint8_t seed[KEY_ED25519_SIZE])
{
	char why[KEYRING_WHY_MAX] = "no memory";
	_cleanup_free_ char *path = NULL;
	uint8_t bytes[KEY_BYTES_MAX];
	char *text = NULL;
	size_t len;
	int n = -ENOMEM;

	if (asprintf(&path, "%s/%s", k->dir, name) >= 0)
		n = key_read_file(path, true, &text, &len, why, sizeof(why));
	if (n < 0) {
		fprintf(stderr, "keygen: %s\n", why);
		return EX_CANTCREAT;
	}
	n = key_decode(text, len, bytes);
	sodium_free(text);
	if (n == (int)KEY_ED25519_SIZE)
		memcpy(seed, bytes, KEY_ED25519_SIZE);
	sodium_memzero(bytes, sizeof(bytes));
	if (n == (int)KEY_ED25519_SIZE)
		return EX_OK;
	errno = EEXIST;
	return fail(k->dir, name, "not overwritten, and it is no seed");
}

/* Make a new seed, or take the one of an interrupted run. *ret_made: this run wrote it. */
static int make_seed(const struct keygen *k, int dir_fd, const char *name,
		     uint8_t seed[KEY_ED25519_SIZE], bool *ret_made)
{
	char text[sodium_base64_ENCODED_LEN(KEY_ED25519_SIZE,
					    sodium_base64_VARIANT_URLSAFE_NO_PADDING) +
		  1];
	int r;

	*ret_made = false;
	randombytes_buf(seed, KEY_ED25519_SIZE);
	sodium_bin2base64(text, sizeof(text), seed, KEY_ED25519_SIZE,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	strcat(text, "\n");
	r = publish(dir_fd, name, 0600, text, strlen(text));
	sodium_memzero(text, sizeof(text));
	if (r == -EEXIST)
		return adopt_seed(k, name, seed);
	*ret_made = r == 0;
	errno = -r;
	return r < 0 ? fail(k->dir, name, "cannot create") : EX_OK;
}

/*
 * The seed is written first: a public key can be made again from its seed, but not the reverse. So
 * an interrupted run leaves either nothing or a whole seed, and the next run uses it.
 */
static int generate(const struct keygen *k, int dir_fd)
{
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	uint8_t seed[crypto_sign_SEEDBYTES];
	char text[64], name[KID_MAX + sizeof(".seed")];
	struct keyring_text old = {0};
	bool made = false, named = false;
	int status = load_keyring(k, &old);

	snprintf(name, sizeof(name), "%s.seed", k->kid);
	if (status == EX_OK)
		status = make_seed(k, dir_fd, name, seed, &made);
	if (status == EX_OK) {
		crypto_sign_seed_keypair(public_key, secret, seed);
		sodium_memzero(secret, sizeof(secret));
		sodium_bin2base64(text, sizeof(text), public_key, sizeof(public_key),
				  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
		status = write_keyring(k, dir_fd, &old, text, &named);
		/* A key that the keyring names keeps its seed. */
		if (status != EX_OK && made && !named)
			unlinkat(dir_fd, name, 0);
	}
	sodium_memzero(seed, sizeof(seed));
	sodium_free(old.data);
	if (status == EX_OK)
		printf("%s/%s\n%s/" KEYRING_NAME "\n", k->dir, name, k->dir);
	return status;
}

int cmd_keygen(int argc, char **argv)
{
	struct keygen k = {0};
	const struct option_program program = {
		.name = "keygen",
		.before =
			"Usage: cellos-host-telemetry keygen --kid KID --out DIR\n"
			"Makes an Ed25519 key: DIR/KID.seed (0600, secret: for --sign-key-file) and "
			"the public\nkey as KID in DIR/keyring.json (for verify --keys). Never "
			"overwrites a key.\n",
		.after = "Exit status: 0; 64 usage; 73 cannot create; 78 a bad keyring.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), &k}},
	};
	_cleanup_close_ int dir_fd = -1;
	int at = option_parse(&program, argc, argv, NULL);

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	if (!k.kid || !k.dir) {
		option_usage_error(&program, k.kid ? "--out is missing" : "--kid is missing");
		return EX_USAGE;
	}
	if (sodium_init() < 0) {
		fprintf(stderr, "keygen: libsodium cannot be initialised\n");
		return EX_SOFTWARE;
	}
	dir_fd = open(k.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0) {
		fprintf(stderr, "keygen: %s: %s\n", k.dir, strerror(errno));
		return EX_CANTCREAT;
	}
	/*
	 * Two runs at once could lose one of the two new keys from the keyring, so each run locks
	 * it.
	 */
	if (flock(dir_fd, LOCK_EX) < 0) {
		fprintf(stderr, "keygen: %s: cannot lock: %s\n", k.dir, strerror(errno));
		return EX_CANTCREAT;
	}
	return generate(&k, dir_fd);
}

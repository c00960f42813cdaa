/* SPDX-License-Identifier: MIT */
/*
 * keygen: a new Ed25519 seed in DIR/KID.seed (0600) and its public key in DIR/keyring.json. Nothing
 * is ever overwritten: a kid that exists is refused, and the keyring is replaced as a whole.
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>

#include <jansson.h>
#include <sodium.h>

#include "common/options.h"
#include "common/util.h"
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

/* The keyring of the folder, or an empty one where there is none yet. NULL after a message. */
static json_t *load_keyring(const char *dir, const char *kid, int *ret_status)
{
	char why[KEYRING_WHY_MAX] = "no memory";
	_cleanup_free_ char *path = NULL;
	struct keyring *ring;
	struct keyring_key known;
	json_t *root = NULL;
	char *text;
	size_t len;
	int r;

	*ret_status = EX_CONFIG;
	if (asprintf(&path, "%s/" KEYRING_NAME, dir) < 0)
		return NULL;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return json_object();
	ring = keyring_new();
	r = ring ? keyring_load(ring, path, SIGN_ED25519, why) : -ENOMEM;
	if (r == 0 && keyring_find(ring, SIGN_ED25519, wire_text(kid), &known)) {
		snprintf(why, sizeof(why), "%.200s: has a kid %s already; choose another", path,
			 kid);
		*ret_status = EX_CANTCREAT;
		r = -EEXIST;
	}
	keyring_free(ring);
	if (r == 0)
		r = key_read_file(path, false, &text, &len, why, sizeof(why));
	if (r == 0) {
		root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
		sodium_free(text);
	}
	if (!root)
		fprintf(stderr, "keygen: %s\n", why);
	return root;
}

static int write_keyring(const char *dir, int dir_fd, json_t *root)
{
	_cleanup_free_ char *text = json_dumps(root, JSON_SORT_KEYS | JSON_INDENT(1));
	_cleanup_close_ int fd = -1;
	int r;

	if (!text)
		return EX_OSERR;
	unlinkat(dir_fd, KEYRING_NEW_NAME, 0);
	fd = openat(dir_fd, KEYRING_NEW_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    0644);
	if (fd < 0)
		return fail(dir, KEYRING_NEW_NAME, "cannot create");
	r = write_all(fd, text, strlen(text));
	if (r == 0)
		r = write_all(fd, "\n", 1);
	if (r == 0 && renameat(dir_fd, KEYRING_NEW_NAME, dir_fd, KEYRING_NAME) < 0)
		r = -errno;
	if (r == 0 && fsync(dir_fd) < 0)
		r = -errno;
	errno = -r;
	return r < 0 ? fail(dir, KEYRING_NAME, "cannot write") : EX_OK;
}

static int write_seed(const char *dir, int dir_fd, const char *name, const uint8_t *seed)
{
	char text[sodium_base64_ENCODED_LEN(KEY_ED25519_SIZE,
					    sodium_base64_VARIANT_URLSAFE_NO_PADDING) +
		  1];
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return fail(dir, name, errno == EEXIST ? "not overwritten" : "cannot create");
	sodium_bin2base64(text, sizeof(text), seed, KEY_ED25519_SIZE,
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	strcat(text, "\n");
	r = write_all(fd, text, strlen(text));
	sodium_memzero(text, sizeof(text));
	errno = -r;
	return r < 0 ? fail(dir, name, "cannot write") : EX_OK;
}

/* The seed first: a key whose public half is lost can be had again, the reverse cannot. */
static int generate(const char *kid, const char *dir, int dir_fd)
{
	uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	uint8_t seed[crypto_sign_SEEDBYTES];
	char text[64], name[KID_MAX + sizeof(".seed")];
	json_t *root;
	int status;

	root = load_keyring(dir, kid, &status);
	if (!root)
		return status;
	randombytes_buf(seed, sizeof(seed));
	crypto_sign_seed_keypair(public_key, secret, seed);
	sodium_memzero(secret, sizeof(secret));
	sodium_bin2base64(text, sizeof(text), public_key, sizeof(public_key),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	snprintf(name, sizeof(name), "%s.seed", kid);
	status = json_object_set_new(root, kid, json_string(text)) < 0 ? EX_OSERR : EX_OK;
	if (status == EX_OK)
		status = write_seed(dir, dir_fd, name, seed);
	sodium_memzero(seed, sizeof(seed));
	if (status == EX_OK) {
		status = write_keyring(dir, dir_fd, root);
		if (status != EX_OK)
			unlinkat(dir_fd, name, 0);
	}
	json_decref(root);
	if (status == EX_OK)
		printf("%s/%s\n%s/" KEYRING_NAME "\n", dir, name, dir);
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
	if (sodium_init() < 0)
		return EX_SOFTWARE;
	dir_fd = open(k.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0) {
		fprintf(stderr, "keygen: %s: %s\n", k.dir, strerror(errno));
		return EX_CANTCREAT;
	}
	/* Two at once would lose one of the two keys from the keyring. */
	if (flock(dir_fd, LOCK_EX) < 0) {
		fprintf(stderr, "keygen: %s: cannot lock: %s\n", k.dir, strerror(errno));
		return EX_CANTCREAT;
	}
	return generate(k.kid, k.dir, dir_fd);
}

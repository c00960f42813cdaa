/* SPDX-License-Identifier: MIT */
/*
 * Opens and checks the daemon's signer, at the start and at a reload, and hides the keys from this
 * process. Loop thread.
 */
#include <fcntl.h>
#include <sysexits.h>

#include <sodium.h>

#include "common/log.h"
#include "host-receiver/daemon/internal.h"
#include "host-receiver/privilege/hidden.h"
#include "host-receiver/sign/key.h"

#define SIGNER_FOLDER "signer"

/*
 * Called on the thread that needed a signature. The committed evidence is on disk, and agents send
 * the rest again to the next run.
 */
static void on_signer_lost(const char *why)
{
	log_line(LOG_CRIT, "msg=\"nothing can be signed any more\" why=\"%s\"", why);
	_exit(EX_OSERR);
}

/* ---- what is out of reach ---- */

bool daemon_can_open(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	return fd >= 0;
}

static int refuse_reachable(const char *path)
{
	log_error("msg=\"the receiver can open a file of the signer\" path=%s "
		  "why=\"it must belong to root or to the signer's user, closed to others\"",
		  path);
	return EX_CONFIG;
}

static int try_credential(const char *folder)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/" SIGNING_CREDENTIAL, folder) < 0) {
		path = NULL;
		return EX_OSERR;
	}
	return daemon_can_open(path) ? refuse_reachable(path) : EX_OK;
}

int daemon_hide_keys(struct daemon *d, const char *state)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY"), *hidden[HIDDEN_MAX];
	_cleanup_free_ char *folder = NULL;
	size_t n = 0;

	if (!d->separate) {
		d->landlock = hidden_enter(NULL, 0);
		log_warning("msg=\"receiver and signer are the same user\" uid=%u landlock=%s "
			    "why=\"serve has --user and --signer-user: whoever takes the receiver "
			    "over could read the key file\"",
			    (unsigned)geteuid(), d->landlock ? "yes" : "no");
		return EX_OK;
	}
	if (asprintf(&folder, "%s/" SIGNER_FOLDER, d->config.state_dir) < 0) {
		folder = NULL;
		return EX_OSERR;
	}
	hidden[n++] = state ? state : folder;
	if (*d->config.sign_key_file)
		hidden[n++] = d->config.sign_key_file;
	if (credentials)
		hidden[n++] = credentials;
	d->landlock = hidden_enter(hidden, n);
	for (size_t i = 0; i < n; i++)
		if (hidden[i] != credentials && daemon_can_open(hidden[i]))
			return refuse_reachable(hidden[i]);
	return credentials ? try_credential(credentials) : EX_OK;
}

int daemon_start_client(struct daemon *d, int keeper_fd, pid_t keeper_pid)
{
	_cleanup_free_ char *state = NULL;
	const long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct sign_client_options options = {
		.keeper_fd = keeper_fd,
		.keeper_pid = keeper_pid,
		.channels = 1 + (unsigned)MAX(processors, 1L),
		.allow_unlocked = d->config.sign_allow_unlocked,
		.on_lost = on_signer_lost,
	};

	if (asprintf(&state, "%s/" SIGNER_FOLDER, d->config.state_dir) < 0)
		state = NULL;
	options.state = state;
	if (state && sign_client_new(&options, &d->client) == 0)
		return EX_OK;
	log_error("msg=\"no memory\"");
	return EX_OSERR;
}

/* Values that the file does not set come from the environment. */
static struct signing_options options_of(const char *algorithm, const char *kid,
					 const char *key_file)
{
	return (struct signing_options){
		.algorithm = *algorithm ? algorithm : NULL,
		.kid = *kid ? kid : NULL,
		.key_file = *key_file ? key_file : NULL,
	};
}

static int open_signer(const struct daemon *d, const char *algorithm, const char *kid,
		       const char *key_file, struct signer **ret, char why[SIGN_WHY_MAX])
{
	const struct signing_options options = options_of(algorithm, kid, key_file);

	return signer_open(d->client, &options, ret, why);
}

static int check_required(const struct config *c, enum sign_algorithm algorithm,
			  char why[SIGN_WHY_MAX])
{
	if (!c->sign_required || algorithm != SIGN_OFF)
		return 0;
	snprintf(why, SIGN_WHY_MAX,
		 "[signing] required = yes, but neither the file nor the environment names an "
		 "algorithm");
	return -EINVAL;
}

int daemon_check_key(const struct config *c, const struct process_users *users,
		     struct signing_key **ret, char why[SIGN_WHY_MAX])
{
	struct signing_options options =
		options_of(c->sign_algorithm, c->sign_kid, c->sign_key_file);
	int r;

	options.users = users;
	r = signing_key_open(&options, ret, why);

	if (r < 0)
		return r;
	r = check_required(c, signing_key_algorithm(*ret), why);
	if (r < 0)
		signing_key_free(take_ptr(*ret));
	return r;
}

int daemon_open_signer(const struct daemon *d, struct signer **ret, char why[SIGN_WHY_MAX])
{
	const struct config *c = &d->config;
	struct signer *signer;
	int r = open_signer(d, c->sign_algorithm, c->sign_kid, c->sign_key_file, &signer, why);

	if (r < 0)
		return r;
	r = check_required(c, signer_algorithm(signer), why);
	if (r < 0)
		signer_free(signer);
	else
		*ret = signer;
	return r;
}

void daemon_key_fingerprint(const struct signer *signer, char ret[static DAEMON_FINGERPRINT_MAX])
{
	static const char prefix[] = "SHA256:";
	const enum sign_algorithm algorithm = signer_algorithm(signer);
	uint8_t hash[crypto_hash_sha256_BYTES];

	_Static_assert(
		sizeof(prefix) - 1 +
				sodium_base64_ENCODED_LEN(
					sizeof(hash), sodium_base64_VARIANT_ORIGINAL_NO_PADDING) <=
			DAEMON_FINGERPRINT_MAX,
		"it fits");
	*ret = '\0';
	if (algorithm == SIGN_OFF || algorithm == SIGN_HMAC_SHA256)
		return;
	crypto_hash_sha256(hash, signer_public_key(signer), KEY_ED25519_SIZE);
	strcpy(ret, prefix);
	sodium_bin2base64(ret + sizeof(prefix) - 1, DAEMON_FINGERPRINT_MAX - (sizeof(prefix) - 1),
			  hash, sizeof(hash), sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
}

static void work_ping(uv_work_t *work)
{
	struct daemon *d = work->data;
	struct sign_memory memory;

	/*
	 * While the signer does not answer, sign_client_waiting_ns() grows. A dead signer is
	 * replaced.
	 */
	sign_client_memory(d->client, &memory);
}

static void on_pinged(uv_work_t *work, int status)
{
	struct daemon *d = work->data;

	(void)status;
	d->pinging = false;
}

void daemon_ping_signer(struct daemon *d)
{
	if (d->pinging || d->life.stopping || sign_client_pid(d->client) == 0)
		return;
	d->ping.data = d;
	d->pinging = uv_queue_work(&d->life.loop, &d->ping, work_ping, on_pinged) == 0;
}

void daemon_warn_if_unsigned(const struct signer *signer)
{
	if (signer_algorithm(signer) == SIGN_OFF)
		log_warning("msg=\"evidence is not signed: whoever can write it can change it "
			    "unseen; see [signing]\"");
}

/* A kid names one key for ever. */
static int check_kid(const struct signer *last, const struct signer *next, char why[SIGN_WHY_MAX])
{
	if (!*signer_kid(next) || strcmp(signer_kid(last), signer_kid(next)) != 0 ||
	    memcmp(signer_public_key(last), signer_public_key(next), 32) == 0)
		return 0;
	snprintf(why, SIGN_WHY_MAX,
		 "[signing] kid %s has another key until now: give the new key a kid of its own",
		 signer_kid(next));
	return -EKEYREJECTED;
}

/*
 * The file does not set the value and never did, so it came from the environment: the running value
 * stays.
 */
static const char *in_effect(const char *wanted, const char *was, const char *runs)
{
	return *wanted || *was ? wanted : runs;
}

int daemon_open_next_signer(const struct daemon *d, const struct config *wanted,
			    struct signer **ret, char why[SIGN_WHY_MAX])
{
	const bool is_signed = signer_algorithm(d->signer) != SIGN_OFF;
	const char *runs = is_signed ? sign_algorithm_name(signer_algorithm(d->signer)) : "";
	const char *algorithm = in_effect(wanted->sign_algorithm, d->config.sign_algorithm, runs);
	const char *kid = in_effect(wanted->sign_kid, d->config.sign_kid, signer_kid(d->signer));
	const bool same = strcmp(algorithm, runs) == 0 && strcmp(kid, signer_kid(d->signer)) == 0;
	int r;

	*ret = NULL;
	if (d->separate && *wanted->sign_key_file && daemon_can_open(wanted->sign_key_file)) {
		snprintf(why, SIGN_WHY_MAX,
			 "[signing] key_file %.255s: the receiver's own user can open it; it must "
			 "belong to root or to the signer's user, closed to others",
			 wanted->sign_key_file);
		return -EPERM;
	}
	if (is_signed && !*algorithm) {
		snprintf(why, SIGN_WHY_MAX,
			 "[signing] algorithm is gone: say algorithm = off for evidence that is "
			 "not signed, or restart");
		return -EINVAL;
	}
	r = open_signer(d, algorithm, kid, wanted->sign_key_file, ret, why);
	if (r == 0) {
		r = check_required(wanted, signer_algorithm(*ret), why);
		if (r == 0)
			r = check_kid(d->signer, *ret, why);
		if (r < 0)
			signer_free(take_ptr(*ret));
		return r;
	}
	if (r != -ENOKEY)
		return r;
	if (same && !*d->config.sign_key_file)
		return 0;
	snprintf(
		why, SIGN_WHY_MAX,
		"[signing] there is no key for algorithm %s, kid %s: give key_file, or restart with "
		"the key in the environment",
		algorithm, kid);
	return r;
}

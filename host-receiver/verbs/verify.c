/* SPDX-License-Identifier: MIT */
/*
 * verify: reads evidence from files, folders of segments or standard input, and says what it is
 * worth; or judges one proof. Findings go to standard output, what stops it to standard error.
 */
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/judge/crew.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/sign/proof.h"
#ifdef HAVE_NATS
#include "host-receiver/verbs/from_nats.h"
#endif
#include "host-receiver/verbs/verbs.h"
#include "host-receiver/verbs/verify_report.h"

#define LIST_MAX	  1024u /* checkpoints, and cells, on one command line */
#define PROGRESS_EVERY_NS (NSEC_PER_SEC / 5)
#define CLOCK_LINE	  "\r\033[K"

struct list {
	const char *items[LIST_MAX]; /* borrowed from argv */
	size_t n;
};

struct verify {
	struct keyring *ring;
	struct list checkpoints, cells;
	const char *origin, *proof;
	int64_t since_ms, until_ms, retention_ms, now_ms;
	bool keys, require_signed, allow_unsigned, require_log, live, json, report;
	int status; /* why a keyring was refused */
#ifdef HAVE_NATS
	struct from_nats nats;
#endif
};

/* ---- the command line ---- */

static int load(struct verify *v, const char *path, enum sign_algorithm algorithm, char *why)
{
	char reason[KEYRING_WHY_MAX] = "no memory";

	if (keyring_load(v->ring, path, algorithm, reason) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX, "%.300s", reason);
	v->status = EX_CONFIG;
	return -EINVAL;
}

static int load_keys(void *target, const struct option_row *row, const char *path,
		     char why[OPTION_WHY_MAX])
{
	struct verify *v = target;

	(void)row;
	v->keys = true;
	return load(v, path, SIGN_ED25519, why);
}

static int load_hmac_keys(void *target, const struct option_row *row, const char *path,
			  char why[OPTION_WHY_MAX])
{
	(void)row;
	return load(target, path, SIGN_HMAC_SHA256, why);
}

static int add_to(struct list *list, const char *value, char *why)
{
	if (list->n == LIST_MAX) {
		snprintf(why, OPTION_WHY_MAX, "expected at most %u", LIST_MAX);
		return -E2BIG;
	}
	list->items[list->n++] = value;
	return 0;
}

static int add_checkpoint(void *target, const struct option_row *row, const char *value,
			  char why[OPTION_WHY_MAX])
{
	(void)row;
	return add_to(&((struct verify *)target)->checkpoints, value, why);
}

static int add_cell(void *target, const struct option_row *row, const char *value,
		    char why[OPTION_WHY_MAX])
{
	(void)row;
	return add_to(&((struct verify *)target)->cells, value, why);
}

static int set_time(struct verify *v, const char *value, int64_t *ret, char *why)
{
	if (timestamp_parse_argument(value, v->now_ms, ret) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX,
		 "expected a time like 2026-11-21T10:00:00Z, a date, or how long ago: 36h");
	return -EINVAL;
}

static int set_since(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct verify *v = target;

	(void)row;
	return set_time(v, value, &v->since_ms, why);
}

static int set_until(void *target, const struct option_row *row, const char *value,
		     char why[OPTION_WHY_MAX])
{
	struct verify *v = target;

	(void)row;
	return set_time(v, value, &v->until_ms, why);
}

static int set_retention(void *target, const struct option_row *row, const char *value,
			 char why[OPTION_WHY_MAX])
{
	struct verify *v = target;

	(void)row;
	if (timestamp_parse_duration(value, &v->retention_ms) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX, "expected a duration: 90s, 15m, 36h or 30d");
	return -EINVAL;
}

static const struct option_row rows[] = {
	{"keys", "FILE", "JSON object kid -> base64url public key; repeatable",
	 OPTION_CALLS(load_keys)},
	{"hmac-keys", "FILE", "JSON object kid -> base64url key, mode 0600; repeatable",
	 OPTION_CALLS(load_hmac_keys)},
	{"checkpoint", "FILE", "a checkpoint that you kept: the log must extend it; repeatable",
	 OPTION_CALLS(add_checkpoint)},
	{"expect-cell", "ID", "a cell that must be there; repeatable", OPTION_CALLS(add_cell)},
	{"since", "TIME", "what ended before need not be there", OPTION_CALLS(set_since)},
	{"until", "TIME", "what began after need not be there", OPTION_CALLS(set_until)},
	{"retention", "DURATION", "a log must reach back so far, or to its first entry",
	 OPTION_CALLS(set_retention)},
	{"origin", "PREFIX", "accept only logs with this origin",
	 OPTION_SETS_TEXT(struct verify, origin)},
	{"live", NULL, "the log is being written: open streams are fine",
	 OPTION_SETS_FLAG(struct verify, live)},
	{"require-signed", NULL,
	 "a record without a signature is a failure (the default with --keys)",
	 OPTION_SETS_FLAG(struct verify, require_signed)},
	{"allow-unsigned", NULL, "it is not", OPTION_SETS_FLAG(struct verify, allow_unsigned)},
	{"require-log", NULL, "a record outside of a log with checkpoints is a failure",
	 OPTION_SETS_FLAG(struct verify, require_log)},
	{"proof", "FILE", "judge this proof of one entry; the entry is PATH, or beside FILE",
	 OPTION_SETS_TEXT(struct verify, proof)},
	{"report", NULL, "each log and each stream, and what they declare lost",
	 OPTION_SETS_FLAG(struct verify, report)},
	{"json", NULL, "the result as one JSON object", OPTION_SETS_FLAG(struct verify, json)},
	OPTION_ROW_HELP,
};

static bool reads_stream(const struct verify *v)
{
#ifdef HAVE_NATS
	return v->nats.url;
#else
	(void)v;
	return false;
#endif
}

/* Returns the first path's index, 0 if --help was answered, -EINVAL after a message. */
static int parse(struct verify *v, int argc, char **argv)
{
	const struct option_program program = {
		.name = "verify",
		.before =
			"Usage: cellos-host-telemetry verify --keys KEYRING [OPTIONS] PATH...\n"
			"       cellos-host-telemetry verify --keys KEYRING --proof FILE [ENTRY]\n"
			"Checks signatures and completeness of evidence: files (also .gz and .zst), "
			"folders of\nsegments, or - for standard input.\n",
		.after =
			"Exit status: 0 intact: all verified, nothing missing; 1 something bad; 2 "
			"unverifiable or\n"
			"unsigned; 3 something missing or rolled back; 4 a stream without a seal; 5 "
			"no record at all;\n"
			"64 usage; 66 cannot read the input; 78 bad keyring.\n",
		.groups =
			{
				{NULL, rows, ARRAY_SIZE(rows), v},
#ifdef HAVE_NATS
				{"Evidence that was forwarded:", from_nats_rows, FROM_NATS_ROWS,
				 &v->nats},
#endif
			},
		.operands_max = UINT_MAX,
	};
	int at = option_parse(&program, argc, argv, NULL);

	if (at > 0 && v->require_signed && v->allow_unsigned)
		return option_usage_error(
			&program, "--require-signed and --allow-unsigned exclude each other");
	if (at == argc && !v->proof && !reads_stream(v))
		return option_usage_error(&program,
					  "expected a file, a folder of segments or - to read");
	if (at > 0 && v->proof && argc - at > 1)
		return option_usage_error(&program, "--proof takes one entry");
	return at;
}

/* ---- evidence ---- */

struct progress {
	uint64_t total, next_ns, started_ns;
};

static void show_progress(void *data, uint64_t bytes)
{
	struct progress *p = data;
	const uint64_t now = monotonic_ns();
	const double seconds = (double)(now - p->started_ns) / (double)NSEC_PER_SEC;

	if (now < p->next_ns)
		return;
	p->next_ns = now + PROGRESS_EVERY_NS;
	fprintf(stderr, CLOCK_LINE "verify: ");
	if (p->total > 0)
		fprintf(stderr, "%.0f %% of ", 100.0 * (double)bytes / (double)p->total);
	fprintf(stderr, "%.1f MB, %.0f MB/s", (double)(p->total ? p->total : bytes) / 1e6,
		seconds > 0 ? (double)bytes / 1e6 / seconds : 0);
}

static int keep_checkpoints(const struct verify *v, struct verifier *verifier)
{
	for (size_t i = 0; i < v->checkpoints.n; i++) {
		const char *path = v->checkpoints.items[i];
		char why[SOURCES_WHY_MAX] = "no memory";
		char *text;
		size_t len;
		int r = key_read_file(path, false, &text, &len, why, sizeof(why));

		if (r < 0) {
			fprintf(stderr, "verify: %s\n", why);
			return EX_NOINPUT;
		}
		r = verifier_keep(verifier, path, text, len);
		sodium_free(text);
		if (r < 0) {
			fprintf(stderr, "verify: %s: %s\n", path, strerror(-r));
			return EX_NOINPUT;
		}
	}
	return EX_OK;
}

static int print_result(const struct verify *v, const struct verifier_result *result,
			bool require_signed)
{
	const struct verify_report report = {
		.result = result, .require_signed = require_signed, .details = v->report};
	int r = 0;

	if (v->json)
		r = verify_report_json(&report);
	else
		verify_report_text(&report);
	if (r < 0) {
		fprintf(stderr, "verify: no memory\n");
		return EX_NOINPUT;
	}
	if (fflush(stdout) == EOF || ferror(stdout)) {
		fprintf(stderr, "verify: cannot write the result: %s\n", strerror(errno));
		return EX_IOERR;
	}
	return (int)result->verdict;
}

static int judge(const struct verify *v, const struct sources *sources, struct verifier *verifier,
		 bool require_signed)
{
	struct progress progress = {.started_ns = monotonic_ns()};
	struct crew_options options = {.ring = v->ring, .data = &progress};
	char why[SOURCES_WHY_MAX];
	struct verifier_result result;
	int r = keep_checkpoints(v, verifier);

	if (r != EX_OK)
		return r;
	if (isatty(STDERR_FILENO)) {
		progress.total = sources_bytes(sources);
		progress.next_ns = progress.started_ns + 2 * PROGRESS_EVERY_NS;
		options.progress = show_progress;
	}
	r = crew_judge(&options, sources, verifier, why);
	if (options.progress)
		fputs(CLOCK_LINE, stderr);
	if (r < 0) {
		fprintf(stderr, "verify: %s\n", why);
		return EX_NOINPUT;
	}
	if (sources->empty_folder)
		fprintf(stderr, "verify: a folder has no segment evidence-<20 digits>.jsonl\n");
	result = verifier_finish(verifier);
	return print_result(v, &result, require_signed);
}

static int verify_evidence(const struct verify *v, char **paths)
{
	const bool require_signed = v->require_signed || (v->keys && !v->allow_unsigned);
	struct verifier_options options = {
		.ring = v->ring,
		.require_signed = require_signed,
		.require_log = v->require_log,
		.live = v->live,
		.origin = v->origin,
		.since_ms = v->since_ms,
		.until_ms = v->until_ms,
		.retention_ms = v->retention_ms,
		.now_ms = v->now_ms,
		.cells = v->cells.items,
		.n_cells = v->cells.n,
	};
	struct sources sources = {0};
	char why[SOURCES_WHY_MAX] = "no memory";
	struct tree_earlier *earlier = NULL;
	struct verifier *verifier = NULL;
	int r = 0, status = EX_NOINPUT;

	for (; *paths && r == 0; paths++)
		r = sources_add(&sources, *paths, why);
	if (r == 0)
		r = sources_order(&sources, why);
	if (r == 0) {
		options.earlier = earlier = sources_earlier_new(&sources);
		verifier = earlier ? verifier_new(&options) : NULL;
	}
	if (verifier)
		status = judge(v, &sources, verifier, require_signed);
	else
		fprintf(stderr, "verify: %s\n", why);
	verifier_free(verifier);
	sources_earlier_free(earlier);
	sources_free(&sources);
	return status;
}

/* ---- one proof ---- */

#define PROOF_SUFFIX ".tlog-proof"

/* The entry beside FILE.tlog-proof is FILE.json. Returns an owned path, NULL: no memory. */
static char *entry_path(const char *proof, const char *given)
{
	const size_t len = strlen(proof), suffix = strlen(PROOF_SUFFIX);
	const bool named = len > suffix && strcmp(proof + len - suffix, PROOF_SUFFIX) == 0;
	char *path;

	if (given)
		return strdup(given);
	if (asprintf(&path, "%.*s.json", (int)(named ? len - suffix : len), proof) < 0)
		return NULL;
	return path;
}

static int say(enum verdict verdict, const char *path, const char *fmt, ...) _printf_(3, 4);

static int say(enum verdict verdict, const char *path, const char *fmt, ...)
{
	va_list ap;

	printf("%s: %s: ", verdict == VERDICT_INTACT ? "OK" : "NOT OK", path);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	return fflush(stdout) == EOF ? EX_IOERR : (int)verdict;
}

static int judge_note(const struct verify *v, struct tree_hasher *hasher, const struct note *note)
{
	enum keyring_verdict verdict;
	const char *kid;

	if (v->origin && !origin_has_prefix(note->checkpoint.origin, v->origin))
		return say(VERDICT_UNVERIFIABLE, v->proof,
			   "log %s has another origin than --origin allows",
			   note->checkpoint.origin);
	if (keyring_check_note(v->ring, hasher, note, &verdict, &kid) < 0)
		return EX_NOINPUT;
	if (verdict == KEYRING_WRONG)
		return say(VERDICT_BAD, v->proof, "kid %s did not sign its checkpoint", kid);
	if (verdict == KEYRING_SIGNED)
		return VERDICT_INTACT;
	return say(VERDICT_UNVERIFIABLE, v->proof, "%s",
		   verdict == KEYRING_UNKNOWN_KEY
			   ? "no key for its checkpoint is in the keyring"
			   : "the key of its checkpoint is not for its origin or size");
}

static int judge_entry(const struct verify *v, struct tree_hasher *hasher,
		       const struct proof *proof, const char *entry, size_t len)
{
	const struct note_checkpoint *checkpoint = &proof->note.checkpoint;
	struct tree_hash leaf;
	int r;

	if (len > 0 && entry[len - 1] == '\n')
		len--;
	r = tree_hash_leaf(hasher, entry, len, &leaf);
	if (r == 0)
		r = tree_check_inclusion(hasher, proof->number, checkpoint->size, &leaf,
					 &proof->tree, &checkpoint->root);
	if (r == -EBADMSG)
		return say(VERDICT_BAD, v->proof, "this is not entry %" PRIu64 " of log %s",
			   proof->number, checkpoint->origin);
	if (r < 0)
		return EX_NOINPUT;
	return say(VERDICT_INTACT, v->proof, "the entry is number %" PRIu64 " of log %s",
		   proof->number, checkpoint->origin);
}

/* With --checkpoint OLD: the tree of the proof's note begins with the tree of OLD. */
static int judge_consistency(const struct verify *v, struct tree_hasher *hasher,
			     const struct proof *proof, const char *text, size_t len)
{
	const struct note_checkpoint *new = &proof->note.checkpoint;
	const struct note_checkpoint *old;
	struct note note;
	const char *why;
	int r;

	if (note_parse(text, len, &note, &why) < 0)
		return say(VERDICT_BAD, v->checkpoints.items[0], "%s", why);
	r = judge_note(v, hasher, &note);
	if (r != VERDICT_INTACT)
		return r;
	old = &note.checkpoint;
	r = strcmp(old->origin, new->origin) == 0 && old->size == proof->number
		    ? tree_check_consistency(hasher, old->size, &old->root, new->size, &new->root,
					     &proof->tree)
		    : -EBADMSG;
	if (r == -EBADMSG)
		return say(VERDICT_BAD, v->proof,
			   "its checkpoint does not extend the kept one of log %s", old->origin);
	if (r < 0)
		return EX_NOINPUT;
	return say(VERDICT_INTACT, v->proof,
		   "log %s of %" PRIu64 " entries extends the kept checkpoint of %" PRIu64,
		   new->origin, new->size, old->size);
}

static int judge_proof(const struct verify *v, const struct proof *proof, const char *given)
{
	_cleanup_free_ char *path = NULL;
	struct tree_hasher *hasher = tree_hasher_new();
	char why[SOURCES_WHY_MAX] = "no memory";
	int status = hasher ? judge_note(v, hasher, &proof->note) : EX_NOINPUT;
	char *text = NULL;
	size_t len;

	if (status == VERDICT_INTACT && proof->consistency && v->checkpoints.n != 1) {
		fprintf(stderr, "verify: a proof of consistency needs the kept checkpoint: "
				"--checkpoint FILE\n");
		status = EX_USAGE;
	}
	if (status == VERDICT_INTACT) {
		path = proof->consistency ? strdup(v->checkpoints.items[0])
					  : entry_path(v->proof, given);
		if (!path || key_read_file(path, false, &text, &len, why, sizeof(why)) < 0) {
			fprintf(stderr, "verify: %s\n", why);
			status = EX_NOINPUT;
		}
	}
	if (text)
		status = proof->consistency ? judge_consistency(v, hasher, proof, text, len)
					    : judge_entry(v, hasher, proof, text, len);
	sodium_free(text);
	tree_hasher_free(hasher);
	return status;
}

static int verify_proof(const struct verify *v, const char *given)
{
	char why[SOURCES_WHY_MAX] = "no memory";
	const char *phrase;
	struct proof proof;
	char *text;
	size_t len;
	int r = key_read_file(v->proof, false, &text, &len, why, sizeof(why));

	if (r < 0) {
		fprintf(stderr, "verify: %s\n", why);
		return EX_NOINPUT;
	}
	r = proof_parse(text, len, &proof, &phrase);
	sodium_free(text);
	return r < 0 ? say(VERDICT_BAD, v->proof, "%s", phrase) : judge_proof(v, &proof, given);
}

#ifdef HAVE_NATS
/* The one that wins: what stopped it (64 and above), then the first of 1, 2, 3, 4, 5. */
static int worse(int a, int b)
{
	if (a >= EX__BASE || b >= EX__BASE)
		return MAX(a, b);
	return a == EX_OK || (b != EX_OK && b < a) ? b : a;
}

static int verify_stream(struct verify *v)
{
	int status = from_nats_fetch(&v->nats, v->origin);

	if (status == EX_OK && v->nats.fetch.n_logs == 0) {
		printf("NOTHING: the stream holds no evidence\n");
		status = VERDICT_NOTHING;
	} else if (status == EX_OK) {
		status = verify_evidence(v, v->nats.paths);
		status = worse(status, from_nats_report(&v->nats, v->json ? stderr : stdout));
	}
	from_nats_done(&v->nats);
	return status;
}
#endif

int cmd_verify(int argc, char **argv)
{
	struct verify v = {
		.ring = keyring_new(),
		.since_ms = INT64_MIN,
		.until_ms = INT64_MAX,
		.now_ms = (int64_t)(clock_ns(CLOCK_REALTIME) / NSEC_PER_MSEC),
		.status = EX_USAGE,
	};
	int status = EX_OK, at = v.ring ? parse(&v, argc, argv) : -ENOMEM;

	if (!v.ring) {
		fprintf(stderr, "verify: no memory\n");
		return EX_NOINPUT;
	}
	if (at < 0)
		status = v.status;
#ifdef HAVE_NATS
	else if (at > 0 && v.nats.url)
		status = verify_stream(&v);
#endif
	else if (at > 0)
		status = v.proof ? verify_proof(&v, argv[at]) : verify_evidence(&v, argv + at);
	keyring_free(v.ring);
	return status;
}

/* SPDX-License-Identifier: MIT */
/*
 * verify: reads evidence from files, folders of segments, standard input or a JetStream, and
 * reports whether it is complete and authentic; or it checks one proof (--proof). The judgement is
 * made in host-receiver/judge. Findings go to standard output, errors that stop verify go to
 * standard error.
 */
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/sign/proof.h"
#ifdef HAVE_NATS
#include "host-receiver/verbs/from_nats.h"
#endif
#include "host-receiver/verbs/judging.h"
#include "host-receiver/verbs/verbs.h"
#include "host-receiver/verbs/verify_report.h"

struct verify {
	struct judging judging;
	const char *proof;
	bool json, report;
#ifdef HAVE_NATS
	struct from_nats nats;
#endif
};

/* ---- the command line ---- */

static const struct option_row rows[] = {
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
				{NULL, judging_rows, judging_n_rows, &v->judging},
				{NULL, rows, ARRAY_SIZE(rows), v},
#ifdef HAVE_NATS
				{"Evidence that was forwarded:", from_nats_rows, FROM_NATS_ROWS,
				 &v->nats},
#endif
			},
		.operands_max = UINT_MAX,
	};
	int at = option_parse(&program, argc, argv, NULL);

	if (at > 0 && judging_conflict(&v->judging))
		return option_usage_error(&program, judging_conflict(&v->judging));
	if (at == argc && !v->proof && !reads_stream(v))
		return option_usage_error(&program,
					  "expected a file, a folder of segments or - to read");
	if (at > 0 && v->proof && argc - at > 1)
		return option_usage_error(&program, "--proof takes one entry");
	return at;
}

/* ---- evidence ---- */

/* For judging_run(). Returns the exit status: that of the verdict, or an error. */
static int print_result(void *data, const struct verifier_result *result,
			const struct sources *sources)
{
	const struct verify *v = data;
	const struct verify_report report = {
		.result = result,
		.require_signed = judging_requires_signed(&v->judging),
		.details = v->report,
	};
	int r = 0;

	(void)sources;
	if (v->json) {
		r = verify_report_json(&report, stdout);
		putchar('\n');
	} else {
		verify_report_text(&report);
	}
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

/* ---- one proof ---- */

#define PROOF_SUFFIX ".tlog-proof"

/* The entry of FILE.tlog-proof is in FILE.json. Returns an owned path, NULL: no memory. */
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

/*
 * Check the signature of a proof's checkpoint. Returns VERDICT_INTACT and prints nothing, or
 * another exit status after a message.
 */
static int judge_note(const struct verify *v, struct tree_hasher *hasher, const struct note *note)
{
	enum keyring_verdict verdict;
	const char *kid;

	if (v->judging.origin && !origin_has_prefix(note->checkpoint.origin, v->judging.origin))
		return say(VERDICT_UNVERIFIABLE, v->proof,
			   "log %s has another origin than --origin allows",
			   note->checkpoint.origin);
	if (keyring_check_note(v->judging.ring, hasher, note, &verdict, &kid) < 0)
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

/* Check that the entry with this number in the tree has these bytes. */
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

/* With --checkpoint OLD: check that the tree of the proof's note begins with the tree of OLD. */
static int judge_consistency(const struct verify *v, struct tree_hasher *hasher,
			     const struct proof *proof, const char *text, size_t len)
{
	const struct note_checkpoint *new = &proof->note.checkpoint;
	const struct note_checkpoint *old;
	struct note note;
	const char *why;
	int r;

	if (note_parse(text, len, &note, &why) < 0)
		return say(VERDICT_BAD, v->judging.checkpoints.items[0], "%s", why);
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
		   "log %s of %" PRIu64 " %s extends the kept checkpoint of %" PRIu64, new->origin,
		   new->size, plural(new->size, "entry", "entries"), old->size);
}

static int judge_proof(const struct verify *v, const struct proof *proof, const char *given)
{
	_cleanup_free_ char *path = NULL;
	struct tree_hasher *hasher = tree_hasher_new();
	char why[SOURCES_WHY_MAX] = "no memory";
	int status = hasher ? judge_note(v, hasher, &proof->note) : EX_NOINPUT;
	char *text = NULL;
	size_t len;

	if (status == VERDICT_INTACT && proof->consistency && v->judging.checkpoints.n != 1) {
		fprintf(stderr, "verify: a proof of consistency needs the kept checkpoint: "
				"--checkpoint FILE\n");
		status = EX_USAGE;
	}
	if (status == VERDICT_INTACT) {
		path = proof->consistency ? strdup(v->judging.checkpoints.items[0])
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
/*
 * The exit status with the highest priority: an error that stopped it (64 and above), then the
 * first of 1, 2, 3, 4, 5.
 */
static int worse(int a, int b)
{
	if (a >= EX__BASE || b >= EX__BASE)
		return MAX(a, b);
	return a == EX_OK || (b != EX_OK && b < a) ? b : a;
}

static int verify_stream(struct verify *v)
{
	int status = from_nats_fetch(&v->nats, v->judging.origin);

	if (status == EX_OK && v->nats.fetch.n_logs == 0) {
		printf("NOTHING: the stream holds no evidence\n");
		status = VERDICT_NOTHING;
	} else if (status == EX_OK) {
		status = judging_run(&v->judging, v->nats.paths, print_result, v);
		status = worse(status, from_nats_report(&v->nats, v->json ? stderr : stdout));
	}
	from_nats_done(&v->nats);
	return status;
}
#endif

int cmd_verify(int argc, char **argv)
{
	struct verify v = {0};
	int status = EX_OK, at;

	if (judging_init(&v.judging, "verify") < 0)
		return EX_NOINPUT;
	at = parse(&v, argc, argv);
	if (at < 0)
		status = v.judging.status;
#ifdef HAVE_NATS
	else if (at > 0 && v.nats.url)
		status = verify_stream(&v);
#endif
	else if (at > 0)
		status = v.proof ? verify_proof(&v, argv[at])
				 : judging_run(&v.judging, argv + at, print_result, &v);
	judging_done(&v.judging);
	return status;
}

/* SPDX-License-Identifier: MIT */
/*
 * verify: reads evidence from files, folders of segments or standard input, and says what it is
 * worth. Findings go to standard output, what stops it to standard error.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/event/json_writer.h"
#include "host-receiver/evidence/segment.h"
#include "host-receiver/sign/verifier.h"
#include "host-receiver/verbs/verbs.h"

#define REPORT_MAX (64u * 1024u)

/* Exit statuses of events.md section 7. */
enum {
	VERIFY_COMPLETE = 0,
	VERIFY_BAD = 1,
	VERIFY_UNVERIFIABLE = 2,
	VERIFY_MISSING = 3,
	VERIFY_UNSEALED = 4,
};

struct verify {
	struct keyring *ring;
	bool require_signed, json;
	int status; /* why a keyring was refused */
};

static int load(void *target, const char *path, enum sign_algorithm algorithm, char *why)
{
	char reason[KEYRING_WHY_MAX] = "no memory";
	struct verify *v = target;

	if (keyring_load(v->ring, path, algorithm, reason) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX, "%.300s", reason);
	v->status = EX_CONFIG;
	return -EINVAL;
}

static int load_keys(void *target, const struct option_row *row, const char *path,
		     char why[OPTION_WHY_MAX])
{
	(void)row;
	return load(target, path, SIGN_ED25519, why);
}

static int load_hmac_keys(void *target, const struct option_row *row, const char *path,
			  char why[OPTION_WHY_MAX])
{
	(void)row;
	return load(target, path, SIGN_HMAC_SHA256, why);
}

static const struct option_row rows[] = {
	{"keys", "FILE", "JSON object kid -> base64url public key; repeatable",
	 OPTION_CALLS(load_keys)},
	{"hmac-keys", "FILE", "JSON object kid -> base64url key, mode 0600; repeatable",
	 OPTION_CALLS(load_hmac_keys)},
	{"require-signed", NULL, "a record without a signature is a failure",
	 OPTION_SETS_FLAG(struct verify, require_signed)},
	{"json", NULL, "the result as one JSON object", OPTION_SETS_FLAG(struct verify, json)},
	OPTION_ROW_HELP,
};

static int read_stream(struct verifier *v, FILE *f, const char *name)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	ssize_t n;

	for (uint64_t number = 1; (n = getline(&line, &size, f)) >= 0; number++) {
		if (n > 0 && line[n - 1] == '\n')
			n--;
		if (n == 0)
			verifier_bad(v, name, number, "not a record: an empty line");
		else if (verifier_line(v, name, number, line, (size_t)n) < 0)
			return -ENOMEM;
	}
	return ferror(f) ? -EIO : 0;
}

static int read_file(struct verifier *v, const char *path)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");

	return f ? read_stream(v, f, path) : -errno;
}

static int read_folder(struct verifier *v, const char *path)
{
	struct dirent **entries;
	int n = scandir(path, &entries, segment_is_dirent, alphasort), r = 0;

	if (n < 0)
		return -errno;
	if (n == 0)
		r = -ENODATA;
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *file = NULL;

		if (r == 0 && asprintf(&file, "%s/%s", path, entries[i]->d_name) < 0)
			r = -ENOMEM;
		if (r == 0)
			r = read_file(v, file);
		if (r < 0 && file)
			fprintf(stderr, "verify: %s: %s\n", file, strerror(-r));
		free(entries[i]);
	}
	free(entries);
	return r;
}

static int read_path(struct verifier *v, const char *path)
{
	struct stat st;

	if (strcmp(path, "-") == 0)
		return read_stream(v, stdin, "-");
	if (stat(path, &st) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? read_folder(v, path) : read_file(v, path);
}

static int verdict(const struct verifier_result *r, bool require_signed)
{
	if (r->count[FINDING_BAD] > 0)
		return VERIFY_BAD;
	if (r->count[FINDING_UNVERIFIABLE] > 0 ||
	    (require_signed && r->count[FINDING_UNSIGNED] > 0))
		return VERIFY_UNVERIFIABLE;
	if (r->count[FINDING_MISSING] > 0)
		return VERIFY_MISSING;
	return r->count[FINDING_OPEN] > 0 ? VERIFY_UNSEALED : VERIFY_COMPLETE;
}

static const char *verdict_text(int status, const struct verifier_result *r)
{
	if (status == VERIFY_COMPLETE && r->records == 0)
		return "there is no record";
	switch (status) {
	case VERIFY_COMPLETE:
		return r->count[FINDING_UNSIGNED] > 0
			       ? "every stream is complete, but not everything is signed"
			       : "every record is verified and every stream is complete";
	case VERIFY_BAD: return "something was changed or is damaged: do not trust it";
	case VERIFY_UNVERIFIABLE: return "something cannot be verified";
	case VERIFY_MISSING: return "something is missing";
	default: return "a stream has no seal: it is still open, or it was cut off";
	}
}

static const char *verdict_word(int status, const struct verifier_result *r)
{
	if (status != VERIFY_COMPLETE)
		return "NOT OK";
	return r->records == 0 ? "NOTHING" : "OK";
}

static void print_text(const struct verifier_result *r, int status)
{
	printf("%" PRIu64 " records: %" PRIu64 " verified", r->records, r->verified);
	for (int f = FINDING_BAD; f <= FINDING_UNSIGNED; f++)
		printf(", %" PRIu64 " %s", r->count[f], finding_name((enum finding)f));
	printf("\n%" PRIu64 " streams: %" PRIu64 " complete, %" PRIu64 " unsealed; %" PRIu64
	       " findings of missing records\n",
	       r->streams, r->complete, r->count[FINDING_OPEN], r->count[FINDING_MISSING]);
	for (int f = 0; f < _FINDING_MAX; f++) {
		const uint64_t shown = MIN(r->count[f], (uint64_t)VERIFIER_PLACES_MAX);

		for (uint64_t i = 0; i < shown; i++)
			printf("%s: %s:%" PRIu64 ": %s\n", finding_name((enum finding)f),
			       r->places[f][i].file, r->places[f][i].line, r->places[f][i].why);
		if (r->count[f] > shown)
			printf("%s: and %" PRIu64 " more\n", finding_name((enum finding)f),
			       r->count[f] - shown);
	}
	printf("%s: %s\n", verdict_word(status, r), verdict_text(status, r));
}

static void write_places(struct json_writer *w, const struct verifier_result *r, int f)
{
	const uint64_t shown = MIN(r->count[f], (uint64_t)VERIFIER_PLACES_MAX);

	json_put_begin_array(w);
	for (uint64_t i = 0; i < shown; i++) {
		json_put_begin_object(w);
		json_put_kv_string(w, "file", r->places[f][i].file);
		json_put_kv_uint(w, "line", r->places[f][i].line);
		json_put_kv_string(w, "why", r->places[f][i].why);
		json_put_end_object(w);
	}
	json_put_end_array(w);
}

static int print_json(const struct verifier_result *r, int status)
{
	_cleanup_free_ char *buf = malloc(REPORT_MAX);
	struct json_writer w;
	size_t len;

	if (!buf)
		return -ENOMEM;
	json_writer_init(&w, buf, REPORT_MAX);
	json_put_begin_object(&w);
	json_put_kv_uint(&w, "bad", r->count[FINDING_BAD]);
	json_put_kv_uint(&w, "complete", r->complete);
	json_put_kv_uint(&w, "exit", (uint64_t)status);
	json_put_kv_uint(&w, "missing", r->count[FINDING_MISSING]);
	json_put_key(&w, "places");
	json_put_begin_object(&w);
	for (int f = 0; f < _FINDING_MAX; f++) {
		json_put_key(&w, finding_name((enum finding)f));
		write_places(&w, r, f);
	}
	json_put_end_object(&w);
	json_put_kv_uint(&w, "records", r->records);
	json_put_kv_uint(&w, "streams", r->streams);
	json_put_kv_uint(&w, "unsealed", r->count[FINDING_OPEN]);
	json_put_kv_uint(&w, "unsigned", r->count[FINDING_UNSIGNED]);
	json_put_kv_uint(&w, "unverifiable", r->count[FINDING_UNVERIFIABLE]);
	json_put_kv_string(&w, "verdict", verdict_text(status, r));
	json_put_kv_uint(&w, "verified", r->verified);
	json_put_end_object(&w);
	if (json_writer_done(&w, &len) < 0)
		return -ENOBUFS;
	printf("%.*s\n", (int)len, buf);
	return 0;
}

static int run(struct verifier *v, char **paths, bool require_signed, bool json)
{
	const struct verifier_result *result;
	int status, r;

	for (; *paths; paths++) {
		r = read_path(v, *paths);
		if (r < 0) {
			fprintf(stderr, "verify: %s: %s\n", *paths,
				r == -ENODATA
					? "no segment evidence-<20 digits>.jsonl in this folder"
					: strerror(-r));
			return EX_NOINPUT;
		}
	}
	result = verifier_finish(v);
	status = verdict(result, require_signed);
	if (!json)
		print_text(result, status);
	else if (print_json(result, status) < 0)
		return EX_SOFTWARE;
	if (fflush(stdout) == EOF) {
		fprintf(stderr, "verify: cannot write the result: %s\n", strerror(errno));
		return EX_IOERR;
	}
	return status;
}

/* Returns the first path's index, 0 if --help was answered, -EINVAL after a message. */
static int parse(struct verify *v, int argc, char **argv)
{
	const struct option_program program = {
		.name = "verify",
		.before =
			"Usage: cellos-host-telemetry verify --keys KEYRING [OPTIONS] PATH...\n"
			"Checks signatures and completeness of evidence: files, folders of segments, "
			"or - for\nstandard input.\n",
		.after =
			"Exit status: 0 all verified and every stream complete, or no record at all; "
			"1 something bad;\n"
			"2 unverifiable, or unsigned with --require-signed; 3 something missing; 4 a "
			"stream without a\n"
			"seal; 64 usage; 66 cannot read the input; 78 bad keyring.\n",
		.groups = {{NULL, rows, ARRAY_SIZE(rows), v}},
		.operands_max = UINT_MAX,
	};
	int at = option_parse(&program, argc, argv, NULL);

	if (at == argc)
		return option_usage_error(&program,
					  "expected a file, a folder of segments or - to read");
	return at;
}

int cmd_verify(int argc, char **argv)
{
	struct verify v = {.ring = keyring_new(), .status = EX_USAGE};
	struct verifier *verifier = v.ring ? verifier_new(v.ring) : NULL;
	int status = EX_OSERR, at;

	if (verifier) {
		at = parse(&v, argc, argv);
		status = at < 0	  ? v.status
			 : at > 0 ? run(verifier, argv + at, v.require_signed, v.json)
				  : EX_OK;
	}
	verifier_free(verifier);
	keyring_free(v.ring);
	return status;
}

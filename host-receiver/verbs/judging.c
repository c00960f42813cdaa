/* SPDX-License-Identifier: MIT */
#include "host-receiver/verbs/judging.h"

#include <sodium.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/judge/crew.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/verbs/shared.h"

#define PROGRESS_EVERY_NS (NSEC_PER_SEC / 5)
#define CLOCK_LINE	  "\r\033[K"

/* ---- the command line ---- */

/* A keyring that cannot be loaded is EX_CONFIG, other mistakes on the command line are EX_USAGE. */
static int load(struct judging *j, const char *path, enum sign_algorithm algorithm, char *why)
{
	char reason[KEYRING_WHY_MAX] = "no memory";

	if (keyring_load(j->ring, path, algorithm, reason) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX, "%.300s", reason);
	j->status = EX_CONFIG;
	return -EINVAL;
}

static int load_keys(void *target, const struct option_row *row, const char *path,
		     char why[OPTION_WHY_MAX])
{
	struct judging *j = target;

	(void)row;
	j->keys = true;
	return load(j, path, SIGN_ED25519, why);
}

static int load_hmac_keys(void *target, const struct option_row *row, const char *path,
			  char why[OPTION_WHY_MAX])
{
	(void)row;
	return load(target, path, SIGN_HMAC_SHA256, why);
}

static int add_to(struct judging_list *list, const char *value, char *why)
{
	if (list->n == JUDGING_LIST_MAX) {
		snprintf(why, OPTION_WHY_MAX, "expected at most %u", JUDGING_LIST_MAX);
		return -E2BIG;
	}
	list->items[list->n++] = value;
	return 0;
}

static int add_checkpoint(void *target, const struct option_row *row, const char *value,
			  char why[OPTION_WHY_MAX])
{
	(void)row;
	return add_to(&((struct judging *)target)->checkpoints, value, why);
}

static int add_cell(void *target, const struct option_row *row, const char *value,
		    char why[OPTION_WHY_MAX])
{
	(void)row;
	return add_to(&((struct judging *)target)->cells, value, why);
}

static int set_retention(void *target, const struct option_row *row, const char *value,
			 char why[OPTION_WHY_MAX])
{
	struct judging *j = target;

	(void)row;
	if (timestamp_parse_duration(value, &j->retention_ms) == 0)
		return 0;
	snprintf(why, OPTION_WHY_MAX, "expected a duration: 90s, 15m, 36h or 30d");
	return -EINVAL;
}

const struct option_row judging_rows[] = {
	{"keys", "FILE", "JSON object kid -> base64url public key; repeatable",
	 OPTION_CALLS(load_keys)},
	{"hmac-keys", "FILE", "JSON object kid -> base64url key, mode 0600; repeatable",
	 OPTION_CALLS(load_hmac_keys)},
	{"checkpoint", "FILE", "a checkpoint that you kept: the log must extend it; repeatable",
	 OPTION_CALLS(add_checkpoint)},
	{"expect-cell", "ID", "a cell that must be there; repeatable", OPTION_CALLS(add_cell)},
	{"since", "TIME", "what ended before need not be there",
	 PERIOD_SETS_SINCE(struct judging, period)},
	{"until", "TIME", "what began after need not be there",
	 PERIOD_SETS_UNTIL(struct judging, period)},
	{"retention", "DURATION", "a log must reach back so far, or to its first entry",
	 OPTION_CALLS(set_retention)},
	{"origin", "PREFIX", "accept only logs with this origin",
	 OPTION_SETS_TEXT(struct judging, origin)},
	{"live", NULL, "the log is being written: open streams are fine",
	 OPTION_SETS_FLAG(struct judging, live)},
	{"require-signed", NULL,
	 "a record without a signature is a failure (the default with --keys)",
	 OPTION_SETS_FLAG(struct judging, require_signed)},
	{"allow-unsigned", NULL, "it is not", OPTION_SETS_FLAG(struct judging, allow_unsigned)},
	{"require-log", NULL, "a record outside of a log with checkpoints is a failure",
	 OPTION_SETS_FLAG(struct judging, require_log)},
};
const size_t judging_n_rows = ARRAY_SIZE(judging_rows);

int judging_init(struct judging *j, const char *verb)
{
	*j = (struct judging){
		.verb = verb,
		.ring = keyring_new(),
		.status = EX_USAGE,
	};
	period_init(&j->period);
	if (j->ring)
		return 0;
	fprintf(stderr, "%s: no memory\n", verb);
	return -ENOMEM;
}

void judging_done(struct judging *j)
{
	keyring_free(take_ptr(j->ring));
}

const char *judging_conflict(const struct judging *j)
{
	return j->require_signed && j->allow_unsigned
		       ? "--require-signed and --allow-unsigned exclude each other"
		       : NULL;
}

bool judging_requires_signed(const struct judging *j)
{
	return j->require_signed || (j->keys && !j->allow_unsigned);
}

/* ---- the run ---- */

struct progress {
	const char *verb;
	uint64_t total, next_ns, started_ns;
};

/*
 * Called after each block of input with the bytes read so far. total is 0 if a size is not known.
 */
static void show_progress(void *data, uint64_t bytes)
{
	struct progress *p = data;
	const uint64_t now = monotonic_ns();
	const double seconds = (double)(now - p->started_ns) / (double)NSEC_PER_SEC;

	if (now < p->next_ns)
		return;
	p->next_ns = now + PROGRESS_EVERY_NS;
	fprintf(stderr, CLOCK_LINE "%s: ", p->verb);
	if (p->total > 0)
		fprintf(stderr, "%.0f %% of ", 100.0 * (double)bytes / (double)p->total);
	fprintf(stderr, "%.1f MB, %.0f MB/s", (double)(p->total ? p->total : bytes) / 1e6,
		seconds > 0 ? (double)bytes / 1e6 / seconds : 0);
}

/*
 * Give the verifier the checkpoints of --checkpoint. Returns EX_OK or an exit status after a
 * message.
 */
static int keep_checkpoints(const struct judging *j, struct verifier *verifier)
{
	for (size_t i = 0; i < j->checkpoints.n; i++) {
		const char *path = j->checkpoints.items[i];
		char why[SOURCES_WHY_MAX] = "no memory";
		char *text;
		size_t len;
		int r = key_read_file(path, false, &text, &len, why, sizeof(why));

		if (r < 0) {
			fprintf(stderr, "%s: %s\n", j->verb, why);
			return EX_NOINPUT;
		}
		r = verifier_keep(verifier, path, text, len);
		sodium_free(text);
		if (r < 0) {
			fprintf(stderr, "%s: %s: %s\n", j->verb, path, strerror(-r));
			return EX_NOINPUT;
		}
	}
	return EX_OK;
}

/*
 * Judge the files. On a terminal it shows the progress on stderr. Returns EX_OK with a result, or
 * an exit status after a message. If a listed segment was deleted meanwhile, *ret_changed is true
 * and there is no message.
 */
static int judge(const struct judging *j, const struct sources *sources, struct verifier *verifier,
		 struct verifier_result *ret, bool *ret_changed)
{
	struct progress progress = {.verb = j->verb, .started_ns = monotonic_ns()};
	struct crew_options options = {.ring = j->ring, .data = &progress};
	char why[SOURCES_WHY_MAX];
	int r = keep_checkpoints(j, verifier);

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
	*ret_changed = r == -ESTALE;
	if (r < 0) {
		if (r != -ESTALE)
			fprintf(stderr, "%s: %s\n", j->verb, why);
		return EX_NOINPUT;
	}
	if (sources->empty_folder)
		fprintf(stderr, "%s: %s: the folder has no segment evidence-<20 digits>.jsonl\n",
			j->verb, sources->empty_folder);
	*ret = verifier_finish(verifier);
	return EX_OK;
}

static struct verifier_options options_of(const struct judging *j,
					  const struct tree_earlier *earlier)
{
	return (struct verifier_options){
		.ring = j->ring,
		.require_signed = judging_requires_signed(j),
		.require_log = j->require_log,
		.live = j->live,
		.origin = j->origin,
		.since_ms = j->period.since_ms,
		.until_ms = j->period.until_ms,
		.retention_ms = j->retention_ms,
		.now_ms = j->period.now_ms,
		.cells = j->cells.items,
		.n_cells = j->cells.n,
		.earlier = earlier,
	};
}

/* One listing of the folders, and all files in it. As judging_run(); more: it is not the last. */
static int run_once(const struct judging *j, char **paths, bool more,
		    int (*use)(void *data, const struct verifier_result *result,
			       const struct sources *sources),
		    void *data, bool *ret_changed)
{
	struct sources sources = {0};
	char why[SOURCES_WHY_MAX] = "no memory";
	struct tree_earlier *earlier = NULL;
	struct verifier *verifier = NULL;
	struct verifier_result result;
	int r = 0, status = EX_NOINPUT;

	*ret_changed = false;
	for (; *paths && r == 0; paths++)
		r = sources_add(&sources, *paths, why);
	if (r == 0)
		r = sources_order(&sources, why);
	if (r == 0 && sources.changed && more) {
		*ret_changed = true;
		sources_free(&sources);
		return status;
	}
	if (r == 0)
		earlier = sources_earlier_new(&sources);
	if (earlier) {
		const struct verifier_options options = options_of(j, earlier);

		verifier = verifier_new(&options);
	}
	if (verifier)
		status = judge(j, &sources, verifier, &result, ret_changed);
	else
		fprintf(stderr, "%s: %s\n", j->verb, why);
	if (status == EX_OK)
		status = use(data, &result, &sources);
	verifier_free(verifier);
	sources_earlier_free(earlier);
	sources_free(&sources);
	return status;
}

/* Standard input cannot be read twice. */
static bool reads_stdin(char **paths)
{
	while (*paths && strcmp(*paths, "-") != 0)
		paths++;
	return *paths;
}

int judging_run(const struct judging *j, char **paths,
		int (*use)(void *data, const struct verifier_result *result,
			   const struct sources *sources),
		void *data)
{
	const unsigned most = reads_stdin(paths) ? 1 : SHARED_LISTINGS_MAX;
	bool changed = true;
	int status = EX_OK;

	for (unsigned n = 1; changed && n <= most; n++)
		status = run_once(j, paths, n < most, use, data, &changed);
	if (changed)
		fprintf(stderr,
			"%s: segments were deleted while they were read; copy the folder, and "
			"judge the copy\n",
			j->verb);
	return status;
}

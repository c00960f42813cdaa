/* SPDX-License-Identifier: MIT */
/*
 * checkpoint: prints the newest checkpoint of a log, so that somebody can keep it outside of the
 * host. prove: writes proofs that anybody can check without the log (docs/reference/evidence.md).
 */
#include <sodium.h>
#include <sysexits.h>

#include "common/options.h"
#include "common/util.h"
#include "host-receiver/config/config.h"
#include "host-receiver/judge/log_finder.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/sign/proof.h"
#include "host-receiver/verbs/shared.h"
#include "host-receiver/verbs/verbs.h"

/* The log that both verbs read. */
struct place_of_log {
	const char *verb, *dir, *origin, *config_path;
	struct config config;
	struct sources sources;
	struct log_finder *finder;
	bool changed, last; /* segments were deleted; this is the last listing */
};

#define ROW_ORIGIN(type)                                                                           \
	{                                                                                          \
		"origin", "PREFIX", "of the newest log with this origin (default: of any)",        \
			OPTION_SETS_TEXT(type, at.origin)                                          \
	}
#define ROW_CONFIG(type)                                                                           \
	{                                                                                          \
		"config", "FILE",                                                                  \
			"names the folder when DIR does not (default " CONFIG_FILE_DEFAULT ")",    \
			OPTION_SETS_TEXT(type, at.config_path)                                     \
	}

/* Print the reason and return the status, so that a failure is one line at its place. */
static int complain(const struct place_of_log *at, const char *what, const char *why, int status)
{
	fprintf(stderr, "%s: %s%s%s\n", at->verb, what, *what ? ": " : "", why);
	return status;
}

/* The same when the finder returned r. It is no failure when another listing may help. */
static int complain_of(struct place_of_log *at, const char *what, const char *why, int r,
		       int status)
{
	at->changed = r == -ESTALE;
	return at->changed && !at->last ? status : complain(at, what, why, status);
}

/* List the folder and find the log in it. Returns EX_OK, or another status after a message. */
static int open_log(struct place_of_log *at)
{
	char why[FINDER_WHY_MAX] = "no memory";
	int r = sources_add(&at->sources, at->dir, why);

	if (r == 0)
		r = sources_order(&at->sources, why);
	if (r == 0) {
		r = log_finder_open(&at->sources, at->origin, &at->finder, why);
		if (r < 0)
			return complain_of(at, at->dir, why, r, EX_NOINPUT);
	}
	return r < 0 ? complain(at, "", why, EX_NOINPUT) : EX_OK;
}

static void close_log(struct place_of_log *at)
{
	log_finder_close(take_ptr(at->finder));
	sources_free(&at->sources);
}

/* Find the folder and use the log in it. use() returns an exit status. */
static int use_log(struct place_of_log *at, int (*use)(void *data), void *data)
{
	int status =
		at->dir ? EX_OK
			: shared_find_evidence(at->verb, at->config_path, &at->config, &at->dir);

	at->changed = status == EX_OK;
	for (unsigned n = 1; at->changed; n++) {
		at->changed = false;
		at->last = n == SHARED_LISTINGS_MAX;
		status = open_log(at);
		if (status == EX_OK)
			status = use(data);
		close_log(at);
		at->changed &= !at->last;
	}
	config_free(&at->config);
	return status;
}

static int print(const struct place_of_log *at, const char *text, size_t len)
{
	if (fwrite(text, 1, len, stdout) != len || fflush(stdout) == EOF)
		return complain(at, "cannot write", strerror(errno), EX_IOERR);
	return EX_OK;
}

/* ---- checkpoint ---- */

struct checkpoint {
	struct place_of_log at;
};

static const struct option_row checkpoint_rows[] = {
	ROW_ORIGIN(struct checkpoint),
	ROW_CONFIG(struct checkpoint),
	OPTION_ROW_HELP,
};

static int print_newest(void *data)
{
	struct checkpoint *c = data;
	char why[FINDER_WHY_MAX] = "no memory";
	struct found_note note;
	const int r = log_finder_newest(c->at.finder, &note, why);

	return r == 0 ? print(&c->at, note.text, note.len)
		      : complain_of(&c->at, c->at.dir, why, r,
				    r == -EBADMSG ? EXIT_FAILURE : EX_NOINPUT);
}

int cmd_checkpoint(int argc, char **argv)
{
	struct checkpoint c = {.at = {.verb = "checkpoint"}};
	const struct option_program program = {
		.name = "checkpoint",
		.before =
			"Usage: cellos-host-telemetry checkpoint [OPTIONS] [DIR]\n"
			"Prints the newest checkpoint of the log in DIR. Keep it where the host "
			"cannot change it:\nverify --checkpoint FILE then shows a log that was cut "
			"back or rewritten.\n",
		.after = "Exit status: 0; 1 the log does not match its checkpoint; 64 usage; 66 "
			 "there is no log, or it\ncannot be read; 78 configuration.\n",
		.groups = {{NULL, checkpoint_rows, ARRAY_SIZE(checkpoint_rows), &c}},
		.operands_max = 1,
	};
	const int at = option_parse(&program, argc, argv, NULL);

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	c.at.dir = argv[at];
	return use_log(&c.at, print_newest, &c);
}

/* ---- prove ---- */

struct prove {
	struct place_of_log at;
	const char *id, *consistency, *out;
	uint64_t index; /* of the entry, unless id or consistency is set */
};

static const struct option_row prove_rows[] = {
	{"id", "EVENT_ID", "the entry with this event: urn:cellos:event:...",
	 OPTION_SETS_TEXT(struct prove, id)},
	{"consistency", "FILE", "prove that the log extends this kept checkpoint, on stdout",
	 OPTION_SETS_TEXT(struct prove, consistency)},
	{"out", "DIR", "where the proof and the entry are written (default: this folder)",
	 OPTION_SETS_TEXT(struct prove, out)},
	ROW_ORIGIN(struct prove),
	ROW_CONFIG(struct prove),
	OPTION_ROW_HELP,
};

/* 1 for evidence that does not allow the proof, 66 for a log that cannot be read. */
static int fail_of(int r)
{
	return r == -EBADMSG || r == -ENOENT || r == -ENODATA ? EXIT_FAILURE : EX_NOINPUT;
}

static int write_file(const struct prove *p, uint64_t index, const char *suffix, const char *data,
		      size_t len, const char *end)
{
	_cleanup_free_ char *path = NULL;
	FILE *f;
	bool fine;

	if (asprintf(&path, "%s/entry-%" PRIu64 "%s", p->out, index, suffix) < 0)
		return complain(&p->at, "", "no memory", EX_OSERR);
	f = fopen(path, "we");
	if (!f)
		return complain(&p->at, path, strerror(errno), EX_CANTCREAT);
	fine = fwrite(data, 1, len, f) == len && fputs(end, f) != EOF;
	if (fclose(f) == EOF || !fine)
		return complain(&p->at, path, strerror(errno), EX_CANTCREAT);
	puts(path);
	return EX_OK;
}

static int prove_entry(void *data)
{
	struct prove *p = data;
	uint64_t index = p->index;
	_cleanup_free_ struct found_entry *entry = malloc(sizeof(*entry));
	char why[FINDER_WHY_MAX] = "no memory", text[PROOF_TEXT_MAX];
	struct tree_proof proof;
	struct found_note note;
	int r = entry ? 0 : -ENOMEM, status;

	if (r == 0 && p->id)
		r = log_finder_index(p->at.finder, p->id, &index, why);
	if (r == 0)
		r = log_finder_inclusion(p->at.finder, index, entry, &note, &proof, why);
	if (r < 0)
		return complain_of(&p->at, p->at.dir, why, r, fail_of(r));
	r = proof_format(false, index, &proof, note.text, note.len, text, sizeof(text));
	if (r < 0)
		return complain(&p->at, "", "the proof is too long", EX_SOFTWARE);
	status = write_file(p, index, ".json", entry->data, entry->len, "\n");
	return status == EX_OK ? write_file(p, index, ".tlog-proof", text, (size_t)r, "") : status;
}

/* The proof that the log extends a kept checkpoint goes to stdout. */
static int prove_consistency(void *data)
{
	struct prove *p = data;
	char why[FINDER_WHY_MAX] = "no memory", text[PROOF_TEXT_MAX], *kept;
	struct tree_proof proof;
	struct found_note newest;
	const char *phrase;
	struct note old;
	size_t len;
	int r = key_read_file(p->consistency, false, &kept, &len, why, sizeof(why));

	if (r < 0)
		return complain(&p->at, "", why, EX_NOINPUT);
	r = note_parse(kept, len, &old, &phrase);
	sodium_free(kept);
	if (r < 0)
		return complain(&p->at, p->consistency, phrase, EXIT_FAILURE);
	r = log_finder_consistency(p->at.finder, &old.checkpoint, &newest, &proof, why);
	if (r < 0)
		return complain_of(&p->at, p->consistency, why, r, fail_of(r));
	r = proof_format(true, old.checkpoint.size, &proof, newest.text, newest.len, text,
			 sizeof(text));
	return r < 0 ? complain(&p->at, "", "the proof is too long", EX_SOFTWARE)
		     : print(&p->at, text, (size_t)r);
}

int cmd_prove(int argc, char **argv)
{
	struct prove p = {.at = {.verb = "prove"}, .out = "."};
	const struct option_program program = {
		.name = "prove",
		.before =
			"Usage: cellos-host-telemetry prove [OPTIONS] INDEX [DIR]\n"
			"       cellos-host-telemetry prove [OPTIONS] --id EVENT_ID [DIR]\n"
			"       cellos-host-telemetry prove [OPTIONS] --consistency FILE [DIR]\n"
			"Writes a proof that one entry is in the log (entry-INDEX.tlog-proof, and the "
			"entry beside it),\nor that the log extends a checkpoint. verify --proof "
			"judges both, without the log.\n",
		.after =
			"Exit status: 0; 1 it cannot be proven; 64 usage; 66 there is no log, or it "
			"cannot be read;\n73 cannot create; 78 configuration.\n",
		.groups = {{NULL, prove_rows, ARRAY_SIZE(prove_rows), &p}},
		.operands_max = 2,
	};
	int at = option_parse(&program, argc, argv, NULL);
	const bool wants_index = !p.id && !p.consistency;

	if (at <= 0)
		return at < 0 ? EX_USAGE : EX_OK;
	if (p.id && p.consistency) {
		option_usage_error(&program, "--id and --consistency exclude each other");
		return EX_USAGE;
	}
	if (wants_index &&
	    (at == argc || parse_u64(argv[at], 0, TREE_SIZE_MAX - 1, &p.index) < 0)) {
		option_usage_error(&program, "expected the index of an entry, --id or "
					     "--consistency");
		return EX_USAGE;
	}
	at += wants_index;
	if (argc - at > 1) {
		option_usage_error(&program, "expected one folder");
		return EX_USAGE;
	}
	p.at.dir = argv[at];
	return use_log(&p.at, p.consistency ? prove_consistency : prove_entry, &p);
}

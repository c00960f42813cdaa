/* SPDX-License-Identifier: MIT */
/*
 * report: writes evidence as one HTML page for people, with the verdict of verify. The page is
 * written to a file beside its place and then renamed, so nobody sees half a page.
 */
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/evidence/timestamp.h"
#include "host-receiver/report/page.h"
#include "host-receiver/verbs/judging.h"
#include "host-receiver/verbs/verbs.h"
#include "host-receiver/verbs/verify_report.h"

#define PAGE_MODE     0640 /* the page may be read by the same users as the evidence */
#define STAGED_SUFFIX "#new"

struct report {
	struct judging judging;
	const char *out, *cell;
};

static const struct option_row rows[] = {
	{"out", "FILE", "the page; an older page is replaced", .letter = 'o',
	 OPTION_SETS_TEXT(struct report, out)},
	{"cell", "ID", "show only records of this cell, and of the log itself",
	 OPTION_SETS_TEXT(struct report, cell)},
	OPTION_ROW_HELP,
};

/* Returns the first path's index, 0 if --help was answered, -EINVAL after a message. */
static int parse(struct report *report, int argc, char **argv)
{
	const struct option_program program = {
		.name = "report",
		.before =
			"Usage: cellos-host-telemetry report --keys KEYRING [OPTIONS] PATH... -o FILE.html\n"
			"Judges evidence as verify does and writes one page that needs no network: the "
			"verdict, what\nwas declared lost, the time line, the processes and the host's "
			"curves. --since and --until also\nchoose the records that it shows.\n",
		.after =
			"Exit status: that of verify, and the page is written; 64 usage; 65 too many "
			"records; 66 cannot\nread the input; 73 cannot write the page; 78 bad "
			"keyring.\n",
		.groups =
			{
				{NULL, judging_rows, judging_n_rows, &report->judging},
				{"The page:", rows, ARRAY_SIZE(rows), report},
			},
		.operands_max = UINT_MAX,
	};
	const int at = option_parse(&program, argc, argv, NULL);

	if (at > 0 && judging_conflict(&report->judging))
		return option_usage_error(&program, judging_conflict(&report->judging));
	if (at > 0 && !report->out)
		return option_usage_error(&program, "expected -o FILE: where the page goes");
	if (at > 0 && at == argc)
		return option_usage_error(&program, "expected a file or a folder of segments");
	for (int i = at; at > 0 && i < argc; i++)
		if (strcmp(argv[i], "-") == 0)
			return option_usage_error(
				&program, "standard input cannot be read twice: save it first");
	return at;
}

/* ---- the page's head ---- */

static void put_time(FILE *f, const char *key, int64_t ms)
{
	char text[TIMESTAMP_TEXT_MAX];

	if (ms != INT64_MIN && ms != INT64_MAX)
		fprintf(f, "\"%s\":\"%s\",", key, timestamp_format(ms, text));
}

/* The id becomes a part of JSON. Real ids have no other characters, so "?" matches no record. */
static const char *plain_cell(const char *cell)
{
	for (const char *c = cell; c && *c; c++)
		if (*c <= ' ' || *c > '~' || *c == '"' || *c == '\\')
			return "?";
	return cell;
}

/*
 * Make the line of JSON at the top of the page, for page.js. Returns 0 or a negative errno. The
 * caller owns *ret.
 */
static int make_head(const struct report *report, const struct verify_report *result, char **ret,
		     size_t *ret_len)
{
	FILE *f = open_memstream(ret, ret_len);
	int r;

	if (!f)
		return -ENOMEM;
	fputc('{', f);
	if (report->cell)
		fprintf(f, "\"cell\":\"%s\",", plain_cell(report->cell));
	fprintf(f, "\"keys\":%s,", report->judging.keys ? "true" : "false");
	put_time(f, "made", report->judging.period.now_ms);
	put_time(f, "since", report->judging.period.since_ms);
	put_time(f, "until", report->judging.period.until_ms);
	fprintf(f, "\"version\":\"%s\",\"verify\":", CELLOS_VERSION);
	r = verify_report_json(result, f);
	fputs("}\n", f);
	if (fclose(f) == EOF && r == 0)
		r = -ENOMEM;
	return r;
}

/* ---- the file ---- */

static int fail(const char *path, int r, const char *why)
{
	fprintf(stderr, "report: %s%s%s\n", path, *path ? ": " : "", why);
	if (r == -E2BIG)
		return EX_DATAERR;
	return *path ? EX_CANTCREAT : EX_NOINPUT;
}

/* Takes f. Returns 0 if all of it is on disk, or a negative errno. */
static int close_page(FILE *f)
{
	const bool failed = fflush(f) == EOF || ferror(f) || fsync(fileno(f)) < 0;
	const int r = failed && errno ? -errno : failed ? -EIO : 0;

	return fclose(f) == EOF && r == 0 ? -errno : r;
}

/* Returns NULL with errno set after an error. */
static FILE *open_staged(const char *path)
{
	FILE *f;
	int fd;

	/* A run that was killed may have left it. */
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, PAGE_MODE);
	f = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!f)
		close_fd(fd);
	return f;
}

/*
 * An existing path is replaced only if it is an empty file or a page: no device, no link, no
 * folder, and no evidence whose name was given in the wrong place. Returns NULL, or the reason.
 */
static const char *may_not_replace(const char *path)
{
	char begin[sizeof(PAGE_BEGIN) - 1];
	_cleanup_fclose_ FILE *f = NULL;
	struct stat st;
	size_t len;

	if (lstat(path, &st) < 0)
		return NULL;
	if (!S_ISREG(st.st_mode))
		return "it exists and is not a file";
	f = fopen(path, "re");
	if (!f)
		return strerror(errno);
	len = fread(begin, 1, sizeof(begin), f);
	if (len > 0 && (len < sizeof(begin) || memcmp(begin, PAGE_BEGIN, sizeof(begin)) != 0))
		return "it exists and is not a page; remove it, or name another file";
	return NULL;
}

static int write_file(const struct report *report, const struct page_options *options,
		      const struct sources *sources)
{
	_cleanup_free_ char *staged = NULL;
	char why[PAGE_WHY_MAX];
	uint64_t records;
	FILE *f;
	int r;

	if (asprintf(&staged, "%s" STAGED_SUFFIX, report->out) < 0) {
		staged = NULL;
		return fail("", -ENOMEM, "no memory");
	}
	f = open_staged(staged);
	if (!f)
		return fail(staged, -errno, strerror(errno));
	r = page_write(f, options, sources, &records, why);
	if (r < 0) {
		fclose(f);
		unlink(staged);
		return fail("", r, why);
	}
	r = close_page(f);
	if (r == 0 && rename(staged, report->out) < 0)
		r = -errno;
	if (r < 0) {
		unlink(staged);
		return fail(report->out, r, strerror(-r));
	}
	printf("%s: %" PRIu64 " record%s\n%s\n", report->out, records, records == 1 ? "" : "s",
	       options->title);
	return fflush(stdout) == EOF ? EX_IOERR : EX_OK;
}

static int use_result(void *data, const struct verifier_result *result,
		      const struct sources *sources)
{
	const struct report *report = data;
	const struct verify_report verified = {
		.result = result,
		.require_signed = judging_requires_signed(&report->judging),
		.details = true,
	};
	char title[VERIFY_VERDICT_MAX];
	_cleanup_free_ char *head = NULL;
	struct page_options options = {
		.title = title,
		.cell = report->cell,
		.since_ms = report->judging.period.since_ms,
		.until_ms = report->judging.period.until_ms,
	};
	int r = make_head(report, &verified, &head, &options.head_len);

	if (r < 0)
		return fail("", r, "no memory");
	options.head = head;
	verify_report_verdict(&verified, title);
	r = write_file(report, &options, sources);
	return r == EX_OK ? (int)result->verdict : r;
}

int cmd_report(int argc, char **argv)
{
	struct report report = {0};
	const char *wrong = NULL;
	int status = EX_OK, at;

	if (judging_init(&report.judging, "report") < 0)
		return EX_NOINPUT;
	at = parse(&report, argc, argv);
	if (at > 0)
		wrong = may_not_replace(report.out);
	if (at < 0)
		status = report.judging.status;
	else if (wrong)
		status = fail(report.out, -EEXIST, wrong);
	else if (at > 0)
		status = judging_run(&report.judging, argv + at, use_result, &report);
	judging_done(&report.judging);
	return status;
}

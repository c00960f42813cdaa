/* SPDX-License-Identifier: MIT */
/* What the forwarder finds in a line without a parse, beside the JSON reader; server versions. */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/util.h"
#include "host-receiver/event/json_document.h"
#include "host-receiver/evidence/log.h"
#include "host-receiver/forward/restrict.h"
#include "host-receiver/forward/scan.h"
#include "host-receiver/forward/stream.h"
#include "tests/unit/unit.h"

#define TAIL                                                                                       \
	"\"datacontenttype\":\"application/json\",\"id\":\"urn:1\",\"source\":\"s\","              \
	"\"specversion\":\"1.0\",\"time\":\"2026-11-21T10:00:00.000Z\",\"type\":"
#define EVENT(data, type) "{\"data\":{" data "}," TAIL "\"" type "\"}"
#define ENVELOPE(event)                                                                            \
	"{\"data\":{\"algorithm\":\"ed25519\",\"event\":" event                                    \
	",\"signature\":\"c2ln\",\"signerKid\":\"k1\"}," TAIL                                      \
	"\"dev.cellos.events.signed_envelope.v1\"}"

static bool is(struct wire_text text, const char *want)
{
	return text.len == strlen(want) &&
	       (text.len == 0 || memcmp(text.data, want, text.len) == 0);
}

/* cell NULL: the line is left to the JSON reader. */
static const struct {
	const char *line, *type, *cell;
} lines[] = {
	{EVENT("\"authority\":\"declared\",\"cellId\":\"web-7\",\"guestComm\":\"x\"", "t"), "t",
	 "web-7"},
	{EVENT("\"cellId\":\"web-7\"", "t"), "t", "web-7"},
	{EVENT("\"cellId\":\"\"", "t"), "t", ""},
	{EVENT("", "t"), "t", ""},
	{EVENT("\"authority\":\"observed\"", "t"), "t", ""},
	{EVENT("\"authority\":\"observed\",\"cells\":3", "t"), "t", ""},
	{EVENT("\"cell\":\"a\",\"cellIds\":\"b\"", "t"), "t", ""},
	{EVENT("\"bytes\":12,\"byUid\":null,\"cellId\":\"c\"", "t"), "t", "c"},
	/* What a guest says is no attribute, wherever it stands. */
	{EVENT("\"cellId\":\"c\",\"guestComm\":\"\\\"},\\\"type\\\":\\\"forged\\\"}\"", "t"), "t",
	 "c"},
	{EVENT("\"authority\":\"\\\"cellId\\\":\\\"forged\\\"\",\"cellId\":\"c\"", "t"), "t", "c"},
	{ENVELOPE(EVENT("\"authority\":\"declared\",\"cellId\":\"web-7\"", "inner")), "inner",
	 "web-7"},
	{ENVELOPE(EVENT("\"authority\":\"observed\"", "inner")), "inner", ""},
	{EVENT("\"checkpoint\":\"n\\n\"", "dev.cellos.events.log_checkpoint.v1"),
	 "dev.cellos.events.log_checkpoint.v1", ""},
	/* Left to the JSON reader: members that are not simple, escapes, other orders. */
	{EVENT("\"abandoned\":{\"size\":1},\"cellId\":\"c\"", "t"), NULL, NULL},
	{EVENT("\"addresses\":[1],\"cellId\":\"c\"", "t"), NULL, NULL},
	{EVENT("\"cellId\":\"a\\u0000b\"", "t"), NULL, NULL},
	{EVENT("\"cellId\":7", "t"), NULL, NULL},
	{EVENT("\"cellId\":\"c\"", "a\\\"b"), NULL, NULL},
	{"{\"id\":\"urn:1\",\"data\":{},\"type\":\"t\"}", NULL, NULL},
	{"{\"data\":{},\"id\":\"urn:1\",\"n\":1,\"type\":\"t\"}", NULL, NULL},
	{"{\"data\":{},\"type\":\"t\"}", NULL, NULL},
	{"{\"data\":{},\"id\":\"urn:1\"}", NULL, NULL},
	{"{\"data\":{}}", NULL, NULL},
	{"\"}", NULL, NULL},
	{"}", NULL, NULL},
	{"", NULL, NULL},
};

UNIT_LOOP_TEST(known_lines, ARRAY_SIZE(lines))
{
	struct scanned_line found;
	const bool simple = lines[_i].type != NULL;

	ck_assert_int_eq(scan_line(lines[_i].line, strlen(lines[_i].line), &found), simple);
	if (!simple)
		return;
	ck_assert(is(found.id, "urn:1"));
	ck_assert(is(found.time, "2026-11-21T10:00:00.000Z"));
	ck_assert(is(found.type, lines[_i].type));
	ck_assert(is(found.cell, lines[_i].cell));
}

/* A copy of its own size, so that a sanitizer sees what is read past it. */
static bool scan_copy(const char *line, size_t len, struct json_document *doc)
{
	struct wire_text id, type;
	struct scanned_line found;
	const char *why;
	size_t offset;
	char *copy = malloc(len + 1);
	bool scanned;

	memcpy(copy, line, len);
	scanned = scan_line(copy, len, &found);
	/* In an envelope the scan gives the type of the event within. */
	if (scanned && json_document_read(doc, copy, len, &why, &offset) == 0) {
		const struct json_node *root = json_document_root(doc);

		ck_assert(json_member_string(doc, root, "id", &id));
		ck_assert_uint_eq(id.len, found.id.len);
		ck_assert_int_eq(memcmp(id.data, found.id.data, id.len), 0);
		ck_assert(json_member_string(doc, root, "type", &type));
		if (!is(type, "dev.cellos.events.signed_envelope.v1")) {
			ck_assert_uint_eq(type.len, found.type.len);
			ck_assert_int_eq(memcmp(type.data, found.type.data, type.len), 0);
		}
	}
	free(copy);
	return scanned;
}

/* Cut anywhere, and with any byte changed: never past the line, and never another id or type. */
UNIT_LOOP_TEST(damaged_lines, ARRAY_SIZE(lines))
{
	struct json_document *doc = json_document_new(EVIDENCE_LINE_MAX);
	const char *line = lines[_i].line;
	const size_t len = strlen(line);
	char changed[1024];

	ck_assert_uint_lt(len, sizeof(changed));
	for (size_t cut = 0; cut < len; cut++)
		scan_copy(line, cut, doc);
	for (size_t at = 0; at < len; at++) {
		for (const char *with = "\"\\{}[]:,a0"; *with; with++) {
			memcpy(changed, line, len);
			changed[at] = *with;
			scan_copy(changed, len, doc);
		}
	}
	json_document_free(doc);
}

UNIT_TEST(versions)
{
	static const struct {
		const char *text;
		bool enough;
	} cases[] = {
		{"2.10.5", true},  {"2.10.4", false},  {"2.10.22", true},
		{"2.9.10", false}, {"2.11.0", true},   {"2.12.0-beta.1", true},
		{"3.0.0", true},   {"1.99.99", false}, {"2.10", false},
		{"", false},	   {"x", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ck_assert_msg(stream_version_at_least(cases[i].text, 2, 10, 5) == cases[i].enough,
			      "%s", cases[i].text);
}

/* ---- what a confined forwarder can still do ---- */

#define NO_LANDLOCK 77

static char folder[64];

static const char *in_folder(const char *name)
{
	static char path[2][160];
	static unsigned n;

	snprintf(path[++n % 2], sizeof(path[0]), "%s/%s", folder, name);
	return path[n % 2];
}

static void make_file(const char *name)
{
	const int fd = open(in_folder(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	close_fd(fd);
}

static void set_up(void)
{
	snprintf(folder, sizeof(folder), "/tmp/cellos-restrict-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
	ck_assert_int_eq(mkdir(in_folder("evidence"), 0700), 0);
	ck_assert_int_eq(mkdir(in_folder("state"), 0700), 0);
	ck_assert_int_eq(mkdir(in_folder("state/forward"), 0700), 0);
	ck_assert_int_eq(mkdir(in_folder("state/cursors"), 0700), 0);
	make_file("evidence/one");
	make_file("state/cell");
	make_file("user.creds");
	make_file("new.creds");
	make_file("key.seed");
}

static void clean_up(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", folder);
	ck_assert_int_eq(system(command), 0);
}

/* The errno of opening it; 0: it was opened. */
static int try_open(const char *name, int flags)
{
	const int fd = open(in_folder(name), flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno;
	close_fd(fd);
	return 0;
}

static int check_files(const struct restriction *r)
{
	static const struct {
		const char *name;
		int flags, want;
	} cases[] = {
		{"evidence/one", O_RDONLY, 0},
		{"evidence/one", O_WRONLY, EACCES},
		{"evidence/two", O_WRONLY | O_CREAT, EACCES},
		{"state/forward/cursor.0", O_WRONLY | O_CREAT, 0},
		{"state/cursors/forward", O_WRONLY | O_CREAT, 0},
		{"state/cell", O_RDONLY, EACCES},
		{"user.creds", O_RDONLY, 0},
		{"user.creds", O_WRONLY, EACCES},
		{"key.seed", O_RDONLY, EACCES},
		{"../../etc/shadow", O_RDONLY, EACCES},
		{"../../etc/hosts", O_RDONLY, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (try_open(cases[i].name, cases[i].flags) != cases[i].want)
			return (int)i + 1;
	return restrict_replaced(r) ? 20 : 0;
}

static int confined[2]; /* a pipe: the child says that it is */

/* Another file under the same name is noticed by this process, which may not read it. */
static int check_replaced(const struct restriction *r)
{
	const char *replaced;

	if (write(confined[1], "", 1) != 1)
		return 2;
	/* The test's own process does the renaming. */
	for (int i = 0; i < 60000 && !restrict_replaced(r); i++)
		poll(NULL, 0, 1);
	replaced = restrict_replaced(r);
	return replaced && strcmp(replaced, in_folder("user.creds")) == 0 &&
			       try_open("user.creds", O_RDONLY) == EACCES
		       ? 0
		       : 1;
}

static pid_t start_restricted(int (*check)(const struct restriction *r))
{
	const pid_t pid = unit_fork();
	char evidence[160], state[160], credentials[160];
	const struct forward_settings settings = {
		.evidence_dir = evidence,
		.state_dir = state,
		.credentials = credentials,
		.tls_ca = "",
		.tls_cert = "",
		.tls_key = "",
	};
	struct restriction restriction;

	if (pid > 0)
		return pid;
	snprintf(evidence, sizeof(evidence), "%s", in_folder("evidence"));
	snprintf(state, sizeof(state), "%s", in_folder("state"));
	snprintf(credentials, sizeof(credentials), "%s", in_folder("user.creds"));
	if (restrict_forwarder(&settings, &restriction) < 0)
		_exit(99);
	_exit(restriction.landlock ? check(&restriction) : NO_LANDLOCK);
}

static void expect_end(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == NO_LANDLOCK)
		fputs("skipped: no Landlock in this kernel or build\n", stderr);
	else
		ck_assert_int_eq(WEXITSTATUS(status), 0);
}

UNIT_TEST(files)
{
	expect_end(start_restricted(check_files));
}

UNIT_TEST(replaced_file)
{
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(confined), 0);
	pid = start_restricted(check_replaced);
	close_fd(confined[1]);
	/* Without Landlock the child ends, and with it the pipe. */
	ck_assert_int_ge(read(confined[0], &byte, 1), 0);
	close_fd(confined[0]);
	ck_assert_int_eq(rename(in_folder("new.creds"), in_folder("user.creds")), 0);
	expect_end(pid);
}

static int start_a_program(const struct restriction *r _unused_)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

/* Ended by the filter; in a build without one the program runs. */
UNIT_TEST(programs)
{
	const pid_t pid = start_restricted(start_a_program);
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status))
		ck_assert_int_eq(WEXITSTATUS(status), NO_LANDLOCK);
	else
		ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}

UNIT_SUITE(.setup = set_up, .teardown = clean_up);

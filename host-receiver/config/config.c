/* SPDX-License-Identifier: MIT */
/*
 * How a file is read: set_defaults() fills in every key; libinih calls read_line() for each line
 * and on_key() for each KEY = VALUE; check_whole() compares keys with each other. The table keys[]
 * is the only place that knows a key: the parser, the defaults, the dump and the reload all walk
 * it. libinih stops at some mistakes and ignores others, so read_line() checks each line before
 * libinih sees it.
 */
#include "host-receiver/config/config.h"

#include <stdarg.h>
#include <sys/stat.h>

#include <ini.h>

#include "common/listen_address.h"
#include "common/log.h"
#include "common/util.h"
#include "host-receiver/forward/subject.h"
#include "host-receiver/sign/key.h"
#include "host-receiver/sign/signer.h"

enum key_type {
	KEY_NUMBER,
	KEY_DURATION, /* milliseconds; ms, s, min, h, d */
	KEY_SIZE,     /* bytes; K, M, G, T */
	KEY_SYNC,
	KEY_MODE,
	KEY_BOOLEAN,
	KEY_PATH, /* this type and all after it are texts: the field is an owned string */
	KEY_NAME,
	KEY_KID,
	KEY_ORIGIN,
	KEY_ALGORITHM,
	KEY_LISTEN,
	KEY_SERVERS,
	KEY_STREAM,
	KEY_SUBJECT,
};

/*
 * A key of the file. min and max are for numbers, in the unit of the field (milliseconds, bytes).
 */
struct key {
	const char *section, *name;
	enum key_type type;
	size_t offset;
	const char *otherwise; /* the default, in the form of a value in the file */
	uint64_t min, max;
	bool zero;    /* 0 is allowed too, and means off */
	bool restart; /* a reload refuses another value */
};

/* An origin gets "/" and the log's uuid appended, and must still fit into NOTE_ORIGIN_MAX. */
#define CONFIG_ORIGIN_MAX 200u
#define AT(member)	  offsetof(struct config, member)
#define DAY_MS		  (UINT64_C(24) * 3600 * 1000)
#define KIB		  UINT64_C(1024)
#define MIB		  (KIB * KIB)

/* In the order of the manual page and of a dump. Keys of one section stand together. */
static const struct key keys[] = {
	{"receiver", "control_socket", KEY_PATH, AT(control_socket),
	 "/run/cellos/host-telemetry.sock", .restart = true},
	{"receiver", "control_group", KEY_NAME, AT(control_group), "", .restart = true},
	{"receiver", "state_dir", KEY_PATH, AT(state_dir), "/var/lib/cellos/host-telemetry",
	 .restart = true},
	{"receiver", "keepalive", KEY_DURATION, AT(keepalive_ms), "10s", 1, DAY_MS, .zero = true},
	{"receiver", "connect_within", KEY_DURATION, AT(connect_within_ms), "30s", 1, DAY_MS,
	 .zero = true},
	{"receiver", "rate", KEY_NUMBER, AT(rate), "20000", 1, 1000000000},
	{"receiver", "rate_bytes", KEY_SIZE, AT(rate_bytes), "16M", 64 * KIB, 2048 * MIB},
	{"receiver", "rate_connections", KEY_NUMBER, AT(rate_connections), "10", 1, 1000000},
	{"receiver", "stop_timeout", KEY_DURATION, AT(stop_timeout_ms), "20s", 100, DAY_MS},
	{"receiver", "max_cells", KEY_NUMBER, AT(max_cells), "4096", 1, 1000000},
	{"receiver", "max_inflight", KEY_SIZE, AT(max_inflight), "64M", MIB, 1024 * 1024 * MIB,
	 .restart = true},
	{"receiver", "checkpoint_interval", KEY_DURATION, AT(checkpoint_ms), "60s", 100, DAY_MS},
	{"evidence", "dir", KEY_PATH, AT(evidence_dir), "/var/log/cellos/evidence",
	 .restart = true},
	{"evidence", "origin", KEY_ORIGIN, AT(evidence_origin), "", .restart = true},
	{"evidence", "rotate_size", KEY_SIZE, AT(rotate_size), "256M", 64 * KIB, 1024 * 1024 * MIB},
	{"evidence", "rotate_age", KEY_DURATION, AT(rotate_age_ms), "0", 1000, 3650 * DAY_MS,
	 .zero = true},
	{"evidence", "retain_size", KEY_SIZE, AT(retain_size), "0", 64 * KIB,
	 UINT64_C(1024) * 1024 * 1024 * MIB, .zero = true},
	{"evidence", "retain_size_hard", KEY_SIZE, AT(retain_size_hard), "0", 64 * KIB,
	 UINT64_C(1024) * 1024 * 1024 * MIB, .zero = true},
	{"evidence", "retain_cell_share", KEY_NUMBER, AT(retain_cell_share), "0", 0, 100},
	{"evidence", "sync", KEY_SYNC, AT(sync), "batch", .restart = true},
	{"signing", "algorithm", KEY_ALGORITHM, AT(sign_algorithm), ""},
	{"signing", "kid", KEY_KID, AT(sign_kid), ""},
	{"signing", "key_file", KEY_PATH, AT(sign_key_file), ""},
	{"signing", "allow_unlocked", KEY_BOOLEAN, AT(sign_allow_unlocked), "no", .restart = true},
	{"signing", "required", KEY_BOOLEAN, AT(sign_required), "no"},
	{"metrics", "listen", KEY_LISTEN, AT(metrics_listen), "127.0.0.1:9464"},
	{"metrics", "per_cell", KEY_BOOLEAN, AT(metrics_per_cell), "no"},
	{"nats", "url", KEY_SERVERS, AT(nats_url), ""},
	{"nats", "stream", KEY_STREAM, AT(nats_stream), FORWARD_STREAM_DEFAULT},
	{"nats", "subject", KEY_SUBJECT, AT(nats_subject), FORWARD_SUBJECT_DEFAULT},
	{"nats", "mode", KEY_MODE, AT(nats_mode), "events"},
	{"nats", "create_stream", KEY_BOOLEAN, AT(nats_create_stream), "no"},
	{"nats", "credentials", KEY_PATH, AT(nats_credentials), ""},
	{"nats", "tls_ca", KEY_PATH, AT(nats_tls_ca), ""},
	{"nats", "tls_cert", KEY_PATH, AT(nats_tls_cert), ""},
	{"nats", "tls_key", KEY_PATH, AT(nats_tls_key), ""},
	{"nats", "max_pending", KEY_NUMBER, AT(nats_max_pending), "4096", 1, FORWARD_PENDING_MAX},
	{"nats", "lag_ready", KEY_DURATION, AT(nats_lag_ready_ms), "5min", 1000, DAY_MS},
};

static const char *const sync_names[_EVIDENCE_SYNC_MAX] = {"batch", "interval", "off"};
static const char *const mode_names[_FORWARD_MODE_MAX] = {"events", "batches"};

struct unit {
	const char *name;
	uint64_t factor;
};

/* From the largest unit, because a dump takes the first one that divides the value. */
static const struct unit durations[] = {
	{"d", DAY_MS}, {"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 1},
};
static const struct unit sizes[] = {
	{"T", MIB *MIB}, {"G", KIB *MIB}, {"M", MIB}, {"K", KIB}, {NULL, 1},
};

/* One reading of a file. line is the number of the line that libinih got last. */
struct reading {
	FILE *file;
	const char *name;
	unsigned line;
	struct config *config;
	struct config_errors *errors;
	unsigned set_at[ARRAY_SIZE(keys)]; /* the line of each key; 0: not set */
	bool known_section;
	int error;
};

/*
 * Add "FILE:LINE: reason" to the errors, or "FILE: reason" with line 0. Errors above
 * CONFIG_ERRORS_MAX are only counted.
 */
static _printf_(3, 4) void complain(struct reading *r, unsigned line, const char *fmt, ...)
{
	char reason[512], text[1024];
	size_t len;
	char *grown;
	va_list ap;

	if (r->errors->n++ >= CONFIG_ERRORS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	if (line > 0)
		snprintf(text, sizeof(text), "%.400s:%u: %s\n", r->name, line, reason);
	else
		snprintf(text, sizeof(text), "%.400s: %s\n", r->name, reason);
	len = strlen(text);
	grown = realloc(r->errors->text, r->errors->len + len + 1);
	if (!grown)
		return;
	memcpy(grown + r->errors->len, text, len + 1);
	r->errors->text = grown;
	r->errors->len += len;
}

/* ---- values ---- */

/* Parse a number followed by a unit or by nothing. Returns 0, -EINVAL or -ERANGE. */
static int parse_with_unit(const char *value, const struct unit *units, uint64_t *ret)
{
	const size_t digits = strspn(value, "0123456789");
	char number[24];
	uint64_t v;

	if (digits == 0 || digits >= sizeof(number))
		return -EINVAL;
	memcpy(number, value, digits);
	number[digits] = '\0';
	if (parse_u64(number, 0, UINT64_MAX, &v) < 0)
		return -ERANGE;
	for (; units->name; units++)
		if (strcmp(value + digits, units->name) == 0)
			break;
	if (!units->name && value[digits] != '\0')
		return -EINVAL;
	return __builtin_mul_overflow(v, units->factor, ret) ? -ERANGE : 0;
}

/* The reverse of parse_with_unit(): the text that reads back to v. */
static void format_with_unit(uint64_t v, const struct unit *units, char *out, size_t size)
{
	while (units->name && (v == 0 || v % units->factor != 0))
		units++;
	snprintf(out, size, "%" PRIu64 "%s", v / units->factor, units->name ? units->name : "");
}

static bool in_range(const struct key *k, uint64_t v)
{
	return (v >= k->min && v <= k->max) || (v == 0 && k->zero);
}

static const struct unit *units_of(enum key_type type)
{
	return type == KEY_DURATION ? durations : sizes;
}

static const char *expected_number(const struct key *k, char out[128])
{
	char min[32], max[32];

	if (k->type == KEY_NUMBER) {
		snprintf(out, 128, "expected a whole number of %" PRIu64 "..%" PRIu64, k->min,
			 k->max);
		return out;
	}
	format_with_unit(k->min, units_of(k->type), min, sizeof(min));
	format_with_unit(k->max, units_of(k->type), max, sizeof(max));
	snprintf(out, 128, "expected a %s of %s..%s%s",
		 k->type == KEY_DURATION ? "duration (ms, s, min, h, d)" : "size (K, M, G, T)", min,
		 max, k->zero ? ", or 0 for off" : "");
	return out;
}

static bool name_valid(const char *s)
{
	return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") ==
	       strlen(s);
}

/* A path fits into PATH_MAX with room for the names of files in it. */
static bool path_valid(const char *s)
{
	return *s == '/' && strlen(s) < 1024;
}

static bool listen_valid(const char *s)
{
	struct sockaddr_storage address;

	if (strcmp(s, "off") == 0)
		return true;
	if (strncmp(s, "unix:", 5) == 0)
		return path_valid(s + 5) && strlen(s + 5) < 108;
	return listen_address_parse(s, &address);
}

/* nats.c also takes HOST:PORT, but only a scheme makes clear whether TLS is wanted. */
static bool servers_valid(const char *s)
{
	for (;;) {
		const char *scheme = strncmp(s, "nats://", 7) == 0  ? s + 7
				     : strncmp(s, "tls://", 6) == 0 ? s + 6
								    : NULL;
		const size_t len = scheme ? strcspn(scheme, ", \t") : 0;

		if (len == 0 || len > 255)
			return false;
		s = scheme + len;
		if (!*s)
			return true;
		if (*s++ != ',')
			return false;
	}
}

static bool stream_valid(const char *s)
{
	const size_t len = strlen(s);

	return len >= 1 && len <= 64 && name_valid(s) && !strchr(s, '.');
}

/* The value of a text key. Returns NULL, or a static sentence on the expected form. */
static const char *check_text(const struct key *k, const char *value)
{
	enum sign_algorithm algorithm;
	const char *why;

	switch (k->type) {
	case KEY_SERVERS:
		return servers_valid(value)
			       ? NULL
			       : "expected nats://HOST:PORT or tls://HOST:PORT, several "
				 "joined by commas without spaces";
	case KEY_STREAM:
		return stream_valid(value) ? NULL : "expected 1..64 bytes of [A-Za-z0-9_-]";
	case KEY_SUBJECT: return subject_template_valid(value, &why) ? NULL : why;
	case KEY_PATH:
		return path_valid(value) ? NULL : "expected an absolute path of at most 1023 bytes";
	case KEY_NAME: return *value && name_valid(value) ? NULL : "expected the name of a group";
	case KEY_ORIGIN:
		return strlen(value) <= CONFIG_ORIGIN_MAX && note_origin_valid(value, strlen(value))
			       ? NULL
			       : "expected 1..200 bytes of [A-Za-z0-9._/-]";
	case KEY_KID:
		return kid_valid(value, strlen(value)) ? NULL
						       : "expected 1..128 bytes of [A-Za-z0-9._:-]";
	case KEY_ALGORITHM:
		return sign_algorithm_from_string(value, &algorithm) == 0
			       ? NULL
			       : "expected off, ed25519-log, ed25519 or hmac-sha256";
	default:
		return listen_valid(value)
			       ? NULL
			       : "expected ADDRESS:PORT (numbers; [ADDRESS]:PORT for IPv6), "
				 "unix:/PATH (at most 107 bytes) or off";
	}
}

static const char *set_number(const struct key *k, uint64_t *field, const char *value,
			      char why[128])
{
	uint64_t v;
	int r = k->type == KEY_NUMBER ? parse_u64(value, 0, UINT64_MAX, &v)
				      : parse_with_unit(value, units_of(k->type), &v);

	if (r < 0 || !in_range(k, v))
		return expected_number(k, why);
	*field = v;
	return NULL;
}

/* The field becomes the index of the value in names. Returns NULL, or the sentence expected. */
static const char *set_choice(uint64_t *field, const char *value, const char *const names[],
			      size_t n, const char *expected)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(value, names[i]) == 0) {
			*field = i;
			return NULL;
		}
	return expected;
}

static const char *set_boolean(uint64_t *field, const char *value)
{
	if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
		return "expected yes or no";
	*field = strcmp(value, "yes") == 0;
	return NULL;
}

/* Parse a value into its field. Returns NULL, or a sentence on the expected form. */
static const char *set_value(struct config *config, const struct key *k, const char *value,
			     char why[128])
{
	void *field = (char *)config + k->offset;
	const char *expected;
	char *copy;

	switch (k->type) {
	case KEY_NUMBER:
	case KEY_DURATION:
	case KEY_SIZE: return set_number(k, field, value, why);
	case KEY_SYNC:
		return set_choice(field, value, sync_names, ARRAY_SIZE(sync_names),
				  "expected batch, interval or off");
	case KEY_MODE:
		return set_choice(field, value, mode_names, ARRAY_SIZE(mode_names),
				  "expected events or batches");
	case KEY_BOOLEAN: return set_boolean(field, value);
	default: break;
	}
	expected = check_text(k, value);
	if (expected)
		return expected;
	copy = strdup(value);
	if (!copy)
		return "no memory";
	free(*(char **)field);
	*(char **)field = copy;
	return NULL;
}

static bool is_text(const struct key *k)
{
	return k->type >= KEY_PATH;
}

/* ---- the file ---- */

/* section is not terminated after len bytes. */
static bool section_known(const char *section, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strlen(keys[i].section) == len && strncmp(keys[i].section, section, len) == 0)
			return true;
	return false;
}

static const char *skip_blanks(const char *s)
{
	return s + strspn(s, " \t\r\n\f\v");
}

/*
 * Report mistakes that libinih ignores or stops at: an unknown section, a line without = and a
 * section without ]. Also remembers whether the section is known, so that its keys are not reported
 * too.
 */
static void check_line(struct reading *r, const char *line)
{
	const char *s = skip_blanks(line), *end;
	char shown[128];

	if (r->line == 1 && strncmp(s, "\xef\xbb\xbf", 3) == 0)
		s = skip_blanks(s + 3);
	if (!*s || *s == ';' || *s == '#')
		return;
	if (*s != '[') {
		if (!strpbrk(s, "=:"))
			complain(r, r->line, "%s: expected KEY = VALUE",
				 log_escape(shown, sizeof(shown), s, strcspn(s, "\n")));
		return;
	}
	end = strchr(s, ']');
	r->known_section = end && section_known(s + 1, (size_t)(end - s) - 1);
	if (!end)
		complain(r, r->line, "%s: expected ] after the section's name",
			 log_escape(shown, sizeof(shown), s, strcspn(s, "\n")));
	else if (!r->known_section)
		complain(
			r, r->line,
			"%s: no such section; there are receiver, evidence, signing, metrics, nats",
			log_escape(shown, sizeof(shown), s, (size_t)(end - s) + 1));
}

/*
 * Replaces fgets(3) in libinih. It counts the lines, because libinih does not report their numbers.
 */
static char *read_line(char *out, int size, void *arg)
{
	struct reading *r = arg;
	char line[CONFIG_LINE_MAX + 2];
	size_t len = 0;
	bool bad = false, too_long = false;
	int c;

	while ((c = getc(r->file)) != EOF) {
		if (c == '\0' || (c < ' ' && !strchr("\t\r\n", c)))
			bad = true;
		if (len < sizeof(line) - 1)
			line[len++] = (char)c;
		else
			too_long = true;
		if (c == '\n')
			break;
	}
	if (ferror(r->file))
		r->error = -EIO;
	if (len == 0 && c == EOF)
		return NULL;
	line[len] = '\0';
	r->line++;
	if (len >= (size_t)size)
		too_long = true;
	if (too_long)
		complain(r, r->line, "expected at most %d bytes in a line", size - 1);
	else if (bad)
		complain(r, r->line, "a control character; expected text");
	else
		check_line(r, line);
	/* A line that was refused already becomes an empty one for libinih. */
	snprintf(out, (size_t)size, "%s", bad || too_long ? "\n" : line);
	return out;
}

/*
 * libinih calls it for each key. It always returns 1, so that libinih goes on after an error and
 * all errors are found.
 */
static int on_key(void *arg, const char *section, const char *name, const char *value)
{
	struct reading *r = arg;
	char shown_name[96], shown[160], why[128];
	const char *expected;
	size_t i;

	log_escape(shown_name, sizeof(shown_name), name, strlen(name));
	if (!*section && !r->known_section) {
		complain(r, r->line, "%s: expected a [section] before it", shown_name);
		return 1;
	}
	/* The unknown section was reported already. */
	if (!r->known_section)
		return 1;
	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
			break;
	if (i == ARRAY_SIZE(keys)) {
		complain(r, r->line, "%s: no such key in [%s]", shown_name, section);
		return 1;
	}
	if (r->set_at[i] != 0) {
		complain(r, r->line, "[%s] %s stands on line %u already", section, name,
			 r->set_at[i]);
		return 1;
	}
	r->set_at[i] = r->line;
	expected = set_value(r->config, &keys[i], value, why);
	if (expected)
		complain(r, r->line, "[%s] %s = %s: %s", section, name,
			 log_escape(shown, sizeof(shown), value, strlen(value)), expected);
	return 1;
}

/* The defaults are valid, so only a copy of a text can fail: -ENOMEM. */
static int set_defaults(struct config *config)
{
	char why[128];

	*config = (struct config){0};
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		char **field = (char **)((char *)config + keys[i].offset);

		if (is_text(&keys[i]) && !*keys[i].otherwise)
			*field = strdup("");
		else
			set_value(config, &keys[i], keys[i].otherwise, why);
		if (is_text(&keys[i]) && !*field)
			return -ENOMEM;
	}
	return 0;
}

/* The line on which the key of this field was set; 0: it was not set. */
static unsigned line_of(const struct reading *r, size_t offset)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].offset == offset)
			return r->set_at[i];
	return 0;
}

/* Report keys whose values are valid alone but not together. */
static void check_whole(struct reading *r)
{
	const struct config *c = r->config;
	const bool off = strcmp(c->sign_algorithm, "off") == 0;

	if (c->retain_size_hard > 0 &&
	    (c->retain_size == 0 || c->retain_size_hard < c->retain_size))
		complain(
			r, line_of(r, AT(retain_size_hard)),
			"[evidence] retain_size_hard: expected a retain_size, and at least as much");
	if (c->retain_size > 0 && c->retain_size < c->rotate_size)
		complain(r, line_of(r, AT(retain_size)),
			 "[evidence] retain_size: expected at least rotate_size");
	if (off && *c->sign_kid)
		complain(r, line_of(r, AT(sign_kid)),
			 "[signing] kid: expected an algorithm other than off with it");
	if (off && *c->sign_key_file)
		complain(r, line_of(r, AT(sign_key_file)),
			 "[signing] key_file: expected an algorithm other than off with it");
	if (off && c->sign_required)
		complain(r, line_of(r, AT(sign_required)),
			 "[signing] required: expected an algorithm other than off with it");
	if (*c->sign_key_file && !*c->sign_algorithm)
		complain(r, line_of(r, AT(sign_key_file)),
			 "[signing] key_file: expected algorithm and kid beside it");
}

int config_read_file(FILE *f, const char *name, struct config *ret, struct config_errors *errors)
{
	struct reading r = {.file = f, .name = name, .config = ret, .errors = errors};
	int error = set_defaults(ret);

	*errors = (struct config_errors){0};
	if (error == 0 && ini_parse_stream(read_line, &r, on_key, &r) < 0)
		error = -ENOMEM;
	if (error == 0)
		error = r.error;
	if (error < 0) {
		complain(&r, 0, "cannot read it: %s", strerror(-error));
		return error;
	}
	check_whole(&r);
	return errors->n > 0 ? -EINVAL : 0;
}

int config_read(const char *path, struct config *ret, struct config_errors *errors)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	struct reading r = {.name = path, .errors = errors, .error = f ? 0 : -errno};
	struct stat st;

	*ret = (struct config){0};
	*errors = (struct config_errors){0};
	/* fopen() opens folders too; reading them fails. */
	if (f && fstat(fileno(f), &st) == 0 && S_ISDIR(st.st_mode))
		r.error = -EISDIR;
	if (r.error == 0)
		return config_read_file(f, path, ret, errors);
	complain(&r, 0, "cannot open it: %s", strerror(-r.error));
	return r.error;
}

void config_free(struct config *config)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (is_text(&keys[i]))
			free(*(char **)((char *)config + keys[i].offset));
	*config = (struct config){0};
}

void config_errors_free(struct config_errors *errors)
{
	free(errors->text);
	*errors = (struct config_errors){0};
}

/* The value as it stands in a file. Points into config, into out, or to a static text. */
static const char *format_value(const struct config *config, const struct key *k, char out[32])
{
	const void *field = (const char *)config + k->offset;
	uint64_t v;

	if (is_text(k))
		return *(char *const *)field;
	v = *(const uint64_t *)field;
	switch (k->type) {
	case KEY_SYNC: return sync_names[v];
	case KEY_MODE: return mode_names[v];
	case KEY_BOOLEAN: return v ? "yes" : "no";
	case KEY_NUMBER: snprintf(out, 32, "%" PRIu64, v); break;
	default: format_with_unit(v, units_of(k->type), out, 32); break;
	}
	return out;
}

void config_dump(const struct config *config, FILE *f)
{
	const char *section = "", *value;
	char out[32];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (strcmp(section, keys[i].section) != 0)
			fprintf(f, "%s[%s]\n", i > 0 ? "\n" : "", keys[i].section);
		section = keys[i].section;
		value = format_value(config, &keys[i], out);
		fprintf(f, "%s%s =%s%s\n", *value ? "" : "; ", keys[i].name, *value ? " " : "",
			value);
	}
}

static bool same_value(const struct key *key, const struct config *a, const struct config *b)
{
	char one[32], other[32];

	return strcmp(format_value(a, key, one), format_value(b, key, other)) == 0;
}

bool config_needs_restart(const struct config *running, const struct config *wanted,
			  const char **ret_section, const char **ret_name)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!keys[i].restart || same_value(&keys[i], running, wanted))
			continue;
		*ret_section = keys[i].section;
		*ret_name = keys[i].name;
		return true;
	}
	return false;
}

void config_limits(const struct config *config, struct evidence_limits *ret)
{
	*ret = (struct evidence_limits){
		.rotate_size = config->rotate_size,
		.rotate_age_ms = config->rotate_age_ms,
		.retain_size = config->retain_size,
		.retain_size_hard = config->retain_size_hard,
		.sync = (enum evidence_sync)config->sync,
	};
}

void config_forward(const struct config *config, struct forward_settings *ret)
{
	*ret = (struct forward_settings){
		.url = config->nats_url,
		.stream = config->nats_stream,
		.subject = config->nats_subject,
		.mode = (enum forward_mode)config->nats_mode,
		.create_stream = config->nats_create_stream,
		.credentials = config->nats_credentials,
		.tls_ca = config->nats_tls_ca,
		.tls_cert = config->nats_tls_cert,
		.tls_key = config->nats_tls_key,
		.max_pending = (unsigned)config->nats_max_pending,
		.evidence_dir = config->evidence_dir,
		.state_dir = config->state_dir,
	};
}

bool config_forward_differs(const struct config *a, const struct config *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i].section, "nats") == 0 && !same_value(&keys[i], a, b))
			return true;
	return false;
}

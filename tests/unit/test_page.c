/* SPDX-License-Identifier: MIT */
/* A page of evidence, unpacked as a browser does: each record with its place, and nothing lost. */
#include "host-receiver/report/page.h"

#include <dirent.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "common/util.h"
#include "host-receiver/report/design.h"
#include "host-receiver/report/packed.h"
#include "tests/unit/unit.h"

#define GZIP	     (15 + 16) /* inflateInit2() */
#define UNPACKED_MAX (1024u * 1024u)
#define FIRST_INDEX  12u /* of the second segment of the vectors */
#define ORIGIN	     "example.org/host-7/0b6f0d5e-7c1e-4c0a-9d59-1f0d6d3c2a11"
#define CHECKPOINT   "\"type\":\"dev.cellos.events.log_checkpoint.v1\""
#define HEAD	     "{\"a\":1}\n"

static char dir[64], unpacked[UNPACKED_MAX], why[PAGE_WHY_MAX];
static char *page;
static size_t page_len, unpacked_len;
static struct sources sources;
static uint64_t records;

static void set_up(void)
{
	strcpy(dir, "/tmp/cellos-page-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	page = NULL;
	memset(&sources, 0, sizeof(sources));
}

static void tear_down(void)
{
	char command[96];

	sources_free(&sources);
	free(page);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* ---- the packing ---- */

/* Put the text that was packed into unpacked. */
static void unpack(const char *base64, size_t len)
{
	unsigned char *gzip = malloc(len);
	z_stream z = {0};
	size_t n;

	ck_assert_int_eq(sodium_base642bin(gzip, len, base64, len, "\n", &n, NULL,
					   sodium_base64_VARIANT_ORIGINAL),
			 0);
	ck_assert_int_eq(inflateInit2(&z, GZIP), Z_OK);
	z.next_in = gzip;
	z.avail_in = (uInt)n;
	z.next_out = (Bytef *)unpacked;
	z.avail_out = sizeof(unpacked) - 1;
	ck_assert_int_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
	ck_assert_uint_eq(z.avail_in, 0);
	unpacked_len = z.total_out;
	unpacked[unpacked_len] = '\0';
	inflateEnd(&z);
	free(gzip);
}

/* All lines but the last are full: a browser joins them without looking. */
static void check_lines(const char *base64, size_t len)
{
	while (len > 77) {
		ck_assert_int_eq(base64[76], '\n');
		base64 += 77;
		len -= 77;
	}
	ck_assert_ptr_eq(memchr(base64, '\n', len), base64 + len - 1);
}

/* Lengths of what is packed in pieces; none of it can be compressed. */
static const size_t lengths[] = {0, 1, 56, 57, 58, 57 * 1024 - 40, 57 * 1024, 300000};

UNIT_LOOP_TEST(all_bytes_are_packed, ARRAY_SIZE(lengths))
{
	const size_t len = lengths[_i];
	uint64_t seed = 7 + (uint64_t)_i;
	char *data = malloc(len + 1);
	FILE *f = open_memstream(&page, &page_len);
	struct packed *packed = packed_new(f);

	for (size_t i = 0; i < len; i++)
		data[i] = (char)unit_random(&seed);
	for (size_t at = 0, n; at < len; at += n) {
		n = MIN(len - at, (size_t)100000);
		packed_write(packed, data + at, n);
		packed_write(packed, data, 0);
	}
	ck_assert_int_eq(packed_finish(packed), 0);
	packed_free(packed);
	fclose(f);
	check_lines(page, page_len);
	unpack(page, page_len);
	ck_assert_uint_eq(unpacked_len, len);
	ck_assert_int_eq(memcmp(unpacked, data, len), 0);
	free(data);
}

UNIT_TEST(texts_are_json)
{
	FILE *f = open_memstream(&page, &page_len);
	struct packed *packed = packed_new(f);

	packed_write_json(packed, "a\"\\\n\x01\xff</script>");
	ck_assert_int_eq(packed_finish(packed), 0);
	packed_free(packed);
	fclose(f);
	unpack(page, page_len);
	ck_assert_str_eq(unpacked, "\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd</script>\"");
}

/* ---- the records ---- */

/* Write a page. What was packed into it is in unpacked. */
static int make_page(struct page_options options)
{
	FILE *f = open_memstream(&page, &page_len);
	const char *begin;
	int r;

	options.title = "A title";
	options.head = HEAD;
	options.head_len = strlen(HEAD);
	r = page_write(f, &options, &sources, &records, why);
	fclose(f);
	if (r < 0)
		return r;
	ck_assert_int_eq(strncmp(page, PAGE_BEGIN, strlen(PAGE_BEGIN)), 0);
	ck_assert_ptr_nonnull(strstr(page, "<title>A title</title>"));
	begin = strstr(page, report_design_between);
	ck_assert_ptr_nonnull(begin);
	begin += strlen(report_design_between);
	page_len -= strlen(report_design_after);
	ck_assert_str_eq(page + page_len, report_design_after);
	unpack(begin, page_len - (size_t)(begin - page));
	return 0;
}

static const struct page_options all = {.since_ms = INT64_MIN, .until_ms = INT64_MAX};

static void add(const char *path)
{
	ck_assert_msg(sources_add(&sources, path, why) == 0, "%s", why);
	ck_assert_msg(sources_order(&sources, why) == 0, "%s", why);
}

/* The packed lines of a segment of the vectors. Returns how many records it has. */
static uint64_t expect_segment(FILE *f, const char *path, uint64_t index)
{
	FILE *in = fopen(path, "re");
	char *line = NULL;
	size_t room = 0;
	uint64_t n = 0;

	ck_assert_msg(in != NULL, "%s", path);
	fprintf(f, "F\t\"%s\"\nS\t\"\"\nS\t\"" ORIGIN "\"\n", path);
	for (unsigned number = 1; getline(&line, &room, in) > 0; number++)
		if (number > 1 && !strstr(line, CHECKPOINT))
			fprintf(f, "%llu\t%u\t%s", (unsigned long long)(index + n++), number, line);
	free(line);
	fclose(in);
	return n;
}

UNIT_TEST(records_have_their_places)
{
	char folder[512], path[600], *want = NULL;
	uint64_t n;
	size_t len;
	FILE *f;

	snprintf(folder, sizeof(folder), "%.400s/log/good", unit_vectors());
	add(folder);
	ck_assert_int_eq(make_page(all), 0);
	f = open_memstream(&want, &len);
	fputs(HEAD, f);
	snprintf(path, sizeof(path), "%s/evidence-%020u.jsonl", folder, 0);
	n = expect_segment(f, path, 0);
	ck_assert_uint_eq(n, FIRST_INDEX);
	snprintf(path, sizeof(path), "%s/evidence-%020u.jsonl", folder, 1);
	n += expect_segment(f, path, FIRST_INDEX);
	fclose(f);
	ck_assert_str_eq(unpacked, want);
	ck_assert_uint_eq(records, n);
	free(want);
}

/* Its first line says which number its first record has. */
UNIT_TEST(a_later_segment_by_itself)
{
	char path[600], *want = NULL;
	size_t len;
	FILE *f;

	snprintf(path, sizeof(path), "%.400s/log/good/evidence-%020u.jsonl", unit_vectors(), 1);
	add(path);
	ck_assert_int_eq(make_page(all), 0);
	f = open_memstream(&want, &len);
	fputs(HEAD, f);
	ck_assert_uint_eq(records, expect_segment(f, path, FIRST_INDEX));
	fclose(f);
	ck_assert_str_eq(unpacked, want);
	free(want);
}

#define EVENT(data, second)                                                                        \
	"{\"data\":{" data "\"sequence\":1,\"streamId\":\"1\"},"                                   \
	"\"datacontenttype\":\"application/json\",\"id\":\"urn:1\",\"source\":\"s\","              \
	"\"specversion\":\"1.0\",\"time\":\"2026-11-21T10:00:0" second "Z\","                      \
	"\"type\":\"dev.cellos.events.cell.observability.host.v1.x\"}\n"
#define RECORD(cell, second) EVENT("\"cellId\":\"" cell "\",", second)
#define NOBODYS		     EVENT("", "0.001")
#define FIRST		     RECORD("a", "0.000")
#define SECOND		     RECORD("b", "0.001")
#define THIRD		     RECORD("a", "0.002")
#define AT_MS		     INT64_C(1795255200000)

/* Each row: what is asked, and which of the file's lines are shown. */
static const struct {
	struct page_options options;
	uint64_t records;
	const char *shown;
} choices[] = {
	{{NULL, NULL, 0, NULL, INT64_MIN, INT64_MAX},
	 5,
	 "-\t1\t" FIRST "-\t2\t" SECOND "-\t3\tno JSON\n-\t4\t" NOBODYS "-\t5\t" THIRD},
	{{NULL, NULL, 0, "a", INT64_MIN, INT64_MAX},
	 4,
	 "-\t1\t" FIRST "-\t3\tno JSON\n-\t4\t" NOBODYS "-\t5\t" THIRD},
	{{NULL, NULL, 0, "b", AT_MS + 1, AT_MS + 1},
	 3,
	 "-\t2\t" SECOND "-\t3\tno JSON\n-\t4\t" NOBODYS},
	{{NULL, NULL, 0, NULL, AT_MS + 2, INT64_MAX}, 2, "-\t3\tno JSON\n-\t5\t" THIRD},
	{{NULL, NULL, 0, NULL, INT64_MIN, AT_MS - 1}, 1, "-\t3\tno JSON\n"},
};

UNIT_LOOP_TEST(some_records_are_chosen, ARRAY_SIZE(choices))
{
	char path[96], want[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/lines", dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	fputs(FIRST SECOND "no JSON\n" NOBODYS THIRD, f);
	fclose(f);
	add(path);
	ck_assert_int_eq(make_page(choices[_i].options), 0);
	snprintf(want, sizeof(want), HEAD "F\t\"%s\"\nS\t\"\"\n%s", path, choices[_i].shown);
	ck_assert_str_eq(unpacked, want);
	ck_assert_uint_eq(records, choices[_i].records);
}

/* Of a line that is too long for evidence only the place is shown. */
UNIT_TEST(a_line_that_is_too_long)
{
	char path[96], want[1024];
	FILE *f;

	snprintf(path, sizeof(path), "%s/lines", dir);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	for (int i = 0; i < 70000; i++)
		putc('x', f);
	fputs("\n" NOBODYS, f);
	fclose(f);
	add(path);
	ck_assert_int_eq(make_page(all), 0);
	snprintf(want, sizeof(want), HEAD "F\t\"%s\"\nS\t\"\"\n-\t1\t\n-\t2\t" NOBODYS, path);
	ck_assert_str_eq(unpacked, want);
}

UNIT_TEST(errors_are_reported)
{
	static const char text[] = NOBODYS;
	struct page_options options = all;
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/lines", dir);
	f = fopen(path, "we");
	fputs(text, f);
	fclose(f);
	add(path);
	options.title = options.head = "";
	f = fopen("/dev/full", "we");
	ck_assert_int_eq(page_write(f, &options, &sources, &records, why), -ENOSPC);
	ck_assert_str_eq(why, "cannot write it: No space left on device");
	fclose(f);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(make_page(all), -ENOENT);
	ck_assert_ptr_nonnull(strstr(why, "No such file or directory"));
}

UNIT_SUITE(.setup = set_up, .teardown = tear_down);

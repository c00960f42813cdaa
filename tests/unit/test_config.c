/* SPDX-License-Identifier: MIT */
#include "host-receiver/config/config.h"

#include "common/util.h"
#include "tests/unit/unit.h"

static int read_text(const char *text, struct config *config, struct config_errors *errors)
{
	FILE *f = *text ? fmemopen((void *)(uintptr_t)text, strlen(text), "r")
			: fopen("/dev/null", "r");
	int r;

	ck_assert(f != NULL);
	r = config_read_file(f, "the.conf", config, errors);
	fclose(f);
	return r;
}

static const struct {
	const char *text;
	unsigned line;
	const char *why;
} bad[] = {
	{"keepalive = 1", 1, "expected a [section]"},
	{"[receiver]\nkeepalive", 2, "expected KEY = VALUE"},
	{"[receiver\nrate = 5", 1, "expected ]"},
	{"[reciever]\nrate = 5", 1, "\"[reciever]\": no such section"},
	{"[]\n", 1, "no such section"},
	{"[receiver]\nfoo = 1", 2, "no such key"},
	{"[receiver]\ndir = /x", 2, "no such key"},
	{"[receiver]\n= 5", 2, "no such key"},
	{"[receiver]\nRate = 5", 2, "no such key"},
	{"[receiver]\nrate = 5\nrate = 6", 3, "stands on line 2 already"},
	{"[receiver]\nrate = 5\n[evidence]\n[receiver]\nrate = 5", 5, "stands on line 2 already"},
	{"[receiver]\nrate = 5\n  6", 3, "expected KEY = VALUE"},
	{"[receiver]\nrate = 0", 2, "whole number of 1..1000000000"},
	{"[receiver]\nrate = 1000000001", 2, "whole number of 1..1000000000"},
	{"[receiver]\nrate =", 2, "whole number"},
	{"[receiver]\nrate = -1", 2, "whole number"},
	{"[receiver]\nrate = +1", 2, "whole number"},
	{"[receiver]\nrate = 1.5", 2, "whole number"},
	{"[receiver]\nrate = 1k", 2, "whole number"},
	{"[receiver]\nrate = 99999999999999999999999", 2, "whole number"},
	{"[receiver]\nrate = ten", 2, "rate = \"ten\": expected a whole number"},
	{"[receiver]\nrate_bytes = 65535", 2, "size (K, M, G, T) of 64K..2G"},
	{"[receiver]\nrate_bytes = 2147483649", 2, "size"},
	{"[receiver]\nrate_connections = 0", 2, "1..1000000"},
	{"[receiver]\nrate_connections = 1000001", 2, "1..1000000"},
	{"[receiver]\nstop_timeout = 99", 2, "duration (ms, s, min, h, d) of 100ms..1d"},
	{"[receiver]\nstop_timeout = 86400001", 2, "duration"},
	{"[receiver]\nstop_timeout = 0", 2, "duration"},
	{"[signing]\nrequired = true", 2, "yes or no"},
	{"[signing]\nalgorithm = off\nrequired = yes", 3, "other than off"},
	{"[receiver]\nmax_cells = 0", 2, "1..1000000"},
	{"[receiver]\nmax_cells = 1000001", 2, "1..1000000"},
	{"[receiver]\nmax_cells = yes", 2, "1..1000000"},
	{"[receiver]\nkeepalive = 2d", 2, "duration (ms, s, min, h, d) of 1ms..1d"},
	{"[receiver]\nkeepalive = 10 s", 2, "duration"},
	{"[receiver]\nkeepalive = 10sec", 2, "duration"},
	{"[receiver]\nkeepalive = s", 2, "duration"},
	{"[receiver]\nkeepalive = -1s", 2, "duration"},
	{"[receiver]\nkeepalive = off", 2, "or 0 for off"},
	{"[receiver]\nkeepalive = 000000000000000000000001", 2, "duration"},
	{"[receiver]\nkeepalive = 18446744073709551615d", 2, "duration"},
	{"[receiver]\nconnect_within = 86400001", 2, "duration"},
	{"[receiver]\nconnect_within = 1e3", 2, "duration"},
	{"[receiver]\ncheckpoint_interval = 99", 2, "duration"},
	{"[receiver]\ncheckpoint_interval = 0", 2, "duration"},
	{"[receiver]\ncheckpoint_interval = 2d", 2, "duration"},
	{"[receiver]\nmax_inflight = 0", 2, "size (K, M, G, T) of 1M..1T"},
	{"[receiver]\nmax_inflight = 1023K", 2, "size"},
	{"[receiver]\nmax_inflight = 2T", 2, "size"},
	{"[receiver]\nmax_inflight = 64MB", 2, "size"},
	{"[receiver]\nmax_inflight = 64 M", 2, "size"},
	{"[receiver]\nmax_inflight = 64m", 2, "size"},
	{"[receiver]\ncontrol_socket = run/x", 2, "absolute path"},
	{"[receiver]\ncontrol_socket =", 2, "absolute path"},
	{"[receiver]\nstate_dir = ~/x", 2, "absolute path"},
	{"[receiver]\nstate_dir = .", 2, "absolute path"},
	{"[receiver]\ncontrol_group = a b", 2, "name of a group"},
	{"[receiver]\ncontrol_group = a/b", 2, "name of a group"},
	{"[receiver]\ncontrol_group =", 2, "name of a group"},
	{"[evidence]\ndir = evidence", 2, "absolute path"},
	{"[evidence]\norigin = a b", 2, "[A-Za-z0-9._/-]"},
	{"[evidence]\nrotate_size = 63K", 2, "size"},
	{"[evidence]\nrotate_size = 0", 2, "size"},
	{"[evidence]\nrotate_size = 1P", 2, "size"},
	{"[evidence]\nrotate_age = 999", 2, "duration"},
	{"[evidence]\nrotate_age = 1w", 2, "duration"},
	{"[evidence]\nrotate_age = never", 2, "duration"},
	{"[evidence]\nretain_size = 63K", 2, "size"},
	{"[evidence]\nretain_size = 1M", 2, "at least rotate_size"},
	{"[evidence]\nretain_size_hard = 1G", 2, "expected a retain_size"},
	{"[evidence]\nretain_size = 1G\nretain_size_hard = 1023M", 3, "at least as much"},
	{"[nats]\nurl = 127.0.0.1:4222", 2, "nats://HOST:PORT"},
	{"[nats]\nurl = nats://a, nats://b", 2, "without spaces"},
	{"[nats]\nurl = nats://a nats://b", 2, "without spaces"},
	{"[nats]\nurl = nats://", 2, "nats://HOST:PORT"},
	{"[nats]\nstream = a.b", 2, "1..64 bytes"},
	{"[nats]\nsubject = cellos..x", 2, "joined by dots"},
	{"[nats]\nsubject = cellos.{cell}x", 2, "joined by dots"},
	{"[nats]\nmode = all", 2, "events or batches"},
	{"[nats]\nmax_pending = 65537", 2, "1..65536"},
	{"[nats]\nlag_ready = 10", 2, "duration"},
	{"[nats]\ntls_ca = ca.pem", 2, "absolute path"},
	{"[evidence]\nsync = always", 2, "batch, interval or off"},
	{"[evidence]\nsync = Batch", 2, "batch, interval or off"},
	{"[evidence]\nsync =", 2, "batch, interval or off"},
	{"[evidence]\nsync = 1", 2, "batch, interval or off"},
	{"[signing]\nalgorithm = rsa", 2, "off, ed25519-log, ed25519 or hmac-sha256"},
	{"[signing]\nalgorithm = ED25519", 2, "off, ed25519-log, ed25519 or hmac-sha256"},
	{"[signing]\nalgorithm =", 2, "off, ed25519-log, ed25519 or hmac-sha256"},
	{"[signing]\nalgorithm = off\nkid = k", 3, "other than off"},
	{"[signing]\nalgorithm = off\nkey_file = /k", 3, "other than off"},
	{"[signing]\nkey_file = /k", 2, "algorithm and kid"},
	{"[signing]\nkid =", 2, "1..128 bytes"},
	{"[signing]\nkid = a b", 2, "1..128 bytes"},
	{"[signing]\nkid = a/b", 2, "1..128 bytes of [A-Za-z0-9._:-]"},
	{"[signing]\nkid = ..", 2, "1..128 bytes"},
	{"[signing]\nkid = kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
	 2, "1..128 bytes"},
	{"[signing]\nkey_file = k.seed", 2, "absolute path"},
	{"[metrics]\nper_cell = true", 2, "yes or no"},
	{"[metrics]\nper_cell =", 2, "yes or no"},
	{"[metrics]\nlisten = 9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = 127.0.0.1:0", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = 127.0.0.1:65536", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = :9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = 127.0.0.1:x", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = localhost:9464", 2,
	 "ADDRESS:PORT (numbers; [ADDRESS]:PORT for IPv6)"},
	{"[metrics]\nlisten = *:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = 127.1:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = 256.0.0.1:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = ::1:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [::1]9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [::1:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [::g]:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = []:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [127.0.0.1]:9464", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = [fe80:1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc]:9464",
	 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = unix:x", 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten = unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	 2, "ADDRESS:PORT"},
	{"[metrics]\nlisten =", 2, "ADDRESS:PORT"},
	{"[receiver]\nrate = 1                                                                                                                                                                                                                                                                                                            ",
	 2, "bytes in a line"},
	{"[receiver]\nrate = 1\x01", 2, "control character"},
	{"[receiver]\n\x1b[31m", 2, "control character"},
};
_Static_assert(ARRAY_SIZE(bad) >= 60, "as many as were promised");

UNIT_TEST(every_bad_line_is_reported_with_its_place)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct config_errors errors;
		struct config config;
		char place[32];

		ck_assert_msg(read_text(bad[i].text, &config, &errors) == -EINVAL, "%s",
			      bad[i].text);
		snprintf(place, sizeof(place), "the.conf:%u: ", bad[i].line);
		ck_assert_msg(strncmp(errors.text, place, strlen(place)) == 0, "%s\n-> %s",
			      bad[i].text, errors.text);
		ck_assert_msg(strstr(errors.text, bad[i].why) != NULL, "%s\n-> %s, not %s",
			      bad[i].text, errors.text, bad[i].why);
		config_errors_free(&errors);
		config_free(&config);
	}
}

static const char *const good[] = {
	"[metrics]\nlisten = off",
	"[metrics]\nlisten = 0.0.0.0:1",
	"[metrics]\nlisten = 127.0.0.1:65535",
	"[metrics]\nlisten = [::1]:9464",
	"[metrics]\nlisten = [fe80::1%lo]:9464",
	"[nats]\nurl = nats://127.0.0.1:4222",
	"[nats]\nurl = tls://a:1,nats://b,tls://c:65535",
	"[signing]\nkid = host:1.eu_west-A",
	"[signing]\nkid = 01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
};

UNIT_TEST(every_good_line_is_taken)
{
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct config_errors errors;
		struct config config;

		ck_assert_msg(read_text(good[i], &config, &errors) == 0, "%s\n-> %s", good[i],
			      errors.text);
		config_free(&config);
	}
}

UNIT_TEST(all_errors_are_reported)
{
	struct config_errors errors;
	struct config config;

	ck_assert_int_eq(read_text("[receiver]\nrate = x\nmax_cells = y\n[nope]\nz = 1\n"
				   "[evidence]\nsync = z\n",
				   &config, &errors),
			 -EINVAL);
	ck_assert_uint_eq(errors.n, 4);
	ck_assert(strstr(errors.text, "the.conf:2: ") && strstr(errors.text, "the.conf:3: ") &&
		  strstr(errors.text, "the.conf:4: ") && strstr(errors.text, "the.conf:7: "));
	config_errors_free(&errors);
	config_free(&config);
}

UNIT_TEST(reads_what_it_dumps)
{
	static const char text[] =
		"\xef\xbb\xbf# a comment\n"
		"[receiver]\nkeepalive = 0\nrate: 7 ; so few\nmax_inflight = 3G\n"
		"[evidence]\nrotate_age = 1h\nrotate_size=64K\nretain_size = 65536\n"
		"sync = off\n"
		"[signing]\nalgorithm = ed25519\nkid = k1\nkey_file = /k\n"
		"[metrics]\nlisten = unix:/m\nper_cell = yes\n";
	char *dumps[2] = {0};
	const char *from = text;

	for (int i = 0; i < 2; i++) {
		struct config_errors errors;
		struct config config;
		size_t size;
		FILE *f;

		ck_assert_msg(read_text(from, &config, &errors) == 0, "%s", errors.text);
		ck_assert_uint_eq(config.keepalive_ms, 0);
		ck_assert_uint_eq(config.rate, 7);
		ck_assert_uint_eq(config.max_inflight, UINT64_C(3) << 30);
		ck_assert_uint_eq(config.rotate_age_ms, 3600000);
		ck_assert_uint_eq(config.retain_size, 65536);
		ck_assert_uint_eq(config.sync, EVIDENCE_SYNC_OFF);
		ck_assert_str_eq(config.metrics_listen, "unix:/m");
		ck_assert_uint_eq(config.metrics_per_cell, 1);
		ck_assert_uint_eq(config.connect_within_ms, 30000);
		f = open_memstream(&dumps[i], &size);
		config_dump(&config, f);
		fclose(f);
		from = dumps[i];
		config_free(&config);
		config_errors_free(&errors);
	}
	ck_assert_str_eq(dumps[0], dumps[1]);
	free(dumps[0]);
	free(dumps[1]);
}

UNIT_TEST(says_what_needs_a_restart)
{
	struct config a, b;
	struct config_errors errors;
	const char *section, *name;

	ck_assert_int_eq(read_text("", &a, &errors), 0);
	ck_assert_int_eq(read_text("[receiver]\nrate = 9\n", &b, &errors), 0);
	ck_assert(!config_needs_restart(&a, &b, &section, &name));
	config_free(&b);
	ck_assert_int_eq(read_text("[evidence]\nsync = off\n", &b, &errors), 0);
	ck_assert(config_needs_restart(&a, &b, &section, &name));
	ck_assert_str_eq(section, "evidence");
	ck_assert_str_eq(name, "sync");
	config_free(&a);
	config_free(&b);
}

UNIT_TEST(a_file_that_cannot_be_read)
{
	struct config config;
	struct config_errors errors;

	ck_assert_int_eq(config_read("/nonexistent/x.conf", &config, &errors), -ENOENT);
	ck_assert(strstr(errors.text, "/nonexistent/x.conf: ") != NULL);
	config_errors_free(&errors);
	config_free(&config);
	ck_assert_int_lt(config_read("/", &config, &errors), 0);
	config_errors_free(&errors);
	config_free(&config);
}

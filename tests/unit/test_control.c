/* SPDX-License-Identifier: MIT */
/* The control socket, its client and the service manager's, each against the other. */
#include <grp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>

#include "common/util.h"
#include "host-receiver/control/client.h"
#include "host-receiver/control/notify.h"
#include "host-receiver/control/server.h"
#include "tests/unit/unit.h"

static char dir[64], path[96];
static uv_loop_t loop;
static struct control_server *server;
static const char *socket_group = "";
static struct control_reply *later;
static unsigned handled;

static json_t *handle(void *ctx, const json_t *request)
{
	const char *verb = json_string_value(json_object_get(request, "verb"));

	ck_assert_ptr_eq(ctx, &loop);
	handled++;
	if (strcmp(verb, "refuse") == 0)
		return control_refusal(EX_CANTCREAT, "no: %s", "\xff is no UTF-8");
	if (strcmp(verb, "why") == 0)
		return control_refusal(EX_CANTCREAT, "because of %d", 7);
	if (strcmp(verb, "later") == 0) {
		later = control_defer(server);
		return NULL;
	}
	return json_pack("{s:b,s:O}", "ok", 1, "request", request);
}

static int open_server(char why[CONTROL_WHY_MAX])
{
	const struct control_server_options options = {
		.path = path, .group = socket_group, .handle = handle, .ctx = &loop};

	return control_server_new(&loop, &options, &server, why);
}

static void begin(void)
{
	char why[CONTROL_WHY_MAX] = "";

	strcpy(dir, "/tmp/cellos-control-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/sock", dir);
	handled = 0;
	later = NULL;
	uv_loop_init(&loop);
	ck_assert_msg(open_server(why) == 0, "%s", why);
}

static void end(void)
{
	control_server_free(server);
	uv_run(&loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	ck_assert_int_ne(access(path, F_OK), 0);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void turn(int times)
{
	for (int i = 0; i < times; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		usleep(1000);
	}
}

struct asked {
	uv_thread_t thread;
	const char *verb;
	atomic_bool done;
	int status;
	json_t *answer;
};

static void ask_main(void *arg)
{
	struct asked *a = arg;
	json_t *request = json_pack("{s:s}", "verb", a->verb);

	a->status = control_ask("test", path, request, &a->answer);
	json_decref(request);
	a->done = true;
}

static void ask(struct asked *a, const char *verb)
{
	*a = (struct asked){.verb = verb};
	ck_assert_int_eq(uv_thread_create(&a->thread, ask_main, a), 0);
}

static void finish(struct asked *a, int want)
{
	for (int i = 0; i < 120000 && !a->done; i++)
		turn(1);
	uv_thread_join(&a->thread);
	ck_assert_int_eq(a->status, want);
	if (want == EX_OK)
		ck_assert_ptr_nonnull(json_object_get(a->answer, "ok"));
	json_decref(a->answer);
}

/* Only root may give a file to a group that it is not in. */
UNIT_TEST(a_group_gets_the_socket)
{
	const struct group *wanted = geteuid() == 0 ? getgrnam("daemon") : getgrgid(getegid());
	struct stat st;

	if (!wanted) {
		puts("skipped: this group has no name here");
		return;
	}
	socket_group = wanted->gr_name;
	begin();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_gid, wanted->gr_gid);
	ck_assert_uint_eq(st.st_mode & 07777, CONTROL_SOCKET_MODE);
	end();
	socket_group = "";
}

UNIT_TEST(asks_and_is_answered)
{
	struct stat st;
	struct asked a;

	begin();
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, CONTROL_SOCKET_MODE);
	ask(&a, "list");
	finish(&a, EX_OK);
	ask(&a, "why");
	finish(&a, EX_CANTCREAT);
	ask(&a, "refuse");
	finish(&a, EX_CANTCREAT);
	ck_assert_uint_eq(handled, 3);
	end();
	ask(&a, "list");
	uv_thread_join(&a.thread);
	ck_assert_int_eq(a.status, EX_UNAVAILABLE);
}

UNIT_TEST(answers_later_and_others_meanwhile)
{
	struct asked a, b;

	begin();
	ask(&a, "later");
	for (int i = 0; i < 120000 && !later; i++)
		turn(1);
	ck_assert_ptr_nonnull(later);
	ask(&b, "list");
	finish(&b, EX_OK);
	ck_assert(!a.done);
	control_answer(later, json_pack("{s:b}", "ok", 1));
	finish(&a, EX_OK);
	end();
}

static int connect_to_server(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

UNIT_TEST(a_client_may_leave_before_its_answer)
{
	static const char request[] = "{\"verb\":\"later\"}\n";

	for (int server_goes = 0; server_goes < 2; server_goes++) {
		int fd;

		begin();
		fd = connect_to_server();
		ck_assert_int_eq(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
		for (int i = 0; i < 120000 && !later; i++)
			turn(1);
		close(fd);
		turn(5);
		if (server_goes)
			end();
		control_answer(later, json_pack("{s:b}", "ok", 1));
		if (!server_goes)
			end();
	}
}

#define ACCEPTED_IN_A_TURN 16

/* The place after the last one is nobody's; the places of root are not for others. */
UNIT_TEST(one_client_too_many_is_closed)
{
	const unsigned most = CONTROL_CLIENTS_MAX - (geteuid() == 0 ? 0 : CONTROL_FOR_ROOT);
	int fds[CONTROL_CLIENTS_MAX + 1];
	char byte;

	begin();
	for (unsigned i = 0; i <= most; i++)
		fds[i] = connect_to_server();
	/* Fewer turns than a silent client may take steps: however slow this is, all stay. */
	_Static_assert(CONTROL_CLIENTS_MAX / ACCEPTED_IN_A_TURN + 1 <= CONTROL_STEPS, "");
	for (unsigned i = 0; i <= most; i += ACCEPTED_IN_A_TURN)
		uv_run(&loop, UV_RUN_NOWAIT);
	for (unsigned i = 0; i < most; i++) {
		ck_assert_int_eq(recv(fds[i], &byte, 1, MSG_DONTWAIT), -1);
		ck_assert_int_eq(errno, EAGAIN);
	}
	ck_assert_int_eq(recv(fds[most], &byte, 1, MSG_DONTWAIT), 0);
	end();
	for (unsigned i = 0; i <= most; i++)
		close(fds[i]);
}

UNIT_TEST(a_request_comes_in_pieces)
{
	static const char request[] = "{\"verb\":\"list\"}\nmore";
	char answer[256] = "";
	int fd;

	begin();
	fd = connect_to_server();
	for (size_t i = 0; i < strlen(request); i++) {
		ck_assert_int_eq(send(fd, request + i, 1, MSG_NOSIGNAL), 1);
		turn(1);
	}
	turn(5);
	ck_assert_int_gt(recv(fd, answer, sizeof(answer) - 1, 0), 0);
	ck_assert_str_eq(answer, "{\"ok\":true,\"request\":{\"verb\":\"list\"}}\n");
	ck_assert_int_eq(recv(fd, answer, sizeof(answer), 0), 0);
	ck_assert_uint_eq(handled, 1);
	close(fd);
	end();
}

/* It stood still for longer than a client may take. The request had come meanwhile. */
UNIT_TEST(a_machine_that_stands_still_closes_no_client)
{
	static const char request[] = "{\"verb\":\"list\"}\n";
	char answer[256] = "";
	int fd;

	begin();
	fd = connect_to_server();
	turn(2);
	ck_assert_int_eq(send(fd, request, strlen(request), MSG_NOSIGNAL),
			 (ssize_t)strlen(request));
	usleep((CONTROL_STEPS + 1) * CONTROL_STEP_MS * 1000);
	turn(5);
	ck_assert_int_gt(recv(fd, answer, sizeof(answer) - 1, MSG_DONTWAIT), 0);
	ck_assert_str_eq(answer, "{\"ok\":true,\"request\":{\"verb\":\"list\"}}\n");
	close(fd);
	end();
}

UNIT_TEST(the_path_is_taken_or_stale)
{
	struct control_server *first;
	char why[CONTROL_WHY_MAX] = "";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	begin();
	first = server;
	ck_assert_int_eq(open_server(why), -EADDRINUSE);
	ck_assert_msg(strstr(why, "another daemon") != NULL, "%s", why);
	server = first;
	end();
	/* A socket that nobody listens on is of a daemon before; a file is somebody else's. */
	ck_assert_ptr_nonnull(mkdtemp(strcpy(dir, "/tmp/cellos-control-XXXXXX")));
	snprintf(path, sizeof(path), "%s/sock", dir);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	uv_loop_init(&loop);
	ck_assert_msg(open_server(why) == 0, "%s", why);
	end();
	mkdir(dir, 0700);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	uv_loop_init(&loop);
	ck_assert_int_eq(open_server(why), -EEXIST);
	ck_assert_int_eq(uv_loop_close(&loop), 0);
	rmdir(path);
	rmdir(dir);
}

UNIT_TEST(a_path_that_no_socket_can_have)
{
	char why[CONTROL_WHY_MAX] = "", longest[sizeof(((struct sockaddr_un *)0)->sun_path) + 2];
	const struct control_server_options options = {
		.path = longest, .group = "", .handle = handle, .ctx = &loop};
	struct control_server *none;

	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	for (size_t len = sizeof(longest) - 2; len < sizeof(longest); len++) {
		longest[len] = '\0';
		ck_assert_int_eq(control_server_new(&loop, &options, &none, why), -ENAMETOOLONG);
		ck_assert_ptr_nonnull(strstr(why, "107 bytes"));
		longest[len] = 'x';
	}
}

UNIT_TEST(tells_the_service_manager)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char message[64] = "";
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	ck_assert_ptr_nonnull(mkdtemp(strcpy(dir, "/tmp/cellos-control-XXXXXX")));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", dir);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	unsetenv("NOTIFY_SOCKET");
	notify_manager("READY=1");
	setenv("NOTIFY_SOCKET", "relative", 1);
	notify_manager("READY=1");
	ck_assert_int_lt(recv(fd, message, sizeof(message), 0), 0);
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	notify_manager("READY=1");
	ck_assert_int_eq(recv(fd, message, sizeof(message), 0), 7);
	ck_assert_str_eq(message, "READY=1");
	unsetenv("NOTIFY_SOCKET");
	close(fd);
	unlink(address.sun_path);
	rmdir(dir);
}

UNIT_TEST(the_watchdog_is_ours_or_not)
{
	char pid[16];

	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	ck_assert_uint_eq(notify_watchdog_ms(), 0);
	setenv("WATCHDOG_USEC", "30000000", 1);
	ck_assert_uint_eq(notify_watchdog_ms(), 30000);
	snprintf(pid, sizeof(pid), "%d", getpid());
	setenv("WATCHDOG_PID", pid, 1);
	ck_assert_uint_eq(notify_watchdog_ms(), 30000);
	setenv("WATCHDOG_PID", "1", 1);
	ck_assert_uint_eq(notify_watchdog_ms(), 0);
	unsetenv("WATCHDOG_PID");
	setenv("WATCHDOG_USEC", "x", 1);
	ck_assert_uint_eq(notify_watchdog_ms(), 0);
	unsetenv("WATCHDOG_USEC");
}

static int ignore_sigpipe(void)
{
	/* As the verbs do. */
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

UNIT_SUITE(.begin = ignore_sigpipe);

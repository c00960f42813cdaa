# SPDX-License-Identifier: MIT
"""Ordinary work gives the same output with the profile as without it, in both modes. What is not
installed is skipped, and said so."""

import os
import shutil
import subprocess
import tempfile

from runner import PATIENCE, case, main, need

LAUNCHER = os.environ["CELLOS_WORKLOAD_EXEC"]
# No agent is here; with --share-pidns this process stands for it.
NOWHERE = ["--no-listener", "--protect-pid", str(os.getpid())]

SHELL = r"""
set -e
for i in 1 2 3; do echo line $i; done | sort -r | sed s/line/row/
(exit 3) || echo $?
mkdir -p d; echo x > d/f; ln -s f d/l; cat d/l; chmod 600 d/f; mv d/f d/g; rm -r d
(sleep 600 & kill $!; wait $!) 2> /dev/null || echo killed $?
yes | head -n 1000 | md5sum
trap 'echo trapped' USR1; kill -USR1 $$; echo done
"""

PROGRAM = r"""
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int port;

static void *client(void *number)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = port};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	long n = (long)number, answer = 0;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || write(fd, &n, sizeof(n)) < 0 ||
	    read(fd, &answer, sizeof(answer)) != sizeof(answer))
		return (void *)-1;
	close(fd);
	return (void *)answer;
}

static void *serve(void *p)
{
	int fd = (int)(long)p;
	long n;

	if (read(fd, &n, sizeof(n)) == sizeof(n)) {
		n *= n;
		if (write(fd, &n, sizeof(n)) < 0)
			perror("write");
	}
	close(fd);
	return NULL;
}

int main(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t len = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t clients[16], servers[16];
	long sum = 0;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	bind(l, (struct sockaddr *)&a, sizeof(a));
	listen(l, 16);
	getsockname(l, (struct sockaddr *)&a, &len);
	port = a.sin_port;
	for (long i = 0; i < 16; i++)
		pthread_create(&clients[i], NULL, client, (void *)i);
	for (int i = 0; i < 16; i++)
		pthread_create(&servers[i], NULL, serve, (void *)(long)accept(l, NULL, NULL));
	for (int i = 0; i < 16; i++) {
		void *r;

		pthread_join(clients[i], &r);
		pthread_join(servers[i], NULL);
		sum += (long)r;
	}
	printf("sum of squares %ld\n", sum);
	return 0;
}
"""

PYTHON = r"""
import asyncio, concurrent.futures, multiprocessing, sqlite3, subprocess, threading
print(subprocess.run(["sh", "-c", "echo out; exit 4"], capture_output=True, text=True))
async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(await asyncio.gather(*(ask(port, i) for i in range(8))))
    p = await asyncio.create_subprocess_exec("echo", "child", stdout=asyncio.subprocess.PIPE)
    print((await p.communicate())[0], p.returncode)
    server.close()
async def handle(reader, writer):
    writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
async def ask(port, i):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello %d\n" % i); await writer.drain()
    line = await reader.readline(); writer.close(); return line
asyncio.run(main())
with multiprocessing.Pool(2) as pool: print(pool.map(abs, range(-4, 0)))
with concurrent.futures.ThreadPoolExecutor() as e: print(sum(e.map(abs, range(-100, 0))))
db = sqlite3.connect("x.db"); db.execute("create table t(a)")
db.executemany("insert into t values(?)", [(i,) for i in range(1000)]); db.commit()
print(db.execute("select sum(a), count(*) from t").fetchall(), db.execute("pragma integrity_check").fetchall())
"""

NODE = """
const {execFileSync} = require('child_process'), net = require('net'), fs = require('fs');
console.log(execFileSync('echo', ['from node']).toString());
const s = net.createServer(c => c.end('bye')).listen(0, '127.0.0.1', () => {
  net.connect(s.address().port, '127.0.0.1').on('data', d => { console.log(String(d)); s.close(); });
}).on('close', () => {
  // After that, so that the order of the output is always the same.
  fs.promises.writeFile('n', 'x').then(() => fs.promises.readFile('n', 'utf8')).then(console.log);
});
"""

GDB = ["gdb", "-q", "-batch", "-nx", "-ex", "set debuginfod enabled off",
       "-ex", "set disable-randomization off", "-ex", "break serve",
       "-ex", "run", "-ex", "bt 1", "-ex", "kill", "./server-static"]

# name: (what must be installed, command, options of the launcher with --share-pidns)
WORK = {
    "shell": (["busybox"], ["busybox", "sh", "-c", SHELL], []),
    "compiler": (["gcc"], ["sh", "-c", "gcc -O1 -pthread -o server server.c && ./server"], []),
    "make": (["make"], ["sh", "-c", "printf 'all: a b\\na b:\\n\\techo $@\\n' > M; make -j2 -Otarget -f M | sort"], []),
    "sqlite": (["sqlite3"], ["sqlite3", "y.db", "create table t(a); insert into t values(1),(2);"
                             "pragma journal_mode=wal; select sum(a) from t; vacuum;"], []),
    "python": (["python3"], ["python3", "-c", PYTHON], []),
    "perl": (["perl"], ["perl", "-e", "print `echo from perl`; my $p = fork; if (!$p) { exit 3 } "
                        "waitpid $p, 0; print $? >> 8, qq(\\n); print join(q(,), map { $_ * 2 } 1..5), "
                        "qq(\\n)"], []),
    "node": (["node"], ["node", "-e", NODE], []),
    "strace": (["strace"], ["sh", "-c", "strace -f -o t sh -c 'echo traced; true'; "
                            "grep -c execve t; strace -e inject=getppid:retval=42 -o u python3 -c "
                            "'import os; print(os.getppid())'"], ["--allow-debug"]),
    "gdb": (["gdb", "gcc"], ["sh", "-c", "gcc -g -O0 -pthread -o server-static server.c && "
                             + " ".join(f"'{a}'" for a in GDB) +
                             " 2>&1 | grep -c 'hit Breakpoint 1'"], ["--allow-debug"]),
    "tar": (["tar", "gzip"], ["sh", "-c", "tar -cf - server.c | gzip -n | zcat | tar -tf -"], []),
}


def run(prefix, command):
    with tempfile.TemporaryDirectory(prefix="cellos-ordinary-") as d:
        with open(os.path.join(d, "server.c"), "w", encoding="ascii") as f:
            f.write(PROGRAM)
        r = subprocess.run([*prefix, *command], cwd=d, capture_output=True, text=True, timeout=PATIENCE,
                           stdin=subprocess.DEVNULL, check=False,
                           env={**os.environ, "LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"})
        lines = [line for line in r.stderr.splitlines() if not line.startswith("cellos-workload")]
        return r.returncode, r.stdout.replace(d, "DIR"), "\n".join(lines).replace(d, "DIR")


def every_program_ends_alike_under_the_profile():
    for name, (needs, command, shared) in WORK.items():
        missing = [n for n in needs if not shutil.which(n)]
        if missing:
            print(f"skipped {name}: {', '.join(missing)} not installed")
            continue
        with case(name):
            plain = run([], command)
            assert plain[0] == 0 and plain[1], "it fails without the profile already"
            for options in ([], ["--init"], ["--share-pidns", *shared]):
                profiled = run([LAUNCHER, *NOWHERE, *options], command)
                assert profiled == plain, options
                print(f"alike: {name} {' '.join(options)}", flush=True)


if __name__ == "__main__":
    need(os.geteuid() == 0, "needs root, to make namespaces")
    main()

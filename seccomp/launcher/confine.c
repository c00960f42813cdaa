/* SPDX-License-Identifier: MIT */
/*
 * Layer 1 of the profile. A filter sees neither paths nor open descriptors, so this layer removes
 * them: dangerous paths are masked or read-only, descriptors are closed, capabilities are dropped.
 *
 * All mounts are made in a mount namespace of the launcher, so no other process sees them.
 */
#include <stdarg.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "seccomp/launcher/launch.h"

void step_set(struct step *step, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(step->name, sizeof(step->name), fmt, ap);
	va_end(ap);
}

enum treatment {
	READ_ONLY, /* can be read, not written */
	MASK,	   /* reads as empty */
};

/* Paths of the workload's /proc and /dev. A path that this kernel does not have is skipped. */
static const struct {
	const char *path;
	enum treatment treatment;
	const char *why;
} treated[] = {
	{"/proc/sys", READ_ONLY, "core_pattern and modprobe name programs that the kernel runs"},
	{"/proc/sysrq-trigger", READ_ONLY, "kills everybody, stops the machine"},
	{"/proc/irq", READ_ONLY, "takes interrupts away"},
	{"/proc/bus", READ_ONLY, "configuration space of devices"},
	{"/proc/fs", READ_ONLY, "file systems' settings"},
	{"/proc/mtrr", READ_ONLY, "memory types"},
	{"/proc/dynamic_debug", READ_ONLY, "floods the console"},
	{"/proc/kcore", MASK, "the kernel's memory"},
	{"/proc/kmem", MASK, "the kernel's memory"},
	{"/proc/keys", MASK, "keys of others"},
	{"/proc/timer_list", MASK, "timers of other processes"},
	{"/proc/sched_debug", MASK, "processes of other namespaces"},
	{"/proc/latency_stats", MASK, "processes of other namespaces"},
	{"/proc/acpi", MASK, "sleep and wake"},
	{"/proc/scsi", MASK, "adds and removes devices"},
	{"/dev/mem", MASK, "the channel's device registers"},
	{"/dev/kmem", MASK, "the kernel's memory"},
	{"/dev/port", MASK, "the devices' ports"},
	{"/dev/nvram", MASK, "what the next boot reads"},
	{"/dev/watchdog", MASK, "opened and left, it resets the machine"},
	{"/dev/watchdog0", MASK, "opened and left, it resets the machine"},
	{"/dev/input", MASK, "a write there presses keys: Alt+SysRq among them"},
	{"/dev/uinput", MASK, "a keyboard of the workload's own"},
	{"/dev/userfaultfd", MASK, "halts the kernel inside a copy from the workload's memory"},
	{"/dev/vhost-vsock", MASK, "a way to make vsock peers"},
};

/* File systems that are read-only wherever they are mounted, beside all mounts below /sys. */
static const char *const read_only_types[] = {
	"sysfs",   "cgroup",   "cgroup2",    "debugfs",	   "tracefs",	  "securityfs",
	"bpf",	   "configfs", "efivarfs",   "pstore",	   "binfmt_misc", "selinuxfs",
	"smackfs", "resctrl",  "functionfs", "rpc_pipefs",
};

enum when {
	NEVER,
	ALWAYS,
	SHARED, /* with --share-pidns */
	NET,	/* with --drop-net-admin */
};

static const struct {
	int capability;
	const char *name;
	const char *hole; /* the hole that --cap-keep opens */
	enum when dropped;
} capabilities[] = {
#define KEPT(c)                                                                                    \
	{                                                                                          \
		CAP_##c, "CAP_" #c, NULL, NEVER                                                    \
	}
#define TAKEN(c, hole)                                                                             \
	{                                                                                          \
		CAP_##c, "CAP_" #c, hole, ALWAYS                                                   \
	}
#define TAKEN_IF(when, c, hole)                                                                    \
	{                                                                                          \
		CAP_##c, "CAP_" #c, hole, when                                                     \
	}
	KEPT(CHOWN),
	KEPT(DAC_OVERRIDE),
	KEPT(DAC_READ_SEARCH),
	KEPT(FOWNER),
	KEPT(FSETID),
	TAKEN_IF(SHARED, KILL, "with --share-pidns: signals to processes of other users"),
	KEPT(SETGID),
	KEPT(SETUID),
	KEPT(SETPCAP),
	TAKEN(LINUX_IMMUTABLE, "files that nobody else can change any more"),
	KEPT(NET_BIND_SERVICE),
	KEPT(NET_BROADCAST),
	TAKEN_IF(NET, NET_ADMIN,
		 "redirects connects after they were seen; reads the agent's frames"),
	TAKEN_IF(NET, NET_RAW, "reads and writes whole packets"),
	KEPT(IPC_LOCK),
	KEPT(IPC_OWNER),
	TAKEN(SYS_MODULE, "code in the kernel, with --allow machine"),
	TAKEN(SYS_RAWIO, "device registers and kernel memory"),
	KEPT(SYS_CHROOT),
	TAKEN(SYS_PTRACE, "with --share-pidns: /proc/PID/mem of the agent can be read and written"),
	KEPT(SYS_PACCT),
	TAKEN(SYS_ADMIN, "everything layer 1 does can be undone"),
	TAKEN(SYS_BOOT, "reboot, with --allow machine"),
	TAKEN(SYS_NICE, "real-time classes that leave the agent no processor"),
	TAKEN(SYS_RESOURCE,
	      "limits without end; the workload may be the last to be killed for memory"),
	TAKEN(SYS_TIME, "the clock, with --allow clock"),
	KEPT(SYS_TTY_CONFIG),
	TAKEN(MKNOD, "device nodes: disks and memory"),
	KEPT(LEASE),
	TAKEN(AUDIT_WRITE, "false audit records"),
	TAKEN(AUDIT_CONTROL, "audit can be switched off"),
	KEPT(SETFCAP),
	TAKEN(MAC_OVERRIDE, "mandatory access control"),
	TAKEN(MAC_ADMIN, "mandatory access control"),
	TAKEN(SYSLOG, "the kernel's log and addresses"),
	TAKEN(WAKE_ALARM, "wakes the machine"),
	TAKEN(BLOCK_SUSPEND, "keeps the machine from sleeping"),
	TAKEN(AUDIT_READ, "reads what audit says about others"),
	TAKEN(PERFMON, "performance counters of others, with --allow machine"),
	TAKEN(BPF, "BPF programs, with --allow machine"),
	TAKEN(CHECKPOINT_RESTORE, "chooses pids, reads others' memory maps"),
};

static bool is_dropped(const struct launch_options *o, enum when when)
{
	return when == ALWAYS || (when == SHARED && o->share_pidns) ||
	       (when == NET && o->drop_net_admin);
}

/* Bit i: capability i. Capabilities that are newer than the table are dropped. */
static uint64_t dropped(const struct launch_options *o)
{
	uint64_t set = ~UINT64_C(0);

	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (!is_dropped(o, capabilities[i].dropped))
			set &= ~(UINT64_C(1) << capabilities[i].capability);
	return set & ~o->cap_keep;
}

int confine_capability(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (!strcasecmp(name, capabilities[i].name) ||
		    !strcasecmp(name, capabilities[i].name + strlen("CAP_")))
			return capabilities[i].capability;
	return -ENOENT;
}

const char *confine_capability_name(int capability)
{
	return capability < (int)ARRAY_SIZE(capabilities) ? capabilities[capability].name : NULL;
}

const char *confine_capability_hole(int capability)
{
	return capability < (int)ARRAY_SIZE(capabilities) ? capabilities[capability].hole : NULL;
}

/* Mounts. */

struct mount_entry {
	int id;
	char *target;
	char *type;
};

struct mount_list {
	size_t n;
	char *text;
	struct mount_entry entries[LAUNCH_MOUNTS_MAX];
};

/* proc(5): white space and backslashes are \ooo. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to = *s;
		}
	}
	*to = '\0';
}

static int read_whole(const char *path, char **ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	size_t len = 0, size = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		if (size - len < 4096) {
			char *more = realloc(text, size + 65536);

			if (!more)
				return -ENOMEM;
			text = more;
			size += 65536;
		}
		n = read(fd, text + len, size - len - 1);
		if (n < 0)
			return -errno;
		len += (size_t)n;
	} while (n > 0);
	text[len] = '\0';
	*ret = take_ptr(text);
	return 0;
}

static int read_mounts(struct mount_list *list)
{
	char *save = NULL;
	int r = read_whole("/proc/self/mountinfo", &list->text);

	if (r < 0)
		return r;
	for (char *line = strtok_r(list->text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *type = strstr(line, " - "), *fields = NULL, *id, *target = NULL;

		if (!type)
			return -EPROTO;
		*type = '\0';
		type += 3;
		type[strcspn(type, " ")] = '\0';
		id = strtok_r(line, " ", &fields);
		for (int i = 0; i < 4; i++)
			target = strtok_r(NULL, " ", &fields);
		if (!id || !target)
			return -EPROTO;
		if (list->n == LAUNCH_MOUNTS_MAX)
			return -E2BIG;
		unescape(target);
		list->entries[list->n++] =
			(struct mount_entry){.id = atoi(id), .target = target, .type = type};
	}
	return 0;
}

/* Whether the path leads to this mount, and no other mount covers it. */
static bool is_visible(const struct mount_entry *e)
{
	_cleanup_close_ int fd = open(e->target, O_PATH | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	char path[64];
	const char *id;

	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (read_whole(path, &text) < 0)
		return false;
	id = strstr(text, "mnt_id:");
	return id && atoi(id + strlen("mnt_id:")) == e->id;
}

/* The flags that the mount has already, as flags of mount(2). */
static unsigned long kept_flags(const char *path)
{
	static const struct {
		unsigned long from, to;
	} flags[] = {
		{ST_NOSUID, MS_NOSUID},		{ST_NODEV, MS_NODEV},
		{ST_NOEXEC, MS_NOEXEC},		{ST_NOATIME, MS_NOATIME},
		{ST_NODIRATIME, MS_NODIRATIME}, {ST_RELATIME, MS_RELATIME},
	};
	struct statvfs st;
	unsigned long kept = 0;

	if (statvfs(path, &st) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
			if (st.f_flag & flags[i].from)
				kept |= flags[i].to;
	return kept;
}

static int make_read_only(const char *path, struct step *step)
{
	step_set(step, "make %s read-only", path);
	return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | kept_flags(path), NULL) <
			       0
		       ? -errno
		       : 0;
}

static int bind_read_only(const char *path, struct step *step)
{
	step_set(step, "bind %s onto itself", path);
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0)
		return errno == ENOENT ? 0 : -errno;
	return make_read_only(path, step);
}

static int mask_directory(const char *path, struct step *step)
{
	step_set(step, "mask %s", path);
	return mount(PROFILE_MOUNT_SOURCE, path, "tmpfs",
		     MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		     "size=0,nr_inodes=1,mode=0555") < 0
		       ? -errno
		       : 0;
}

static int mask(const char *path, struct step *step)
{
	struct stat st, null;

	step_set(step, "mask %s", path);
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return mask_directory(path, step);
	step_set(step, "mask %s by /dev/null", path);
	if (stat("/dev/null", &null) < 0)
		return -errno;
	if (!S_ISCHR(null.st_mode) || null.st_rdev != makedev(1, 3))
		return -ENODEV;
	return mount("/dev/null", path, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

static bool in_list(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], s))
			return true;
	return false;
}

static int treat_mounts(const struct launch_options *o, const struct mount_list *list,
			struct step *step)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct mount_entry *e = &list->entries[i];
		int r = 0;

		if (!is_visible(e))
			continue;
		if (in_list(read_only_types, ARRAY_SIZE(read_only_types), e->type) ||
		    !strncmp(e->target, "/sys/", strlen("/sys/")))
			r = make_read_only(e->target, step);
		else if (!strcmp(e->type, "proc") &&
			 !(o->share_pidns && !strcmp(e->target, "/proc")))
			/*
			 * Mask this mount of proc: it shows the processes of another pid namespace.
			 */
			r = mask(e->target, step);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * With --share-pidns the files of these processes are visible, and oom_score_adj can be written
 * without a capability.
 */
static int protect_processes(pid_t agent, struct step *step)
{
	char path[64];
	int r = bind_read_only("/proc/1", step);

	if (r == 0)
		r = bind_read_only("/proc/2", step);
	if (r < 0 || agent == 0)
		return r;
	snprintf(path, sizeof(path), "/proc/%d", agent);
	return mask(path, step);
}

/* A workload must not answer in the agent's place, or use up the places of later workloads. */
static int hide_listener(const char *listener, struct step *step)
{
	int r = mask(listener, step);

	/*
	 * The folder is masked even if no agent has run yet, so that no workload can put a socket
	 * into it.
	 */
	(void)mkdir(LISTENER_FOLDER, 0755);
	return r < 0 ? r : mask(LISTENER_FOLDER, step);
}

/* Enter the working directory again, so that its path leads through the new mounts. */
static int enter_directory_again(struct step *step)
{
	char path[4096];

	step_set(step, "enter the working directory again");
	if (getcwd(path, sizeof(path)) && path[0] == '/' && chdir(path) == 0)
		return 0;
	return chdir("/") < 0 ? -errno : 0;
}

int confine_mounts(const struct launch_options *o, struct step *step)
{
	static struct mount_list list;
	int r;

	step_set(step, "unshare the mount namespace");
	if (syscall(SYS_unshare, 0x00020000 /* CLONE_NEWNS */) < 0)
		return -errno;
	step_set(step, "make all mounts private");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	step_set(step, "read /proc/self/mountinfo: is /proc mounted?");
	r = read_mounts(&list);
	if (r < 0)
		return r;
	if (!o->share_pidns) {
		step_set(step, "mount the workload's own /proc");
		if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
			return -errno;
	}
	r = treat_mounts(o, &list, step);
	for (size_t i = 0; i < ARRAY_SIZE(treated) && r == 0; i++)
		r = treated[i].treatment == MASK ? mask(treated[i].path, step)
						 : bind_read_only(treated[i].path, step);
	if (r == 0 && o->share_pidns)
		r = protect_processes(o->protect_pid, step);
	if (r == 0)
		r = hide_listener(o->listener, step);
	if (r == 0)
		r = enter_directory_again(step);
	free(list.text);
	return r;
}

/* Descriptors. */

static int close_range_from(unsigned first, unsigned last)
{
	return first <= last && syscall(SYS_close_range, first, last, 0) < 0 ? -errno : 0;
}

int confine_descriptors(const int *keep, size_t n, struct step *step)
{
	unsigned first = STDERR_FILENO + 1;

	step_set(step, "close inherited descriptors");
	for (;;) {
		unsigned next = UINT32_MAX;
		int r;

		for (size_t i = 0; i < n; i++)
			if (keep[i] >= 0 && (unsigned)keep[i] >= first && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		r = close_range_from(first, next == UINT32_MAX ? next : next - 1);
		if (r < 0 || next == UINT32_MAX)
			return r;
		first = next + 1;
	}
}

/* Privileges. */

int confine_privileges(const struct launch_options *o, struct step *step)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	const uint64_t drop = dropped(o);

	step_set(step, "clear the ambient capabilities");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	for (int cap = 0; cap < 64; cap++) {
		int r = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (r < 0)
			break; /* the last capability of this kernel */
		if (r == 0 || !(drop >> cap & 1))
			continue;
		step_set(step, "drop capability %d from the bounding set", cap);
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	}
	step_set(step, "drop capabilities");
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
		const uint32_t stay = (uint32_t)(~drop >> (32 * i));

		data[i].permitted &= stay;
		data[i].effective &= stay;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	step_set(step, "set no_new_privs");
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

void confine_print(const struct launch_options *o, FILE *out)
{
	if (!o->share_pidns)
		fprintf(out, "  mount     %-22s of the new pid namespace\n", "/proc");
	for (size_t i = 0; i < ARRAY_SIZE(treated); i++)
		fprintf(out, "  %-9s %-22s %s\n",
			treated[i].treatment == MASK ? "mask" : "read-only", treated[i].path,
			treated[i].why);
	fprintf(out, "  read-only every mount below /sys, and of ");
	for (size_t i = 0; i < ARRAY_SIZE(read_only_types); i++)
		fprintf(out, "%s%s", i ? ", " : "", read_only_types[i]);
	fprintf(out, "\n  mask      every other mount of proc\n  mask      %s, %s\n", o->listener,
		LISTENER_FOLDER);
	if (o->share_pidns)
		fprintf(out, "  read-only /proc/1, /proc/2\n  mask      /proc/AGENT\n");
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (is_dropped(o, capabilities[i].dropped))
			fprintf(out, "  %-9s %s\n",
				o->cap_keep >> capabilities[i].capability & 1 ? "keep" : "drop",
				capabilities[i].name);
}

// SPDX-License-Identifier: GPL-2.0
/* What all parts use */
#include "stress.h"

void row(bool ok, const char *what, unsigned long times, const char *format, ...)
{
	va_list args;

	printf("row %s|%s|%lu|", ok ? "ok" : "failed", what, times);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* What this kernel cannot do */
void skip(const char *what, const char *why)
{
	printf("row skip|%s|0|%s\n", what, why);
	fflush(stdout);
}

/* For make test: the same, but less of it */
bool brief(void)
{
	return getenv("STRESS_BRIEF");
}

int write_file(const char *path, const char *format, ...)
{
	char text[64];
	va_list args;
	int fd, len, ret;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		err(1, "%s", path);
	ret = write(fd, text, len) == len ? 0 : -errno;
	close(fd);
	return ret;
}

long vmstat(const char *name)
{
	char line[128], key[64];
	long value;
	FILE *f;

	/* Others than root cannot have it exact, and need not */
	if (!geteuid())
		write_file("/proc/sys/vm/stat_refresh", "1");
	f = fopen("/proc/vmstat", "r");
	if (!f)
		err(1, "/proc/vmstat");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %ld", key, &value) == 2 && !strcmp(key, name)) {
			fclose(f);
			return value;
		}
	errx(1, "%s is not in /proc/vmstat", name);
}

int secret_fd(size_t pages)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd >= 0 && ftruncate(fd, pages * PAGE)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Secret memory, not touched yet, or NULL. Goes with its mapping. */
char *secret_map(size_t pages)
{
	int fd = secret_fd(pages);
	char *mem;

	if (fd < 0)
		return NULL;
	mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

void fill(char *mem, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		*(uint64_t *)(mem + i * PAGE) = i ^ 0x5ec7e7;
}

bool filled(const char *mem, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		if (*(uint64_t *)(mem + i * PAGE) != (i ^ 0x5ec7e7))
			return false;
	return true;
}

char *secret(size_t pages)
{
	char *mem = secret_map(pages);

	if (!mem)
		err(1, "memfd_secret of %zu pages", pages);
	fill(mem, pages);
	return mem;
}

unsigned long pfn_of(const void *addr)
{
	static int fd = -1;
	uint64_t entry;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY);
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * sizeof(entry)) != sizeof(entry))
		err(1, "/proc/self/pagemap");
	return entry >> 63 ? entry & ((1UL << 55) - 1) : 0;
}

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Touching memory that may not be there */

static sigjmp_buf bus_env;
static volatile sig_atomic_t bus_awaited;

void on_bus(int sig)
{
	if (!bus_awaited) {
		row(false, "use one's own memory", 1, "SIGBUS");
		_exit(1);
	}
	siglongjmp(bus_env, 1);
}

/* Does touching it end in SIGBUS? By a write, which leaves what is there: what was never written to may be the zero page. */
bool bus_error(volatile char *addr)
{
	bool hit = sigsetjmp(bus_env, 1);

	if (!hit) {
		bus_awaited = true;
		*addr = *addr;
	}
	bus_awaited = false;
	return hit;
}


/* A file without a name that is plain memory */
int memfd_pages(size_t pages)
{
	int fd = syscall(SYS_memfd_create, "stress", 0);

	if (fd < 0 || ftruncate(fd, pages * PAGE))
		err(1, "memfd_create");
	return fd;
}

/* Free memory and what can be had for it, in KiB */
long meminfo(const char *name)
{
	char line[128], key[64];
	long value;
	FILE *f = fopen("/proc/meminfo", "r");

	if (!f)
		err(1, "/proc/meminfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63[^:]: %ld", key, &value) == 2 && !strcmp(key, name)) {
			fclose(f);
			return value;
		}
	errx(1, "%s is not in /proc/meminfo", name);
}

/* The status of a child, or -1 if it had to be killed because it did not end */
int wait_for(pid_t pid, double seconds)
{
	double end = now() + seconds;
	int status;

	while (now() < end) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		usleep(10000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return -1;
}

/* What became of a child, in a word */
const char *fate(int status)
{
	static char text[32];

	if (status == -1)
		return "did not end";
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGKILL ? "SIGKILL" : WTERMSIG(status) == SIGBUS ? "SIGBUS" : "another signal";
	snprintf(text, sizeof(text), "exit code %d", WEXITSTATUS(status));
	return text;
}

/* A memory cgroup, one at a time */

#define CGROUP	"/tmp/cgroup"

/* Returns whether the kernel has memory cgroups */
bool memcg_make(size_t max)
{
	mkdir(CGROUP, 0755);
	if (access(CGROUP "/cgroup.controllers", F_OK) && mount("none", CGROUP, "cgroup2", 0, NULL))
		return false;
	if (write_file(CGROUP "/cgroup.subtree_control", "+memory"))
		return false;
	if (mkdir(CGROUP "/stress", 0755))
		err(1, "mkdir " CGROUP "/stress");
	return !write_file(CGROUP "/stress/memory.max", "%zu", max);
}

void memcg_join(void)
{
	if (write_file(CGROUP "/stress/cgroup.procs", "0"))
		_exit(3);
}

/* How often its OOM killer has killed */
long memcg_kills(void)
{
	char line[128];
	long kills = -1;
	FILE *f = fopen(CGROUP "/stress/memory.events", "r");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "oom_kill %ld", &kills);
	if (f)
		fclose(f);
	return kills;
}

bool memcg_remove(void)
{
	int i;

	for (i = 0; i < 100 && rmdir(CGROUP "/stress"); i++)
		usleep(100000);
	return i < 100;
}

/* Have all allocations fail that fail-nth says, and count those that did */

static const char * const fault_dirs[] = { "/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc" };
#define FAULT_TIMES	1000000000

bool fault_write(const char *dir, const char *file, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return !access(path, W_OK) && !write_file(path, "%s", value);
}

/* How many allocations have failed since fault_setup() */
unsigned long fault_count(void)
{
	unsigned long count = 0, left;
	char path[128];
	unsigned int i;
	FILE *f;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/times", fault_dirs[i]);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fscanf(f, "%lu", &left) == 1)
			count += FAULT_TIMES - left;
		fclose(f);
	}
	return count;
}

unsigned long fault_setup(void)
{
	char times[16];
	unsigned int i;

	snprintf(times, sizeof(times), "%d", FAULT_TIMES);
	for (i = 0; i < 2; i++) {
		fault_write(fault_dirs[i], "ignore-gfp-wait", "N");
		fault_write(fault_dirs[i], "task-filter", "N");
		/* Or each one is logged with a stack */
		fault_write(fault_dirs[i], "verbose", "0");
		fault_write(fault_dirs[i], "times", times);
	}
	fault_write(fault_dirs[1], "min-order", "0");
	fault_write(fault_dirs[1], "ignore-gfp-highmem", "N");
	return fault_count();
}

/* A line of the kernel's dump of its page tables, and whether what it tells of is present */
static bool dumped_range(const char *line, unsigned long *from, unsigned long *to, bool *present)
{
	*present = strstr(line, " RW ") || strstr(line, " ro ");
	return sscanf(line, "0x%lx-0x%lx", from, to) == 2;
}

/*
 * How much of the direct map is not present, in KiB, by the kernel's dump of its page tables: what is between the first and the
 * last page that are
 */
long absent_kib(void)
{
	unsigned long from, to, hole = 0, sum = 0;
	bool inside = false, seen = false, present;
	char line[256];
	FILE *f = fopen("/sys/kernel/debug/page_tables/kernel", "r");

	if (!f)
		err(1, "/sys/kernel/debug/page_tables/kernel");
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "---[", 4)) {
			if (inside)
				break;
			inside = strstr(line, "Low Kernel Mapping");
		} else if (inside && dumped_range(line, &from, &to, &present)) {
			if (!present) {
				hole += to - from;
				continue;
			}
			sum += seen ? hole : 0;
			hole = 0;
			seen = true;
		}
	}
	fclose(f);
	if (!seen)
		errx(1, "no direct map in /sys/kernel/debug/page_tables/kernel");
	return sum / 1024;
}

/* How much between two addresses of the kernel's is present, in KiB, by the same dump */
unsigned long mapped_kib(unsigned long start, unsigned long end)
{
	unsigned long from, to, sum = 0;
	bool present;
	char line[256];
	FILE *f = fopen("/sys/kernel/debug/page_tables/kernel", "r");

	if (!f)
		err(1, "/sys/kernel/debug/page_tables/kernel");
	while (fgets(line, sizeof(line), f)) {
		if (!dumped_range(line, &from, &to, &present) || !present)
			continue;
		from = from > start ? from : start;
		to = to < end ? to : end;
		sum += from < to ? to - from : 0;
	}
	fclose(f);
	return sum / 1024;
}

/* The address of a symbol of the kernel's, the last one of that name, or 0. Of data there are none without CONFIG_KALLSYMS_ALL. */
unsigned long symbol(const char *name)
{
	unsigned long addr = 0, value;
	char line[512], key[128];
	FILE *f = fopen("/proc/kallsyms", "r");

	if (!f)
		err(1, "/proc/kallsyms");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx %*c %127s", &value, key) == 2 && !strcmp(key, name))
			addr = value;
	fclose(f);
	return addr;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Those who use secret memory, and abuse it, for guest/stress.sh. Prints rows "row ok|WHAT|TIMES|RESULT", or for "hold" which
 * blocks of memory it has.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define MIB		(1UL << 20)
#define BLOCK_PAGES	512
#define MEMORY_BLOCK	(128 * MIB)

static void row(bool ok, const char *what, unsigned long times, const char *format, ...)
{
	va_list args;

	printf("row %s|%s|%lu|", ok ? "ok" : "failed", what, times);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

static int write_file(const char *path, const char *format, ...)
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

static long vmstat(const char *name)
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

static int secret_fd(size_t pages)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd >= 0 && ftruncate(fd, pages * PAGE)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Secret memory, not touched yet, or NULL. Goes with its mapping. */
static char *secret_map(size_t pages)
{
	int fd = secret_fd(pages);
	char *mem;

	if (fd < 0)
		return NULL;
	mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return mem == MAP_FAILED ? NULL : mem;
}

static void fill(char *mem, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		*(uint64_t *)(mem + i * PAGE) = i ^ 0x5ec7e7;
}

static bool filled(const char *mem, size_t pages)
{
	size_t i;

	for (i = 0; i < pages; i++)
		if (*(uint64_t *)(mem + i * PAGE) != (i ^ 0x5ec7e7))
			return false;
	return true;
}

static char *secret(size_t pages)
{
	char *mem = secret_map(pages);

	if (!mem)
		err(1, "memfd_secret of %zu pages", pages);
	fill(mem, pages);
	return mem;
}

static unsigned long pfn_of(const void *addr)
{
	static int fd = -1;
	uint64_t entry;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY);
	if (pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * sizeof(entry)) != sizeof(entry))
		err(1, "/proc/self/pagemap");
	return entry >> 63 ? entry & ((1UL << 55) - 1) : 0;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* A user that can be asked whether its secrets are what they were: by SIGUSR1, which it answers and ends */

static volatile sig_atomic_t asked;

static void on_usr1(int sig)
{
	asked = 1;
}

static void hold(size_t pages)
{
	unsigned long blocks[256] = {}, i;
	char *mem;

	signal(SIGUSR1, on_usr1);
	mem = secret(pages);
	for (i = 0; i < pages; i++)
		blocks[pfn_of(mem + i * PAGE) * PAGE / MEMORY_BLOCK]++;
	for (i = 0; i < 256; i++)
		if (blocks[i])
			printf("block %lu %lu\n", i, blocks[i]);
	puts("ready");
	fflush(stdout);
	while (!asked)
		usleep(10000);
	exit(!filled(mem, pages));
}

/* Takes and frees all the time, and looks at what it has */
static void churn(void)
{
	static struct { char *mem; size_t pages; } piece[64];
	unsigned int i, seed = getpid();

	signal(SIGUSR1, on_usr1);
	while (!asked) {
		i = rand_r(&seed) % 64;
		if (piece[i].mem) {
			if (!filled(piece[i].mem, piece[i].pages))
				exit(1);
			munmap(piece[i].mem, piece[i].pages * PAGE);
		}
		piece[i].pages = 1 + rand_r(&seed) % 256;
		piece[i].mem = secret(piece[i].pages);
	}
	exit(0);
}

/* Anonymous memory, for what was absent to be used through the direct map: the kernel clears each page */
static void anonymous(size_t pages)
{
	char *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap");
	fill(mem, pages);
	exit(!filled(mem, pages));
}

/* Memory that goes bad */

#define POISON_PAGES	1024

static sigjmp_buf bus_env;

static void on_bus(int sig)
{
	siglongjmp(bus_env, 1);
}

static bool bus_error(volatile char *addr)
{
	if (sigsetjmp(bus_env, 1))
		return true;
	(void)*addr;
	return false;
}

#define COME_BACK	8

/* Is a page handed out again? As secret memory, or as any other */
static bool comes_back(unsigned long pfn)
{
	unsigned int round, i;
	bool back = false;

	for (round = 0; round < COME_BACK && !back; round++) {
		size_t pages = 1000 << (round & 3);
		char *mem;

		if (round & 1) {
			mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			fill(mem, pages);
		} else {
			mem = secret(pages);
		}
		for (i = 0; i < pages && !back; i++)
			back = pfn_of(mem + i * PAGE) == pfn;
		munmap(mem, pages * PAGE);
		/* Between two rounds the cache's idle blocks go back */
		write_file("/proc/sys/vm/drop_caches", "2");
	}
	return back;
}

static void poison_used(const char *name, const char *path, bool by_address)
{
	char *mine = secret(POISON_PAGES), *other = secret(POISON_PAGES), *bad = mine + 100 * PAGE;
	unsigned long pfn = pfn_of(bad);
	bool hurt, others, mine_else;
	int i, ret, status = 0;
	pid_t child;

	/* One who does not touch the page is not to be hurt */
	child = fork();
	if (!child) {
		munmap(mine, POISON_PAGES * PAGE);
		signal(SIGUSR1, on_usr1);
		while (!asked)
			usleep(1000);
		_exit(!filled(other, POISON_PAGES));
	}
	ret = write_file(path, by_address ? "0x%lx" : "0x%lx", by_address ? pfn * PAGE : pfn);
	hurt = bus_error(bad);
	mine_else = true;
	for (i = 0; i < POISON_PAGES; i++)
		if (i != 100 && (bus_error(mine + i * PAGE) || *(uint64_t *)(mine + i * PAGE) != (i ^ 0x5ec7e7)))
			mine_else = false;
	usleep(100000);
	kill(child, SIGUSR1);
	waitpid(child, &status, 0);
	others = filled(other, POISON_PAGES) && WIFEXITED(status) && !WEXITSTATUS(status);
	munmap(mine, POISON_PAGES * PAGE);
	munmap(other, POISON_PAGES * PAGE);
	/*
	 * What is dirty stays in the page cache, where file systems do not care for errors: as on any kernel, the write
	 * ends with EBUSY then, and whoever touches the page gets SIGBUS.
	 */
	row((!ret || ret == -EBUSY) && hurt && mine_else && others, name, 1, "%s; its owner %s, %s; others %s", ret ? strerror(-ret) : "done",
	    hurt ? "gets SIGBUS" : "reads it still", mine_else ? "has all other pages" : "lost others, too",
	    others ? "are not hurt" : "are hurt");
	ret = comes_back(pfn);
	row(!ret, "is that page handed out again", COME_BACK, ret ? "yes" : "no");
}

static void poison_cached(const char *name, const char *path, bool by_address, bool soft)
{
	/* One page in use keeps the block in the cache */
	char *keep = secret(1), *mem = secret(100);
	unsigned long pfn = pfn_of(mem + 50 * PAGE);
	long cached;
	int ret;

	munmap(mem, 100 * PAGE);
	cached = vmstat("nr_direct_unmapped_free");
	ret = write_file(path, "0x%lx", by_address ? pfn * PAGE : pfn);
	mem = secret(2000);
	row(filled(keep, 1) && filled(mem, 2000), name, 1, "%s; %ld pages were cached, the cache serves on",
	    ret ? strerror(-ret) : "done", cached);
	munmap(mem, 2000 * PAGE);
	munmap(keep, PAGE);
	if (!soft) {
		ret = comes_back(pfn);
		row(!ret, "is that page handed out again", COME_BACK, ret ? "yes" : "no");
	}
}

static void poison_soft(const char *path)
{
	char *mem = secret(POISON_PAGES);
	unsigned long pfn = pfn_of(mem + 200 * PAGE);
	double start = now();
	int ret = write_file(path, "0x%lx", pfn * PAGE);
	bool kept = filled(mem, POISON_PAGES);

	start = now() - start;
	row(ret && kept && pfn_of(mem + 200 * PAGE) == pfn && start < 10, "soft offline of a used page", 1,
	    "%s after %.1f s; its contents are %s", ret ? strerror(-ret) : "done", start, kept ? "what they were" : "gone");
	munmap(mem, POISON_PAGES * PAGE);
}

static void poison(void)
{
	const char *hard = "/sys/devices/system/memory/hard_offline_page";
	const char *soft = "/sys/devices/system/memory/soft_offline_page";
	const char *inject = "/sys/kernel/debug/hwpoison/corrupt-pfn";
	struct sigaction sa = { .sa_handler = on_bus };
	long used, splits = vmstat("direct_map_level2_splits");

	sigaction(SIGBUS, &sa, NULL);
	poison_used("memory failure of a used page (corrupt-pfn)", inject, false);
	poison_used("memory failure of a used page (hard_offline_page)", hard, true);
	poison_cached("memory failure of a cached page (corrupt-pfn)", inject, false, false);
	poison_cached("memory failure of a cached page (hard_offline_page)", hard, true, false);
	poison_cached("soft offline of a cached page", soft, true, true);
	poison_soft(soft);
	/* The bad pages, and nothing else, count as used for ever */
	sleep(3);
	used = vmstat("nr_direct_unmapped_used");
	row(used <= 4, "pages that count as used afterwards", 1, "%ld, of 4 that went bad", used);
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!splits, "large pages split by all that", 1, "%ld", splits);
}

/* Allocations that fail, the Nth one of each request */

static int fail_fd = -1;

static void fail_nth(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	if (pwrite(fail_fd, text, len, 0) != len)
		err(1, "/proc/thread-self/fail-nth");
}

/* Did fewer than N allocations come? Switches failures off. */
static bool not_reached(void)
{
	char text[16] = "";
	bool left;

	if (pread(fail_fd, text, sizeof(text) - 1, 0) < 0)
		err(1, "/proc/thread-self/fail-nth");
	left = atoi(text) > 0;
	fail_nth(0);
	return left;
}

/* One request: a file, its mapping, and some pages, faulted in by the kernel, as a fault of ours would be tried again */
static bool request(int zero, size_t pages, unsigned int n, bool *done)
{
	char *mem = NULL;
	bool ok = false;
	int fd;

	if (n)
		fail_nth(n);
	fd = secret_fd(pages);
	if (fd >= 0) {
		mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (mem != MAP_FAILED)
			ok = read(zero, mem, pages * PAGE) == (ssize_t)(pages * PAGE);
	}
	if (n)
		*done = not_reached();
	if (fd >= 0) {
		if (mem != MAP_FAILED)
			munmap(mem, pages * PAGE);
		close(fd);
	}
	return ok;
}

/* Pages in use, which are to be as many as before. What is freed may be in LRU batches of CPUs for a while. */
static long used_pages(long before)
{
	long used;
	int i;

	for (i = 0; i < 20; i++) {
		used = vmstat("nr_direct_unmapped_used");
		if (used == before)
			break;
		write_file("/proc/sys/vm/drop_caches", "3");
		usleep(100000);
	}
	return used;
}

static void walk(const char *name, bool cached, size_t pages)
{
	long used = vmstat("nr_direct_unmapped_used"), splits = vmstat("direct_map_level2_splits"), after = 0;
	int zero = open("/dev/zero", O_RDONLY);
	char *keep = cached ? secret(1) : NULL;
	unsigned int n, walked = 0, failed = 0;
	const char *why = NULL;
	bool done = false;

	used += cached;
	for (n = 1; !done && !why && n < 2000; n += n < 64 ? 1 : 13) {
		walked++;
		if (!cached)
			write_file("/proc/sys/vm/drop_caches", "2");
		failed += !request(zero, pages, n, &done);
		after = used_pages(used);
		if (after != used)
			why = "a page is lost";
		else if (!request(zero, pages, 0, NULL))
			why = "the next attempt fails";
		else if ((after = used_pages(used)) != used)
			why = "a page of the next attempt is lost";
	}
	if (keep)
		munmap(keep, PAGE);
	splits = vmstat("direct_map_level2_splits") - splits;
	if (why)
		row(false, name, walked, "%s: %ld pages used, %ld before", why, after, used);
	else
		row(done && failed, name, walked, "%u requests failed, the others got over it; nothing lost, the next one works; %ld splits",
		    failed, splits);
	close(zero);
}

static void faults(void)
{
	static const char * const dirs[] = { "failslab", "fail_page_alloc" };
	char path[128];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-wait", dirs[i]);
		write_file(path, "N");
		/* Or each one is logged with a stack */
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose", dirs[i]);
		write_file(path, "0");
	}
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	fail_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fail_fd < 0)
		err(1, "/proc/thread-self/fail-nth");
	walk("the Nth allocation fails, no page in the cache", false, 1);
	walk("the Nth allocation fails, pages in the cache", true, 1);
	walk("the Nth allocation fails, 2 blocks are needed", false, BLOCK_PAGES + 8);
}

/* Users who grab what they can */

#define NR_USERS	8
#define LIMIT_PAGES	256
#define NR_FILES	400
#define NR_ROUNDS	60

/* Many files with single pages, far from their beginning; some go, some come */
static void grab(unsigned int user, int report)
{
	struct rlimit lim = { LIMIT_PAGES * PAGE, LIMIT_PAGES * PAGE };
	struct rlimit files = { NR_FILES + 100, NR_FILES + 100 };
	struct sigaction sa = { .sa_handler = on_bus };
	static char *mem[NR_FILES];
	unsigned int i, round, held = 0, most = 0, seed = user;

	if (setrlimit(RLIMIT_MEMLOCK, &lim) || setrlimit(RLIMIT_NOFILE, &files) || setgid(1000 + user) || setuid(1000 + user))
		_exit(2);
	sigaction(SIGBUS, &sa, NULL);
	for (round = 0; round < NR_ROUNDS; round++) {
		for (i = 0; i < NR_FILES && held <= LIMIT_PAGES + 8; i++) {
			if (mem[i])
				continue;
			mem[i] = secret_map(64);
			if (!mem[i])
				break;
			if (bus_error(mem[i] + 50 * PAGE)) {
				munmap(mem[i], 64 * PAGE);
				mem[i] = NULL;
				break;
			}
			held++;
		}
		most = held > most ? held : most;
		if (round == NR_ROUNDS - 1)
			break;
		/* Keep one of many, so as to have as many blocks as can be */
		for (i = 0; i < NR_FILES; i++)
			if (mem[i] && rand_r(&seed) % 64) {
				munmap(mem[i], 64 * PAGE);
				mem[i] = NULL;
				held--;
			}
	}
	if (write(report, &most, sizeof(most)) != sizeof(most))
		_exit(3);
	pause();
}

/* Holes in one file: they cannot be punched, and a file cannot be made shorter */
static int holes(void)
{
	int fd = secret_fd(1024), ret = 0;

	if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
		ret = 1;
	else if (!ftruncate(fd, PAGE))
		ret = 2;
	close(fd);
	return ret;
}

static void abuse(void)
{
	long used = vmstat("nr_direct_unmapped_used"), splits = vmstat("direct_map_level2_splits"), cached;
	unsigned int i, held, most = 0;
	int report[2], ret;
	pid_t user[NR_USERS];

	if (pipe(report))
		err(1, "pipe");
	ret = holes();
	row(!ret, "punch a hole, shorten a file", 2, ret ? "possible now: this test has to use it" : "refused");
	for (i = 0; i < NR_USERS; i++) {
		user[i] = fork();
		if (!user[i]) {
			grab(i, report[1]);
			_exit(0);
		}
	}
	for (i = 0; i < NR_USERS; i++) {
		if (read(report[0], &held, sizeof(held)) != sizeof(held))
			errx(1, "a user did not report");
		most = held > most ? held : most;
	}
	used = vmstat("nr_direct_unmapped_used") - used;
	cached = vmstat("nr_direct_unmapped_free");
	row(most <= LIMIT_PAGES, "pages that a user with RLIMIT_MEMLOCK of 256 pages had", NR_USERS * NR_ROUNDS, "at most %u", most);
	row(used <= NR_USERS * LIMIT_PAGES, "pages in use by 8 such users", 1, "%ld, of %d", used, NR_USERS * LIMIT_PAGES);
	/* What all together may have, and a block each that is not full; two in the reserve */
	row(used + cached <= NR_USERS * LIMIT_PAGES + 3 * BLOCK_PAGES, "pages out of use for others, all in all", 1,
	    "%ld used + %ld cached", used, cached);
	for (i = 0; i < NR_USERS; i++)
		kill(user[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	for (i = 0; i < 10 && (vmstat("nr_direct_unmapped_used") || vmstat("nr_direct_unmapped_free")); i++)
		sleep(1);
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!splits, "large pages that they split", 1, "%ld", splits);
	used = vmstat("nr_direct_unmapped_used");
	cached = vmstat("nr_direct_unmapped_free");
	row(!used && !cached, "pages left when they have gone", 1, "%ld used, %ld cached after %u s", used, cached, i);
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "hold") && argc == 3)
		hold(atol(argv[2]) * MIB / PAGE);
	else if (!strcmp(what, "anonymous") && argc == 3)
		anonymous(atol(argv[2]) * MIB / PAGE);
	else if (!strcmp(what, "churn"))
		churn();
	else if (!strcmp(what, "poison"))
		poison();
	else if (!strcmp(what, "faults"))
		faults();
	else if (!strcmp(what, "abuse"))
		abuse();
	else
		errx(1, "usage: stress hold MIB | anonymous MIB | churn | poison | faults | abuse");
	return 0;
}

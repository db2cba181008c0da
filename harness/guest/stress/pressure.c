// SPDX-License-Identifier: GPL-2.0
/* Memory that runs short: who is killed, what comes back, and how soon */
#include "stress.h"

#define NR_ROUNDS	(brief() ? 2 : 4)
#define BOUND		120	/* seconds for each step, and none is to come near it */
#define SLACK_KIB	32768	/* what the kernel itself may keep: page tables, slabs, lists of CPUs */

static char *plain(size_t pages)
{
	char *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap");
	return mem;
}

static char *memfd(size_t pages)
{
	int fd = memfd_pages(pages);
	char *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap");
	close(fd);
	return mem;
}

/* The figures that must come back, once the cache has given back what it has */
static long settled_free(void)
{
	int i;

	for (i = 0; i < 100 && (vmstat("nr_direct_unmapped_free") || vmstat("nr_direct_unmapped_used")); i++) {
		write_file("/proc/sys/vm/drop_caches", "3");
		usleep(100000);
	}
	write_file("/proc/sys/vm/drop_caches", "3");
	return meminfo("MemFree");
}

/* Did all come back? MemFree of before, in KiB. What was killed, or was in a cgroup, is freed some time later. */
static void back_row(const char *what, long before)
{
	long after, used, cached;
	double end = now() + 20;

	while ((after = settled_free()) < before - SLACK_KIB && now() < end)
		usleep(100000);
	used = vmstat("nr_direct_unmapped_used");
	cached = vmstat("nr_direct_unmapped_free");
	row(!used && !cached && before - after < SLACK_KIB, what, 1, "%ld KiB free, %ld before; %ld pages used, %ld cached", after, before,
	    used, cached);
}

/* The size of a memory cgroup, and a process in it that wants twice as much */

#define GROUP_PAGES	(32 * MIB / PAGE)

static int grow_in_group(char *(*map)(size_t pages))
{
	pid_t pid = fork();

	if (pid)
		return wait_for(pid, BOUND);
	memcg_join();
	fill(map(2 * GROUP_PAGES), 2 * GROUP_PAGES);
	_exit(0);
}

static void group(void)
{
	long before = settled_free(), kills = 0;
	char secret_fate[32], memfd_fate[32];
	unsigned int i, equal = 0;
	double start = now();
	bool removed = true;

	for (i = 0; i < NR_ROUNDS; i++) {
		if (!memcg_make(GROUP_PAGES * PAGE)) {
			row(false, "a memory cgroup", 1, "this kernel has none");
			return;
		}
		snprintf(memfd_fate, sizeof(memfd_fate), "%s", fate(grow_in_group(memfd)));
		kills -= memcg_kills();
		snprintf(secret_fate, sizeof(secret_fate), "%s", fate(grow_in_group(secret_map)));
		kills += memcg_kills();
		equal += !strcmp(memfd_fate, secret_fate) && strncmp(secret_fate, "exit", 4) && strncmp(secret_fate, "did", 3);
		removed &= memcg_remove();
	}
	row(equal == NR_ROUNDS && removed, "secret memory beyond memory.max", NR_ROUNDS,
	    "%s, memfd: %s; %ld OOM kills; the cgroup %s; %.1f s in all", secret_fate, memfd_fate, kills, removed ? "goes" : "stays",
	    now() - start);
	back_row("memory after that", before);
}

/* All of memory */
static void machine(void)
{
	long before = settled_free(), splits = vmstat("direct_map_level2_splits"), killed = 0, kills = vmstat("oom_kill");
	size_t pages = meminfo("MemTotal") * 1024 / PAGE;
	double start, longest = 0;
	int i, status = 0;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		start = now();
		pid = fork();
		if (!pid) {
			/* Not root's limits, nor this program */
			write_file("/proc/self/oom_score_adj", "1000");
			fill(secret_map(pages), pages);
			_exit(0);
		}
		status = wait_for(pid, BOUND);
		killed += status != -1 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		longest = now() - start > longest ? now() - start : longest;
	}
	kills = vmstat("oom_kill") - kills;
	row(killed == 2 && kills == 2, "secret memory beyond all memory", 2, "%s after %.0f s at most; %ld OOM kills, %ld large pages split",
	    fate(status), longest, kills, vmstat("direct_map_level2_splits") - splits);
	back_row("memory after that", before);
}

/*
 * Free blocks of the cache are given to whoever needs memory. Those who need it hold nearly all that there is before, so
 * that it takes them less than the second after which the cache's worker would give back what is idle.
 */
static void shrink(void)
{
	size_t cached_pages = 128 * MIB / PAGE, hog_pages, more;
	long cached, left, returns, kills = vmstat("oom_kill");
	double start, took;
	char *mem, *hog, *grow;

	settled_free();
	hog_pages = (meminfo("MemFree") / 4) - cached_pages - 48 * MIB / PAGE;
	hog = plain(hog_pages);
	fill(hog, hog_pages);
	mem = secret(cached_pages);
	more = meminfo("MemAvailable") / 4 + cached_pages - 16 * MIB / PAGE;
	grow = plain(more);
	returns = vmstat("direct_unmapped_return");
	munmap(mem, cached_pages * PAGE);
	start = now();
	cached = vmstat("nr_direct_unmapped_free");
	fill(grow, more);
	took = now() - start;
	left = vmstat("nr_direct_unmapped_free");
	returns = vmstat("direct_unmapped_return") - returns;
	row(filled(hog, hog_pages) && filled(grow, more) && returns >= (long)cached_pages / BLOCK_PAGES / 2 &&
	    left < (long)cached_pages / 2 && kills == vmstat("oom_kill"),
	    "a hog takes what the cache has free", more, "pages in %.1f s: %zu pages were freed to the cache, it had %ld of them then, and has %ld; %ld blocks went back",
	    took, cached_pages, cached, left, returns);
	munmap(hog, hog_pages * PAGE);
	munmap(grow, more * PAGE);

	/* All of it, at once, while one page in use has the worker keep a block */
	mem = secret(cached_pages);
	grow = secret(1);
	returns = vmstat("direct_unmapped_return");
	munmap(mem, cached_pages * PAGE);
	cached = vmstat("nr_direct_unmapped_free");
	/* The shrinkers, after LRU batches: these may hold what another CPU filled */
	write_file("/proc/sys/vm/drop_caches", "3");
	left = vmstat("nr_direct_unmapped_free");
	returns = vmstat("direct_unmapped_return") - returns;
	row(cached >= (long)cached_pages / 2 && left < BLOCK_PAGES && returns >= (cached - BLOCK_PAGES) / BLOCK_PAGES,
	    "wholly free blocks that the shrinker returns", cached / BLOCK_PAGES, "%ld of %ld pages left, in a block in use; %ld blocks went back",
	    left, cached, returns);
	munmap(grow, PAGE);
}

/* What the kernel keeps back from reclaimable memory in MemAvailable, in KiB: the low watermarks of all zones */
static long low_watermarks(void)
{
	char line[128];
	long low, sum = 0;
	FILE *f = fopen("/proc/zoneinfo", "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " low %ld", &low) == 1)
			sum += low;
	if (!f || !sum)
		errx(1, "/proc/zoneinfo has no watermarks");
	fclose(f);
	return sum * 4;
}

static void available(void)
{
	size_t pages = 160 * MIB / PAGE, hog_pages;
	long before, during, after, cached, left, kills = vmstat("oom_kill");
	char *mem, *hog;
	pid_t pid;
	int status;

	settled_free();
	before = meminfo("MemAvailable");
	mem = secret(pages);
	during = meminfo("MemAvailable");
	munmap(mem, pages * PAGE);
	cached = vmstat("nr_direct_unmapped_free");
	after = meminfo("MemAvailable");
	row(labs(before - during - (long)pages * 4) < SLACK_KIB, "MemAvailable, while secret memory is in use", 1,
	    "%ld KiB less, for %zu in use", before - during, pages * 4);
	row(cached >= (long)pages / 2 && before - after < 8192 + low_watermarks(), "MemAvailable, when the cache has it free", 1,
	    "%ld KiB less than at first, of %ld cached; the low watermarks, which it keeps back: %ld KiB", before - after, cached * 4,
	    low_watermarks());

	/* Its word is kept, with blocks in the cache */
	mem = secret(pages);
	munmap(mem, pages * PAGE);
	hog_pages = meminfo("MemAvailable") / 4 * 9 / 10;
	cached = vmstat("nr_direct_unmapped_free");
	pid = fork();
	if (!pid) {
		write_file("/proc/self/oom_score_adj", "1000");
		hog = plain(hog_pages);
		fill(hog, hog_pages);
		_exit(!filled(hog, hog_pages));
	}
	status = wait_for(pid, BOUND);
	left = vmstat("nr_direct_unmapped_free");
	/* Blocks may stay that it had no need of */
	row(!status && cached >= (long)pages / 2 && kills == vmstat("oom_kill"), "a hog takes 90 % of MemAvailable", hog_pages,
	    "pages: %s; %ld pages were cached, %ld are", fate(status), cached, left);
}

/* A file's pages make room, too */
static void page_cache(void)
{
	size_t pages = 128 * MIB / PAGE, i;
	long kills = vmstat("oom_kill"), cached, left;
	size_t file_pages = 0;
	char *mem, page[PAGE];
	int fd;

	mkdir("/tmp/cache", 0755);
	if (mount("none", "/tmp/cache", "tmpfs", 0, "size=100%"))
		err(1, "tmpfs");
	settled_free();
	mem = secret(pages);
	munmap(mem, pages * PAGE);
	cached = vmstat("nr_direct_unmapped_free");
	file_pages = meminfo("MemAvailable") / 4 * 9 / 10;
	fd = open("/tmp/cache/file", O_RDWR | O_CREAT, 0600);
	memset(page, 1, sizeof(page));
	for (i = 0; i < file_pages && write(fd, page, sizeof(page)) == sizeof(page); i++)
		;
	left = vmstat("nr_direct_unmapped_free");
	row(i == file_pages && cached >= (long)pages / 2 && kills == vmstat("oom_kill"), "files in tmpfs take 90 % of MemAvailable", i,
	    "pages written; %ld pages were cached, %ld are", cached, left);
	close(fd);
	umount("/tmp/cache");
}

void pressure(void)
{
	write_file("/proc/sys/vm/oom_dump_tasks", "0");
	group();
	shrink();
	available();
	if (brief())
		return;
	page_cache();
	machine();
}

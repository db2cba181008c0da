// SPDX-License-Identifier: GPL-2.0
/* Allocations that fail, the Nth one of each request */
#include "stress.h"

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

/* Pages that nobody has, nor the page allocator, count nowhere: less memory is free. What the kernel itself keeps is less than that. */
#define SLACK_KIB	8192

static void memory_back(long before)
{
	double begin = now();
	long after;

	for (;;) {
		write_file("/proc/sys/vm/drop_caches", "3");
		after = meminfo("MemFree");
		if (after > before - SLACK_KIB || now() - begin > 10)
			break;
		usleep(200000);
	}
	row(after > before - SLACK_KIB, "memory comes back", 1, "%ld KiB free, %ld before", after, before);
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

/*
 * Allocations that fail below one function of the kernel, whoever calls it: a user, a worker, or reclaim. What they do meanwhile is
 * all that there is: blocks are taken and given back, the direct map is split and put together while there is demand, the shrinker
 * runs.
 */

#define PARAMETER	"/sys/module/heal_pages/parameters/"

/* Where failures are sought, and where there must be some: with free blocks, and without */
enum { NOT = 0, TRIED, MUST };

static const struct site {
	const char *function;
	int fails, fails_fragmented;
	/* How many blocks are asked for, if it is not 3 */
	unsigned int blocks;
} sites[] = {
	/* These first: what is split again and again has to wait longer each time */
	{ "heal", MUST, NOT },
	{ "set_direct_map_collapse", TRIED, NOT },
	{ "secretmem_fault", MUST, MUST },
	{ "unmapped_alloc_frozen", MUST, MUST },
	{ "unmapped_new_block", MUST, MUST },
	{ "cache_pages", MUST, MUST },
	{ "attach_pages", TRIED, NOT },
	{ "refill", MUST, NOT },
	{ "unmapped_get_contig", NOT, TRIED },
	{ "unmapped_collect_free", NOT, TRIED },
	{ "cache_list", TRIED, TRIED },
	{ "heal_node", MUST, NOT },
	{ "heal_work_fn", MUST, NOT },
	/* More than all others take: then what they have split does not do, and more has to be */
	{ "__change_page_attr_set_clr", NOT, MUST, 12 },
	{ "return_work_fn", TRIED, NOT },
	{ "return_one", TRIED, NOT },
	{ "shrink_scan", TRIED, TRIED },
};

#define NR_SITES	(sizeof(sites) / sizeof(*sites))

/* Where a function of the kernel begins and ends, or false if it was inlined */
static bool find_function(const char *name, unsigned long *start, unsigned long *end)
{
	unsigned long addr;
	char line[256];
	FILE *f;

	*start = symbol(name);
	*end = -1UL;
	f = fopen("/proc/kallsyms", "r");
	if (!f)
		err(1, "/proc/kallsyms");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx", &addr) == 1 && addr > *start && addr < *end)
			*end = addr;
	fclose(f);
	return *start;
}

static const char * const fault_dir[] = { "/sys/kernel/debug/failslab", "/sys/kernel/debug/fail_page_alloc" };

static void set_fault(const char *dir, const char *file, unsigned long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", value);
	if (!fault_write(dir, file, text))
		errx(1, "%s/%s cannot be set", dir, file);
}

static void all_that_there_is(int zero, bool fragmented, size_t pages)
{
	long collapses;
	int i;

	write_file("/proc/sys/vm/drop_caches", "2");
	if (!fragmented)
		write_file(PARAMETER "wc", "1");
	for (i = 0; i < 5; i++) {
		request(zero, pages, 0, NULL);
		usleep(20000);
	}
	if (!fragmented) {
		/* Blocks are watched meanwhile, then put together: each after a second */
		for (i = 0; i < 6; i++) {
			request(zero, 64, 0, NULL);
			usleep(200000);
		}
		collapses = vmstat("direct_map_level2_collapses");
		write_file(PARAMETER "wc", "0");
		for (i = 0; i < 15 && vmstat("direct_map_level2_collapses") == collapses; i++)
			usleep(200000);
	}
	write_file("/proc/sys/vm/drop_caches", "2");
}

/* Every allocation, then every third one. @used is how many pages are in use by others. */
static void fail_below(const struct site *site, bool fragmented, long used)
{
	/* By default more than what is left of the block that the module's text lies in, and than what is collected */
	size_t pages = (site->blocks ?: 3) * BLOCK_PAGES;
	long fallbacks = vmstat("direct_unmapped_fallback");
	unsigned long start, end, count = 0, before = fault_count();
	int zero = open("/dev/zero", O_RDONLY);
	char *keep = secret(1);		/* demand */
	const char *why = NULL;
	unsigned int i, interval;
	char what[128];
	long after = 0;

	used++;
	snprintf(what, sizeof(what), "allocations fail below %s()%s", site->function, fragmented ? ", no free blocks" : "");
	if (!find_function(site->function, &start, &end))
		why = "the kernel has no such function, or the compiler inlined it";
	for (interval = 1; interval <= 3 && !why && (interval == 1 || count); interval += 2) {
		for (i = 0; i < 2; i++) {
			set_fault(fault_dir[i], "require-start", start);
			set_fault(fault_dir[i], "require-end", end);
			set_fault(fault_dir[i], "stacktrace-depth", 32);
			set_fault(fault_dir[i], "interval", interval);
			set_fault(fault_dir[i], "probability", 100);
		}
		all_that_there_is(zero, fragmented, pages);
		for (i = 0; i < 2; i++)
			set_fault(fault_dir[i], "probability", 0);
		count = fault_count() - before;
		if ((after = used_pages(used)) != used)
			why = "a page is lost";
		else if (!request(zero, BLOCK_PAGES, 0, NULL))
			why = "the next attempt fails";
		else if ((after = used_pages(used)) != used)
			why = "a page of the next attempt is lost";
	}
	if (!why && (fragmented ? site->fails_fragmented : site->fails) == MUST && !count)
		why = "nothing was made to fail";
	fallbacks = vmstat("direct_unmapped_fallback") - fallbacks;
	row(!why, what, count, "%s; %ld pages used, %ld before; %ld fallbacks",
	    why ?: count ? "nothing lost, the next one works" : "nothing was allocated there", after, used, fallbacks);
	munmap(keep, PAGE);
	close(zero);
}

/* The direct map is whole again, however long that takes: each range that was split again and again waits longer */
static void whole_again(double seconds, long map_before, long absent_before)
{
	double begin = now();
	long map, absent, cached;

	do {
		write_file("/proc/sys/vm/drop_caches", "3");
		usleep(500000);
		map = meminfo("DirectMap4k");
		absent = absent_kib();
		cached = vmstat("nr_direct_unmapped_free");
	} while ((map != map_before || absent != absent_before || cached >= BLOCK_PAGES) && now() - begin < seconds);
	/* The module that is loaded has a part of a block */
	row(map == map_before && absent == absent_before && cached < BLOCK_PAGES, "the direct map afterwards", 1,
	    "after %.0f s %ld KiB are mapped by small pages, %ld before; %ld absent, %ld before; %ld pages cached", now() - begin, map, map_before,
	    absent, absent_before, cached);
}

static void fail_everywhere(void)
{
	long map = meminfo("DirectMap4k"), absent = absent_kib(), used;
	double begin = now();
	unsigned int i;

	if (access(PARAMETER "wc", W_OK) || access("/sys/kernel/debug/failslab/require-start", W_OK)) {
		row(false, "allocations fail below each function", 0, "the module heal_pages or the filter for stacks is missing");
		return;
	}
	used = used_pages(-1);
	for (i = 0; i < NR_SITES; i++)
		if (sites[i].fails)
			fail_below(&sites[i], false, used);
	whole_again(60 + now() - begin, map, absent);
	begin = now();
	if (write_file(PARAMETER "fill", "8"))
		row(false, "memory without a free block", 1, "the module cannot fill it");
	for (i = 0; i < NR_SITES; i++)
		if (sites[i].fails_fragmented)
			fail_below(&sites[i], true, used);
	write_file(PARAMETER "fill", "0");
	whole_again(60 + now() - begin, map, absent);
}

void faults(void)
{
	unsigned long before;
	long free;

	if (access("/proc/thread-self/fail-nth", W_OK)) {
		skip("allocations that fail", "CONFIG_FAULT_INJECTION is off");
		return;
	}
	before = fault_setup();
	fail_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fail_fd < 0)
		err(1, "/proc/thread-self/fail-nth");
	/* Once, for what is made at the first time only */
	munmap(secret(2 * BLOCK_PAGES), 2 * BLOCK_PAGES * PAGE);
	write_file("/proc/sys/vm/drop_caches", "3");
	free = meminfo("MemFree");
	walk("the Nth allocation fails, no page in the cache", false, 1);
	walk("the Nth allocation fails, pages in the cache", true, 1);
	walk("the Nth allocation fails, 2 blocks are needed", false, BLOCK_PAGES + 8);
	before = fault_count() - before;
	row(before > 0, "allocations that were made to fail so", before, "counted by the kernel");
	memory_back(free);
	if (!brief()) {
		fail_everywhere();
		memory_back(free);
	}
}

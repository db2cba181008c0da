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

void faults(void)
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


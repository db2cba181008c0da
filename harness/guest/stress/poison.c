// SPDX-License-Identifier: GPL-2.0
/* Memory that goes bad */
#include "stress.h"

#define POISON_PAGES	1024

#define COME_BACK	8

/* Is a page handed out again? As secret memory, or as any other. The kernel may see it in time to send SIGBUS. */
static bool comes_back(unsigned long pfn)
{
	unsigned int round, i;
	bool back = false;

	for (round = 0; round < COME_BACK && !back; round++) {
		size_t pages = 1000 << (round & 3);
		char *mem;

		if (round & 1)
			mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		else
			mem = secret_map(pages);
		if (!mem || mem == MAP_FAILED)
			err(1, "%zu pages", pages);
		for (i = 0; i < pages && !back; i++)
			back = bus_error(mem + i * PAGE) || pfn_of(mem + i * PAGE) == pfn;
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
	signal(SIGUSR1, on_usr1);
	child = fork();
	if (!child) {
		munmap(mine, POISON_PAGES * PAGE);
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

/* In the middle of a block that is wholly free, and goes back next: the bad page has to stay, and nothing else */
static void poison_returned(const char *path)
{
	/* The last one is in a block that has no bad pages yet */
	size_t pages = 3 * BLOCK_PAGES + 100;
	unsigned long pfn;
	long used, cached;
	char *mem;
	int i, ret;

	/* Unless the worker has been there before */
	for (i = 0; i < 10; i++) {
		mem = secret(pages);
		pfn = pfn_of(mem + (pages - 1) * PAGE);
		munmap(mem, pages * PAGE);
		/* Out of the LRU batches of other CPUs */
		write_file("/proc/sys/vm/drop_caches", "1");
		cached = vmstat("nr_direct_unmapped_free");
		if (cached >= (long)pages)
			break;
	}
	used = vmstat("nr_direct_unmapped_used");
	write_file(path, "0x%lx", pfn);
	write_file("/proc/sys/vm/drop_caches", "2");
	used = vmstat("nr_direct_unmapped_used") - used;
	row(cached >= (long)pages && used == 1, "memory failure in a block that is to go back", 1,
	    "%ld pages were cached, %ld are; %ld more count as used", cached, vmstat("nr_direct_unmapped_free"), used);
	ret = comes_back(pfn);
	row(!ret, "is that page handed out again", COME_BACK, ret ? "yes" : "no");
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

void poison(void)
{
	const char *hard = "/sys/devices/system/memory/hard_offline_page";
	const char *soft = "/sys/devices/system/memory/soft_offline_page";
	const char *inject = "/sys/kernel/debug/hwpoison/corrupt-pfn";
	struct sigaction sa = { .sa_handler = on_bus };
	long used, splits = vmstat("direct_map_level2_splits"), bad = 0;
	int i;

	sigaction(SIGBUS, &sa, NULL);
	if (access(inject, W_OK)) {
		skip("memory failure (corrupt-pfn)", "CONFIG_HWPOISON_INJECT is off");
	} else {
		poison_used("memory failure of a used page (corrupt-pfn)", inject, false);
		poison_cached("memory failure of a cached page (corrupt-pfn)", inject, false, false);
		poison_returned(inject);
		bad += 3;
	}
	if (access(hard, W_OK)) {
		skip("memory failure (hard_offline_page)", "CONFIG_MEMORY_FAILURE is off");
	} else {
		poison_used("memory failure of a used page (hard_offline_page)", hard, true);
		poison_cached("memory failure of a cached page (hard_offline_page)", hard, true, false);
		poison_cached("soft offline of a cached page", soft, true, true);
		poison_soft(soft);
		bad += 2;
	}
	/* The bad pages, and nothing else, count as used for ever */
	for (i = 0; i < 60 && vmstat("nr_direct_unmapped_used") > bad; i++)
		sleep(1);
	used = vmstat("nr_direct_unmapped_used");
	row(used == bad, "pages that count as used afterwards", 1, "%ld, of %ld that went bad", used, bad);
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!splits, "large pages split by all that", 1, "%ld", splits);
}


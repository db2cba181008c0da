// SPDX-License-Identifier: GPL-2.0
/*
 * Secrets that are left behind. Processes on every CPU fill secret memory with patterns, and lose it in all the ways there
 * are; each has a pattern of its own. All memory that the kernel can read is searched for them: while they are in use, when
 * they are free, and when the cache has given all of it back. Plain memory has patterns too, which the same search must find.
 *
 * Nobody has a pattern as it is but the memory that is filled with it: it is kept XORed with a mask, and never more than one
 * word of it is in a register, as the kernel saves registers in memory that is searched.
 */
#include "stress.h"
#include <elf.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/random.h>

#define NR_WORDS	8
#define NR_PAGES	256
#define PIECE		(NR_WORDS * sizeof(uint64_t))
#define CHUNK		MIB

/* How memory is lost. Those from PLAIN on are no secrets: the search has to find them. */
enum path {
	MUNMAP, BIT_BY_BIT, SHARED, EXIT, EXEC, KILLED, CORE, OOM, INJECTED, ALL,
	PLAIN_USED, MEMFD_USED, PLAIN_FREE, NR_PATHS,
	PLAIN = PLAIN_USED,
};

static const char * const names[NR_PATHS] = {
	[MUNMAP]	= "munmap",
	[BIT_BY_BIT]	= "munmap page by page, in any order",
	[SHARED]	= "exit of the last of three that share it",
	[EXIT]		= "exit",
	[EXEC]		= "exec",
	[KILLED]	= "SIGKILL",
	[CORE]		= "SIGABRT, with a core file",
	[OOM]		= "the OOM killer of a memory cgroup",
	[INJECTED]	= "exit, after allocations that failed",
	[ALL]		= "exit, of one that has nearly all memory",
	[PLAIN_USED]	= "anonymous memory in use",
	[MEMFD_USED]	= "a memfd in use",
	[PLAIN_FREE]	= "anonymous memory that is free",
};

static volatile uint64_t mask, hidden[NR_PATHS][NR_WORDS];
static volatile uint32_t hidden_tag;	/* the upper half of the first words */

static void make_patterns(void)
{
	uint64_t m, word;
	uint32_t tag;
	int p, i;

	if (getrandom(&m, sizeof(m), 0) != sizeof(m) || getrandom(&tag, sizeof(tag), 0) != sizeof(tag))
		err(1, "getrandom");
	mask = m;
	hidden_tag = tag ^ (m >> 32);
	for (p = 0; p < NR_PATHS; p++)
		for (i = 0; i < NR_WORDS; i++) {
			if (getrandom(&word, sizeof(word), 0) != sizeof(word))
				err(1, "getrandom");
			hidden[p][i] = word;
		}
	/* They are random as they are, with or without the mask. Those that begin with the tag are found fast. */
	for (p = 0; p < NR_PATHS; p++)
		hidden[p][0] = (uint64_t)hidden_tag << 32 | (uint32_t)hidden[p][0];
}

static void fill_pattern(char *mem, size_t pages, enum path p)
{
	volatile uint64_t *to = (volatile uint64_t *)mem;
	size_t i;

	for (i = 0; i < pages * PAGE / sizeof(*to); i++)
		to[i] = hidden[p][i % NR_WORDS] ^ mask;
}

static bool is_pattern(const volatile uint64_t *at, enum path p)
{
	int i;

	for (i = 0; i < NR_WORDS; i++)
		if ((at[i] ^ mask) != hidden[p][i])
			return false;
	return true;
}

/* Searching */

static int kcore = -1;
static Elf64_Phdr segments[256];
static int nr_segments;

static void open_kcore(void)
{
	Elf64_Ehdr head;
	ssize_t size;

	kcore = open("/proc/kcore", O_RDONLY);
	if (kcore < 0 || pread(kcore, &head, sizeof(head), 0) != sizeof(head))
		err(1, "/proc/kcore");
	nr_segments = head.e_phnum;
	size = nr_segments * sizeof(*segments);
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) || size > (ssize_t)sizeof(segments) ||
	    pread(kcore, segments, size, head.e_phoff) != size)
		errx(1, "/proc/kcore has no good ELF headers");
}

/*
 * The direct map, or the mapping of the kernel's image, parts of which are free memory since the kernel has started. What
 * vmalloc() maps lies in the direct map too, unless it is absent as well.
 */
static bool to_be_searched(const Elf64_Phdr *s, bool image)
{
	return s->p_type == PT_LOAD && s->p_paddr != (uint64_t)-1 && image == (s->p_vaddr >= -(2UL << 30));
}

static void search_chunk(const volatile uint64_t *words, size_t nr, unsigned long found[NR_PATHS])
{
	uint32_t tag = hidden_tag, m = mask >> 32;
	size_t i;
	int p;

	for (i = 0; i + NR_WORDS <= nr; i++)
		if (((uint32_t)(words[i] >> 32) ^ m) == tag)
			for (p = 0; p < NR_PATHS; p++)
				found[p] += is_pattern(words + i, p);
}

/* Count each pattern in all memory that is to be had there. Returns how much that was, in MiB. */
static unsigned long search(bool image, unsigned long found[NR_PATHS])
{
	static uint64_t words[CHUNK / sizeof(uint64_t)];
	unsigned long total = 0;
	uint64_t at, size;
	int i;

	memset(found, 0, NR_PATHS * sizeof(*found));
	for (i = 0; i < nr_segments; i++) {
		const Elf64_Phdr *s = &segments[i];

		if (!to_be_searched(s, image))
			continue;
		for (at = 0; at < s->p_memsz; at += size) {
			size = s->p_memsz - at < CHUNK ? s->p_memsz - at : CHUNK;
			if (pread(kcore, words, size, s->p_offset + at) != (ssize_t)size)
				err(1, "/proc/kcore at %#lx", s->p_vaddr + at);
			search_chunk(words, size / sizeof(*words), found);
			total += size;
		}
	}
	memset(words, 0, sizeof(words));
	return total / MIB;
}

static void search_one(const char *when, bool image, unsigned long found[NR_PATHS])
{
	unsigned long mib, secrets = 0;
	const char *which = "";
	double start = now();
	char what[128];
	int p;

	mib = search(image, found);
	for (p = 0; p < PLAIN; p++) {
		secrets += found[p];
		if (found[p])
			which = names[p];
	}
	snprintf(what, sizeof(what), "%s, by the %s", when, image ? "mapping of the kernel's image" : "direct map");
	row(mib && !secrets, what, mib, "MiB searched in %.0f s: %lu pieces of %zu bytes found%s%s", now() - start, secrets, PIECE,
	    secrets ? ", the last of: " : "", which);
}

static void search_row(const char *when, bool freed)
{
	unsigned long found[NR_PATHS];
	int p;

	search_one(when, true, found);
	search_one(when, false, found);
	for (p = PLAIN; p < NR_PATHS; p++)
		if (p != PLAIN_FREE || freed)
			row(found[p] >= (p == PLAIN_FREE ? 1 : sysconf(_SC_NPROCESSORS_ONLN) * NR_PAGES * PAGE / PIECE), names[p], 1, "control, the same search: %lu pieces found", found[p]);
}

/* Those who have secrets */

static int ready[2];

static void lose_and_exit(enum path p, char *mem)
{
	size_t i, nr = NR_PAGES;

	switch (p) {
	case MUNMAP:
		munmap(mem, NR_PAGES * PAGE);
		break;
	case BIT_BY_BIT:
		/* 97 is odd: all pages get their turn */
		for (i = 0; i < nr; i++)
			munmap(mem + i * 97 % nr * PAGE, PAGE);
		break;
	case SHARED:
		if (!fork() || !fork()) {
			usleep(200000);
			_exit(!is_pattern((uint64_t *)mem, p));
		}
		_exit(0);
	case EXEC:
		execl("/proc/self/exe", "stress", "nothing", NULL);
		_exit(1);
	case KILLED:
		raise(SIGKILL);
		break;
	case CORE:
		/* It says nothing to the kernel that this is to be in the file */
		madvise(mem, NR_PAGES * PAGE, MADV_DODUMP);
		abort();
	default:
		break;
	}
	/* What is left, and whoever has nothing of it left, too */
	_exit(0);
}

/* Pages whose allocation failed at first, in one of the steps. The fault is tried again until there is a page. */
static char *secret_with_failures(void)
{
	char *mem = secret_map(NR_PAGES);
	int fd = open("/proc/thread-self/fail-nth", O_RDWR);
	char nth[8];
	size_t i;

	for (i = 0; mem && fd >= 0 && i < NR_PAGES; i++) {
		if (i % 16 == 0)
			write_file("/proc/sys/vm/drop_caches", "2");
		snprintf(nth, sizeof(nth), "%zu", 1 + i % 12);
		if (pwrite(fd, nth, strlen(nth), 0) < 0)
			_exit(2);
		*(volatile char *)(mem + i * PAGE) = 1;
		if (pwrite(fd, "0", 1, 0) < 0)
			_exit(2);
	}
	close(fd);
	return mem;
}

/* One takes what there is: free blocks, and when there are no more the free pages of others */
static size_t nr_pages(enum path p)
{
	return p == ALL ? (meminfo("MemAvailable") * 1024 - 16 * MIB) / PAGE : NR_PAGES;
}

static pid_t start(enum path p, int cpu)
{
	size_t pages = nr_pages(p);
	char *mem = NULL;
	cpu_set_t set;
	pid_t pid;

	pid = fork();
	if (pid)
		return pid;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		_exit(2);
	signal(SIGUSR1, on_usr1);
	if (p == INJECTED)
		mem = secret_with_failures();
	else if (p < PLAIN)
		mem = secret_map(pages);
	else if (p == MEMFD_USED)
		mem = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_pages(NR_PAGES), 0);
	else
		mem = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!mem || mem == MAP_FAILED)
		_exit(2);
	fill_pattern(mem, pages, p);
	if (write(ready[1], &p, sizeof(p)) != sizeof(p))
		_exit(2);
	while (!asked)
		usleep(10000);
	lose_and_exit(p, mem);
	return 0;
}

/* Ends while it fills its memory */
static bool oom_kill(void)
{
	int status = 0;
	pid_t pid;

	if (!memcg_make(8 * MIB))
		return false;
	pid = fork();
	if (!pid) {
		memcg_join();
		fill_pattern(secret_map(8192), 8192, OOM);
		_exit(0);
	}
	status = wait_for(pid, 60);
	return memcg_remove() && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* Take what is free in the cache, and more: the next users must find zeroes */
static void take_again(void)
{
	size_t nr = vmstat("nr_direct_unmapped_free"), i, pages = nr + BLOCK_PAGES, dirty = 0;
	volatile uint64_t *words = (volatile uint64_t *)secret_map(pages);

	if (!words)
		err(1, "memfd_secret of %zu pages", pages);
	for (i = 0; i < pages * PAGE / sizeof(*words); i++)
		dirty += words[i] != 0;
	munmap((void *)words, pages * PAGE);
	row(nr && !dirty, "take them again: the next user finds zeroes", pages, "pages, %zu of them were cached; %zu words of 8 bytes are not zero",
	    nr, dirty);
}

/* /dev/mem reads through the direct map. With CONFIG_STRICT_DEVMEM it reads no memory at all. */
static void dev_mem(void)
{
	char *mem = secret_map(1), byte;
	uint64_t word = 0;
	int fd = open("/dev/mem", O_RDONLY), refused;

	if (fd < 0) {
		row(errno == ENOENT || errno == ENXIO, "read a page in use by /dev/mem", 1, "%s", strerror(errno));
		return;
	}
	*(volatile uint64_t *)mem = 0x5ec7e7;
	refused = pread(fd, &word, sizeof(word), pfn_of(mem) * PAGE) == sizeof(word) ? 0 : errno;
	row(refused || word != 0x5ec7e7, "read a page in use by /dev/mem", 1, "%s", refused ? strerror(refused) : word ? "its contents!" : "zeroes");
	word = 1;
	if (pread(fd, &byte, 1, (1UL << 20) - 1) != 1)
		row(false, "control: read the BIOS by /dev/mem", 1, "%s", strerror(errno));
	close(fd);
	munmap(mem, PAGE);
}

/* By the direct map, or 0 if the page is not there */
static uint64_t read_page(unsigned long pfn)
{
	uint64_t at = pfn * PAGE, word = 0;
	int i;

	for (i = 0; i < nr_segments; i++) {
		const Elf64_Phdr *s = &segments[i];

		if (to_be_searched(s, false) && at >= s->p_paddr && at < s->p_paddr + s->p_memsz &&
		    pread(kcore, &word, sizeof(word), s->p_offset + at - s->p_paddr) != sizeof(word))
			err(1, "/proc/kcore at page %#lx", pfn);
	}
	return word;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(1, "CPU %d", cpu);
}

/*
 * A page that this CPU, or another one, reads by the direct map just before somebody has it: does a TLB remember it? Few are read,
 * as TLBs are small: a page each of the blocks that come next.
 */
static void remembered(void)
{
	size_t pages = BLOCK_PAGES + 8;
	unsigned int round, i, expected = 0, seen = 0, rounds = 16;
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned long pfn, again;
	cpu_set_t before;
	char *mem, *last;

	if (sched_getaffinity(0, sizeof(before), &before))
		err(1, "sched_getaffinity");
	for (round = 0; round < rounds; round++) {
		run_on(0);
		mem = secret(pages);
		pfn = pfn_of(mem + (pages - 1) * PAGE);
		munmap(mem, pages * PAGE);
		write_file("/proc/sys/vm/drop_caches", "3");
		mem = secret_map(pages);
		last = mem + (pages - 1) * PAGE;
		run_on(round % cpus);
		for (i = 0; i < 8; i++)
			read_page(pfn + i * BLOCK_PAGES);
		run_on(0);
		fill(mem, pages);
		run_on(round % cpus);
		again = pfn_of(last);
		expected += again >= pfn && again < pfn + 8 * BLOCK_PAGES && again % BLOCK_PAGES == pfn % BLOCK_PAGES;
		seen += read_page(again) == *(volatile uint64_t *)last;
		munmap(mem, pages * PAGE);
	}
	sched_setaffinity(0, sizeof(before), &before);
	row(expected && !seen, "read pages that are taken next, then again", rounds, "%u times it was one of them, %u times its contents were read",
	    expected, seen);
}

/* Parts of the kernel's image that were freed are anybody's memory, and so must not be mapped by the image any more */
static void freed_image(void)
{
	static const char * const parts[][3] = {
		{ "initial memory", "__init_begin", "__init_end" },
		{ "unused decrypted memory", "__start_bss_decrypted_unused", "__end_bss_decrypted" },
	};
	char what[128];
	size_t i;

	for (i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		unsigned long start = symbol(parts[i][1]), end = symbol(parts[i][2]), kib;

		snprintf(what, sizeof(what), "freed parts of the kernel's image: %s", parts[i][0]);
		if (!start || !end) {
			skip(what, "this kernel has none, or no symbols of data");
			continue;
		}
		kib = mapped_kib(start, end);
		row(end > start && !kib, what, 1, "%lu KiB, of which %lu are mapped", (end - start) / 1024, kib);
	}
}

static bool drained(void)
{
	int i;

	for (i = 0; i < 100 && (vmstat("nr_direct_unmapped_free") || vmstat("nr_direct_unmapped_used")); i++) {
		write_file("/proc/sys/vm/drop_caches", "3");
		usleep(100000);
	}
	return i < 100;
}

void secrets(void)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu, p, i, nr = 0, status, bad = 0;
	bool inject = !access("/proc/self/fail-nth", W_OK), killed, cores;
	long used = vmstat("nr_direct_unmapped_used"), refills = vmstat("direct_unmapped_refill");
	long collected = vmstat("direct_unmapped_collect_free") + vmstat("direct_unmapped_collect"), fallbacks = vmstat("direct_unmapped_fallback");
	pid_t pid[NR_PATHS][64] = {};
	unsigned long injected = 0;
	struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };
	struct stat st = {};

	if (cpus > 64)
		cpus = 64;
	make_patterns();
	open_kcore();
	freed_image();
	remembered();
	setrlimit(RLIMIT_CORE, &core);
	cores = !access("/proc/sys/kernel/core_pattern", W_OK);
	if (cores)
		write_file("/proc/sys/kernel/core_pattern", "/tmp/core");
	if (pipe(ready))
		err(1, "pipe");
	injected = fault_setup();
	/* The one that takes all comes last */
	for (i = 0; i < NR_PATHS; i++) {
		p = i < ALL ? i : i < NR_PATHS - 1 ? i + 1 : ALL;
		for (cpu = 0; cpu < (p == ALL ? 1 : cpus) && p != OOM && (p != INJECTED || inject) && (p != ALL || !brief()); cpu++, nr++) {
			enum path said;

			pid[p][cpu] = start(p, cpu);
			/* One after the other: each with the caches as the last one left them */
			if (read(ready[0], &said, sizeof(said)) != sizeof(said) || said != (enum path)p)
				errx(1, "%s: it does not start", names[p]);
		}
	}
	row(vmstat("nr_direct_unmapped_used") - used >= (nr - 3 * cpus) * NR_PAGES, "processes with secrets, on each CPU", nr,
	    "%ld pages in use; %ld blocks, %ld pages of split ones and %ld others were taken", vmstat("nr_direct_unmapped_used"),
	    vmstat("direct_unmapped_refill") - refills, vmstat("direct_unmapped_collect_free") + vmstat("direct_unmapped_collect") - collected,
	    vmstat("direct_unmapped_fallback") - fallbacks);
	search_row("secrets in use", false);
	dev_mem();

	/* All but the plain memory that is to stay */
	for (p = 0; p < NR_PATHS; p++)
		for (cpu = 0; cpu < cpus && pid[p][cpu]; cpu++) {
			if (p == PLAIN_USED || p == MEMFD_USED)
				continue;
			kill(pid[p][cpu], SIGUSR1);
			status = wait_for(pid[p][cpu], 60);
			bad += p == KILLED ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL :
			       p == CORE ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT : status;
		}
	killed = oom_kill();
	row(!bad && killed, "ways to lose them", PLAIN - !inject,
	    "%d processes ended otherwise than that; the OOM killer %s%s", bad, killed ? "came" : "did not come",
	    inject ? "" : "; none without memory: this kernel cannot have allocations fail");
	injected = fault_count() - injected;
	if (inject)
		row(injected > 0, "allocations that failed while they were filled", injected, "made to fail");
	if (cores && stat("/tmp/core", &st))
		row(false, "a core file", 1, "there is none");
	else if (cores)
		row(st.st_blocks > 0, "a core file is written", 1, "%ld KiB, in memory that is searched, too",
		    (long)st.st_blocks / 2);
	take_again();
	if (!brief())
		search_row("secrets that are free", true);
	killed = drained();
	row(killed, "drain the cache", 1, "%ld pages used, %ld cached", vmstat("nr_direct_unmapped_used"), vmstat("nr_direct_unmapped_free"));
	search_row("secrets that are free, given back", true);
	for (p = PLAIN; p < NR_PATHS; p++)
		for (cpu = 0; cpu < cpus; cpu++)
			if (p != PLAIN_FREE)
				kill(pid[p][cpu], SIGKILL);
	while (wait(NULL) > 0)
		;
	unlink("/tmp/core");
}

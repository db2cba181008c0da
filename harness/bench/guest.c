// SPDX-License-Identifier: GPL-2.0
/*
 * What the benches measure from user space, in the guest. Prints lines
 * "NAME VALUE". The ways to age memory, and to read what the kernel counts, are
 * those of the selftest.
 */
#define AGED_BYTES	(1024 * MIB)
#define main secretmem_frag_main
#include "secretmem_frag.c"
#undef main

#include <err.h>
#include <inttypes.h>
#include <stdint.h>
#include <sys/stat.h>

#include "../guest/bpf.h"

/* Much less than RLIMIT_MEMLOCK, which has been raised, and than memory */
#define FLUSH_PAGES	(40 * 512)
#define IDLE_PAGES	(32 * 512)
#define IDLE_SECONDS	5
#define CYCLE_PAGES	512
#define CYCLE_REPEATS	60
#define FILL_PAGES	512
#define MAX_TASKS	8
#define FAULT_PAGES	2048
#define FAULT_ROUNDS	16
#define NR_WARM_UP	4
#define FILE_BYTES	(512 * MIB)
#define NR_READS	10000
#define READ_BYTES	64
#define READS_PER_TURN	100
#define NR_USERS	16
#define USER_PAGES	(64 * MIB / 4096)
#define SAMPLE_MS	50
#define NR_MODULES	32
#define NR_PROGRAMS	1000
#define NR_RUN_PROGRAMS	32
#define NR_INSTANCES	8
#define NR_INTERPRETED	64

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);

	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

#define TRACING "/sys/kernel/tracing/"
#define MODULE "bench.ko"
#define MODULE_PARAMETERS "/sys/module/bench/parameters/"

struct image {
	char	*bytes;
	size_t	size;
};

static struct image read_image(const char *path)
{
	struct image image;
	FILE *f = fopen(path, "r");

	if (!f || fseek(f, 0, SEEK_END))
		err(1, "%s", path);
	image.size = ftell(f);
	image.bytes = malloc(image.size);
	rewind(f);
	if (!image.bytes || fread(image.bytes, 1, image.size, f) != image.size)
		errx(1, "cannot read %s", path);
	fclose(f);

	return image;
}

static void insert(struct image image, const char *name, const char *params)
{
	if (syscall(__NR_init_module, image.bytes, image.size, params))
		err(1, "loading %s", name);
}

static void remove_module(const char *name)
{
	if (syscall(__NR_delete_module, name, O_NONBLOCK))
		err(1, "unloading %s", name);
}

/* What the module measures whenever one of its parameters is read */
static void module_figures(const char *name, double *value, unsigned int nr)
{
	char path[128];
	unsigned int i;
	FILE *f;

	snprintf(path, sizeof(path), MODULE_PARAMETERS "%s", name);
	f = fopen(path, "r");
	for (i = 0; i < nr; i++)
		if (!f || fscanf(f, "%lf", &value[i]) != 1)
			errx(1, "the module has no figure %s", name);
	fclose(f);
}

/* The number of instructions, under -icount shift=0 */
static uint64_t instructions(void)
{
	uint32_t low, high;

	asm volatile("rdtsc" : "=a" (low), "=d" (high) :: "memory");

	return (uint64_t)high << 32 | low;
}

/* memfd_secret(2), or the same steps with memfd_create(2) to compare with */
static void area_open(struct secret *s, bool secret, size_t nr_pages)
{
	size_t size = nr_pages * page_size;

	if (secret) {
		if (secret_open(s, size))
			err(1, "memfd_secret");
		return;
	}

	s->size = size;
	s->fd = memfd_create("bench", 0);
	if (s->fd < 0 || ftruncate(s->fd, size))
		err(1, "memfd_create");
	s->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
	if (s->mem == MAP_FAILED)
		err(1, "mmap");
}

static void area_touch(struct secret *s)
{
	size_t i;

	for (i = 0; i < s->size; i += page_size)
		*(volatile char *)(s->mem + i) = 1;
}

static void cycle(bool secret, size_t nr_pages)
{
	struct secret s;

	area_open(&s, secret, nr_pages);
	area_touch(&s);
	secret_close(&s);
}

/* Age memory as @how says */
static void age_as(const char *how)
{
	static const char * const names[] = {
		[AGEING_NONE]		= "fresh",
		[AGEING_MOVABLE]	= "movable",
		[AGEING_STRIDED]	= "strided",
		[AGEING_RANDOM]		= "random",
	};
	static struct aged aged;
	size_t bytes = aged_bytes();
	unsigned int i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strcmp(how, names[i]))
			break;
	if (age(&aged, i, bytes))
		err(1, "ageing");
	printf("aged_mib %zu\n", bytes / MIB);
}

/* Rows 1 and 2: 1 MiB of secret memory after ageing */

static void bench_placement(const char *how)
{
	struct direct_map before, now;
	struct secret s;
	long splits;

	age_as(how);

	before = direct_map();
	splits = nr_splits();
	area_open(&s, true, SECRET_PAGES);
	area_touch(&s);
	now = direct_map();
	printf("splits %ld\n", nr_splits() - splits);
	printf("lost_in_use %ld\n", (now.kib_4k - before.kib_4k) / 1024);

	secret_close(&s);
	drain();
	wait_for((now = direct_map(), now.kib_4k <= before.kib_4k));
	printf("lost_after %ld\n", (now.kib_4k - before.kib_4k) / 1024);
}

/* Row 3: times, each in turn with two of memfd_create, of which one is control */

static uint64_t fill_ns(bool secret)
{
	struct secret s;
	uint64_t t;

	area_open(&s, secret, FILL_PAGES);
	t = now_ns();
	area_touch(&s);
	t = now_ns() - t;
	secret_close(&s);

	return t;
}

static uint64_t fill_fresh_ns(bool secret)
{
	drain();

	return fill_ns(secret);
}

static uint64_t cycle_ns(bool secret)
{
	uint64_t t = now_ns();

	cycle(secret, FILL_PAGES);

	return now_ns() - t;
}

/* Tasks that wait for a byte, do a cycle of that kind, and send one back */
static int task_start[MAX_TASKS], tasks_done;

static unsigned int task_pages(unsigned int nr_tasks)
{
	return 2 * FILL_PAGES / nr_tasks;
}

static void start_tasks(unsigned int nr)
{
	int start[2], done[2];
	unsigned int i;
	char secret;

	if (pipe(done))
		err(1, "pipe");
	for (i = 0; i < nr; i++) {
		if (pipe(start))
			err(1, "pipe");
		switch (fork()) {
		case -1:
			err(1, "fork");
		case 0:
			close(start[1]);
			while (read(start[0], &secret, 1) == 1) {
				cycle(secret, task_pages(nr));
				if (write(done[1], "", 1) != 1)
					break;
			}
			_exit(0);
		}
		close(start[0]);
		task_start[i] = start[1];
	}
	close(done[1]);
	tasks_done = done[0];
}

static void stop_tasks(unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		close(task_start[i]);
	close(tasks_done);
	while (wait(NULL) > 0)
		;
}

static uint64_t tasks_ns(unsigned int nr, bool secret)
{
	uint64_t t = now_ns();
	char kind = secret;
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (write(task_start[i], &kind, 1) != 1)
			err(1, "task");
	for (i = 0; i < nr; i++)
		if (read(tasks_done, &kind, 1) != 1)
			errx(1, "a task failed");

	return now_ns() - t;
}

static uint64_t tasks_2_ns(bool secret)
{
	return tasks_ns(2, secret);
}

static uint64_t tasks_4_ns(bool secret)
{
	return tasks_ns(4, secret);
}

static uint64_t tasks_8_ns(bool secret)
{
	return tasks_ns(8, secret);
}

/* A line of figures, each by so many steps */
static void print_samples(const char *name, const uint64_t *t, unsigned int nr_steps)
{
	printf("%s %.2f %.2f %.2f\n", name, (double)t[0] / nr_steps,
	       (double)t[1] / nr_steps, (double)t[2] / nr_steps);
}

static void bench_times(unsigned int nr_pairs)
{
	static const struct {
		const char *name;
		uint64_t (*fn)(bool secret);
		unsigned int nr_pages;
		unsigned int nr_tasks;
	} benches[] = {
		{ "recycled", fill_ns, FILL_PAGES },
		{ "fresh", fill_fresh_ns, FILL_PAGES },
		{ "cycle_1", cycle_ns, FILL_PAGES },
		{ "cycle_2", tasks_2_ns, 2 * FILL_PAGES, 2 },
		{ "cycle_4", tasks_4_ns, 2 * FILL_PAGES, 4 },
		{ "cycle_8", tasks_8_ns, 2 * FILL_PAGES, 8 },
	};
	unsigned int i, k, arm;
	double clear;

	for (k = 0; k < sizeof(benches) / sizeof(*benches); k++) {
		start_tasks(benches[k].nr_tasks);
		for (i = 0; i < nr_pairs + NR_WARM_UP; i++) {
			uint64_t t[3];

			/* A B C, C B A, ...: A is secret memory, C the control */
			for (arm = 0; arm < 3; arm++) {
				unsigned int n = i % 2 ? 2 - arm : arm;

				/* Have the same before each of them */
				benches[k].fn(false);
				t[n] = benches[k].fn(n == 0);
			}
			if (i >= NR_WARM_UP)
				print_samples(benches[k].name, t, benches[k].nr_pages);
		}
		stop_tasks(benches[k].nr_tasks);
		fflush(stdout);
	}

	/* What (a) does without: where there is a module, what clearing takes */
	if (access(MODULE, R_OK))
		return;
	insert(read_image(MODULE), "bench", "what=nothing");
	for (i = 0; i < nr_pairs; i++) {
		module_figures("clear", &clear, 1);
		printf("clear %.2f\n", clear);
	}
	remove_module("bench");
}

/*
 * How long each fault takes, as "NAME SHARE NS": that share of faults, in
 * percent, took NS at most. On the series each 512th takes a block.
 */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void print_shares(const char *name, uint64_t *ns, size_t nr)
{
	static const double tail[] = { 99.1, 99.3, 99.5, 99.7, 99.8, 99.9, 99.95, 99.99, 100 };
	unsigned int i;

	qsort(ns, nr, sizeof(*ns), compare);
	for (i = 0; i < 100; i++)
		printf("%s %u %" PRIu64 "\n", name, i, ns[i * (nr - 1) / 100]);
	for (i = 0; i < sizeof(tail) / sizeof(*tail); i++)
		printf("%s %.2f %" PRIu64 "\n", name, tail[i],
		       ns[(size_t)(tail[i] / 100 * (nr - 1))]);
}

static void bench_faults(void)
{
	static uint64_t ns[2][FAULT_ROUNDS * FAULT_PAGES];
	size_t i, nr[2] = {};
	unsigned int round;
	struct secret s;
	uint64_t t;
	int secret;

	for (round = 0; round < 2 * FAULT_ROUNDS; round++) {
		secret = (round + 1) / 2 % 2;
		drain();
		area_open(&s, secret, FAULT_PAGES);
		for (i = 0; i < s.size; i += page_size) {
			t = now_ns();
			*(volatile char *)(s.mem + i) = 1;
			ns[secret][nr[secret]++] = now_ns() - t;
		}
		secret_close(&s);
	}
	print_shares("fault_memfd", ns[0], nr[0]);
	print_shares("fault_secret", ns[1], nr[1]);
}

static void use_cpu(unsigned int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		err(1, "sched_setaffinity");
}

/*
 * Rows 9 and 10 compare before and after, which cannot take turns. So each of
 * their figures is itself a ratio, of two times that did: to something that
 * costs the same before and after.
 */

/* As many figures as asked for, after some to warm up. @fn(@arg) takes one. */
static double *figures(unsigned int nr, double (*fn)(void *arg), void *arg)
{
	double *figure = calloc(nr, sizeof(*figure));
	unsigned int i;

	if (!figure)
		err(1, "calloc");
	for (i = 0; i < NR_WARM_UP; i++)
		fn(arg);
	for (i = 0; i < nr; i++)
		figure[i] = fn(arg);

	return figure;
}

static void print_figures(const char *name, unsigned int nr, const double *figure,
			  const double *before, const double *again)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		printf("%s %.4f %.4f %.4f\n", name, figure[i], before[i], again[i]);
}

/*
 * Row 9: the module walks a chain through pages that it holds, among which
 * others get free as after row 1's ageing, and secret memory takes some of
 * those. Measured are, in this order: before; before again, the control; with
 * the secret memory in use; after.
 */

/* To the same pages in the vmalloc area */
static double lap(void *unused)
{
	double ns[2];

	module_figures("lap", ns, 2);

	return ns[0] / ns[1];
}

static void bench_chase(unsigned int nr)
{
	double *before, *again, *used, *after, ns[2];
	struct direct_map map;
	struct secret s;

	insert(read_image(MODULE), "bench", "what=chain");
	use_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	before = figures(nr, lap, NULL);
	again = figures(nr, lap, NULL);
	module_figures("lap", ns, 2);
	printf("chase_ns %.2f\n", ns[0]);
	map = direct_map();
	if (!proc_write(MODULE_PARAMETERS "age", "1"))
		err(1, "ageing");
	area_open(&s, true, SECRET_PAGES);
	area_touch(&s);
	used = figures(nr, lap, NULL);
	printf("chase_split_in_use %ld\n", (direct_map().kib_4k - map.kib_4k) / 1024);
	secret_close(&s);
	drain();
	/* Until they give back what they hold, on a kernel that does */
	sleep(IDLE_SECONDS);
	after = figures(nr, lap, NULL);
	printf("chase_split_after %ld\n", (direct_map().kib_4k - map.kib_4k) / 1024);
	print_figures("chase_in_use", nr, used, before, again);
	print_figures("chase_after", nr, after, before, again);
	remove_module("bench");
}

/*
 * Row 10: reads of a tmpfs file, the pages of which lie where users of memory
 * were before, to reads of one of the same size that is there from the start:
 * what the machine's caches cost is in both. Measured are, in this order: after
 * users of ordinary memory; after such users again, the control; after as many
 * of secret memory.
 */

static int new_file(void)
{
	static char buf[MIB];
	int fd = memfd_create("reads", 0);
	size_t i;

	if (fd < 0)
		err(1, "memfd_create");
	memset(buf, 1, sizeof(buf));
	for (i = 0; i < FILE_BYTES; i += sizeof(buf))
		if (write(fd, buf, sizeof(buf)) != sizeof(buf))
			err(1, "tmpfs file");

	return fd;
}

static uint64_t reads_ns(int fd)
{
	static unsigned int seed = 1;
	off_t at[READS_PER_TURN];
	char buf[READ_BYTES];
	unsigned int i;
	uint64_t t;

	for (i = 0; i < READS_PER_TURN; i++)
		at[i] = rand_r(&seed) % (FILE_BYTES / READ_BYTES) * READ_BYTES;
	t = now_ns();
	for (i = 0; i < READS_PER_TURN; i++) {
		if (pread(fd, buf, sizeof(buf), at[i]) != sizeof(buf))
			err(1, "pread");
	}

	return now_ns() - t;
}

struct files {
	int	first, now;
	double	ns;
};

static double reads_ratio(void *arg)
{
	struct files *f = arg;
	uint64_t now = 0, first = 0;
	unsigned int i;

	for (i = 0; i < NR_READS / READS_PER_TURN; i += 2) {
		now += reads_ns(f->now);
		first += reads_ns(f->first);
		first += reads_ns(f->first);
		now += reads_ns(f->now);
	}
	f->ns = (double)now / NR_READS;

	return (double)now / first;
}

static double *reads(struct files *f, unsigned int nr)
{
	double *figure;

	f->now = new_file();
	figure = figures(nr, reads_ratio, f);
	printf("reads_ns %.2f\n", f->ns);
	close(f->now);

	return figure;
}

/* All have their memory at the same time, and end */
static void users(bool secret)
{
	int ready[2], stop[2];
	unsigned int i;
	struct secret s;
	char c;

	if (pipe(ready) || pipe(stop))
		err(1, "pipe");
	for (i = 0; i < NR_USERS; i++) {
		switch (fork()) {
		case -1:
			err(1, "fork");
		case 0:
			close(stop[1]);
			area_open(&s, secret, USER_PAGES);
			area_touch(&s);
			if (write(ready[1], "", 1) == 1 && read(stop[0], &c, 1) == 0)
				_exit(0);
			_exit(1);
		}
	}
	close(ready[1]);
	for (i = 0; i < NR_USERS; i++)
		if (read(ready[0], &c, 1) != 1)
			errx(1, "a user of memory failed");
	close(stop[1]);
	while (wait(NULL) > 0)
		;
	close(stop[0]);
	close(ready[0]);
	sleep(IDLE_SECONDS);
}

static void bench_reads(unsigned int nr)
{
	double *before, *again, *after;
	struct direct_map map;
	struct files f;

	use_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	/* Memory that nobody used yet the emulator does not have either */
	users(false);
	f.first = new_file();
	map = direct_map();
	users(false);
	before = reads(&f, nr);
	users(false);
	again = reads(&f, nr);
	users(true);
	after = reads(&f, nr);
	printf("reads_split %ld\n", (direct_map().kib_4k - map.kib_4k) / 1024);
	print_figures("reads", nr, after, before, again);
}

/*
 * The direct map in the course of row 1's load: all of it as ptdump shows it,
 * and every SAMPLE_MS its size by size of page.
 */

static double uptime(void)
{
	return now_ns() / 1e9;
}

/*
 * What is absent by a PMD that is not present: ptdump passes it over. Blocks
 * are refilled and returned, says the trace, on a kernel that has them.
 */
static const char * const block_events[] = { "unmapped_alloc_refill", "unmapped_alloc_return" };
#define NR_BLOCK_EVENTS	2

static void trace_blocks(void)
{
	char path[128];
	unsigned int i;

	for (i = 0; i < NR_BLOCK_EVENTS; i++) {
		snprintf(path, sizeof(path), TRACING "events/unmapped_alloc/%s/enable", block_events[i]);
		if (!proc_write(path, "1") && vm_counter("nr_direct_unmapped_free") >= 0)
			err(1, "%s", path);
	}
}

static void print_blocks(const char *when)
{
	FILE *f = fopen(TRACING "trace", "r");
	unsigned int i, order;
	char line[256], *event;
	unsigned long pfn;

	if (!f)
		err(1, "trace");
	while (fgets(line, sizeof(line), f))
		for (i = 0; i < NR_BLOCK_EVENTS; i++) {
			event = strstr(line, block_events[i]);
			if (event && sscanf(strchr(event, ' '), " pfn=%lx order=%u", &pfn, &order) == 2)
				printf("block %s %s %lu %u\n", when, block_events[i], pfn, order);
		}
	fclose(f);
}

static void print_map(const char *when)
{
	FILE *f = fopen("/sys/kernel/debug/page_tables/kernel", "r");
	bool inside = false;
	char line[256];

	if (!f)
		err(1, "ptdump");
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "---[", 4))
			inside = strstr(line, "Low Kernel Mapping");
		else if (inside)
			printf("map %s %s", when, line);
	}
	fclose(f);
	print_blocks(when);
}

static pid_t start_sampler(void)
{
	const struct timespec pause = { .tv_nsec = SAMPLE_MS * 1000 * 1000 };
	struct direct_map map;
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	while (!pid) {
		map = direct_map();
		/* A line at a time, between those of the parent */
		dprintf(1, "sample %.2f %ld %ld %ld\n", uptime(), map.kib_4k,
			map.kib_2m, map.kib_1g);
		nanosleep(&pause, NULL);
	}

	return pid;
}

/* Where there is memory: "ram START-END" */
static void print_ram(void)
{
	FILE *f = fopen("/proc/iomem", "r");
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (*line != ' ' && strstr(line, "System RAM"))
			printf("ram %s", line);
	if (f)
		fclose(f);
}

static void phase(const char *name)
{
	printf("phase_%s %.2f\n", name, uptime());
}

static void bench_picture(const char *how)
{
	pid_t sampler;
	struct secret s;

	setvbuf(stdout, NULL, _IOLBF, 0);
	trace_blocks();
	print_ram();
	print_map("before");
	sampler = start_sampler();
	sleep(1);
	phase("ageing");
	age_as(how);
	phase("use");
	area_open(&s, true, SECRET_PAGES);
	area_touch(&s);
	print_map("during");
	sleep(2);
	phase("free");
	secret_close(&s);
	sleep(IDLE_SECONDS);
	phase("end");
	kill(sampler, SIGKILL);
	wait(NULL);
	print_map("after");
}

/*
 * Rows 5 and 6: flushes. What on_each_cpu() runs on every CPU to flush kernel
 * addresses, on whatever behalf, is counted by ftrace's function profiler.
 */

static const char * const flush_functions[] = {
	"do_flush_tlb_all",
	"do_kernel_range_flush",
	"__cpa_flush_all",
	"__cpa_flush_tlb",
};
#define NR_FLUSH_FUNCTIONS	4

static void count_flushes(void)
{
	unsigned int i;

	/* One write adds one function */
	for (i = 0; i < NR_FLUSH_FUNCTIONS; i++)
		if (!proc_write(TRACING "set_ftrace_filter", flush_functions[i]))
			err(1, "%s", flush_functions[i]);
	if (!proc_write(TRACING "function_profile_enabled", "1"))
		err(1, "function profiler");
}

static double nr_flushes(void)
{
	unsigned int i, cpu, nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char path[64], line[256], name[64];
	unsigned long hits, sum = 0;
	FILE *f;

	for (cpu = 0; cpu < nr_cpus; cpu++) {
		snprintf(path, sizeof(path), TRACING "trace_stat/function%u", cpu);
		f = fopen(path, "r");
		if (!f)
			err(1, "%s", path);
		while (fgets(line, sizeof(line), f))
			for (i = 0; i < NR_FLUSH_FUNCTIONS; i++)
				if (sscanf(line, "%63s %lu", name, &hits) == 2 &&
				    !strcmp(name, flush_functions[i]))
					sum += hits;
		fclose(f);
	}

	return (double)sum / nr_cpus;
}

static void bench_flushes(void)
{
	unsigned int i;
	double before;

	count_flushes();
	drain();
	before = nr_flushes();
	cycle(true, FLUSH_PAGES);
	printf("flushes_taken %.2f\n", (nr_flushes() - before) * 1000 / FLUSH_PAGES);

	for (i = 0; i < 3; i++)
		cycle(true, CYCLE_PAGES);
	before = nr_flushes();
	for (i = 0; i < 20; i++)
		cycle(true, CYCLE_PAGES);
	printf("flushes_steady %.4f\n",
	       (nr_flushes() - before) / (20 * CYCLE_PAGES));
}

/* Row 6: instructions, the fewest of many cycles */

static void bench_cycles(void)
{
	uint64_t t[3], fill, whole, min_fill, min_whole;
	struct secret s;
	unsigned int i;
	int secret;

	for (secret = 0; secret < 2; secret++) {
		const char *name = secret ? "secret" : "memfd";

		min_fill = min_whole = -1;
		for (i = 0; i < CYCLE_REPEATS; i++) {
			t[0] = instructions();
			area_open(&s, secret, CYCLE_PAGES);
			t[1] = instructions();
			area_touch(&s);
			t[2] = instructions();
			secret_close(&s);
			whole = instructions() - t[0];
			fill = t[2] - t[1];
			min_whole = whole < min_whole ? whole : min_whole;
			min_fill = fill < min_fill ? fill : min_fill;
		}
		printf("%s_cycle %.2f\n", name, (double)min_whole / CYCLE_PAGES);
		printf("%s_fill %.2f\n", name, (double)min_fill / CYCLE_PAGES);
	}
}

/*
 * Row 11: users of kernel memory with other permissions than data have. All
 * that is loaded is held until all is loaded, so that each takes memory of its
 * own. Exercised are
 *
 * modules: the bench module under NR_MODULES names, for text, data and
 * read-only data of each; vsock; and test_vmalloc, which does not stay loaded.
 * BPF programs: NR_PROGRAMS through the JIT, small and large.
 * trampolines: BPF's XDP dispatcher, written again whenever one of the programs
 * runs; and ftrace's, one for each tracing instance with the function tracer.
 * (An fentry program's needs BTF, which these kernels do not have.)
 * vmalloc: areas with VM_FLUSH_RESET_PERMS that the bench module asks for; and
 * programs for BPF's interpreter, which are vmalloc areas that get this flag
 * when they are made read-only.
 */

/*
 * Give the module @from in @image the name @to, which is as long. The kernel
 * loads a name only once.
 */
static void rename_image(struct image image, const char *from, const char *to)
{
	size_t i, len = strlen(from) + 1;

	for (i = 1; i + len <= image.size; i++)
		if (!memcmp(image.bytes + i, from, len) &&
		    (!image.bytes[i - 1] || image.bytes[i - 1] == '='))
			memcpy(image.bytes + i, to, len);
}

static void modules(bool load)
{
	struct image image;
	char name[16], last[16] = "bench";
	unsigned int i;

	if (load)
		image = read_image(MODULE);
	for (i = 0; i < NR_MODULES; i++) {
		snprintf(name, sizeof(name), "ben%02u", i);
		if (load) {
			rename_image(image, last, name);
			insert(image, name, "what=nothing");
			strcpy(last, name);
		} else {
			remove_module(name);
		}
	}
	if (!load) {
		remove_module("vsock");
		return;
	}
	free(image.bytes);
	insert(read_image("vsock.ko"), "vsock", "");
	image = read_image("test_vmalloc.ko");
	if (!syscall(__NR_init_module, image.bytes, image.size, "run_test_mask=0") || errno != EAGAIN)
		err(1, "test_vmalloc");
}

static void load_or_close(bool load, int *fds, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!load) {
			close(fds[i]);
			continue;
		}
		fds[i] = bpf_load_sum(BPF_PROG_TYPE_SOCKET_FILTER, 4 << i % 10);
		if (fds[i] < 0)
			err(1, "BPF program %u", i);
	}
}

static void programs(bool load)
{
	static int fds[NR_PROGRAMS];

	load_or_close(load, fds, NR_PROGRAMS);
}

static void trampolines(bool load)
{
	static int fds[NR_RUN_PROGRAMS];
	char path[128], file[160];
	unsigned int i;

	for (i = 0; i < NR_RUN_PROGRAMS; i++) {
		if (!load) {
			close(fds[i]);
			continue;
		}
		fds[i] = bpf_load_sum(BPF_PROG_TYPE_XDP, i);
		if (fds[i] < 0 || bpf_run_sum(fds[i], i))
			err(1, "XDP program %u", i);
	}

	for (i = 0; i < NR_INSTANCES; i++) {
		snprintf(path, sizeof(path), TRACING "instances/bench%u", i);
		snprintf(file, sizeof(file), "%s/set_ftrace_filter", path);
		if (load && (mkdir(path, 0700) || !proc_write(file, flush_functions[0])))
			err(1, "%s", path);
		snprintf(file, sizeof(file), "%s/current_tracer", path);
		if (!proc_write(file, load ? "function" : "nop"))
			err(1, "%s", file);
		if (!load && rmdir(path))
			err(1, "%s", path);
	}
}

static void areas(bool load)
{
	static int fds[NR_INTERPRETED];

	if (!load)
		remove_module("bench");
	else
		insert(read_image(MODULE), "bench", "what=areas");

	if (!proc_write("/proc/sys/net/core/bpf_jit_enable", "0"))
		err(1, "switching the JIT off");
	load_or_close(load, fds, NR_INTERPRETED);
	if (!proc_write("/proc/sys/net/core/bpf_jit_enable", "1"))
		err(1, "switching the JIT on");
}

/* Large mappings that there were, and are not now */
static long missing_2m(const struct direct_map *before)
{
	return (direct_map().kib_4k - before->kib_4k) / 2048;
}

static long missing_1g(const struct direct_map *before)
{
	return (before->kib_1g - direct_map().kib_1g) / 1024 / 1024;
}

static long max(long a, long b)
{
	return a > b ? a : b;
}

static void bench_permissions(const char *how)
{
	static const struct {
		const char *name;
		void (*fn)(bool load);
	} users[] = {
		{ "modules", modules },
		{ "programs", programs },
		{ "trampolines", trampolines },
		{ "areas", areas },
	};
	const unsigned int nr = sizeof(users) / sizeof(*users);
	long splits[sizeof(users) / sizeof(*users)] = {}, level2, level3;
	struct rlimit files = { 4 * NR_PROGRAMS, 4 * NR_PROGRAMS };
	long lost_2m = 0, lost_1g = 0;
	struct direct_map before;
	unsigned int i, load;

	age_as(how);
	/* Ageing left as many as it needs */
	if (setrlimit(RLIMIT_NOFILE, &files))
		err(1, "setrlimit");
	before = direct_map();
	level2 = nr_splits();
	level3 = vm_counter("direct_map_level3_splits");

	for (load = 2; load-- > 0;) {
		for (i = 0; i < nr; i++) {
			splits[i] -= nr_splits();
			users[i].fn(load);
			/* What is freed by RCU and by workers belongs to it */
			if (!load)
				sleep(1);
			splits[i] += nr_splits();
		}
		/* The most: in use, or now that all are gone */
		lost_2m = max(lost_2m, missing_2m(&before));
		lost_1g = max(lost_1g, missing_1g(&before));
	}
	printf("lost_2m %ld\n", lost_2m);
	printf("lost_1g %ld\n", lost_1g);
	for (i = 0; i < nr; i++)
		printf("splits_%s %ld\n", users[i].name, splits[i]);

	sleep(IDLE_SECONDS);
	printf("splits %ld\n", nr_splits() - level2);
	printf("level3 %ld\n", vm_counter("direct_map_level3_splits") - level3);
	printf("missing_2m %ld\n", missing_2m(&before));
	printf("missing_1g %ld\n", missing_1g(&before));
}

/* Row 12: what is left of 64 MiB when everybody is gone */

/* Half of the pages on each of two CPUs, whose batches may hold some back */
static void cycle_on_two_cpus(void)
{
	struct secret s[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		use_cpu(i);
		area_open(&s[i], true, IDLE_PAGES / 2);
		area_touch(&s[i]);
	}
	for (i = 0; i < 2; i++)
		secret_close(&s[i]);
}

static void bench_idle(void)
{
	struct direct_map before = direct_map(), now;
	long idle;

	cycle_on_two_cpus();
	sleep(IDLE_SECONDS);
	printf("held_kib %ld\n", vm_counter("nr_direct_unmapped_free") *
	       (long)(page_size / 1024));

	/*
	 * Idle blocks, and nothing else here, count as this. All are, once the
	 * batches are flushed.
	 */
	cycle_on_two_cpus();
	proc_write("/proc/sys/vm/drop_caches", "1");
	idle = vm_counter("nr_kernel_misc_reclaimable");
	drain();
	printf("idle_blocks %ld\n", idle / 512);
	printf("returned_percent %.2f\n", idle ? 100.0 -
	       100.0 * vm_counter("nr_kernel_misc_reclaimable") / idle : 0);

	wait_for((now = direct_map(), now.kib_1g >= before.kib_1g));
	printf("before_1g %ld\n", before.kib_1g >> 20);
	printf("after_1g %ld\n", now.kib_1g >> 20);
}

static void use_all_cpus(void)
{
	cpu_set_t cpus;

	memset(&cpus, 0xff, sizeof(cpus));
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		err(1, "sched_setaffinity");
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";
	const char *arg = argc > 2 ? argv[2] : "";
	const char *why = why_no_secret() ?: why_no_direct_map();

	if (why)
		errx(1, "%s", why);
	if (setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY }))
		err(1, "setrlimit");
	/* The selftest keeps to one */
	use_all_cpus();

	if (!strcmp(what, "placement"))
		bench_placement(arg);
	else if (!strcmp(what, "times") && atoi(arg) > 0)
		bench_times(atoi(arg));
	else if (!strcmp(what, "chase") && atoi(arg) > 0)
		bench_chase(atoi(arg));
	else if (!strcmp(what, "reads") && atoi(arg) > 0)
		bench_reads(atoi(arg));
	else if (!strcmp(what, "faults"))
		bench_faults();
	else if (!strcmp(what, "fill"))
		cycle(true, CYCLE_PAGES);
	else if (!strcmp(what, "picture"))
		bench_picture(arg);
	else if (!strcmp(what, "flushes"))
		bench_flushes();
	else if (!strcmp(what, "cycles"))
		bench_cycles();
	else if (!strcmp(what, "idle"))
		bench_idle();
	else if (!strcmp(what, "permissions"))
		bench_permissions(arg);
	else
		errx(1, "what?");

	return 0;
}

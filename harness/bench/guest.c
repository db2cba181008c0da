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
#define NR_TASKS	8
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
static int task_start[NR_TASKS], tasks_done;

static void start_tasks(void)
{
	int start[2], done[2];
	unsigned int i;
	char secret;

	if (pipe(done))
		err(1, "pipe");
	for (i = 0; i < NR_TASKS; i++) {
		if (pipe(start))
			err(1, "pipe");
		switch (fork()) {
		case -1:
			err(1, "fork");
		case 0:
			close(start[1]);
			while (read(start[0], &secret, 1) == 1) {
				cycle(secret, FILL_PAGES / 4);
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

static void stop_tasks(void)
{
	unsigned int i;

	for (i = 0; i < NR_TASKS; i++)
		close(task_start[i]);
	while (wait(NULL) > 0)
		;
}

static uint64_t cycle_8_tasks_ns(bool secret)
{
	uint64_t t = now_ns();
	char kind = secret;
	unsigned int i;

	for (i = 0; i < NR_TASKS; i++)
		if (write(task_start[i], &kind, 1) != 1)
			err(1, "task");
	for (i = 0; i < NR_TASKS; i++)
		if (read(tasks_done, &kind, 1) != 1)
			errx(1, "a task failed");

	return now_ns() - t;
}

static void bench_times(unsigned int nr_pairs)
{
	static const struct {
		const char *name;
		uint64_t (*fn)(bool secret);
		unsigned int nr_pages;
	} benches[] = {
		{ "recycled", fill_ns, FILL_PAGES },
		{ "fresh", fill_fresh_ns, FILL_PAGES },
		{ "cycle_1", cycle_ns, FILL_PAGES },
		{ "cycle_8", cycle_8_tasks_ns, NR_TASKS * FILL_PAGES / 4 },
	};
	unsigned int i, k, arm;

	start_tasks();
	for (k = 0; k < sizeof(benches) / sizeof(*benches); k++) {
		for (i = 0; i < nr_pairs + 4; i++) {
			uint64_t t[3];

			/* A B C, C B A, ...: A is secret memory, C the control */
			for (arm = 0; arm < 3; arm++) {
				unsigned int n = i % 2 ? 2 - arm : arm;

				/* Have the same before each of them */
				benches[k].fn(false);
				t[n] = benches[k].fn(n == 0);
			}
			/* The first ones warm up */
			if (i >= 4)
				printf("%s %.1f %.1f %.1f\n", benches[k].name,
				       (double)t[0] / benches[k].nr_pages,
				       (double)t[1] / benches[k].nr_pages,
				       (double)t[2] / benches[k].nr_pages);
		}
		fflush(stdout);
	}
	stop_tasks();
}

/*
 * Rows 5 and 6: flushes. What on_each_cpu() runs on every CPU to flush kernel
 * addresses, on whatever behalf, is counted by ftrace's function profiler.
 */

#define TRACING "/sys/kernel/tracing/"
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

static void remove_module(const char *name)
{
	if (syscall(__NR_delete_module, name, O_NONBLOCK))
		err(1, "unloading %s", name);
}

static void modules(bool load)
{
	struct image image;
	char name[16], last[16] = "bench";
	unsigned int i;

	if (load)
		image = read_image("bench.ko");
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
		insert(read_image("bench.ko"), "bench", "what=areas");

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
	cpu_set_t cpus;

	for (i = 0; i < 2; i++) {
		CPU_ZERO(&cpus);
		CPU_SET(i, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus))
			err(1, "sched_setaffinity");
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
	/* The selftest keeps to one */
	use_all_cpus();

	if (!strcmp(what, "placement"))
		bench_placement(arg);
	else if (!strcmp(what, "times") && atoi(arg) > 0)
		bench_times(atoi(arg));
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

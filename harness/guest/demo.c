// SPDX-License-Identifier: GPL-2.0
/*
 * The workload that breaks the direct map, and what it costs. Ages memory with unmovable pages (1 GiB of pipe buffers
 * round robin over 1,024 pipes, one pipe in eight drained), then takes pages with memfd_secret. Prints "NAME VALUE" lines.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define PIPES		1024
#define PIPE_PAGES	256
#define SPLIT_PAGES	256	/* taken while splits are counted */
#define FLUSH_PAGES	2000	/* taken while flushes are counted */
#define TIME_PAGES	1024	/* taken in each timed run */
#define ROUNDS		41
#define TRACING		"/sys/kernel/tracing/"

static int pipes[PIPES][2];

static void die(const char *what)
{
	printf("error %s: %s\n", what, strerror(errno));
	exit(1);
}

static void write_file(const char *path, const char *text, int flags)
{
	int fd = open(path, O_WRONLY | flags);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* The first number behind the word KEY at the start of a line; -1 if there is none */
static long read_value(const char *path, const char *key)
{
	char line[256], word[128];
	long value, found = -1;
	FILE *f = fopen(path, "r");

	if (!f)
		die(path);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " %127s %ld", word, &value) == 2 && !strcmp(word, key))
			found = value;
	fclose(f);
	return found;
}

static long splits(void)
{
	return read_value("/proc/vmstat", "direct_map_level2_splits");
}

static void print_map(const char *when)
{
	printf("DirectMap4k_%s %ld\n", when, read_value("/proc/meminfo", "DirectMap4k:"));
	printf("DirectMap2M_%s %ld\n", when, read_value("/proc/meminfo", "DirectMap2M:"));
	printf("DirectMap1G_%s %ld\n", when, read_value("/proc/meminfo", "DirectMap1G:"));
	fflush(stdout);
}

/*
 * Flushes of kernel addresses on all CPUs, whoever asks for them: every way to them in 7.3 is one of two functions, or
 * runs one of two functions once on each CPU. Kprobes count the calls.
 */
static const char * const once[] = { "flush_tlb_kernel_range", "flush_tlb_all" };
static const char * const per_cpu[] = { "__cpa_flush_tlb", "__cpa_flush_all" };

static void probe(const char *function)
{
	char text[128];

	snprintf(text, sizeof(text), "p:demo/%s %s\n", function, function);
	write_file(TRACING "kprobe_events", text, O_APPEND);
}

static void count_flushes(int on)
{
	write_file(TRACING "events/demo/enable", on ? "1" : "0", 0);
}

static double flushes(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	double n = 0;

	for (int i = 0; i < 2; i++) {
		n += read_value(TRACING "kprobe_profile", once[i]);
		n += (double)read_value(TRACING "kprobe_profile", per_cpu[i]) / cpus;
	}
	return n;
}

static void age(void)
{
	static char page[PAGE];

	for (int i = 0; i < PIPES; i++)
		if (pipe(pipes[i]) || fcntl(pipes[i][1], F_SETPIPE_SZ, PIPE_PAGES * PAGE) < 0)
			die("pipe");
	for (int n = 0; n < PIPE_PAGES; n++)
		for (int i = 0; i < PIPES; i++)
			if (write(pipes[i][1], page, PAGE) != PAGE)
				die("write to pipe");
	for (int i = 0; i < PIPES; i += 8) {
		close(pipes[i][0]);
		close(pipes[i][1]);
	}
}

struct area {
	int fd;
	char *mem;
	size_t size;
};

static struct area area(int secret, size_t pages)
{
	struct area a = { .size = pages * PAGE };

	a.fd = secret ? (int)syscall(__NR_memfd_secret, 0) : memfd_create("demo", 0);
	if (a.fd < 0 || ftruncate(a.fd, a.size))
		die(secret ? "memfd_secret" : "memfd_create");
	a.mem = mmap(NULL, a.size, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
	if (a.mem == MAP_FAILED)
		die("mmap");
	return a;
}

static void populate(struct area a)
{
	for (size_t at = 0; at < a.size; at += PAGE)
		((volatile char *)a.mem)[at] = 1;
}

static void drop(struct area a)
{
	munmap(a.mem, a.size);
	close(a.fd);
}

/* ns per page to fault in TIME_PAGES */
static double time_populate(int secret)
{
	struct area a = area(secret, TIME_PAGES);
	struct timespec t0, t1;

	clock_gettime(CLOCK_MONOTONIC, &t0);
	populate(a);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	drop(a);
	return ((t1.tv_sec - t0.tv_sec) * 1e9 + (t1.tv_nsec - t0.tv_nsec)) / TIME_PAGES;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

int main(void)
{
	struct rlimit files = { 4 * PIPES, 4 * PIPES }, lock = { RLIM_INFINITY, RLIM_INFINITY };
	static double secret[ROUNDS], plain[ROUNDS], again[ROUNDS];
	struct area a;
	double f;
	long s, b;

	if (setrlimit(RLIMIT_NOFILE, &files) || setrlimit(RLIMIT_MEMLOCK, &lock))
		die("setrlimit");
	printf("cpus %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	printf("MemTotal %ld\n", read_value("/proc/meminfo", "MemTotal:"));
	for (int i = 0; i < 2; i++) {
		probe(once[i]);
		probe(per_cpu[i]);
	}
	count_flushes(1);

	print_map("before");
	age();

	s = splits();
	a = area(1, SPLIT_PAGES);
	populate(a);
	printf("splits %ld\n", splits() - s);
	print_map("during");
	drop(a);

	/* Idle pages may go back a little later: wait until the map has been the same for 3 s, 20 s at most */
	b = read_value("/proc/meminfo", "DirectMap4k:");
	for (int same = 0, i = 0; same < 3 && i < 20; i++) {
		long now;

		sleep(1);
		now = read_value("/proc/meminfo", "DirectMap4k:");
		same = now == b ? same + 1 : 0;
		b = now;
	}
	print_map("after");

	a = area(1, FLUSH_PAGES);
	f = flushes();
	populate(a);
	printf("flushes_per_1000 %.1f\n", (flushes() - f) * 1000 / FLUSH_PAGES);
	drop(a);
	count_flushes(0);

	/* Both in turns, each one first as often as last, so that neither has the better place */
	time_populate(0);
	time_populate(1);
	for (int i = 0; i < ROUNDS; i++) {
		plain[i] = time_populate(0);
		secret[i] = time_populate(1);
		if (i & 1) {
			double first = plain[i];

			plain[i] = time_populate(0);
			again[i] = first;
		} else {
			again[i] = time_populate(0);
		}
	}
	printf("ns_secret %.0f\n", median(secret));
	printf("ns_plain %.0f\n", median(plain));
	printf("ns_plain_again %.0f\n", median(again));
	return 0;
}

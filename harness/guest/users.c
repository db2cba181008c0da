// SPDX-License-Identifier: GPL-2.0
/*
 * What make users does beside loading modules, in the guest:
 *
 * users bpf SECONDS	BPF programs come, run and go
 * users kcore SECONDS	read all of /proc/kcore once, then its vmalloc and module ranges over and over
 * users text FILE.ko	compare the text of the loaded module, as /proc/kcore has it, with its file
 *
 * Needs kptr_restrict=1, with which root sees addresses. Prints one line, and ends with 1 if something was wrong.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "bpf.h"

#define PAGE		4096UL
#define CHUNK		(1UL << 20)
#define MAX_AREAS	65536
#define HOLE_PROBES	1024
#define STUCK_SECONDS	120
#define NR_HELD		32

static bool over(time_t end)
{
	return time(NULL) >= end;
}

/* BPF */

static void bpf_come_and_go(time_t end)
{
	int fds[NR_HELD], i, nr, ret;
	unsigned long n = 0;

	do {
		for (i = 0; i < NR_HELD; i++) {
			nr = (i * 97 + n) % 3000;
			fds[i] = bpf_load_sum(i % 2 ? BPF_PROG_TYPE_XDP : BPF_PROG_TYPE_SOCKET_FILTER, nr);
			if (fds[i] < 0)
				err(1, "loading BPF program %lu", n);
			if (i % 2) {
				ret = bpf_run_sum(fds[i], nr);
				if (ret)
					err(1, "BPF program %lu %s", n, ret < 0 ? "did not run" : "returned a wrong sum");
			}
			n++;
		}
		for (i = 0; i < NR_HELD; i++)
			close(fds[i]);
	} while (!over(end));
	printf("%lu programs came and went, half of them ran\n", n);
}

/* /proc/kcore */

static int kcore;
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
	if (memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_phentsize != sizeof(*segments) ||
	    size > (ssize_t)sizeof(segments) || pread(kcore, segments, size, head.e_phoff) != size)
		errx(1, "/proc/kcore has no good ELF headers");
}

/* The segment that an address lies in */
static const Elf64_Phdr *segment_of(uint64_t addr)
{
	int i;

	for (i = 0; i < nr_segments; i++)
		if (segments[i].p_type == PT_LOAD && addr >= segments[i].p_vaddr &&
		    addr - segments[i].p_vaddr < segments[i].p_memsz)
			return &segments[i];

	return NULL;
}

/* What is read now, for the parent to watch */
static volatile uint64_t *reading;

/* Reads from /proc/kcore never fail and are never short: what is not there reads as zeroes */
static void read_kcore(uint64_t addr, char *bytes, size_t size)
{
	const Elf64_Phdr *s = segment_of(addr);
	ssize_t got;

	if (!s)
		errx(1, "no segment of /proc/kcore has %#lx", addr);
	if (reading)
		*reading = addr;
	got = pread(kcore, bytes, size, s->p_offset + (addr - s->p_vaddr));
	if (got != (ssize_t)size)
		err(1, "reading %zu bytes at %#lx of /proc/kcore gave %zd", size, addr, got);
}

static uint64_t read_range(uint64_t from, uint64_t to)
{
	static char chunk[CHUNK];
	uint64_t at, size;

	for (at = from; at < to; at += size) {
		size = to - at < CHUNK ? to - at : CHUNK;
		read_kcore(at, chunk, size);
	}

	return to - from;
}

struct area {
	uint64_t from, to;
};

/* The kernel's list, which changes while it is read */
static int read_areas(struct area *areas)
{
	FILE *f = fopen("/proc/vmallocinfo", "r");
	char line[512];
	int nr = 0;

	if (!f)
		err(1, "/proc/vmallocinfo");
	while (nr < MAX_AREAS && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx", &areas[nr].from, &areas[nr].to) == 2 && segment_of(areas[nr].from))
			nr++;
	fclose(f);
	if (!nr)
		errx(1, "/proc/vmallocinfo has no area with an address");

	return nr;
}

/*
 * All is read once, the direct map with its absent pages too. The module range is read whole each time. The vmalloc range has
 * terabytes or petabytes and nearly all of it is holes: read every area that is there, with the pages around it, from an odd
 * address too, and probes at even distances throughout.
 */
static void kcore_over_and_over(time_t end)
{
	static struct area areas[MAX_AREAS];
	const Elf64_Phdr *vmalloc = NULL, *modules = NULL, *s;
	unsigned long rounds = 0;
	uint64_t bytes = 0, whole = 0, at;
	int i, nr;

	open_kcore();
	/* Modules lie in the topmost 2 GiB, by the ABI that they are compiled for, as do the kernel's text and vsyscalls */
	for (s = segments; s < segments + nr_segments; s++)
		if (s->p_type == PT_LOAD && s->p_vaddr >= -(2UL << 30) && (!modules || s->p_memsz > modules->p_memsz))
			modules = s;
	nr = read_areas(areas);
	for (i = 0; i < nr; i++) {
		s = segment_of(areas[i].from);
		if (s != modules && (!vmalloc || s->p_memsz > vmalloc->p_memsz))
			vmalloc = s;
	}
	if (!vmalloc || !modules)
		errx(1, "no %s range in /proc/kcore", vmalloc ? "module" : "vmalloc");

	for (s = segments; s < segments + nr_segments; s++)
		if (s->p_type == PT_LOAD && s != vmalloc && s != modules)
			whole += read_range(s->p_vaddr, s->p_vaddr + s->p_memsz);

	do {
		bytes += read_range(modules->p_vaddr, modules->p_vaddr + modules->p_memsz);
		nr = read_areas(areas);
		for (i = 0; i < nr; i++) {
			s = segment_of(areas[i].from);
			if (s == vmalloc && areas[i].from > s->p_vaddr + PAGE)
				bytes += read_range(areas[i].from - PAGE, areas[i].to + PAGE);
			if (areas[i].to - areas[i].from > PAGE)
				bytes += read_range(areas[i].from + 1, areas[i].from + PAGE + 3);
		}
		for (i = 0; i < HOLE_PROBES; i++) {
			at = vmalloc->p_vaddr + vmalloc->p_memsz / HOLE_PROBES / PAGE * PAGE * i;
			bytes += read_range(at, at + PAGE);
		}
		rounds++;
	} while (!over(end));
	printf("%lu rounds of /proc/kcore, %lu MiB, and %lu MiB of all else\n", rounds, bytes >> 20, whole >> 20);
}

/* Run in a child, to notice when a read of /proc/kcore does not end */
static int watched(void (*fn)(time_t end), time_t end)
{
	uint64_t last = 0;
	time_t since = time(NULL);
	int status;
	pid_t pid;

	reading = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (reading == MAP_FAILED)
		err(1, "mmap");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(end);
		exit(0);
	}
	while (!waitpid(pid, &status, WNOHANG)) {
		if (*reading != last) {
			last = *reading;
			since = time(NULL);
		} else if (time(NULL) - since > STUCK_SECONDS) {
			errx(1, "a read of /proc/kcore at %#lx has not ended for %d s", last, STUCK_SECONDS);
		}
		usleep(100000);
	}

	return status ? 1 : 0;
}

/* Text */

static uint64_t kallsyms(const char *name)
{
	char line[256], word[128];
	uint64_t addr, found = 0;
	FILE *f = fopen("/proc/kallsyms", "r");

	if (!f)
		err(1, "/proc/kallsyms");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx %*c %127s", &addr, word) == 2 && !strcmp(word, name))
			found = addr;
	fclose(f);
	if (!found)
		errx(1, "/proc/kallsyms has no address of %s", name);

	return found;
}

/* Where a symbol's bytes lie in an object file */
static const char *symbol(const char *file, const char *name)
{
	const Elf64_Ehdr *head = (const void *)file;
	const Elf64_Shdr *section = (const void *)(file + head->e_shoff);
	const Elf64_Sym *sym;
	const char *names;
	uint64_t k;
	int i;

	for (i = 0; i < head->e_shnum; i++) {
		if (section[i].sh_type != SHT_SYMTAB)
			continue;
		sym = (const void *)(file + section[i].sh_offset);
		names = file + section[section[i].sh_link].sh_offset;
		for (k = 0; k < section[i].sh_size / sizeof(*sym); k++)
			if (!strcmp(names + sym[k].st_name, name))
				return file + section[sym[k].st_shndx].sh_offset + sym[k].st_value;
	}
	errx(1, "the file has no %s", name);
}

static void compare_text(const char *path)
{
	const char *file, *expected;
	int fd = open(path, O_RDONLY);
	char *bytes, *zeroes;
	struct stat st;
	size_t i, size;
	uint64_t addr;

	if (fd < 0 || fstat(fd, &st))
		err(1, "%s", path);
	file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (file == MAP_FAILED)
		err(1, "mmap");
	expected = symbol(file, "users_text_start");
	size = symbol(file, "users_text_end") - expected;
	addr = kallsyms("users_text_start");
	bytes = calloc(1, size);
	zeroes = calloc(1, size);
	if (!bytes || !zeroes || size <= PAGE || kallsyms("users_text_end") - addr != size || !memcmp(expected, zeroes, size))
		errx(1, "%s has %zu bytes of text to compare", path, size);

	open_kcore();
	read_kcore(addr, bytes, size);
	for (i = 0; i < size; i++)
		if (bytes[i] != expected[i])
			errx(1, "byte %zu of %zu at %#lx is %#x in /proc/kcore, and %#x was loaded", i, size, addr,
			     (unsigned char)bytes[i], (unsigned char)expected[i]);
	printf("%zu bytes of text are the same\n", size);
}

int main(int argc, char *argv[])
{
	const char *what = argc == 3 ? argv[1] : "";
	time_t end = time(NULL) + (argc == 3 ? atoi(argv[2]) : 0);

	if (!strcmp(what, "bpf"))
		bpf_come_and_go(end);
	else if (!strcmp(what, "kcore"))
		return watched(kcore_over_and_over, end);
	else if (!strcmp(what, "text"))
		compare_text(argv[2]);
	else
		errx(1, "usage: users bpf SECONDS | kcore SECONDS | text FILE.ko");

	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that processes hold, for guest/heal.sh. Prints "ready" when all is in place, and holds it until it is killed.
 * The ways to age memory and to use secret memory are those of the selftest.
 */
#define main secretmem_frag_main
#include "secretmem_frag.c"
#undef main

#include <err.h>

#define NR_PIECES	64

static void hold(void)
{
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

/* Unmovable pages with holes between them, or page cache (of shmem, as the guest has no disk) with holes punched */
static void hold_aged(const char *how, size_t bytes)
{
	struct aged aged;
	enum ageing ageing;

	if (!strcmp(how, "strided"))
		ageing = AGEING_STRIDED;
	else if (!strcmp(how, "random"))
		ageing = AGEING_RANDOM;
	else if (!strcmp(how, "cache"))
		ageing = AGEING_MOVABLE;
	else
		errx(1, "%s: it is strided, random or cache", how);
	if (age(&aged, ageing, bytes))
		err(1, "ageing");
	hold();
}

static void fill_piece(struct secret *s, size_t bytes)
{
	if (secret_open(s, bytes))
		err(1, "memfd_secret");
	secret_fill(s);
}

/* Secret memory in pieces, which are freed and taken again at random for some time */
static void hold_secret(size_t bytes, unsigned int seconds)
{
	static struct secret pieces[NR_PIECES];
	unsigned int i, seed = getpid();
	time_t end;

	for (i = 0; i < NR_PIECES; i++)
		fill_piece(&pieces[i], bytes / NR_PIECES);
	end = time(NULL) + seconds;
	while (time(NULL) < end) {
		i = rand_r(&seed) % NR_PIECES;
		secret_close(&pieces[i]);
		fill_piece(&pieces[i], bytes / NR_PIECES);
	}
	hold();
}

/* Anonymous memory, a share of all there is, in small pages and with small holes: movable, and not to be reclaimed */
static void hold_movable(unsigned int percent)
{
	size_t i, bytes = proc_value("/proc/meminfo", "MemTotal") / 100 * percent * 1024;
	char *mem;

	bytes = bytes / page_size * page_size;
	if (!bytes)
		hold();
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, bytes, MADV_NOHUGEPAGE))
		err(1, "mmap");
	memset(mem, PATTERN, bytes);
	for (i = 0; i < bytes; i += HOLE_EVERY * page_size)
		if (madvise(mem + i, page_size, MADV_DONTNEED))
			err(1, "madvise");
	hold();
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";

	page_size = sysconf(_SC_PAGESIZE);
	if (!strcmp(what, "aged") && argc == 4)
		hold_aged(argv[2], atol(argv[3]) * MIB);
	else if (!strcmp(what, "secret") && argc == 4)
		hold_secret(atol(argv[2]) * MIB, atoi(argv[3]));
	else if (!strcmp(what, "movable") && argc == 3)
		hold_movable(atoi(argv[2]));
	errx(1, "usage: heal aged HOW MIB | secret MIB SECONDS | movable PERCENT");
}

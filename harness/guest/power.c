// SPDX-License-Identifier: GPL-2.0
/*
 * What guest/hibernate.sh and guest/kexec.sh cannot do in a shell:
 *
 * power bpf			load BPF programs, print "ready"; on SIGUSR1 run them, and end with 1 if one is wrong
 * power load KERNEL INITRD COMMANDLINE
 * power load-crash KERNEL INITRD COMMANDLINE	have a kernel ready for power jump, or for when this one panics
 * power jump			start the kernel that was loaded
 * power marked			mark pages that are freed, print "ready", keep others until the end; see enum kind
 * power vmcore			how many of the marked pages are found in /proc/vmcore, of which all is read: a line for each kind
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bpf.h"

#define PAGE		4096UL
#define PAGE_WORDS	(PAGE / sizeof(uint64_t))
#define CHUNK		(1UL << 20)
#define NR_PROGRAMS	16
#define NR_MARKED	4096

/* BPF programs */

static void hold_bpf(void)
{
	int fds[NR_PROGRAMS], i, sig;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (i = 0; i < NR_PROGRAMS; i++) {
		fds[i] = bpf_load_sum(BPF_PROG_TYPE_XDP, 1 + i * 190);
		if (fds[i] < 0)
			err(1, "loading BPF program %d", i);
	}
	puts("ready");
	fflush(stdout);
	sigwait(&set, &sig);
	for (i = 0; i < NR_PROGRAMS; i++)
		if (bpf_run_sum(fds[i], 1 + i * 190))
			errx(1, "BPF program %d does not give its sum", i);
}

/* kexec */

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		err(1, "%s", path);
	return fd;
}

static void load(char *argv[], unsigned long flags)
{
	if (syscall(SYS_kexec_file_load, open_file(argv[0]), open_file(argv[1]), strlen(argv[2]) + 1, argv[2], flags))
		err(1, "kexec_file_load");
}

/* Pages that can be told from all others, when nothing is left but memory */

enum kind {
	SECRET_USED, SECRET_FREED, PLAIN_USED, PLAIN_FREED, NR_KINDS
};

static const char *const kind_name[NR_KINDS] = { "secret-used", "secret-freed", "plain-used", "plain-freed" };

#define FACTOR	0x9e3779b97f4a7c15

/* The number times this is 1, so that one word tells the kind and the number of its page */
static uint64_t inverse(void)
{
	uint64_t x = FACTOR;
	int i;

	for (i = 0; i < 6; i++)
		x *= 2 - FACTOR * x;
	return x;
}

static uint64_t word(enum kind kind, unsigned long page, unsigned long i)
{
	return ((kind + 1) * 0x5ec7e7ULL << 32 | (page * PAGE_WORDS + i)) * FACTOR;
}

static void *mark(enum kind kind)
{
	bool secret = kind == SECRET_USED || kind == SECRET_FREED;
	int fd = secret ? syscall(SYS_memfd_secret, 0) : -1;
	unsigned long k, i;
	uint64_t *mem;

	if (secret && (fd < 0 || ftruncate(fd, NR_MARKED * PAGE)))
		err(1, "memfd_secret");
	mem = mmap(NULL, NR_MARKED * PAGE, PROT_READ | PROT_WRITE, secret ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
	if (mem == MAP_FAILED)
		err(1, "mmap");
	for (k = 0; k < NR_MARKED; k++)
		for (i = 0; i < PAGE_WORDS; i++)
			mem[k * PAGE_WORDS + i] = word(kind, k, i);
	if (secret)
		close(fd);
	return mem;
}

static void keep_marked(void)
{
	void *secret, *plain;

	mark(SECRET_USED);
	mark(PLAIN_USED);
	secret = mark(SECRET_FREED);
	plain = mark(PLAIN_FREED);
	munmap(secret, NR_MARKED * PAGE);
	munmap(plain, NR_MARKED * PAGE);
	puts("ready");
	fflush(stdout);
	pause();
}

static bool found[NR_KINDS][NR_MARKED];

static void look_at(const uint64_t *mem, uint64_t factor)
{
	uint64_t number = mem[0] * factor, kind = (number >> 32) / 0x5ec7e7 - 1, page = (uint32_t)number / PAGE_WORDS;
	unsigned long i;

	if (kind >= NR_KINDS || page >= NR_MARKED)
		return;
	for (i = 0; i < PAGE_WORDS; i++)
		if (mem[i] != word(kind, page, i))
			return;
	found[kind][page] = true;
}

/* The kernel rounds what it puts in there to pages */
static void read_vmcore(void)
{
	static uint64_t chunk[CHUNK / sizeof(uint64_t)];
	uint64_t factor = inverse(), bytes = 0, at;
	unsigned long count, i;
	int fd = open_file("/proc/vmcore"), kind;
	struct stat st;
	ssize_t got;

	if (fstat(fd, &st) || !st.st_size)
		err(1, "/proc/vmcore has no size");
	while ((got = pread(fd, chunk, CHUNK, bytes)) > 0) {
		for (at = 0; at + PAGE <= (uint64_t)got; at += PAGE)
			look_at(chunk + at / sizeof(*chunk), factor);
		bytes += got;
	}
	if (got < 0)
		err(1, "reading /proc/vmcore at %#lx of %#lx", bytes, (uint64_t)st.st_size);
	if (bytes != (uint64_t)st.st_size)
		errx(1, "/proc/vmcore ends at %#lx of %#lx", bytes, (uint64_t)st.st_size);
	for (kind = 0; kind < NR_KINDS; kind++) {
		for (count = 0, i = 0; i < NR_MARKED; i++)
			count += found[kind][i];
		printf("%s %lu of %u\n", kind_name[kind], count, NR_MARKED);
	}
	printf("MiB %lu\n", bytes >> 20);
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "bpf"))
		hold_bpf();
	else if (!strcmp(what, "load") && argc == 5)
		load(argv + 2, 0);
	else if (!strcmp(what, "load-crash") && argc == 5)
		load(argv + 2, KEXEC_FILE_ON_CRASH);
	else if (!strcmp(what, "jump"))
		return reboot(LINUX_REBOOT_CMD_KEXEC);
	else if (!strcmp(what, "marked"))
		keep_marked();
	else if (!strcmp(what, "vmcore"))
		read_vmcore();
	else
		errx(1, "usage: power bpf | load KERNEL INITRD COMMANDLINE | load-crash ... | jump | marked | vmcore");

	return 0;
}

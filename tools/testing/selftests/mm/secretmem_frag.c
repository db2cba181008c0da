// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of memfd_secret(2) are absent from the kernel's direct map. Test that
 * taking them out does not split the large pages that the direct map is made
 * of, wherever free memory lies, and that all of it is undone when they are
 * freed. Test also what users see of such pages that are used again: they are
 * zero, they count, and they come from the node that was asked for.
 *
 * A kernel with CONFIG_DEBUG_PAGEALLOC or CONFIG_CPA_DEBUG splits the direct
 * map by itself, and cannot be tested.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <linux/mempolicy.h>

#include "kselftest_harness.h"

#define MIB		(1024UL * 1024)
#define PATTERN		0x5a
#define WAIT_SECONDS	20

/* How much memory ages, in pipes of what size, and one in how many is freed */
#ifndef AGED_BYTES
#define AGED_BYTES	(256 * MIB)
#endif
#define PIPE_BYTES	MIB
#define HOLE_EVERY	8

static size_t page_size;

/* What the kernel says */

/* The value of a line "key value" or "key: value kB", -1 if there is none */
static long proc_value(const char *path, const char *key)
{
	size_t len = strlen(key);
	long value = -1;
	char line[128];
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, len) &&
		    (line[len] == ' ' || line[len] == ':'))
			value = atol(line + len + 1);
	}
	fclose(f);

	return value;
}

static bool proc_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);

	return ok;
}

static long vm_counter(const char *key)
{
	/* Counters of pages lag behind, unless root asks for them */
	proc_write("/proc/sys/vm/stat_refresh", "1");

	return proc_value("/proc/vmstat", key);
}

static long nr_splits(void)
{
	return vm_counter("direct_map_level2_splits");
}

/*
 * How the direct map is mapped, in KiB. -1 if there are no such pages. The sum
 * does not change. Read at once, as ranges may be collapsed at any time.
 */
struct direct_map {
	long kib_4k;
	long kib_2m;
	long kib_1g;
};

static struct direct_map direct_map(void)
{
	struct direct_map map = { -1, -1, -1 };
	char line[128];
	long kib;
	FILE *f;

	f = fopen("/proc/meminfo", "r");
	if (!f)
		return map;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "DirectMap4k: %ld", &kib) == 1)
			map.kib_4k = kib;
		else if (sscanf(line, "DirectMap2M: %ld", &kib) == 1)
			map.kib_2m = kib;
		else if (sscanf(line, "DirectMap1G: %ld", &kib) == 1)
			map.kib_1g = kib;
	}
	fclose(f);

	return map;
}

/* Wait for @cond, which comes true without our help, but not for ever */
#define wait_for(cond) ({						\
	const struct timespec _pause = { .tv_nsec = 20 * 1000 * 1000 };	\
	time_t _end = time(NULL) + WAIT_SECONDS;			\
	bool _ok;							\
									\
	while (!(_ok = (cond)) && time(NULL) < _end)			\
		nanosleep(&_pause, NULL);				\
	_ok;								\
})

/* Have caches give back what nobody uses. Only root can. */
static void drain(void)
{
	proc_write("/proc/sys/vm/drop_caches", "2");
}

/* Secret memory */

struct secret {
	int	fd;
	char	*mem;
	size_t	size;
};

static int secret_open(struct secret *s, size_t size)
{
	s->size = size;
	s->fd = syscall(__NR_memfd_secret, 0);
	if (s->fd < 0)
		return -1;

	if (!ftruncate(s->fd, size)) {
		s->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			      s->fd, 0);
		if (s->mem != MAP_FAILED)
			return 0;
	}
	close(s->fd);

	return -1;
}

static void secret_fill(struct secret *s)
{
	memset(s->mem, PATTERN, s->size);
}

static bool secret_is_zero(const struct secret *s)
{
	size_t i;

	for (i = 0; i < s->size; i++)
		if (s->mem[i])
			return false;

	return true;
}

static void secret_close(struct secret *s)
{
	munmap(s->mem, s->size);
	close(s->fd);
}

/*
 * Ageing: free memory that lies in holes between memory in use. What is in use
 * stays so until the process exits.
 */

enum ageing {
	AGEING_NONE,
	AGEING_MOVABLE,
	AGEING_STRIDED,
	AGEING_RANDOM,
};

struct aged {
	int		fd;
	int		(*pipes)[2];
};

static int age_movable(struct aged *aged, size_t bytes)
{
	size_t i;

	aged->fd = memfd_create("aged", 0);
	if (aged->fd < 0 || fallocate(aged->fd, 0, 0, bytes))
		return -1;

	for (i = 0; i < bytes; i += HOLE_EVERY * page_size)
		if (fallocate(aged->fd,
			      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      i, page_size))
			return -1;

	return 0;
}

static int open_pipe(int fds[2])
{
	/* Packets: a write takes a page of its own, however short it is */
	if (pipe2(fds, O_DIRECT | O_NONBLOCK))
		return -1;

	return fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES) < 0 ? -1 : 0;
}

static int age_unmovable(struct aged *aged, size_t bytes, bool random)
{
	size_t page, nr_pages = bytes / page_size;
	unsigned int i, nr = bytes / PIPE_BYTES;
	struct rlimit files = { 2 * nr + 64, 2 * nr + 64 };
	unsigned int seed = 1;

	if (setrlimit(RLIMIT_NOFILE, &files))
		return -1;

	aged->pipes = calloc(nr, sizeof(*aged->pipes));
	if (!aged->pipes)
		return -1;

	for (i = 0; i < nr; i++)
		if (open_pipe(aged->pipes[i]))
			return -1;

	for (page = 0; page < nr_pages; page++) {
		i = (random ? (size_t)rand_r(&seed) : page) % nr;
		while (write(aged->pipes[i][1], "", 1) != 1) {
			/* At random, some pipes are full before others */
			if (!random || errno != EAGAIN)
				return -1;
			i = (i + 1) % nr;
		}
	}

	for (i = 0; i < nr; i += HOLE_EVERY) {
		close(aged->pipes[i][0]);
		close(aged->pipes[i][1]);
	}

	return 0;
}

static int age(struct aged *aged, enum ageing how, size_t bytes)
{
	switch (how) {
	case AGEING_MOVABLE:
		return age_movable(aged, bytes);
	case AGEING_STRIDED:
		return age_unmovable(aged, bytes, false);
	case AGEING_RANDOM:
		return age_unmovable(aged, bytes, true);
	default:
		return 0;
	}
}

/* All that there should be, unless memory is short */
static size_t aged_bytes(void)
{
	long kib = proc_value("/proc/meminfo", "MemAvailable");
	size_t half = kib > 0 ? kib / 2 * 1024UL / MIB * MIB : 0;

	return half < AGED_BYTES ? half : AGED_BYTES;
}

static bool unmapped_alloc_is_off(void)
{
	char line[4096] = "";
	int fd = open("/proc/cmdline", O_RDONLY);

	if (fd >= 0) {
		if (read(fd, line, sizeof(line) - 1) < 0)
			line[0] = 0;
		close(fd);
	}

	return strstr(line, "unmapped_alloc=off");
}

/* Why there is nothing to test here, or NULL */
static const char *why_no_secret(void)
{
	struct secret s;
	cpu_set_t cpu;

	page_size = sysconf(_SC_PAGESIZE);

	/* Pages wait for the LRU in batches of a CPU, which is to be ours */
	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu))
		return "cannot stay on one CPU";

	if (secret_open(&s, page_size))
		return "no memfd_secret(2)";
	secret_close(&s);

	return NULL;
}

static const char *why_no_direct_map(void)
{
	struct direct_map map = direct_map();

	if (unmapped_alloc_is_off())
		return "switched off on the kernel command line";
	if (nr_splits() < 0)
		return "this kernel does not count splits of the direct map";
	if (map.kib_2m <= 0 && map.kib_1g <= 0)
		return "the direct map has no large pages";

	return NULL;
}

static const char *why_no_counters(void)
{
	if (unmapped_alloc_is_off())
		return "switched off on the kernel command line";
	if (vm_counter("nr_direct_unmapped_free") < 0)
		return "no nr_direct_unmapped_free in /proc/vmstat";
	if (geteuid())
		return "only root may have pages given back";

	return NULL;
}

#define SECRET_BYTES	MIB
#define SECRET_PAGES	((long)(SECRET_BYTES / page_size))

FIXTURE(placement) {
	struct aged	aged;
	struct secret	secret;
};

FIXTURE_VARIANT(placement) {
	enum ageing	ageing;
};

FIXTURE_VARIANT_ADD(placement, fresh) {
	.ageing = AGEING_NONE,
};

FIXTURE_VARIANT_ADD(placement, aged_movable) {
	.ageing = AGEING_MOVABLE,
};

FIXTURE_VARIANT_ADD(placement, aged_random) {
	.ageing = AGEING_RANDOM,
};

/* Last: where others split blocks already, it finds those that are left */
FIXTURE_VARIANT_ADD(placement, aged_strided) {
	.ageing = AGEING_STRIDED,
};

FIXTURE_SETUP(placement)
{
	const char *why = why_no_secret() ?: why_no_direct_map();
	size_t bytes = aged_bytes();

	if (why)
		SKIP(return, "%s", why);

	/* Pages that others left behind would hide where new ones come from */
	drain();

	if (variant->ageing == AGEING_NONE)
		return;
	if (variant->ageing != AGEING_MOVABLE && geteuid())
		SKIP(return, "only root may have that many pages in pipes");
	if (bytes < 64 * MIB)
		SKIP(return, "not enough memory");
	if (bytes < AGED_BYTES)
		TH_LOG("memory is short, ageing %zu MiB only", bytes / MIB);

	ASSERT_EQ(age(&self->aged, variant->ageing, bytes), 0)
		TH_LOG("ageing failed: %s", strerror(errno));
}

FIXTURE_TEARDOWN(placement)
{
}

/*
 * Taking pages, using them and freeing them splits nothing. The direct map has
 * as many large pages while secret memory is in use, except that 2 MiB may
 * stand in for 1 GiB, and the same ones when it is not any more, if not more
 * because of what was split before.
 */
TEST_F_TIMEOUT(placement, direct_map_stays_whole, 120)
{
	struct direct_map before = direct_map(), now;
	long splits = nr_splits();

	ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
	secret_fill(&self->secret);
	EXPECT_EQ(nr_splits() - splits, 0);
	now = direct_map();
	EXPECT_LE(now.kib_4k, before.kib_4k);
	EXPECT_GE(now.kib_2m + now.kib_1g, before.kib_2m + before.kib_1g);
	secret_close(&self->secret);

	/* If not root, by and by. The numbers do not change all at once. */
	drain();
	EXPECT_TRUE(wait_for((now = direct_map(),
			      now.kib_4k <= before.kib_4k &&
			      now.kib_1g >= before.kib_1g)));
	EXPECT_LE(now.kib_4k, before.kib_4k);
	EXPECT_GE(now.kib_1g, before.kib_1g);
	EXPECT_EQ(nr_splits() - splits, 0);
}

enum freed_by {
	FREED_BY_CLOSE,
	FREED_BY_MUNMAP,
	FREED_BY_EXIT,
	FREED_BY_SIGKILL,
};

/* Find zeroes, leave a pattern. 0 if all went well, 1 if it was not zero. */
static int use_secret(enum freed_by freed_by)
{
	struct secret s;

	if (secret_open(&s, SECRET_BYTES))
		return 2;
	if (!secret_is_zero(&s))
		return 1;
	secret_fill(&s);

	switch (freed_by) {
	case FREED_BY_CLOSE:
		munmap(s.mem, s.size);
		close(s.fd);
		break;
	case FREED_BY_MUNMAP:
		close(s.fd);
		munmap(s.mem, s.size);
		break;
	case FREED_BY_SIGKILL:
		raise(SIGKILL);
		break;
	default:
		break;
	}

	return 0;
}

FIXTURE(recycled) {
};

FIXTURE_VARIANT(recycled) {
	enum freed_by	freed_by;
};

FIXTURE_VARIANT_ADD(recycled, by_close) {
	.freed_by = FREED_BY_CLOSE,
};

FIXTURE_VARIANT_ADD(recycled, by_munmap) {
	.freed_by = FREED_BY_MUNMAP,
};

FIXTURE_VARIANT_ADD(recycled, by_exit) {
	.freed_by = FREED_BY_EXIT,
};

FIXTURE_VARIANT_ADD(recycled, by_sigkill) {
	.freed_by = FREED_BY_SIGKILL,
};

FIXTURE_SETUP(recycled)
{
	const char *why = why_no_secret();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(recycled)
{
}

/* Nobody finds what somebody else left in a page */
TEST_F(recycled, is_zero)
{
	int i, status;
	pid_t pid;

	for (i = 0; i < 8; i++) {
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(use_secret(variant->freed_by));

		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		/* A signal is what is left of a child that was content */
		if (variant->freed_by == FREED_BY_SIGKILL && WIFSIGNALED(status))
			status -= SIGKILL;
		ASSERT_EQ(status, 0);
	}
}

static sigjmp_buf sigbus_env;

static void on_sigbus(int sig)
{
	siglongjmp(sigbus_env, 1);
}

/* How many pages can be written to before SIGBUS */
static size_t count_accessible(struct secret *s)
{
	static size_t nr;

	nr = 0;
	if (sigsetjmp(sigbus_env, 1))
		return nr;

	/* Atomic, so that nr is up to date when the signal comes */
	while (nr < s->size / page_size) {
		__atomic_store_n(s->mem + nr * page_size, PATTERN,
				 __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&nr, 1, __ATOMIC_SEQ_CST);
	}

	return nr;
}

FIXTURE(accounting) {
	struct secret	secret;
};

FIXTURE_SETUP(accounting)
{
	const char *why = why_no_secret();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(accounting)
{
}

/* RLIMIT_MEMLOCK holds, and a page that is refused is not lost or charged */
TEST_F_TIMEOUT(accounting, memlock, 60)
{
	struct rlimit limit = { 32 * page_size, 32 * page_size };
	long used = vm_counter("nr_direct_unmapped_used");
	long splits = nr_splits();
	size_t first;
	int i;

	ASSERT_NE(signal(SIGBUS, on_sigbus), SIG_ERR);
	ASSERT_EQ(setrlimit(RLIMIT_MEMLOCK, &limit), 0);

	ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
	first = count_accessible(&self->secret);
	EXPECT_GT(first, 0UL);
	EXPECT_LE(first, 32UL);
	EXPECT_EQ(count_accessible(&self->secret), first);
	secret_close(&self->secret);

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
		EXPECT_EQ(count_accessible(&self->secret), first);
		secret_close(&self->secret);
	}
	EXPECT_TRUE(wait_for(vm_counter("nr_direct_unmapped_used") == used));
	if (!why_no_direct_map())
		EXPECT_EQ(nr_splits() - splits, 0);
}

TEST_F_TIMEOUT(accounting, vmstat, 60)
{
	const char *why = why_no_counters();
	struct secret other;
	long used, unused;

	if (why)
		SKIP(return, "%s", why);

	drain();
	used = vm_counter("nr_direct_unmapped_used");
	unused = vm_counter("nr_direct_unmapped_free");

	/* While this is in use, its block is not given back */
	ASSERT_EQ(secret_open(&other, page_size), 0);
	secret_fill(&other);

	ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
	EXPECT_EQ(vm_counter("nr_direct_unmapped_used"), used + 1);
	secret_fill(&self->secret);
	EXPECT_EQ(vm_counter("nr_direct_unmapped_used"), used + 1 + SECRET_PAGES);
	EXPECT_GE(vm_counter("nr_direct_unmapped_free"), 0);

	secret_close(&self->secret);
	EXPECT_EQ(vm_counter("nr_direct_unmapped_used"), used + 1);
	EXPECT_GE(vm_counter("nr_direct_unmapped_free"), SECRET_PAGES);

	/* Without being asked to, too */
	secret_close(&other);
	EXPECT_TRUE(wait_for(vm_counter("nr_direct_unmapped_free") <= unused));
	EXPECT_EQ(vm_counter("nr_direct_unmapped_used"), used);
}

/* What was freed is at hand for whoever needs memory */
TEST_F(accounting, drain)
{
	const char *why = why_no_counters();
	struct secret other;
	long unused;

	if (why)
		SKIP(return, "%s", why);

	drain();
	unused = vm_counter("nr_direct_unmapped_free");
	ASSERT_EQ(secret_open(&other, page_size), 0);
	secret_fill(&other);
	ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
	secret_fill(&self->secret);
	secret_close(&self->secret);
	ASSERT_GT(vm_counter("nr_direct_unmapped_free"), unused);

	secret_close(&other);
	drain();
	EXPECT_LE(vm_counter("nr_direct_unmapped_free"), unused);
}

FIXTURE(policy) {
	struct secret	secret;
};

FIXTURE_SETUP(policy)
{
	const char *why = why_no_secret();

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(policy)
{
}

/* How many pages of a mapping lie on a node, -1 if that cannot be known */
static long nr_pages_on(const struct secret *s, unsigned long node)
{
	char line[1024], key[32], *at;
	unsigned long addr;
	long nr = -1;
	FILE *f;

	f = fopen("/proc/self/numa_maps", "r");
	if (!f)
		return -1;
	snprintf(key, sizeof(key), " N%lu=", node);
	while (fgets(line, sizeof(line), f)) {
		addr = strtoul(line, NULL, 16);
		if (addr != (unsigned long)s->mem)
			continue;
		at = strstr(line, key);
		nr = at ? atol(at + strlen(key)) : 0;
	}
	fclose(f);

	return nr;
}

/* That of the mapping, not of the task, which is on one node all the time */
TEST_F(policy, of_the_mapping)
{
	unsigned long node, mask, nr_nodes = 0;

	for (node = 0; node < 8 * sizeof(mask) - 1; node++) {
		mask = 1UL << node;
		ASSERT_EQ(secret_open(&self->secret, SECRET_BYTES), 0);
		if (!syscall(__NR_mbind, self->secret.mem, SECRET_BYTES, MPOL_BIND,
			     &mask, 8 * sizeof(mask), 0)) {
			nr_nodes++;
			secret_fill(&self->secret);
			EXPECT_EQ(nr_pages_on(&self->secret, node), SECRET_PAGES);
		}
		secret_close(&self->secret);
	}
	if (nr_nodes < 2)
		SKIP(return, "there is one memory node only");
}

TEST_HARNESS_MAIN

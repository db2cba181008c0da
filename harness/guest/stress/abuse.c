// SPDX-License-Identifier: GPL-2.0
/* Users who grab what they can */
#include "stress.h"

#define NR_USERS	8
#define LIMIT_PAGES	256
#define NR_FILES	400
#define NR_ROUNDS	60

/* Many files with single pages, far from their beginning; some go, some come */
static void grab(unsigned int user, int report)
{
	struct rlimit lim = { LIMIT_PAGES * PAGE, LIMIT_PAGES * PAGE };
	struct rlimit files = { NR_FILES + 100, NR_FILES + 100 };
	struct sigaction sa = { .sa_handler = on_bus };
	static char *mem[NR_FILES];
	unsigned int i, round, held = 0, most = 0, seed = user;

	if (setrlimit(RLIMIT_MEMLOCK, &lim) || setrlimit(RLIMIT_NOFILE, &files) || setgid(1000 + user) || setuid(1000 + user))
		_exit(2);
	sigaction(SIGBUS, &sa, NULL);
	for (round = 0; round < NR_ROUNDS; round++) {
		for (i = 0; i < NR_FILES && held <= LIMIT_PAGES + 8; i++) {
			if (mem[i])
				continue;
			mem[i] = secret_map(64);
			if (!mem[i])
				break;
			if (bus_error(mem[i] + 50 * PAGE)) {
				munmap(mem[i], 64 * PAGE);
				mem[i] = NULL;
				break;
			}
			held++;
		}
		most = held > most ? held : most;
		if (round == NR_ROUNDS - 1)
			break;
		/* Keep one of many, so as to have as many blocks as can be */
		for (i = 0; i < NR_FILES; i++)
			if (mem[i] && rand_r(&seed) % 64) {
				munmap(mem[i], 64 * PAGE);
				mem[i] = NULL;
				held--;
			}
	}
	if (write(report, &most, sizeof(most)) != sizeof(most))
		_exit(3);
	pause();
}

/* Holes in one file: they cannot be punched, and a file cannot be made shorter */
static int holes(void)
{
	int fd = secret_fd(1024), ret = 0;

	if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
		ret = 1;
	else if (!ftruncate(fd, PAGE))
		ret = 2;
	close(fd);
	return ret;
}

void abuse(void)
{
	long used = vmstat("nr_direct_unmapped_used"), splits = vmstat("direct_map_level2_splits"), cached;
	unsigned int i, held, most = 0;
	int report[2], ret;
	pid_t user[NR_USERS];

	if (pipe(report))
		err(1, "pipe");
	ret = holes();
	row(!ret, "punch a hole, shorten a file", 2, ret ? "possible now: this test has to use it" : "refused");
	for (i = 0; i < NR_USERS; i++) {
		user[i] = fork();
		if (!user[i]) {
			grab(i, report[1]);
			_exit(0);
		}
	}
	for (i = 0; i < NR_USERS; i++) {
		if (read(report[0], &held, sizeof(held)) != sizeof(held))
			errx(1, "a user did not report");
		most = held > most ? held : most;
	}
	used = vmstat("nr_direct_unmapped_used") - used;
	cached = vmstat("nr_direct_unmapped_free");
	row(most <= LIMIT_PAGES, "pages that a user with RLIMIT_MEMLOCK of 256 pages had", NR_USERS * NR_ROUNDS, "at most %u", most);
	row(used <= NR_USERS * LIMIT_PAGES, "pages in use by 8 such users", 1, "%ld, of %d", used, NR_USERS * LIMIT_PAGES);
	/* What all together may have, and a block each that is not full; two in the reserve */
	row(used + cached <= NR_USERS * LIMIT_PAGES + 3 * BLOCK_PAGES, "pages out of use for others, all in all", 1,
	    "%ld used + %ld cached", used, cached);
	for (i = 0; i < NR_USERS; i++)
		kill(user[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	for (i = 0; i < 10 && (vmstat("nr_direct_unmapped_used") || vmstat("nr_direct_unmapped_free")); i++)
		sleep(1);
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!splits, "large pages that they split", 1, "%ld", splits);
	used = vmstat("nr_direct_unmapped_used");
	cached = vmstat("nr_direct_unmapped_free");
	row(!used && !cached, "pages left when they have gone", 1, "%ld used, %ld cached after %u s", used, cached, i);
}


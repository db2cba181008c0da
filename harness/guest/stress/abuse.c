// SPDX-License-Identifier: GPL-2.0
/* Users who grab what they can */
#include "stress.h"
#include <sys/prctl.h>
#include <sys/socket.h>

#define NR_USERS	8
#define LIMIT_PAGES	256
#define NR_FILES	400
#define NR_ROUNDS	(brief() ? 20 : 60)

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

/*
 * One user with files of one page each, who lets all but one of some go, over and over, so as to have a page in as many blocks
 * as there can be: secret files cannot be shortened or have holes, this is as close as it gets. Or two who take pages in turn,
 * of whom one leaves.
 */
#define MANY		2048

static void scatter(unsigned int keep_every, int report, int turn)
{
	struct rlimit lim = { MANY * PAGE, MANY * PAGE };
	static char *mem[MANY];
	unsigned int i, round;
	char token = 0;

	if (setrlimit(RLIMIT_MEMLOCK, &lim) || setgid(65534 - keep_every) || setuid(65534 - keep_every))
		_exit(2);
	for (round = 0; round < 4; round++) {
		for (i = 0; i < MANY; i++) {
			/* One of two users takes its pages in turns of 16 */
			if (turn >= 0 && i % 16 == 0 && read(turn, &token, 1) != 1)
				_exit(3);
			if (!mem[i])
				mem[i] = secret_map(1);
			if (!mem[i] || bus_error(mem[i]))
				_exit(4);
			if (turn >= 0 && i % 16 == 15 && write(turn, &token, 1) != 1)
				_exit(3);
		}
		for (i = 0; i < MANY && keep_every; i++)
			if (i % keep_every) {
				munmap(mem[i], PAGE);
				mem[i] = NULL;
			}
		if (turn >= 0)
			break;
	}
	if (write(report, &i, sizeof(i)) != sizeof(i))
		_exit(3);
	pause();
}

/* What is out of use for others, once the cache's worker has returned what it returns by itself */
static long out_of_use(void)
{
	sleep(3);
	return vmstat("nr_direct_unmapped_used") + vmstat("nr_direct_unmapped_free");
}

static void scatter_row(const char *what, unsigned int keep_every)
{
	long splits = vmstat("direct_map_level2_splits"), used, held;
	struct sigaction sa = { .sa_handler = on_bus };
	int report[2], status;
	unsigned int done = 0;
	pid_t pid;

	sigaction(SIGBUS, &sa, NULL);
	if (pipe(report))
		err(1, "pipe");
	pid = fork();
	if (!pid)
		scatter(keep_every, report[1], -1);
	close(report[1]);
	if (read(report[0], &done, sizeof(done)) != sizeof(done)) {
		waitpid(pid, &status, 0);
		row(false, what, 4, "the user ended: %s", fate(status));
		close(report[0]);
		return;
	}
	held = out_of_use();
	used = vmstat("nr_direct_unmapped_used");
	splits = vmstat("direct_map_level2_splits") - splits;
	/* One block that is not full, one in the reserve */
	row(held <= MANY + 2 * BLOCK_PAGES && !splits, what, 4, "%ld pages used, %ld out of use, of %d by RLIMIT_MEMLOCK and %d; %ld large pages split",
	    used, held, MANY, 2 * BLOCK_PAGES, splits);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	close(report[0]);
}

static void in_turns(void)
{
	long splits = vmstat("direct_map_level2_splits"), held, used;
	int turn[2], report[2], status, i;
	unsigned int done;
	pid_t pid[2];

	if (pipe(report) || socketpair(AF_UNIX, SOCK_STREAM, 0, turn))
		err(1, "pipe");
	for (i = 0; i < 2; i++) {
		pid[i] = fork();
		if (!pid[i])
			scatter(i ? 0 : MANY * 2, report[1], turn[i]);
	}
	/* To the first one, as if it came from the second */
	if (write(turn[1], "", 1) != 1 || read(report[0], &done, sizeof(done)) != sizeof(done))
		errx(1, "two users in turns: the first one did not report");
	if (read(report[0], &done, sizeof(done)) != sizeof(done))
		errx(1, "two users in turns: the second one did not report");
	held = out_of_use();
	used = vmstat("nr_direct_unmapped_used");
	splits = vmstat("direct_map_level2_splits") - splits;
	row(held <= 2 * MANY + 2 * BLOCK_PAGES && !splits, "two users take pages in turns, one lets all but one go", 1,
	    "%ld pages used, %ld out of use, of %d by RLIMIT_MEMLOCK of both and %d; %ld large pages split", used, held, 2 * MANY,
	    2 * BLOCK_PAGES, splits);
	for (i = 0; i < 2; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], &status, 0);
		close(turn[i]);
		close(report[i]);
	}
}

/* Processes that fork, run a program, end, or are killed while pages come to them */
#define STORM_SECONDS	(brief() ? 3 : 10)

static void storm_child(unsigned int seed)
{
	size_t pages = 1 + rand_r(&seed) % 600;
	char *mem = secret_map(pages);

	if (!mem)
		_exit(0);
	if (rand_r(&seed) % 2 && fork() < 0)
		_exit(0);
	fill(mem, pages);
	if (rand_r(&seed) % 3 == 0)
		execl("/proc/self/exe", "stress", "nothing", NULL);
	_exit(!filled(mem, pages));
}

static void storm(void)
{
	unsigned int i, seed = 1, killed = 0, ended = 0, wrong = 0;
	long splits = vmstat("direct_map_level2_splits"), used;
	double end = now() + STORM_SECONDS;
	int status;
	pid_t pid;

	while (now() < end) {
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			storm_child(rand_r(&seed));
		}
		if (pid < 0)
			continue;
		if (rand_r(&seed) % 2) {
			usleep(rand_r(&seed) % 20000);
			kill(pid, SIGKILL);
		}
		waitpid(pid, &status, 0);
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		ended += WIFEXITED(status);
		/* Forks of it write the same to the same pages */
		wrong += WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status) != SIGKILL;
	}
	for (i = 0; i < 240 && vmstat("nr_direct_unmapped_used"); i++)
		usleep(250000);
	used = vmstat("nr_direct_unmapped_used");
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!wrong && killed && ended && !used && !splits, "fork, exec, exit, and SIGKILL in the middle of a fault", killed + ended,
	    "%u killed, %u ended, %u otherwise; %ld pages used afterwards, %ld large pages split", killed, ended, wrong, used, splits);
}

void abuse(void)
{
	long used = vmstat("nr_direct_unmapped_used"), splits = vmstat("direct_map_level2_splits"), cached, bound;
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
	/* LRU batches of other CPUs may hold what a user has freed */
	write_file("/proc/sys/vm/drop_caches", "1");
	used = vmstat("nr_direct_unmapped_used") - used;
	row(most <= LIMIT_PAGES, "pages that a user with RLIMIT_MEMLOCK of 256 pages had", NR_USERS * NR_ROUNDS, "at most %u", most);
	row(used <= NR_USERS * LIMIT_PAGES, "pages in use by 8 such users", 1, "%ld, of %d", used, NR_USERS * LIMIT_PAGES);
	/* What all together may have, and a block each that is not full; two in the reserve */
	bound = NR_USERS * LIMIT_PAGES + 3 * BLOCK_PAGES;
	for (i = 0; i < 60 && used + vmstat("nr_direct_unmapped_free") > bound; i++)
		sleep(1);
	cached = vmstat("nr_direct_unmapped_free");
	row(used + cached <= bound, "pages out of use for others, all in all", 1,
	    "%ld used + %ld cached", used, cached);
	for (i = 0; i < NR_USERS; i++)
		kill(user[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	for (i = 0; i < 60 && (vmstat("nr_direct_unmapped_used") || vmstat("nr_direct_unmapped_free")); i++)
		sleep(1);
	splits = vmstat("direct_map_level2_splits") - splits;
	row(!splits, "large pages that they split", 1, "%ld", splits);
	used = vmstat("nr_direct_unmapped_used");
	cached = vmstat("nr_direct_unmapped_free");
	row(!used && !cached, "pages left when they have gone", 1, "%ld used, %ld cached after %u s", used, cached, i);
	scatter_row("a user who keeps one page in 512", 512);
	if (!brief()) {
		scatter_row("a user who keeps every 2nd page", 2);
		scatter_row("a user who keeps every 16th page", 16);
		in_turns();
	}
	storm();
	for (i = 0; i < 60 && (vmstat("nr_direct_unmapped_used") || vmstat("nr_direct_unmapped_free")); i++)
		sleep(1);
	used = vmstat("nr_direct_unmapped_used");
	cached = vmstat("nr_direct_unmapped_free");
	row(!used && !cached, "pages left in the end", 1, "%ld used, %ld cached after %u s", used, cached, i);
}

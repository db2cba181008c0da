// SPDX-License-Identifier: GPL-2.0
/* Users of memory, which guest/stress.sh starts and asks */
#include "stress.h"

/* A user that can be asked whether its secrets are what they were: by SIGUSR1, which it answers and ends */

volatile sig_atomic_t asked;

void on_usr1(int sig)
{
	asked = 1;
}

void hold(size_t pages)
{
	unsigned long blocks[256] = {}, i;
	char *mem;

	signal(SIGUSR1, on_usr1);
	mem = secret(pages);
	for (i = 0; i < pages; i++)
		blocks[pfn_of(mem + i * PAGE) * PAGE / MEMORY_BLOCK]++;
	for (i = 0; i < 256; i++)
		if (blocks[i])
			printf("block %lu %lu\n", i, blocks[i]);
	puts("ready");
	fflush(stdout);
	while (!asked)
		usleep(10000);
	exit(!filled(mem, pages));
}

/* Takes and frees all the time, and looks at what it has */
void churn(void)
{
	static struct { char *mem; size_t pages; } piece[64];
	unsigned int i, seed = getpid();

	signal(SIGUSR1, on_usr1);
	while (!asked) {
		i = rand_r(&seed) % 64;
		if (piece[i].mem) {
			if (!filled(piece[i].mem, piece[i].pages))
				exit(1);
			munmap(piece[i].mem, piece[i].pages * PAGE);
		}
		piece[i].pages = 1 + rand_r(&seed) % 256;
		piece[i].mem = secret(piece[i].pages);
	}
	exit(0);
}

/* Anonymous memory, for what was absent to be used through the direct map: the kernel clears each page */
void anonymous(size_t pages)
{
	char *mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED)
		err(1, "mmap");
	fill(mem, pages);
	exit(!filled(mem, pages));
}


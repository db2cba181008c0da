/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of the program stress share */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE		4096UL
#define MIB		(1UL << 20)
#define BLOCK_PAGES	512
#define MEMORY_BLOCK	(128 * MIB)

/* util.c */
__attribute__((format(printf, 4, 5)))
void row(bool ok, const char *what, unsigned long times, const char *format, ...);
void skip(const char *what, const char *why);
bool brief(void);
__attribute__((format(printf, 2, 3)))
int write_file(const char *path, const char *format, ...);
long vmstat(const char *name);
int secret_fd(size_t pages);
char *secret_map(size_t pages);
char *secret(size_t pages);
void fill(char *mem, size_t pages);
bool filled(const char *mem, size_t pages);
unsigned long pfn_of(const void *addr);
double now(void);
void on_bus(int sig);
bool bus_error(volatile char *addr);
int memfd_pages(size_t pages);
long meminfo(const char *name);
int wait_for(pid_t pid, double seconds);
const char *fate(int status);
bool memcg_make(size_t max);
void memcg_join(void);
long memcg_kills(void);
bool memcg_remove(void);
bool fault_write(const char *dir, const char *file, const char *value);
unsigned long fault_count(void);
unsigned long fault_setup(void);
long absent_kib(void);
unsigned long mapped_kib(unsigned long start, unsigned long end);
unsigned long symbol(const char *name);

/* users.c */
extern volatile sig_atomic_t asked;

void on_usr1(int sig);
void hold(size_t pages);
void churn(void);
void anonymous(size_t pages);

/* The parts */
void poison(void);
void faults(void);
void abuse(void);
void access_all(void);
void secrets(void);
void pressure(void);

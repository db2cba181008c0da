// SPDX-License-Identifier: GPL-2.0
/*
 * All ways to get at secret memory, and all that can be done to it. What comes of each is printed as "same WHAT|RESULT", for
 * harness/stress to compare with the unpatched kernel: a number, or an error's name. Runs on any kernel.
 */
#include "stress.h"
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#define NR_PAGES	8
#define SIZE		(NR_PAGES * PAGE)

static char *mem;
static int fd;

static void same(const char *what, long ret)
{
	if (ret == -1)
		printf("same %s|%s\n", what, strerrorname_np(errno));
	else
		printf("same %s|%ld\n", what, ret);
	fflush(stdout);
}

static void same_close(const char *what, int new)
{
	same(what, new < 0 ? -1 : 0);
	if (new >= 0)
		close(new);
}

/* Mappings are told from failures, not from each other */
static void same_map(const char *what, void *addr, size_t size)
{
	same(what, addr == MAP_FAILED ? -1 : 0);
	if (addr != MAP_FAILED)
		munmap(addr, size);
}

/* The file itself */
static void file(void)
{
	static char buf[PAGE];
	char path[32];
	struct statfs sfs;
	struct stat st;
	int other = memfd_pages(1), p[2];
	loff_t zero = 0;

	if (pipe(p))
		err(1, "pipe");
	same_close("memfd_secret, a flag that does not exist", syscall(SYS_memfd_secret, 1));
	same_close("memfd_secret, O_CLOEXEC", syscall(SYS_memfd_secret, O_CLOEXEC));
	same("fstat: size", fstat(fd, &st) ? -1 : st.st_size);
	same("fstat: blocks", fstat(fd, &st) ? -1 : st.st_blocks);
	same("fstat: mode", fstat(fd, &st) ? -1 : st.st_mode);
	same("fstatfs: type", fstatfs(fd, &sfs) ? -1 : sfs.f_type);
	same("read", read(fd, buf, PAGE));
	same("pread", pread(fd, buf, PAGE, 0));
	same("write", write(fd, buf, PAGE));
	same("pwrite", pwrite(fd, buf, PAGE, 0));
	same("lseek to the end", lseek(fd, 0, SEEK_END));
	same("lseek to a hole", lseek(fd, 0, SEEK_HOLE));
	same("ftruncate: shorter", ftruncate(fd, PAGE));
	same("ftruncate: nothing left", ftruncate(fd, 0));
	same("ftruncate: as it is", ftruncate(fd, SIZE));
	same("ftruncate: longer", ftruncate(fd, 2 * SIZE));
	same("fallocate", fallocate(fd, 0, 0, SIZE));
	same("fallocate: punch a hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE));
	same("fallocate: zeroes", fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, PAGE));
	same("fallocate: collapse", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 0, PAGE));
	same("sendfile from it", sendfile(other, fd, &zero, PAGE));
	same("sendfile to it", sendfile(fd, other, &zero, PAGE));
	same("splice from it", splice(fd, &zero, p[1], NULL, PAGE, SPLICE_F_NONBLOCK));
	same("copy_file_range from it", copy_file_range(fd, &zero, other, &zero, PAGE, 0));
	same("fcntl: seals", fcntl(fd, F_GET_SEALS));
	same("fcntl: add a seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	same("fsync", fsync(fd));
	same("fchmod", fchmod(fd, 0600));
	same("fsetxattr", fsetxattr(fd, "user.x", "1", 1, 0));
	same("posix_fadvise: not needed", posix_fadvise(fd, 0, SIZE, POSIX_FADV_DONTNEED));
	same("readahead", readahead(fd, 0, SIZE));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	same_close("open it again by /proc/self/fd", open(path, O_RDWR));
	close(p[0]);
	close(p[1]);
	close(other);
}

static void mappings(void)
{
	static unsigned char in_core[NR_PAGES];
	static const struct { int advice; const char *name; } advices[] = {
		{ MADV_DONTNEED, "DONTNEED" }, { MADV_REMOVE, "REMOVE" }, { MADV_FREE, "FREE" }, { MADV_COLD, "COLD" },
		{ MADV_PAGEOUT, "PAGEOUT" }, { MADV_WILLNEED, "WILLNEED" }, { MADV_HUGEPAGE, "HUGEPAGE" }, { 25, "COLLAPSE" },
		{ MADV_MERGEABLE, "MERGEABLE" }, { MADV_DODUMP, "DODUMP" }, { MADV_DONTFORK, "DONTFORK" }, { MADV_DOFORK, "DOFORK" },
		{ 22, "POPULATE_READ" }, { 23, "POPULATE_WRITE" }, { 24, "DONTNEED_LOCKED" }, { 102, "GUARD_INSTALL" }, { 103, "GUARD_REMOVE" },
	};
	unsigned long mask = 1;
	void *pages[1] = { mem };
	int nodes[1] = { 0 }, where[1] = { -1 };
	char what[64], *moved;
	unsigned int i;

	same_map("mmap, private", mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0), SIZE);
	same_map("mmap, to execute", mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0), SIZE);
	same_map("mmap, huge pages", mmap(NULL, 2 * MIB, PROT_READ, MAP_SHARED | MAP_HUGETLB, fd, 0), 2 * MIB);
	same_map("mmap, populate", mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0), SIZE);
	same_map("mmap, locked", mmap(NULL, SIZE, PROT_READ, MAP_SHARED | MAP_LOCKED, fd, 0), SIZE);
	for (i = 0; i < sizeof(advices) / sizeof(*advices); i++) {
		snprintf(what, sizeof(what), "madvise: %s", advices[i].name);
		same(what, madvise(mem, SIZE, advices[i].advice));
	}
	same("contents after all that", filled(mem, NR_PAGES));
	same("mlock", mlock(mem, SIZE));
	same("mlock, on fault", mlock2(mem, SIZE, MLOCK_ONFAULT));
	same("munlock", munlock(mem, SIZE));
	same("mincore", mincore(mem, SIZE, in_core));
	same("mincore: pages", in_core[0] + in_core[NR_PAGES - 1]);
	same("msync", msync(mem, SIZE, MS_SYNC));
	same("mprotect: read", mprotect(mem, SIZE, PROT_READ));
	same("mprotect: execute", mprotect(mem, SIZE, PROT_READ | PROT_EXEC));
	same("mprotect: write", mprotect(mem, SIZE, PROT_READ | PROT_WRITE));
	same("mbind", syscall(SYS_mbind, mem, SIZE, 2, &mask, 8, 2));
	same("move_pages", syscall(SYS_move_pages, 0, 1, pages, nodes, where, 2));
	same("migrate_pages", syscall(SYS_migrate_pages, 0, 8, &mask, &mask));
	moved = mremap(mem, SIZE, SIZE + PAGE, MREMAP_MAYMOVE);
	same("mremap, longer", moved == MAP_FAILED ? -1 : 0);
	if (moved != MAP_FAILED) {
		mem = moved;
		same("touch beyond the end", bus_error(mem + SIZE));
		mem = mremap(mem, SIZE + PAGE, SIZE, 0);
	}
	moved = mremap(mem, 0, SIZE, MREMAP_MAYMOVE);
	same_map("mremap, twice", moved, SIZE);
	same("contents after all that", filled(mem, NR_PAGES));
}

/* By the kernel, on behalf of whoever has it mapped */
static void system_calls(void)
{
	struct iovec iov = { mem, SIZE };
	int p[2], s[2], null = open("/dev/null", O_WRONLY), zero = open("/dev/zero", O_RDONLY), other = memfd_pages(NR_PAGES);
	int ram, tmp, uffd, ring;
	struct io_uring_params params = {};
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (uintptr_t)mem, SIZE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	static char aligned[SIZE] __attribute__((aligned(4096)));

	if (pipe(p) || socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		err(1, "pipe");
	same("write from it", write(other, mem, SIZE));
	same("write from it to a pipe", write(p[1], mem, PAGE));
	same("read a pipe to it", read(p[0], mem, PAGE));
	same("write from it to a socket", write(s[0], mem, PAGE));
	same("read a socket to it", read(s[1], mem, PAGE));
	same("write from it to /dev/null", write(null, mem, SIZE));
	same("vmsplice", vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK));
	same("vmsplice, as a gift", vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK | SPLICE_F_GIFT));
	same("futex: wake, shared", syscall(SYS_futex, mem, FUTEX_WAKE, 1, NULL, NULL, 0));
	same("futex: wait, shared, another value", syscall(SYS_futex, mem, FUTEX_WAIT, 12345, NULL, NULL, 0));
	same("open, its name in it", (strcpy(mem, "/dev/null"), open(mem, O_RDONLY) < 0 ? -1 : 0));

	/* No page cache between: the device gets at the pages themselves */
	ram = open("/dev/ram0", O_RDWR | O_DIRECT);
	same("O_DIRECT: open a RAM disk", ram < 0 ? -1 : 0);
	same("O_DIRECT: control, write other memory to a RAM disk", pwrite(ram, aligned, SIZE, 0));
	same("O_DIRECT: write it to a RAM disk", pwrite(ram, mem, SIZE, 0));
	same("O_DIRECT: read a RAM disk to it", pread(ram, mem, SIZE, 0));
	same("O_DIRECT: part of a page to a RAM disk", pwrite(ram, mem, 512, 0));
	tmp = open("/dev/shm/direct", O_RDWR | O_CREAT | O_DIRECT, 0600);
	same("O_DIRECT: open a file in tmpfs", tmp < 0 ? -1 : 0);
	same("O_DIRECT: write it to tmpfs", pwrite(tmp, mem, SIZE, 0));
	same("O_DIRECT: read tmpfs to it", pread(tmp, mem, SIZE, 0));
	unlink("/dev/shm/direct");

	ring = syscall(SYS_io_uring_setup, 4, &params);
	same("io_uring: set up", ring < 0 ? -1 : 0);
	iov.iov_base = aligned;
	same("io_uring: control, register other memory", syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1));
	syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
	iov.iov_base = mem;
	same("io_uring: register it as a buffer", syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1));

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */);
	same("userfaultfd", uffd < 0 ? -1 : 0);
	same("userfaultfd: API", ioctl(uffd, UFFDIO_API, &api));
	same("userfaultfd: register it, missing", ioctl(uffd, UFFDIO_REGISTER, &reg));
	reg.mode = UFFDIO_REGISTER_MODE_WP;
	same("userfaultfd: register it, write-protect", ioctl(uffd, UFFDIO_REGISTER, &reg));
	reg.mode = 1 << 2 /* UFFDIO_REGISTER_MODE_MINOR */;
	same("userfaultfd: register it, minor", ioctl(uffd, UFFDIO_REGISTER, &reg));
	close(uffd);
	close(ring);
	close(p[0]);
	close(p[1]);
	close(s[0]);
	close(s[1]);
	close(tmp);
	close(ram);
	close(other);
	close(null);
	close(zero);
}

/* By another process */
static void others(void)
{
	static char buf[PAGE];
	struct iovec local = { buf, sizeof(buf) }, remote = { mem, sizeof(buf) };
	char path[64], *plain;
	int proc, status;
	pid_t pid;
	long ret;

	plain = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	*plain = 1;
	fill(mem, NR_PAGES);
	pid = fork();
	if (!pid)
		for (;;)
			pause();
	same("process_vm_readv", process_vm_readv(pid, &local, 1, &remote, 1, 0));
	same("process_vm_writev", process_vm_writev(pid, &local, 1, &remote, 1, 0));
	remote.iov_base = plain;
	same("process_vm_readv: control, other memory", process_vm_readv(pid, &local, 1, &remote, 1, 0));
	same("ptrace: attach", ptrace(PTRACE_ATTACH, pid, NULL, NULL));
	waitpid(pid, &status, 0);
	errno = 0;
	ret = ptrace(PTRACE_PEEKDATA, pid, mem, NULL);
	same("ptrace: PEEKDATA", errno ? -1 : ret);
	same("ptrace: POKEDATA", ptrace(PTRACE_POKEDATA, pid, mem, 1L));
	errno = 0;
	ret = ptrace(PTRACE_PEEKDATA, pid, plain, NULL);
	same("ptrace: control, PEEKDATA of other memory", errno ? -1 : ret);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	proc = open(path, O_RDWR);
	same("/proc/PID/mem: open", proc < 0 ? -1 : 0);
	same("/proc/PID/mem: read", pread(proc, buf, PAGE, (uintptr_t)mem));
	same("/proc/PID/mem: write", pwrite(proc, buf, PAGE, (uintptr_t)mem));
	same("/proc/PID/mem: control, other memory", pread(proc, buf, PAGE, (uintptr_t)plain));
	same("ptrace: detach", ptrace(PTRACE_DETACH, pid, NULL, NULL));
	close(proc);
	proc = open("/proc/self/mem", O_RDWR);
	same("/proc/self/mem: read", pread(proc, buf, PAGE, (uintptr_t)mem));
	same("/proc/self/mem: write", pwrite(proc, buf, PAGE, (uintptr_t)mem));
	close(proc);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	same("contents after all that", filled(mem, NR_PAGES));
}

/* As one whom RLIMIT_MEMLOCK is for */
static void unprivileged(void)
{
	struct rlimit lim = { 4 * PAGE, 4 * PAGE };
	pid_t pid;
	int i, status;

	pid = fork();
	if (!pid) {
		if (setrlimit(RLIMIT_MEMLOCK, &lim) || setgid(65534) || setuid(65534))
			_exit(100);
		mem = secret_map(64);
		for (i = 0; mem && i < 64 && !bus_error(mem + i * PAGE); i++)
			;
		_exit(i);
	}
	waitpid(pid, &status, 0);
	same("pages that nobody has, with RLIMIT_MEMLOCK of 4", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

void access_all(void)
{
	struct sigaction sa = { .sa_handler = on_bus };

	sigaction(SIGBUS, &sa, NULL);
	fd = secret_fd(NR_PAGES);
	if (fd < 0)
		err(1, "memfd_secret");
	mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		err(1, "mmap");
	fill(mem, NR_PAGES);
	file();
	mappings();
	system_calls();
	others();
	unprivileged();
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * BPF programs of any size by bpf(2) alone: no BTF, no library. A program adds up 1 to n, and returns the sum's low bits.
 */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BPF_SUM_MASK	0xffff

static int bpf_call(int cmd, union bpf_attr *attr)
{
	return syscall(__NR_bpf, cmd, attr, sizeof(*attr));
}

/* A program of @nr additions, and two instructions more. Its fd, or -1. */
static int bpf_load_sum(enum bpf_prog_type type, int nr)
{
	struct bpf_insn *insns = calloc(nr + 3, sizeof(*insns));
	union bpf_attr attr;
	int i, fd;

	if (!insns)
		return -1;
	insns[0] = (struct bpf_insn){ .code = BPF_ALU64 | BPF_MOV | BPF_K };
	for (i = 1; i <= nr; i++)
		insns[i] = (struct bpf_insn){ .code = BPF_ALU64 | BPF_ADD | BPF_K, .imm = i };
	insns[i++] = (struct bpf_insn){ .code = BPF_ALU64 | BPF_AND | BPF_K, .imm = BPF_SUM_MASK };
	insns[i++] = (struct bpf_insn){ .code = BPF_JMP | BPF_EXIT };

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = type;
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = i;
	attr.license = (uintptr_t)"GPL";
	fd = bpf_call(BPF_PROG_LOAD, &attr);
	free(insns);

	return fd;
}

/*
 * Run an XDP program, which has the kernel write it into the XDP dispatcher, a trampoline, and take it out again.
 * 0 if it returned the sum, 1 if something else, -1 if it did not run.
 */
static int bpf_run_sum(int fd, int nr)
{
	static char packet[64];
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = fd;
	attr.test.data_in = (uintptr_t)packet;
	attr.test.data_size_in = sizeof(packet);
	attr.test.repeat = 1;
	if (bpf_call(BPF_PROG_TEST_RUN, &attr))
		return -1;

	return attr.test.retval != ((uint64_t)nr * (nr + 1) / 2 & BPF_SUM_MASK);
}

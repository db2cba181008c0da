"""The section "Costs": what the series takes, whether it is used or not."""
import re
from functools import partial
from statistics import median
from kernels import Failed, at_once, call

BOOTS = 8


def names(*objects):
    """Of all symbols, as bloat-o-meter has them: without the numbers of local ones."""
    return {re.sub(r"\.[0-9]+", "", line.split()[-1]) for o in objects for line in call("nm", "--defined-only", o).splitlines()}


def kunit_symbols(build):
    """Names that only KUnit and the suite bring, and those whose size is that of all names."""
    objects = [*(build / "lib/kunit").glob("*.o"), build / "lib/tests/unmapped_alloc_kunit.o"]
    every = names(build / "vmlinux")
    return names(*(o for o in objects if o.exists())) | {n for n in every if "kunit" in n or n.startswith("kallsyms_")}


def sizes(kernels, add):
    """bloat-o-meter of the two kernels, without the KUnit suite."""
    base, series = (kernels[f].build for f in ("base", "series"))
    tool = series.parent / "scripts/bloat-o-meter"
    ignored = kunit_symbols(series)
    for what, flag in (("text", "-t"), ("data", "-d")):
        added = 0
        changes = []
        for line in call("python3", tool, flag, base / "vmlinux", series / "vmlinux").splitlines():
            m = re.match(r"(\S+) +(\S+) +(\S+) +([-+]\d+)$", line)
            if m and m[1] not in ignored:
                added += int(m[4])
                changes.append((int(m[4]), m[1]))
        most = ", ".join(f"{name} {by:+,}" for by, name in sorted(changes, reverse=True)[:5])
        add(f"bytes of {what} added to vmlinux", None, added, f"{len(changes)} symbols differ; the most: {most}; without KUnit and its "
            "suite, with what mm/unmapped_alloc.c has for it, without kallsyms")


def boots(kernels, add):
    """Boots in turns, A B B A: the time to the first process, and what memory is free after it."""
    time, memory = ({f: [] for f in ("base", "series")} for _ in range(2))
    for i in range(BOOTS):
        for f in ("base", "series") if i % 2 == 0 else ("series", "base"):
            v = kernels[f].run("memory", nr=i + 1)
            started = re.search(r"^\[ *([\d.]+)\] Run /init as init process", v.console, re.M)
            if not started:
                raise Failed(f"the console of {f} does not say when /init was run")
            time[f].append(float(started[1]))
            memory[f].append((v.one("MemTotal"), v.one("MemFree")))
    spread = "; ".join(f"{f} {min(t):.2f} to {max(t):.2f}" for f, t in time.items())
    add("seconds from the start of the kernel to /init, wall clock", *(median(time[f]) for f in time),
        f"medians of {BOOTS} boots each, in turns; {spread}; ours has KUnit built in, which does not run")
    for i, what in enumerate(("MemTotal", "MemFree 2 s after /init was run")):
        n = [median(m[i] for m in memory[f]) for f in memory]
        add(f"KiB: {what}, feature idle", *n, f"{n[1] - n[0]:+,.0f} with KUnit and its suite, which the lines above leave out")


PARTS = {"alloc": "a free block from the buddy", "zero": "zeroing", "unmap": "the PMD", "flush": "the flush"}


def refill(kernels, add):
    said = at_once({"icount": partial(kernels["series"].run, "module", "refill", icount=True, smp=1),
                    "zero": partial(kernels["series"].run, "module", "zero", icount=True, smp=1)})
    said["wall"] = kernels["series"].run("module", "refill", "wall=1")
    for how, unit in (("icount", "instructions"), ("wall", "ns")):
        v = said[how]
        parts = {what: v.one("refill_" + p) for p, what in PARTS.items()}
        total = v.one("refill")
        made = ", ".join(f"{what} {n:,.0f}" for what, n in parts.items())
        add(f"{unit} of the longest of 512 requests, the one that takes a new block", None, total,
            f"median of 41; {made}, the rest {total - sum(parts.values()):,.0f}; a request that finds a page: {v.one('refill_hit'):,.0f}")
    wall = kernels["series"].run("module", "zero", "wall=1")
    for v, unit in ((said["zero"], "instructions"), (wall, "ns")):
        block, singly = v.one("zero_block"), v.one("zero_singly")
        add(f"{unit} to zero one block of 2 MiB / its 512 pages one by one", None, f"{block:,.0f} / {singly:,.0f}",
            f"{singly / block:.3f} times as much" + "; QEMU counts each step of a string instruction" * (unit == "instructions"))


def metadata(kernels, add):
    v = kernels["series"].run("metadata")
    asked, got = v.one("block_bytes"), v.one("block_alloc")
    add("bytes of metadata a block of 2 MiB", None, asked, f"{got:,.0f} with what kmalloc rounds up to: {got / 512:.2f} a page; and 1 of "
        "8 bits of the pageblock flags, which were unused")


def collect(kernels):
    """Lines (what, base, ours, remark)."""
    lines = []

    def add(what, base, ours, remark=""):
        lines.append(dict(what=what, base=base, ours=ours, remark=remark))

    for part in (sizes, metadata, boots, refill):
        try:
            part(kernels, add)
        except Failed as e:
            add(f"{part.__name__}: did not finish", None, None, str(e))
    return lines

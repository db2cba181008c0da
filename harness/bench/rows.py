"""The benchmark rows. (c): exact counts. (t): ratios of wall-clock times."""
import os, re
from functools import partial
from kernels import PAIRS, Failed, at_once, call, ratios

PLACEMENTS = ("strided", "random", "movable", "fresh")
BLOCK_KIB = 2048
COLUMN = {"base": "base", "peer": "peer", "off": "off", "series": "ours"}
TASKS = 1, 2, 4, 8


class Results(list):
    """Lines of the table. A column that a line has no figure for is None."""

    samples = None

    def add(self, row, kind, what, goal, met, *, base=None, peer=None, off=None, ours=None, limit=None, remark=""):
        self.append(dict(row=row, kind=kind, what=what, base=base, peer=peer, off=off, ours=ours, limit=limit, goal=goal,
                         met=met, remark=remark))


def columns(said, figure):
    """The figure of each flavour's run, by the name of the table's column."""
    return {COLUMN[f]: figure(v) for f, v in said.items()}


def by_placement(kernels, what):
    said = at_once({(p, f): partial(k.run, "guest", what, p) for p in PLACEMENTS for f, k in kernels.items()})
    return {p: {f: said[p, f] for f in kernels} for p in PLACEMENTS}


def how_aged(said, placement):
    return placement if placement == "fresh" else f"after {said['series'].one('aged_mib'):.0f} MiB aged, {placement}"


def rows_1_2(kernels, results):
    said = by_placement(kernels, "placement")
    for p, v in said.items():
        n = columns(v, lambda s: s.one("splits"))
        results.add(1, "c", f"level-2 splits by 1 MiB of memfd_secret, {how_aged(v, p)}", "0", n["ours"] == 0, **n, limit=0)
    for p, v in said.items():
        for when, name in (("in use", "lost_in_use"), ("after free and drain", "lost_after")):
            n = columns(v, lambda s: s.one(name))
            results.add(2, "c", f"MiB of 2M map lost, {p}, {when}", "0", n["ours"] == 0, **n, limit=0)


def timed_line(mid, part, show="{:,.0f} / {:,.0f} ns"):
    """The columns and the remark of a timed line."""
    flavours = [f for f, p in mid if p == part]
    remark = []
    for f in flavours:
        m = mid[f, part]
        boots = f"{m['boots']} boots, {m['void']} void"
        remark.append(f"{COLUMN[f]}: p10 {m['p10']:.2f}, p90 {m['p90']:.2f}, control {m['control']:.2f}, "
                      f"{show.format(m['measured'], m['compared'])}, {boots}" if "ratio" in m else f"{COLUMN[f]}: {boots}")
    return {COLUMN[f]: mid[f, part].get("ratio") for f in flavours}, "; ".join(remark)


def add_timed(results, row, what, part, mid, goal, limit=None, **kw):
    n, remark = timed_line(mid, part, **kw)
    results.add(row, "t", what, f"<= {goal:.2f}", None if n["ours"] is None else n["ours"] <= goal, **n, limit=limit, remark=remark)


def rows_3_13(kernels, results):
    fill = {"recycled": ("(a) filling, recycled pages", 0.5), "fresh": ("(b) filling, fresh blocks", 1.05),
            "cycle_1": ("(c) filling and freeing, 1 task", 1.0), "cycle_8": ("(c) filling and freeing, 8 tasks", 1.0)}
    parts = [*fill, *[f"cycle_{n}" for n in TASKS if f"cycle_{n}" not in fill]]
    mid, said = ratios(kernels, parts, lambda k, nr: k.run("guest", "times", str(PAIRS[k.flavour]), timeout=600, nr=nr),
                       1200, results.samples, "row 3")

    def no_clearing(v):
        """Of a memfd's fault, in the same boot, what is not clearing the page."""
        memfd = sorted(s[1] for s in v["recycled"])
        clear = sorted(s[0] for s in v["clear"])
        return 1 - clear[len(clear) // 2] / memfd[len(memfd) // 2]

    limits = sorted(no_clearing(v) for v in said["series"] if "clear" in v)
    for p, (what, goal) in fill.items():
        limit = limits[len(limits) // 2] if p == "recycled" and limits else None
        add_timed(results, 3, f"memfd_secret / memfd, {what}", p, mid, goal, limit)
    for n in TASKS:
        # Faults a second: what row 3 has as times, upside down
        p = f"cycle_{n}"
        ratio = {c: r and 1 / r for c, r in timed_line(mid, p)[0].items()}
        rates = [f"{COLUMN[f]}: {1e9 / m['measured']:,.0f} / {1e9 / m['compared']:,.0f} a second, p10 {1 / m['p90']:.2f}, "
                 f"p90 {1 / m['p10']:.2f}" for f in kernels if "ratio" in (m := mid[f, p])]
        results.add(13, "t", f"faults a second, filled and freed by {n} task{'s' * (n > 1)}: memfd_secret / memfd", ">= 1.00",
                    None if ratio["ours"] is None else ratio["ours"] >= 1, **ratio, remark="; ".join(rates))


def row_4(kernels, results):
    base, series = kernels["base"], kernels["series"]
    what = {"base": (base, "absent_singly"), "peer": (base, "absent_batched"), "ours": (series, "absent"), "limit": (series, "absent_limit")}
    said = at_once({c: partial(k.run, "module", w, icount=True) for c, (k, w) in what.items()})
    n = {c: said[c].one(w) for c, (k, w) in what.items()}
    most = ", ".join(f"{c} {said[c].one(w + '_max'):,.0f}" for c, (k, w) in what.items())
    results.add(4, "c", "instructions to take 2 MiB out of the direct map", "<= 2,000", n["ours"] <= 2000, **n,
                remark=f"medians of 32 blocks, on both CPUs; the most: {most}; limit: one PMD write and one flush")


def rows_5_6(kernels, results):
    said = at_once({**{("flushes", f): partial(k.run, "guest", "flushes") for f, k in kernels.items()},
                    **{("cycles", f): partial(k.run, "guest", "cycles", icount=True, smp=1) for f, k in kernels.items()
                       if k.flavour != "host"}})
    flushes, cycles = ({f: v for (w, f), v in said.items() if w == what} for what in ("flushes", "cycles"))
    n = columns(flushes, lambda s: s.one("flushes_taken"))
    results.add(5, "c", "all-CPU flushes per 1,000 pages taken", "<= 2", n["ours"] <= 2, **n, limit=1000 / 512)
    n = columns(flushes, lambda s: s.one("flushes_steady"))
    results.add(6, "c", "all-CPU flushes a page, free and take again", "0", n["ours"] == 0, **n, limit=0)
    if cycles:
        n = columns(cycles, lambda s: s.one("secret_cycle") / s.one("memfd_cycle"))
        each = "; ".join(f"{COLUMN[f]} {v.one('secret_cycle'):,.0f} / {v.one('memfd_cycle'):,.0f}" for f, v in cycles.items())
        results.add(6, "c", "instructions a page, free and take again / memfd", "<= 1.00", n["ours"] <= 1, **n, limit=1, remark=each)


def row_7(kernels, results):
    said = at_once({f: partial(k.run, "module", "pairs", icount=True, smp=1) for f, k in kernels.items()})
    names = [(f"pair_{n}", f"order {n}") for n in (0, 3, 9, 4, 8)]
    names += [("folios_0", "folio batches"), ("kmalloc_64", "kmalloc() of 64 bytes")]
    for name, what in names:
        n = columns(said, lambda s: s.one(name))
        off, ours = n["off"] - n["base"], n["ours"] - n["base"]
        results.add(7, "c", f"instructions to allocate and free without the flag, {what}", "+0 with =n, <= +4 with =y",
                    round(off, 2) <= 0 and round(ours, 2) <= 4, **n, limit=n["base"], remark=f"=n {off:+.2f}, =y {ours:+.2f}")


def disassemble(obj):
    """Functions of an object file: name -> (size in bytes, normalised instructions)."""
    functions, name = {}, None
    for line in call("objdump", "-dr", "--no-show-raw-insn", "-w", obj).splitlines():
        if m := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            name = m[1]
            functions[name] = []
        elif name and (m := re.match(r"\s+([0-9a-f]+):\t(.*)", line)):
            text = m[2]
            # Jumps: to an offset into the function. Relocations: to a symbol; where a section's data lie is no matter.
            text = re.sub(r"\b[0-9a-f]+ <", "<", text)
            text = re.sub(r"\s+# .*?(?=\t|$)", "", text)
            text = re.sub(r"\t[0-9a-f]+: (R_\w+)\t", r" \1 ", text)
            text = re.sub(r"(R_\w+ \.[\w.]+)[-+]0x[0-9a-f]+", r"\1", text)
            text = re.sub(r"(__UNIQUE_ID_\w+)_\d+\b", r"\1", text)
            functions[name].append(text)
    for code in functions.values():
        # Where in the source it is called is told to those who warn of sleeping: with __LINE__, a few instructions before
        for i, text in enumerate(code):
            if re.search(r"R_X86_64_\w+ __might_(sleep|resched)\b", text):
                for k in range(max(0, i - 4), i):
                    code[k] = re.sub(r"^(mov +)\$0x[0-9a-f]+(,%esi)$", r"\1__LINE__\2", code[k])
    sizes = {}
    for line in call("nm", "-S", "--defined-only", obj).splitlines():
        word = line.split()
        if len(word) == 4 and word[2] in "tTwW":
            sizes[word[3]] = int(word[1], 16)
    return {n: (sizes.get(n, 0), code) for n, code in functions.items()}


def differing(a, b):
    """Names of the functions that are not the same in both, of what disassemble() returned."""
    return sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))


def same(a, b):
    """For harness/check: do two object files have the same functions?"""
    a, b = disassemble(a), disassemble(b)
    names = differing(a, b)
    print(f"{len(names)} of {len(a)} functions differ: {', '.join(names[:6])}" if names else f"{len(a)} functions as in the base")
    return 1 if names or not a else 0


def text_bytes(kernel):
    copy = kernel.dir / "text"
    call("objcopy", "-O", "binary", "-j", ".text", kernel.build / "mm/page_alloc.o", copy)
    return copy.read_bytes()


def row_8(kernels, results):
    base, off, ours = (disassemble(kernels[k].build / "mm/page_alloc.o") for k in ("base", "off", "series"))
    differ = differing(base, off)
    results.add(8, "c", "functions of mm/page_alloc.o that differ from the base's", "0 with =n", not differ, base=len(base),
                off=len(differ), remark=", ".join(differ[:6]) or f"all {len(base)} identical")
    text = {k: text_bytes(kernels[k]) for k in ("base", "off", "series")}
    results.add(8, "c", "bytes of its .text", "+0 with =n", len(text["base"]) == len(text["off"]), **columns(text, len),
                remark="=n: the same bytes" if text["base"] == text["off"] else "=n: functions in another order")
    hot = ["get_page_from_freelist", "__alloc_frozen_pages_noprof", "alloc_pages_bulk_noprof", "__free_frozen_pages",
           "free_frozen_pages", "free_unref_folios", "free_frozen_page_commit", "__free_pages_ok", "free_one_page", "__free_pages"]
    for n in hot:
        if n not in base:
            continue
        show = lambda f: f"{f[n][0]} B, {len(f[n][1])}" if n in f else "inlined"
        same = n in ours and base[n] == ours[n]
        results.add(8, "c", f"{n}: bytes, instructions", "executed: row 7", None, base=show(base), off=show(off), ours=show(ours),
                    remark="same code" if same else "")


# A few hundredths are to be told from none on the series, and a quarter on the base
PAIRS_AFTER = {"base": 41, "series": 161, "host": 161}


def after_remark(said, of, when):
    """What a row that compares after with before found besides."""
    return "; ns at first and MiB mapped by 4 KiB more then: " + ", ".join(
        f"{COLUMN[f]} {v[0][of + '_ns'][0][0]:,.0f} and {v[0].one(f'{of}_split{when}'):.0f}" for f, v in said.items())


def row_9(kernels, results):
    parts = {"chase_in_use": "1 MiB of memfd_secret in use", "chase_after": "after it is freed and drained"}
    mid, said = ratios(kernels, parts, lambda k, nr: k.run("guest", "chase", str(PAIRS_AFTER[k.flavour]), timeout=400, nr=nr),
                       400, results.samples, "row 9")
    for p, what in parts.items():
        add_timed(results, 9, f"a step of a chase through 896 MiB of direct map, aged, {what} / before", p, mid, 1.02, 1,
                  show="{:.3f} / {:.3f} of a step by 4 KiB pages")
        results[-1]["remark"] += after_remark(said, "chase", p.removeprefix("chase"))


def row_10(kernels, results):
    mid, said = ratios(kernels, ["reads"], lambda k, nr: k.run("guest", "reads", str(PAIRS_AFTER[k.flavour]), timeout=600, nr=nr),
                       900, results.samples, "row 10")
    add_timed(results, 10, "pread of 64 bytes from 512 MiB of tmpfs, after 16 users of 64 MiB memfd_secret / of memfd", "reads",
              mid, 1.02, 1, show="{:.3f} / {:.3f} of a read of the file that was there first")
    results[-1]["remark"] += after_remark(said, "reads", "")


def row_11(kernels, results):
    said = by_placement(kernels, "permissions")
    parts = {"modules": "modules", "programs": "BPF", "trampolines": "trampolines", "areas": "vmalloc"}

    def split_by(v):
        return ", ".join(f"{what} {v.one('splits_' + n):.0f}" for n, what in parts.items()) + f"; level 3 {v.one('level3'):.0f}"

    def back(v, size):
        return f"{v.one('lost_' + size):.0f} lost, {v.one('lost_' + size) - v.one('missing_' + size):.0f} back"

    def each(v, text):
        return "; ".join(f"{COLUMN[f]}: {text(s)}" for f, s in v.items())

    for p, v in said.items():
        n = columns(v, lambda s: s.one("splits"))
        results.add(11, "c", f"level-2 splits by 34 modules, 1,032 BPF programs, trampolines, vmalloc, {how_aged(v, p)}", "0",
                    n["ours"] == 0, **n, limit=0, remark=each(v, split_by))
    for p, v in said.items():
        for size, unit in (("2m", "2 MiB"), ("1g", "1 GiB")):
            n = columns(v, lambda s: s.one("missing_" + size))
            results.add(11, "c", f"mappings of {unit} missing 5 s after all are gone, {p}", "0", n["ours"] <= 0, **n, limit=0,
                        remark=each(v, lambda s: back(s, size)))


def row_12(kernels, results):
    o = kernels["series"].run("guest", "idle")
    n = o.one("held_kib")
    results.add(12, "c", "KiB held 5 s after the last user is gone", "<= 2,048", n <= BLOCK_KIB, ours=n, limit=0)
    n = o.one("returned_percent")
    results.add(12, "c", "% of wholly free blocks that the shrinker returns", "100", n == 100, ours=n, limit=100,
                remark=f"of {o.one('idle_blocks'):.0f} blocks")
    before, after = o.one("before_1g"), o.one("after_1g")
    results.add(12, "c", "GiB mapped by 1 GiB pages after drain", "as before", before == after, ours=after, limit=before)


ICOUNT = "instructions are counted by QEMU, in a guest"
MODULE = "it needs a module for the kernel that runs"
# What measures each row, on which kernels, and why it is not for the running kernel
ROWS = {1: (rows_1_2, "base peer series", ""), 2: (rows_1_2, "base peer series", ""), 3: (rows_3_13, "base peer series", ""),
        4: (row_4, "base series", ICOUNT), 5: (rows_5_6, "base peer series", ""), 6: (rows_5_6, "base peer series", ""),
        7: (row_7, "base off series", ICOUNT), 8: (row_8, "base off series", "it reads object files"),
        9: (row_9, "base series", MODULE), 10: (row_10, "base series", ""), 11: (row_11, "base series", MODULE),
        12: (row_12, "series", ""), 13: (rows_3_13, "base peer series", "")}
TIMED = 3, 9, 10, 13

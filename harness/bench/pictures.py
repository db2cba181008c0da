"""What the report's plots are drawn from: the direct map before, during and after row 1's load, its size by size of page
meanwhile, and how long faults take."""
import re
from functools import partial
from kernels import Failed, at_once

CELL = 2 << 20
UNITS = dict(zip("KMGTPE", (1 << 10 * i for i in range(1, 7))))
# States of a cell. What a letter stands for is for the plot to say.
GIB, LARGE, SMALL, ABSENT, OTHER, HOLE = "GMKAO."
WHEN = "before", "during", "after"


def ranges(lines, when):
    """Lines of ptdump: offset into the direct map, length, level, attributes."""
    first = None
    for line in lines:
        m = re.match(rf"map {when} 0x([0-9a-f]+)-0x([0-9a-f]+) +\d+[KMGTPE] (.*?) *(pgd|p4d|pud|pmd|pte)$", line)
        if m:
            start, end = int(m[1], 16), int(m[2], 16)
            first = start if first is None else first
            yield start - first, end - first, m[4], m[3].split()


def memory(lines):
    found = [[int(w, 16) for w in line.split()[1].split("-")] for line in lines if line.startswith("ram ")]
    if not found:
        raise Failed("the guest named no memory")
    return found


def absent(lines, when):
    """Offsets of the blocks that are absent by one PMD, which ptdump passes over."""
    blocks = set()
    for line in lines:
        if m := re.match(rf"block {when} unmapped_alloc_(refill|return) (\d+) 9$", line):
            (blocks.add if m[1] == "refill" else blocks.discard)(int(m[2]) << 12)
    return blocks


def state(level, attributes):
    if not attributes:
        return ABSENT
    # What ordinary kernel memory has, and nothing else
    if {"RW", "NX"} > set(attributes) or not {"RW", "NX", "GLB", "PSE"} >= set(attributes):
        return OTHER
    return {"pud": GIB, "pmd": LARGE}.get(level, SMALL)


def cells(lines, when):
    """One letter for each 2 MiB of physical memory: how it is mapped. Of a cell with several, what is least usual."""
    ram = memory(lines)
    end = max(e for _, e in ram) + 1
    found = [set() for _ in range(-(-end // CELL))]
    for start, stop, level, attributes in ranges(lines, when):
        for i in range(start // CELL, min(-(-stop // CELL), len(found))):
            found[i].add(state(level, attributes) if level != "pte" or attributes else SMALL)
    for offset in absent(lines, when):
        found[offset // CELL] = {ABSENT}
    if not any(found):
        raise Failed(f"ptdump showed no direct map {when}")
    held = [any(s < (i + 1) * CELL and e >= i * CELL for s, e in ram) for i in range(len(found))]
    return "".join(next((s for s in (OTHER, SMALL, ABSENT, LARGE, GIB) if s in f), HOLE) if held[i] else HOLE
                   for i, f in enumerate(found))


def collect(kernels):
    """Returns what plots.py needs."""
    names = [f for f in ("base", "series") if f in kernels]
    said = at_once({f: partial(kernels[f].run, "guest", "picture", "strided") for f in names})
    faults = {f: kernels[f].run("guest", "faults") for f in names}
    shares = {f"{f} {kind}": faults[f]["fault_" + kind] for f in names for kind in ("secret", "memfd")}
    phases = ("ageing", "use", "free", "end")
    return dict(maps={f: {w: cells(said[f].lines, w) for w in WHEN} for f in names},
                samples={f: said[f]["sample"] for f in names},
                phases={f: {p: said[f].one("phase_" + p) for p in phases} for f in names}, faults=shares)

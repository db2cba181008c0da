"""What the benches run on: kernels in guests, or the running kernel; and how they are run."""
import concurrent.futures, os, re, shutil, statistics, subprocess, sys, threading, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HARNESS = HERE.parent
ROOT = HARNESS.parent
OUT = Path(os.path.abspath(os.environ.get("O") or ROOT / "build"))
BENCH = OUT / "bench"
PAIRS = {"base": 61, "peer": 61, "series": 81, "host": 81}
MIN_PAIRS = 41
BOOTS, MAX_BOOTS = 3, 6
CONTROL = 0.95, 1.05
# A busy machine may fail the check whether the timer works
APPEND = "kunit.enable=0 no_timer_check"
START = time.monotonic()


class Failed(Exception):
    """One line that says why a row has no figures."""


def note(*words):
    print(f"[{time.monotonic() - START:4.0f} s]", *words, file=sys.stderr, flush=True)


def call(*cmd, **kw):
    try:
        r = subprocess.run([str(c) for c in cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
    except FileNotFoundError as e:
        raise Failed(f"{e.filename} is missing: make demo as root installs all that is needed")
    if r.returncode:
        said = (r.stderr.strip() or r.stdout.strip()).splitlines()
        raise Failed(f"{Path(str(cmd[0])).name} ended with {r.returncode}: " + " / ".join(said[-3:]))
    return r.stdout


def build_program():
    """The program that measures from user space. A static one that is there, and newer than its sources, will do."""
    program = BENCH / "guest"
    BENCH.mkdir(parents=True, exist_ok=True)
    sources = [HERE / "guest.c", HARNESS / "guest/bpf.h", ROOT / "tools/testing/selftests/mm/secretmem_frag.c"]
    if not (OUT / "tree").exists() and subprocess.run([HARNESS / "fetch"]).returncode:
        sys.exit("error: the program needs headers of the kernel's tree, which could not be fetched")
    if not program.exists() or program.stat().st_mtime < max(s.stat().st_mtime for s in sources):
        call("gcc", "-O2", "-Wall", "-static", "-D_GNU_SOURCE=", "-isystem", OUT / "tree/tools/include/uapi",
             "-I", OUT / "tree/tools/testing/selftests", "-I", ROOT / "tools/testing/selftests/mm", "-o", program, sources[0])
    return program


class Said(dict):
    """What a run printed: for each name the numbers of its lines; all lines; and the console's."""

    def __init__(self, text, console=""):
        self.lines, self.console = text.splitlines(), console
        for line in self.lines:
            word = line.split()
            if len(word) > 1 and re.fullmatch(r"[-0-9. ]+", " ".join(word[1:])):
                self.setdefault(word[0], []).append([float(w) for w in word[1:]])

    def one(self, name):
        if name not in self:
            raise Failed(f"the run did not say {name}")
        return self[name][-1][0]


class Kernel:
    """One flavour: its image, and an initramfs with the program and the module built for it."""

    def __init__(self, flavour):
        self.flavour = flavour
        r = subprocess.run([HARNESS / "build", flavour], stdout=subprocess.PIPE, text=True)
        if r.returncode:
            sys.exit(f"error: the kernel {flavour} could not be built")
        self.image = Path(r.stdout.strip())
        self.build = self.image.parents[3]
        self.dir = BENCH / flavour
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        call(HARNESS / "module", self.image, HERE / "module", self.dir / "module")
        call(HARNESS / "initramfs", HERE / "bench.sh", build_program(), self.dir / "module/bench.ko",
             self.build / "net/vmw_vsock/vsock.ko", self.build / "lib/test_vmalloc.ko",
             env={**os.environ, "O": str(self.dir)})

    def run(self, *args, icount=False, smp=2, timeout=300, nr=None):
        """Boot, and run bench.sh ARGS in the guest."""
        name = "-".join([self.flavour, *args[1 if args[0] in ("guest", "module") else 0:], *([str(nr)] if nr else []), *["icount"] * icount])
        log = BENCH / "logs" / f"{name}.log"
        call(HARNESS / "boot", "--kernel", self.image, "--initrd", self.dir / "initramfs.gz", "--log", log, "--mem", "4G",
             "--smp", smp, "--timeout", timeout, "--append", APPEND, "--name", name, *["--icount"] * icount,
             "bench", *args, env={**os.environ, "ACCEL": "tcg"})
        note(f"{name} done")
        return Said(log.with_suffix(".out").read_text(errors="replace"), log.read_text(errors="replace"))


class Host:
    """The running kernel, by the same program. Not for what needs the module, or instructions counted."""

    flavour = "host"

    def __init__(self):
        if os.geteuid():
            sys.exit("error: HOST=1 changes limits and drops caches: run it as root")
        vmstat = Path("/proc/vmstat").read_text()
        if "nr_direct_unmapped_free" not in vmstat:
            sys.exit(f"error: HOST=1 measures the running kernel, and {os.uname().release} has no unmapped_alloc: boot the "
                     "image that make image builds, or one with the series applied and CONFIG_UNMAPPED_ALLOC=y")
        if "unmapped_alloc=off" in Path("/proc/cmdline").read_text():
            sys.exit("error: HOST=1 measures the running kernel, and it was booted with unmapped_alloc=off: boot it without")
        self.program = build_program()
        self.alone = threading.Lock()

    def run(self, kind, *args, timeout=600, nr=None, **kw):
        try:
            # What the kernel counts, it counts for all
            with self.alone:
                text = call(self.program, *args, cwd=BENCH, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(args)} did not end within {timeout} s")
        name = "-".join([self.flavour, *args, *([str(nr)] if nr else [])])
        (BENCH / "logs" / f"{name}.out").write_text(text)
        note(f"{name} done")
        return Said(text)


def at_once(jobs):
    """Run the functions, two at a time: for exact counts it does not matter. Keeps their keys."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = {key: pool.submit(job) for key, job in jobs.items()}
        return {key: f.result() for key, f in futures.items()}


def summary(samples):
    """Of lines with a sample, what it is compared with, and that once more: ratio of medians, p10 and p90 of the lines' ratios,
    control, and the medians."""
    a, b, c = (statistics.median(column) for column in zip(*samples))
    tenths = statistics.quantiles((s[0] / s[1] for s in samples), n=10)
    return dict(ratio=a / b, p10=tenths[0], p90=tenths[-1], control=c / b, measured=a, compared=b)


def ratios(kernels, parts, run, seconds, samples, what):
    """The protocol of timed rows. Boot the kernels in turns, A B B A, until each has BOOTS boots whose control is within CONTROL,
    for each of the parts. Returns for each (flavour, part) the medians over its boots, or None if it is void, and the boots."""
    valid = {(f, p): [] for f in kernels for p in parts}
    void = dict.fromkeys(valid, 0)
    boots = dict.fromkeys(kernels, 0)
    start = time.monotonic()
    said = {f: [] for f in kernels}

    def done(f):
        return all(len(valid[f, p]) >= BOOTS for p in parts) or boots[f] == MAX_BOOTS or time.monotonic() - start > seconds

    while not all(map(done, kernels)):
        turn = list(kernels)[::-1 if max(boots.values()) % 2 else 1]
        for f in turn:
            if done(f):
                continue
            boots[f] += 1
            v = run(kernels[f], boots[f])
            said[f].append(v)
            for p in parts:
                if len(v.get(p, ())) < MIN_PAIRS:
                    raise Failed(f"{f} printed {len(v.get(p, ()))} pairs of {p}")
                s = summary(v[p])
                if CONTROL[0] <= s["control"] <= CONTROL[1]:
                    valid[f, p].append(s)
                else:
                    void[f, p] += 1
    mid = {}
    for f, p in valid:
        samples[f"{what} {p} {f}"] = dict(valid=valid[f, p], void_boots=void[f, p])
        mid[f, p] = dict(boots=len(valid[f, p]), void=void[f, p])
        if len(valid[f, p]) >= BOOTS:
            mid[f, p] |= {k: statistics.median(s[k] for s in valid[f, p]) for k in valid[f, p][0]}
    return mid, said

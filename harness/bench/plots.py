"""plots.py RESULTS DIR: draw what is in a results.json, as SVG files that are readable in light and dark. Needs matplotlib."""
import json, sys
from pathlib import Path

try:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
except ImportError:
    sys.exit("error: matplotlib is missing: install the Debian package python3-matplotlib")

# Replaced in the SVG by a colour that follows the reader's scheme
INK, GRID = "#010203", "#010204"
ADAPT = {INK: "var(--ink, #1f2328)", GRID: "var(--grid, #d1d9e0)"}
CSS = ("<style>:root { --ink: #1f2328; --grid: #d1d9e0 } @media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --grid: #3d444d } }"
       "</style>")
BASE, OURS, PLAIN, PEER = "#e07b00", "#2f81f7", "#8b949e", "#a371f7"
STATES = {"G": ("1 GiB pages", "#1158c7"), "M": ("2 MiB pages", "#6cb6ff"), "K": ("split into 4 KiB pages", "#e07b00"),
          "A": ("absent, by one PMD", "#8250df"), "O": ("other attributes", "#2da44e"), ".": ("no memory", None)}
COLUMNS = 64	# cells in a line: 128 MiB


def style():
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "bench",
                         "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID, "xtick.color": INK, "ytick.color": INK,
                         "axes.titlecolor": INK, "grid.color": GRID, "axes.grid": True, "grid.linewidth": 0.6, "legend.frameon": False,
                         "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "none", "axes.facecolor": "none",
                         "savefig.facecolor": "none"})


def save(figure, path):
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = path.read_text()
    for colour, var in ADAPT.items():
        text = text.replace(colour, var)
    start = text.index(">", text.index("<svg")) + 1
    path.write_text(text[:start] + CSS + text[start:])


def draw_map(maps, path):
    kernels, when = list(maps), list(next(iter(maps.values())))
    figure, axes = plt.subplots(len(kernels), len(when), figsize=(11, 2.6 * len(kernels)), squeeze=False)
    letters = list(STATES)
    colours = ListedColormap([c or "#00000000" for _, c in STATES.values()])
    for i, k in enumerate(kernels):
        for j, w in enumerate(when):
            ax, cells = axes[i][j], maps[k][w]
            cells += "." * (-len(cells) % COLUMNS)
            grid = [[letters.index(c) for c in cells[n:n + COLUMNS]] for n in range(0, len(cells), COLUMNS)]
            ax.grid(False)
            # Embedded as it is, one pixel a cell
            ax.imshow(grid, cmap=colours, vmin=-0.5, vmax=len(letters) - 0.5, aspect="auto", interpolation="none",
                      extent=(0, COLUMNS, len(grid), 0))
            ax.set_xticks([])
            ax.set_yticks(range(0, len(grid) + 1, 8), [f"{n // 8} GiB" for n in range(0, len(grid) + 1, 8)] if j == 0 else [])
            ax.set_title(f"{k}, {w}", loc="left", fontsize=10)
            small = cells.count("K")
            ax.set_xlabel(f"split: {small} of {len(cells) - cells.count('.')} cells", fontsize=9)
    there = {c for k in maps.values() for cells in k.values() for c in cells}
    figure.legend(handles=[Patch(color=c, label=name) for s, (name, c) in STATES.items() if c and s in there],
                  loc="upper center", ncol=5, bbox_to_anchor=(0.5, 0.03))
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    save(figure, path)


def draw_timeline(samples, phases, path):
    figure, axes = plt.subplots(1, len(samples), figsize=(11, 3), squeeze=False, sharey=True)
    sizes = (("4 KiB", STATES["K"][1]), ("2 MiB", STATES["M"][1]), ("1 GiB", STATES["G"][1]))
    for ax, (k, rows) in zip(axes[0], samples.items()):
        # Not those that are as the one before and the one after
        rows = [r for r, a, b in zip(rows, [[0], *rows], [*rows[1:], [0]]) if not r[1:] == a[1:] == b[1:]]
        t0 = rows[0][0]
        t = [r[0] - t0 for r in rows]
        ax.stackplot(t, *([max(r[i], 0) / 2**20 for r in rows] for i in (1, 2, 3)), labels=[n for n, _ in sizes],
                     colors=[c for _, c in sizes], linewidth=0)
        top = max(sum(r[1:]) for r in rows) / 2**20
        for name, at in phases[k].items():
            ax.axvline(at - t0, color=INK, linewidth=0.8, linestyle=":")
            if name != "end":
                ax.text(at - t0, top * 1.02, name, fontsize=9, va="bottom", rotation=30)
        ax.grid(False)
        ax.set_title(k, loc="left", pad=26, fontsize=10)
        ax.set_xlabel("seconds")
        ax.set_xlim(t[0], t[-1])
        ax.set_ylim(0, top)
    axes[0][0].set_ylabel("GiB in /proc/meminfo")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def draw_faults(faults, path):
    figure, ax = plt.subplots(figsize=(8, 3.6))
    looks = {"base secret": (BASE, "-"), "series secret": (OURS, "-"), "base memfd": (PLAIN, "--"), "series memfd": (PLAIN, ":")}
    for name, rows in faults.items():
        colour, line = looks[name]
        # The slowest is in the axis' last decade: 100 % would be at infinity
        ax.plot([r[1] / 1000 for r in rows], [max(100 - r[0], 0.005) for r in rows], line, color=colour, label=name.replace(" ", ", "))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(0.004, 110)
    ax.set_yticks([100, 10, 1, 0.1, 0.01], ["100 %", "10 %", "1 %", "0.1 %", "0.01 %"])
    ax.set_xlabel("microseconds, TCG")
    ax.set_ylabel("faults that take longer")
    ax.legend()
    save(figure, path)


def draw_tasks(results, path):
    rows = [r for r in results if r["row"] == 13]
    tasks = [int(r["what"].split(" by ")[1].split()[0]) for r in rows]
    figure, ax = plt.subplots(figsize=(6, 3.4))
    for column, colour in (("base", BASE), ("peer", PEER), ("ours", OURS)):
        at = [(n, r[column]) for n, r in zip(tasks, rows) if r.get(column)]
        if at:
            ax.plot(*zip(*at), "o-", color=colour, label=column)
    ax.axhline(1, color=PLAIN, linewidth=1, linestyle="--", label="memfd")
    ax.set_xscale("log", base=2)
    ax.set_xticks(tasks, tasks)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("tasks")
    ax.set_ylabel("faults a second / memfd")
    ax.legend()
    save(figure, path)


def main():
    data, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    style()
    pictures = data.get("pictures") or {}
    if pictures:
        draw_map(pictures["maps"], out / "map.svg")
        draw_timeline(pictures["samples"], pictures["phases"], out / "timeline.svg")
        draw_faults(pictures["faults"], out / "faults.svg")
    if any(r["row"] == 13 and r["ours"] for r in data["results"]):
        draw_tasks(data["results"], out / "tasks.svg")


if __name__ == "__main__":
    main()

"""What is made of results: tables in Markdown, one HTML page, and the spread of several runs."""
import glob, html, json, statistics, sys
from pathlib import Path

COLUMNS = {"base": "base", "peer": "peer", "off": "=n", "ours": "ours", "limit": "limit"}
TCG = " under TCG, where no hardware TLB is involved"
LEGEND = ("(c): exact counts. (t): ratios of wall-clock times{}. peer: the base with one flush for 512 pages, which splits "
          "what the base splits: rows 9 to 11 are the base's. =n: the series with CONFIG_UNMAPPED_ALLOC=n. limit: what no "
          "implementation could do without, or the floor: ordinary memory.")
PLOTS = {"map": "How each 2 MiB of physical memory is mapped: before, while 1 MiB of memfd_secret is in use on aged memory, and 5 s "
                "after all of it is free",
         "timeline": "The direct map by size of page, in the course of that load", "faults": "How long faults take",
         "tasks": "Faults a second of memfd_secret / memfd by number of tasks"}
VERDICT = {True: "met", False: "MISSED", None: "", "failed": "FAILED"}


def number(x):
    if x is None:
        return "-"
    if isinstance(x, str):
        return x
    return f"{x:,.0f}" if x == round(x) else f"{x:,.2f}"


def is_void(r):
    return r["kind"] == "t" and r["ours"] is None and r["met"] is None


def verdict(r):
    return "VOID" if is_void(r) else VERDICT[r["met"]]


def is_bad(r):
    return r["met"] in (False, "failed") or is_void(r)


def head(data):
    rows = "rows 4, 6 and 7 count instructions" if data["host"] is None else f"on the running kernel, {data['host']}, without a guest"
    return [f"Measured {data['date']}, tree {data['tree']}, {data['qemu']}, {data['cpu']}, {data['cores']} cores, {data['seconds']} s; {rows}.",
            LEGEND.format(TCG if data["host"] is None else "")]


def strong(text):
    return f"**{text}**" if text.isupper() else text


def markdown(data):
    lines = [*head(data), "", "| row | | " + " | ".join(COLUMNS.values()) + " | goal | | |",
             "|---|---" + "|--:" * len(COLUMNS) + "|---|---|---|"]
    for r in data["results"]:
        figures = " | ".join(number(r[c]) for c in COLUMNS)
        lines.append(f"| {r['row']} ({r['kind']}) | {r['what']} | {figures} | {r['goal']} | {strong(verdict(r))} | {r['remark']} |")
    if data.get("costs"):
        lines += ["", "## Costs", "", "| | base | ours | |", "|---|--:|--:|---|"]
        lines += [f"| {c['what']} | {number(c['base'])} | {number(c['ours'])} | {c['remark']} |" for c in data["costs"]]
    return "\n".join(lines) + "\n"


STYLE = """
:root { color-scheme: light dark; --fg: #1f2328; --muted: #59636e; --bg: #ffffff; --line: #d1d9e0; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #f0f6fc; --muted: #9198a1; --bg: #0d1117; --line: #3d444d; --good: #3fb950; --bad: #f85149; } }
body { color: var(--fg); background: var(--bg); font: 15px/1.5 sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid var(--line); padding: .25em .6em; text-align: left; vertical-align: top; }
td.n { text-align: right; white-space: nowrap; } td.remark { color: var(--muted); font-size: 85%; }
.met { color: var(--good); } .bad { color: var(--bad); font-weight: bold; } figure { margin: 2em 0; } svg { max-width: 100%; height: auto; }
"""


def page(data, plots):
    """One page that needs nothing else. @plots: name -> SVG."""
    e = html.escape
    cells = lambda tag, words: "".join(f"<{tag}>{e(w)}</{tag}>" for w in words)
    figures = lambda numbers: "".join(f'<td class="n">{e(number(n))}</td>' for n in numbers)
    rows, costs = [], []
    for r in data["results"]:
        css = "bad" if is_bad(r) else "met"
        rows.append(f"<tr>{cells('td', [str(r['row']) + ' (' + r['kind'] + ')', r['what']])}"
                    f"{figures(r[c] for c in COLUMNS)}<td>{e(r['goal'])}</td><td class=\"{css}\">{verdict(r)}</td>"
                    f"<td class=\"remark\">{e(r['remark'])}</td></tr>")
    for c in data.get("costs") or ():
        costs.append(f"<tr><td>{e(c['what'])}</td>{figures((c['base'], c['ours']))}<td class=\"remark\">{e(c['remark'])}</td></tr>")
    parts = [f"<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>unmapped_alloc: benchmarks</title><style>{STYLE}</style>",
             "<h1>unmapped_alloc: benchmarks</h1>", *(f"<p>{e(line)}</p>" for line in head(data)),
             f"<div class=\"wide\"><table><tr>{cells('th', ['row', '', *COLUMNS.values(), 'goal', '', ''])}</tr>{''.join(rows)}</table></div>"]
    if costs:
        parts.append(f"<h2>Costs</h2><div class=\"wide\"><table><tr>{cells('th', ['', 'base', 'ours', ''])}</tr>{''.join(costs)}</table></div>")
    parts += [f"<figure>{svg[svg.index('<svg'):]}<figcaption>{e(PLOTS[name])}.</figcaption></figure>" for name, svg in plots.items()]
    return "\n".join(parts) + "\n</html>\n"


def write(data, where, plots):
    (where / "results.md").write_text(markdown(data))
    (where / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    (where / "report.html").write_text(page(data, plots))


def spread(names, runs):
    """The table of several runs: for each line the least, median and most of its figures."""
    files = sorted(f for n in names for f in ([n] if Path(n).is_file() else glob.glob(n)))
    if names == ["all"]:
        files = sorted(map(str, runs.glob("*/results.json")))
    if len(files) < 2:
        sys.exit(f"error: REPORT={' '.join(names)} names {len(files)} results and a spread needs two: run make bench more often, "
                 f"or name files as in REPORT=\"{runs}/*/results.json\"")
    try:
        all_data = [json.loads(Path(f).read_text()) for f in files]
        lines = {}
        for d in all_data:
            for r in d["results"]:
                lines.setdefault((r["row"], r["kind"], r["what"], r["goal"]), []).append(r)
            for c in d.get("costs") or ():
                lines.setdefault(("costs", "", c["what"], ""), []).append(dict(c, met=None, kind=""))
    except (OSError, ValueError, KeyError) as e:
        sys.exit(f"error: one of the files that REPORT names is no results.json ({e!r}): name those of make bench")
    out = [f"{len(files)} runs, {all_data[0]['date']} to {all_data[-1]['date']}, tree {', '.join(sorted({d['tree'] for d in all_data}))}: "
           "least / median / most of what each found.", LEGEND.format(TCG), "",
           "| row | | " + " | ".join(COLUMNS.values()) + " | goal | met |", "|---|---" + "|--:" * len(COLUMNS) + "|---|---|"]
    for (row, kind, what, goal), found in lines.items():
        figures = []
        for c in COLUMNS:
            n = [r[c] for r in found if isinstance(r.get(c), (int, float))]
            same = {number(x) for x in n}
            figures.append("-" if not n else same.pop() if len(same) == 1 else
                           " / ".join(number(f(n)) for f in (min, statistics.median, max)))
        judged = [r for r in found if r["met"] is not None or is_void(r)]
        met = f"{sum(r['met'] is True for r in judged)} of {len(judged)}" if judged else ""
        out.append(f"| {row}{f' ({kind})' if kind else ''} | {what} | {' | '.join(figures)} | {goal} | {met} |")
    return "\n".join(out) + "\n"

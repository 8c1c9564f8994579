"""One table and one picture of everything the benchmarks measured.

usage: report.py <folder with the results, *.json> [<folder for table.md and overview.svg>]

Every row says whether its goal was met; rows that lost stay in, marked. Nothing is computed here
but that: the numbers are those of the files.
"""

import html
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys

SECTIONS = {
    "8": "Kills inside a save",
    "9": "One checkpoint",
    "10": "Training with checkpoints, wall time",
    "11": "Disk, memory, loading, publishing",
    "12": "Events and loop",
}
PYTHON_PEERS = ("torch", "mmengine", "pytorch-lightning", "numpy")
DEBIAN_PEERS = ("libboost-dev", "libsigc++-2.0-dev", "libdlib-dev")


# --- the machine -----------------------------------------------------------------------------


def first_line(*command):
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.splitlines()[0] if said else ""


def field(path, name):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.split(":", 1)[1].strip()
    return "unknown"


def compiler():
    cache = pathlib.Path(__file__).resolve().parents[2] / "build/bench/CMakeCache.txt"
    for line in cache.read_text().splitlines() if cache.exists() else []:
        if line.startswith("CMAKE_CXX_COMPILER:"):
            return first_line(line.split("=", 1)[1], "--version") or "unknown"
    return "unknown"


def versions():
    found = {}
    for name in PYTHON_PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for name in DEBIAN_PEERS:
        version = first_line("dpkg-query", "-W", "-f", "${Version}", name)
        if version:
            found[name] = version
    return found


def machine(disk):
    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    speed = (
        f"{disk['write_mib_s']} MiB/s written, {disk['read_mib_s']} MiB/s read (O_DIRECT, 8 MiB)"
        if disk else "not measured"
    )
    return {
        "CPU": f"{field('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GiB",
        "Disk, raw": speed,
        "Kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "Compiler": compiler(),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


# --- the table -------------------------------------------------------------------------------


def number(value):
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def verdict(row):
    """Whether the goal was met: yes, no, or nothing where there is none."""
    if row.get("goal") is None:
        return ""
    met = row["ratio"] >= row["goal"] if row.get("at_least") else row["ratio"] <= row["goal"]
    return "met" if met else "**LOST**"


def cells(row):
    unit = "" if row["unit"] == "ratio" else " " + row["unit"]
    noise, goal = row.get("noise"), row.get("goal")
    sign = ">=" if row.get("at_least") else "<="
    return (
        row["what"],
        row["contender"],
        row["case"],
        f"{number(row['ratio'])}{unit} ({number(row['low'])} to {number(row['high'])})",
        row["base"],
        f"{number(noise[0])} to {number(noise[1])}" if noise else "",
        "" if goal is None else f"{sign} {number(goal)}{unit}",
        verdict(row),
    )


def line(texts):
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def table(rows, about, commands):
    judged = [verdict(row) for row in rows if verdict(row)]
    lost = len(judged) - judged.count("met")
    lines = ["# Measurements", ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [
        "",
        "Medians of interleaved rounds, lowest and highest in brackets; noise, where there is one, "
        "is the base against itself. A share of kills and a percentile are of one whole run each. "
        f"Goals: {len(judged) - lost} met, {lost} lost.",
    ]
    for item in sorted({row["item"] for row in rows}, key=lambda i: (not i.isdigit(), i.zfill(3))):
        lines += ["", f"## {SECTIONS.get(item, item.capitalize())}", ""]
        lines.append(line(("What", "Who", "Case", "Measured", "Against", "Noise", "Goal", "")))
        lines.append("|---" * 8 + "|")
        lines += [line(cells(row)) for row in rows if row["item"] == item]
    lines += ["", "## Repeating it", "", "    make bench"]
    lines += [f"    {command}" for command in commands]
    return "\n".join(lines) + "\n"


# --- the picture -----------------------------------------------------------------------------

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; font-size: 15px; }
  .small { font-size: 11px; fill: #656d76; }
  .ours { fill: #0a7d5a; } .theirs { fill: #8c959f; } .axis { stroke: #8c959f; }
  .range { stroke: #1f2328; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9198a1; }
    .ours { fill: #2fbf8f; } .theirs { fill: #6e7681; } .range { stroke: #e6edf3; }
  }
"""
BAR, GAP, LEFT, WIDTH = 18, 8, 240, 760


def groups(rows):
    """Title, case and its rows: of wall time and stalls that with most contenders."""
    chosen = []
    for item, what, title in (
        ("10", "wall time", "Training with durable checkpoints, wall time against none"),
        ("9", "stall", "Stall of one save against a blocking one"),
    ):
        cases = {}
        for row in rows:
            if (row["item"], row["what"], row["unit"]) == (item, what, "ratio"):
                cases.setdefault(row["case"], []).append(row)
        if cases:
            most = max(len(found) for found in cases.values())
            case, found = [pair for pair in cases.items() if len(pair[1]) == most][-1]
            chosen.append((title, case, found))
    return chosen


def bars(title, case, rows, top):
    longest = max(max(row["high"] for row in rows), 1.0)
    scale = (WIDTH - LEFT - 90) / longest
    parts = [f'<text class="title" x="12" y="{top + 18}">{html.escape(title)}</text>']
    parts.append(f'<text class="small" x="12" y="{top + 35}">{html.escape(case)}</text>')
    y = top + 46
    bottom = y + len(rows) * (BAR + GAP)
    one = LEFT + scale
    for row in rows:
        width = max(row["ratio"] * scale, 1)
        low, high = (LEFT + max(row[key] * scale, 0) for key in ("low", "high"))
        who = html.escape(row["contender"])
        kind = "ours" if row["contender"].startswith("Millrace") else "theirs"
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{who}</text>',
            f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3"/>',
            f'<line class="range" x1="{low:.1f}" y1="{y + 9}" x2="{high:.1f}" y2="{y + 9}"/>',
            f'<text x="{max(LEFT + width, high) + 8:.1f}" y="{y + 13}">'
            f'{number(row["ratio"])}</text>',
        ]
        y += BAR + GAP
    parts.append(
        f'<line class="axis" x1="{one:.1f}" y1="{top + 42}" x2="{one:.1f}" y2="{bottom - 4}" '
        f'stroke-dasharray="3 3"/>'
    )
    return parts, bottom + 16


def picture(rows, about):
    top, parts = 8, []
    for title, case, found in groups(rows):
        drawn, top = bars(title, case, found, top)
        parts += drawn
    parts.append(f'<text class="small" x="12" y="{top + 8}">{html.escape(about["CPU"])}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 20}" role="img">',
        "<title>Measurements of Millrace and its peers</title>",
        f"<style>{STYLE}</style>", *parts, "</svg>", "",
    ])


# --- all of it -------------------------------------------------------------------------------


def read(folder):
    """Rows of all results, the raw disk's speed, the commands, and what else there is to say."""
    rows, disk, commands, quick, left_out, revisions = [], None, [], [], [], {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        result = json.loads(path.read_text())
        if not isinstance(result, dict) or "rows" not in result:
            raise SystemExit(f"{path}: no rows; an older benchmark wrote it")
        rows += result["rows"]
        disk = result.get("disk", disk)
        quick += [path.stem] if result.get("quick") else []
        left_out += [f"{path.stem} at {reason}" for reason in result.get("left_out", [])]
        commands.append(f"make bench ONLY={path.stem}")
        revisions.setdefault(result.get("revision") or "unknown", []).append(path.stem)
    if not rows:
        raise SystemExit(f"{folder}: no results")
    said = {"Revision": "; ".join(
        revision if len(revisions) == 1 else f"{revision}: {', '.join(names)}"
        for revision, names in revisions.items()
    )}
    if quick:
        said["Quick"] = f"too small to judge by: {', '.join(quick)}"
    if left_out:
        said["Left out"] = "; ".join(left_out)
    return rows, disk, commands, said


def main(results, out=None):
    rows, disk, commands, said = read(results)
    about = machine(disk) | said
    out = pathlib.Path(out or results)
    (out / "table.md").write_text(table(rows, about, commands))
    (out / "overview.svg").write_text(picture(rows, about))
    print(f"{len(rows)} rows: {out / 'table.md'}, {out / 'overview.svg'}")


if __name__ == "__main__":
    main(*sys.argv[1:])

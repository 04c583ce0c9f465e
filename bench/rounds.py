"""Several monitors measured in turns, so that the host's mood hits all alike, and what came out as a table, JSON and a picture."""
import html
import math
import statistics
import subprocess

import boots

ZBENCH_ROWS = ["int", "sha256", "fp", "tree", "sort", "memcpy", "chase", "atomic", "syscall", "pipe", "fault", "fork", "exec", "pread4k"]


def turns(monitors, rounds):
    """Everybody once a round, forward and backward."""
    for number in range(rounds):
        for monitor in monitors if number % 2 == 0 else monitors[::-1]:
            yield number + 1, monitor


def to_init(monitors, rounds):
    """Seconds from the start of each monitor to its guest's first line of init, by name."""
    seconds = {monitor.name: [] for monitor in monitors}
    for monitor in monitors:  # files into the page cache, and whatever else is slow only once
        boots.Boot(monitor)
    for number, monitor in turns(monitors, rounds):
        boot = boots.Boot(monitor)
        seconds[monitor.name].append(boot.to_marker)
        print(f"round {number}  {monitor.name:16} to init {boot.to_marker:7.3f} s", flush=True)
    return seconds


class Here:
    """No guest: the program as it is, or within something that starts it (a list of words)."""

    def __init__(self, name, wrapper=()):
        self.name, self.wrapper = name, list(wrapper)

    def zbench(self, names):
        command = [*self.wrapper, boots.BUILD / "bench/zbench", *names]
        return boots.zbench_numbers(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def zbench(places, rounds, names):
    """{row: {name of place: [numbers]}}, {row: unit}. Places are monitors or `Here`s."""
    numbers, units = {name: {place.name: [] for place in places} for name in names}, {}
    for number, place in turns(places, rounds):
        print(f"round {number}  {place.name:16} zbench {' '.join(names)}", flush=True)
        if isinstance(place, Here):
            found = place.zbench(names)
        else:
            found = boots.zbench_numbers(boots.Boot(place, " ".join(["zbench", *names])).output)
        for name in names:
            if name in found:
                numbers[name][place.name].append(found[name][0])
                units[name] = found[name][1]
    return numbers, units


def medians(by_place):
    return {place: statistics.median(values) for place, values in by_place.items() if values}


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else float("nan")


def show(title, rows, units, base, places):
    """rows: {row: {place: median}}. Each place's number, and in brackets how many times the base's."""
    print(f"\n{title + ' (times ' + base + ')':34}" + "".join(f"{place:>22}" for place in places))
    for row, values in rows.items():
        cells = []
        for place in places:
            if place not in values:
                cells.append("-")
            else:
                ratio = f" ({values[place] / values[base]:.2f})" if place != base and values.get(base) else ""
                cells.append(f"{values[place]:.4g}{ratio}")
        print(f"{row + ' ' + units.get(row, ''):34}" + "".join(f"{cell:>22}" for cell in cells))


# ---- a picture

COLOURS = ["#7a7a7a", "#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280"]


def picture(title, rows, base, places):
    """An SVG of bars: how many times the base's number each place reaches, on a logarithmic scale; right is better."""
    others = [place for place in places if place != base]
    ratios = {row: {p: v[p] / v[base] for p in others if v.get(p) and v.get(base)} for row, v in rows.items()}
    every = [r for of_row in ratios.values() for r in of_row.values()] or [1.0]
    low, high = math.floor(math.log2(min(every + [0.5]))), math.ceil(math.log2(max(every + [2.0])))
    left, wide, bar, gap = 110, 640, 9, 10
    x = lambda ratio: left + wide * (math.log2(ratio) - low) / (high - low)
    step = bar * len(others) + gap
    top, tall = 58, step * len(ratios)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 60}" height="{top + tall + 30}" font-family="sans-serif" font-size="11">',
           f'<rect width="100%" height="100%" fill="white"/><text x="10" y="18" font-size="14">{html.escape(title)}</text>']
    for i, place in enumerate(others):
        at = left + i * 150
        out.append(f'<rect x="{at}" y="28" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>'
                   f'<text x="{at + 14}" y="37">{html.escape(place)}</text>')
    for power in range(low, high + 1):
        at, label = x(2.0**power), f"{2.0**power:g}"
        out.append(f'<line x1="{at:.1f}" y1="{top - 6}" x2="{at:.1f}" y2="{top + tall}" stroke="{"#000" if power == 0 else "#ddd"}"/>'
                   f'<text x="{at:.1f}" y="{top + tall + 14}" text-anchor="middle">{label}</text>')
    for number, (row, of_row) in enumerate(ratios.items()):
        y = top + number * step
        out.append(f'<text x="{left - 8}" y="{y + step / 2}" text-anchor="end">{html.escape(row)}</text>')
        for i, place in enumerate(others):
            if place in of_row:
                start, end = sorted((x(1.0), x(of_row[place])))
                out.append(f'<rect x="{start:.1f}" y="{y + i * bar}" width="{max(end - start, 1):.1f}" height="{bar - 1}" '
                           f'fill="{COLOURS[i % len(COLOURS)]}"><title>{html.escape(place)}: {of_row[place]:.2f}</title></rect>')
    out.append(f'<text x="{left + wide / 2}" y="{top + tall + 28}" text-anchor="middle">times {html.escape(base)}, more is better</text></svg>')
    return "\n".join(out) + "\n"

"""The acceptance list."""
import dataclasses
import re
import subprocess
import sys
import typing

import realwork
import zones
from harness import program


class Skipped(Exception):
    pass


@dataclasses.dataclass
class Item:
    name: str
    what: str
    run: typing.Callable[[], str]  # returns the figures; raises AssertionError with what was wrong, or Skipped


def command(arguments, timeout, pattern=None, **more):
    """Runs one of the project's own commands; the figures are its last line, or what matches the pattern."""
    if not (program.PROJECT / arguments[0]).exists() and "/" in arguments[0] and not arguments[0].startswith("/"):
        raise Skipped(f"{arguments[0]} is not there")
    done = subprocess.run(arguments, cwd=program.PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout * program.PATIENCE, **more)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(arguments)}: status {done.returncode}: {' / '.join(lines[-8:])}")
    if pattern:
        lines = [line for line in lines if re.search(pattern, line)]
    return "; ".join(lines[-6:] if pattern else lines[-1:])


def boot_cases(short):
    """tests/boot, with a large stream."""
    for stem in ("bare", "refused", "debian", "run", "terminal", "ending"):
        def run(file=f"tests/boot/{stem}_test.py", megabytes="5" if short else "100"):
            # The large stream has an item of its own.
            return command([sys.executable, "-m", "harness.main", file], 1800, r"^(Ran|OK|skipped)",
                           env=dict(program.os.environ, PYTHONPATH="tests/support", BULKHEAD=str(program.PROGRAM)))
        yield Item(f"cases-{stem}", f"every case of tests/boot/{stem}_test.py", run)


def fresh_clone():
    with program.own_folder("bulkhead-clone-") as folder:
        clone = folder / "bulkhead"
        subprocess.run(["git", "clone", "-q", str(program.PROJECT), str(clone)], check=True)
        shown = subprocess.run(["./dev", "run"], cwd=clone, capture_output=True, text=True, timeout=5400)
        assert shown.returncode == 0, f"./dev run: status {shown.returncode}: {shown.stderr[-2000:]}"
        assert "hello from Linux" in shown.stdout, f"./dev run shows no zone: {shown.stdout[-2000:]}"
        tested = subprocess.run(["./dev", "test"], cwd=clone, capture_output=True, text=True, timeout=5400)
        lines = tested.stdout.strip().splitlines()
        assert tested.returncode == 0, f"./dev test: status {tested.returncode}: {' / '.join(lines[-20:])}"
        return f"./dev run shows a zone; ./dev test: {lines[-1]}"


def all_items(short):
    times, launches, megabytes, cases = (2, 5, 5, 200_000) if short else (20, 100, 100, 10_000_000)
    yield_items = [Item("fresh-clone", "a fresh clone: ./dev run shows a zone, ./dev test passes", fresh_clone)]
    for backend in zones.BACKENDS:
        for label, what, suite in zones.KERNELS:
            for vcpus in (1, 2):
                yield_items.append(Item(f"boots-{backend}-{label}-{vcpus}",
                                        f"{label} boots {times} times of {times} as {backend} with {vcpus} vCPU",
                                        lambda v=backend, a=what, b=suite, c=vcpus: zones.boots(v, a, b, c, times)))
    for name in realwork.names():
        yield_items.append(Item(f"work-{name}", f"{name} does the same in a zone as on the host",
                                lambda n=name: realwork.compare(n)))
    yield_items.append(Item("launches", f"{launches} launches of `true` in a row", lambda: zones.launches(launches)))
    yield_items.append(Item("stream", f"{megabytes} MB through cat, exactly", lambda: zones.stream(megabytes)))
    yield_items += boot_cases(short)
    fuzz = str(program.PROGRAM.parent / "insn_fuzz_run")
    yield_items.append(Item("instructions", f"{cases} random instruction cases against the host CPU",
                            lambda: command([fuzz, "--cases", str(cases), "--runner", "all"], 36000, "insn_fuzz_run:")))
    yield_items.append(Item("asm-tests", "the assembly cases and the engine conformance suite",
                            lambda: command(["ctest", "--test-dir", str(program.PROGRAM.parents[1]), "-R", "Asm|Conform|Engine"],
                                            3600, "tests passed")))
    yield_items.append(Item("bench", "boots beside QEMU's TCG: not slower, and under 64 MiB", lambda: command(["./dev", "bench"], 3600,
                                                                                                              "ratio|median|MiB")))
    return yield_items

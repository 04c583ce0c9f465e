"""What a program leaves behind: processes, mounts, files, network devices."""
import os
import pathlib
import time

from . import program


def _lines(path):
    return pathlib.Path(path).read_text(errors="replace").splitlines()


def _names(folder):
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "bulkhead"


class Traces:
    """The state before; differences() compares it with the state then."""

    def __init__(self, temporary):
        self._temporary = pathlib.Path(temporary)  # what the program has as TMPDIR
        self._before = self._state()

    def _state(self):
        return {"mounts": {line.split()[4] for line in _lines("/proc/self/mountinfo")},
                "network devices": _names("/sys/class/net"),
                "loop devices": {n for n in _names("/sys/block")
                                 if n.startswith("loop") and os.path.exists(f"/sys/block/{n}/loop/backing_file")},
                "temporary files": {str(p) for p in self._temporary.rglob("*")},
                "shared memory": {n for n in _names("/dev/shm") if "bulkhead" in n}}

    def differences(self, *marks):
        """One text for each thing that is left of the starts with these marks."""
        left = [f"process {pid}: {self._command(pid)}" for mark in marks for pid in self._processes(mark)]
        now = self._state()
        for kind, before in self._before.items():
            left += [f"{kind}: {name}" for name in sorted(now[kind] - before)]
        return left

    @staticmethod
    def _processes(mark):
        # A child that was killed with its parent needs a moment to be gone.
        deadline = time.monotonic() + 3 * program.PATIENCE
        while (alive := program.marked_processes(mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return alive

    @staticmethod
    def _command(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return "(gone)"

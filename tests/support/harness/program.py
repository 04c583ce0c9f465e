"""The program under test, started as a user starts it."""
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import uuid

PROJECT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = pathlib.Path(os.environ.get("BULKHEAD", PROJECT / "build/bin/bulkhead")).resolve()
GUESTS = pathlib.Path(os.environ.get("BULKHEAD_GUESTS", PROGRAM.parent.parent / "guest/testkernel")).resolve()
PATIENCE = float(os.environ.get("BULKHEAD_PATIENCE", "1"))

# Every process that descends from a start carries this variable: leftovers are found by it, whatever else runs here.
MARK = "BULKHEAD_TEST_MARK"


@dataclasses.dataclass
class Done:
    arguments: list
    status: int  # as a shell shows it: 128+n for death by signal n
    out: bytes
    err: bytes
    seconds: float

    def __str__(self):
        command = " ".join(str(a) for a in self.arguments)
        return (f"bulkhead {command}: status {self.status} after {self.seconds:.1f} s\n"
                f"stdout: {self.out[-2000:]!r}\nstderr: {self.err[-3000:].decode(errors='replace')}")


class TookTooLong(AssertionError):
    pass


class Start:
    """One started program. Its standard streams are the caller's choice of subprocess arguments."""

    def __init__(self, arguments, mark=None, **popen):
        self.mark = mark or uuid.uuid4().hex
        environment = dict(os.environ, **popen.pop("environment", {}))
        environment[MARK] = self.mark
        self.arguments = [str(a) for a in arguments]
        self.began = time.monotonic()
        self.process = subprocess.Popen([str(PROGRAM), *self.arguments], env=environment, start_new_session=True, **popen)

    def kill_all(self):
        for pid in marked_processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def signal(self, number):
        self.process.send_signal(number)

    def finish(self, data=None, timeout=60):
        """Feeds `data`, collects the pipes and waits. TookTooLong kills everything and shows what there was."""
        try:
            out, err = self.process.communicate(data, timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill_all()
            out, err = self.process.communicate()
            raise TookTooLong(f"not finished after {timeout * PATIENCE:.0f} s: {self._done(out, err)}") from None
        return self._done(out, err)

    def _done(self, out, err):
        status = self.process.returncode
        return Done(self.arguments, 128 - status if status < 0 else status, out or b"", err or b"",
                    time.monotonic() - self.began)


def run(arguments, data=b"", timeout=60, **popen):
    """Runs to the end with `data` (bytes) or an open file as stdin, and both outputs collected."""
    streams = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if not isinstance(data, bytes):
        streams["stdin"], data = data, None
    return Start(arguments, **(streams | popen)).finish(data, timeout)


def marked_processes(mark):
    """Processes that descend from a start with this mark and still live (zombies do not)."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def own_folder(prefix="bulkhead-test-"):
    with tempfile.TemporaryDirectory(prefix=prefix) as path:
        yield pathlib.Path(path)


def json_of(path):
    return json.loads(pathlib.Path(path).read_text())

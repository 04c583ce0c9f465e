"""The base of all cases."""
import os
import pathlib
import signal
import tempfile
import unittest

from . import program, traces


class Case(unittest.TestCase):
    """Each test has a folder of its own, which is also TMPDIR of what it starts, and a limit on its whole time."""

    TIME_LIMIT = 300  # seconds, times BULKHEAD_PATIENCE
    maxDiff = 4000

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="bulkhead-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self._starts = []
        self._traces = traces.Traces(self.temporary)
        signal.signal(signal.SIGALRM, self._out_of_time)
        signal.alarm(int(self.TIME_LIMIT * program.PATIENCE))
        self.addCleanup(self._end)

    def _out_of_time(self, *_):
        raise program.TookTooLong(f"the case's limit of {self.TIME_LIMIT * program.PATIENCE:.0f} s is over")

    def _end(self):
        signal.alarm(0)
        for start in self._starts:
            if start.process.poll() is None:
                start.kill_all()

    def options(self, popen):
        popen.setdefault("cwd", self.folder)
        popen["environment"] = {"TMPDIR": str(self.temporary)} | popen.get("environment", {})
        return popen

    def start(self, *arguments, **popen):
        start = program.Start(arguments, **self.options(popen))
        self._starts.append(start)
        return start

    def track(self, start):
        """Takes a start that was made elsewhere into the check for leftovers."""
        self._starts.append(start)
        return start

    def run_program(self, *arguments, data=b"", timeout=60, **popen):
        """To the end; nothing may be left behind."""
        pipe = program.subprocess.PIPE
        streams = dict(stdin=pipe, stdout=pipe, stderr=pipe)
        if not isinstance(data, bytes):
            streams["stdin"], data = data, None
        done = self.start(*arguments, **(streams | popen)).finish(data, timeout)
        self.assert_nothing_left()
        return done

    def assert_nothing_left(self):
        self.assertEqual(self._traces.differences(*(start.mark for start in self._starts)), [])

    def assert_status(self, done, status):
        self.assertEqual(done.status, status, str(done))

    def assert_refused(self, done, *words):
        """Status 125, nothing on stdout, exactly one line on stderr, and it says these words."""
        self.assert_status(done, 125)
        self.assertEqual(done.out, b"", str(done))
        self.assert_one_line(done, *words)

    def assert_one_line(self, done, *words):
        text = done.err.decode()
        self.assertTrue(text.startswith("bulkhead: ") and text.count("\n") == 1 and text.endswith("\n"), str(done))
        for word in words:
            self.assertIn(word, text)

    def write(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return path

    def sparse(self, name, size):
        path = self.folder / name
        with open(path, "wb") as file:
            os.truncate(file.fileno(), size)
        return path

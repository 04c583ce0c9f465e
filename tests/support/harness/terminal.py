"""A person at a terminal: the program on a pseudo terminal, what it shows, what is typed."""
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

from . import program


def set_size(fd, rows, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """Use as a context manager; the program is killed at the end if it still runs."""

    def __init__(self, arguments, rows=24, columns=80, **popen):
        self._master, slave = pty.openpty()
        set_size(slave, rows, columns)
        self._slave = slave  # stays open, so that its settings can be looked at
        self.settings_before = termios.tcgetattr(slave)

        def take_terminal():
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        streams = dict(stdin=slave, stdout=slave, stderr=slave)
        self.start = program.Start(arguments, preexec_fn=take_terminal, **(streams | popen))
        self.shown = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.start.process.poll() is None:
            self.start.kill_all()
        os.close(self._master)
        os.close(self._slave)

    def resize(self, rows, columns):
        set_size(self._slave, rows, columns)

    def type(self, data):
        os.write(self._master, data)

    def settings(self):
        return termios.tcgetattr(self._slave)

    def expect(self, pattern, timeout=60):
        """Waits until what is shown from here on matches the pattern (bytes); returns the match."""
        deadline = time.monotonic() + timeout * program.PATIENCE
        while True:
            if match := re.search(pattern, self.shown):
                self.shown = self.shown[match.end():]
                return match
            ended = self.start.process.poll() is not None
            if not self._read(min(deadline, time.monotonic() + 1)) and (ended or time.monotonic() > deadline):
                raise program.TookTooLong(f"waiting for {pattern!r}, the terminal shows {self.shown[-2000:]!r}")

    def finish(self, timeout=60):
        """Reads on until the program has ended; returns its status."""
        deadline = time.monotonic() + timeout * program.PATIENCE
        while self.start.process.poll() is None:
            if not self._read(min(deadline, time.monotonic() + 0.1)) and time.monotonic() > deadline:
                raise program.TookTooLong(f"not finished; the terminal shows {self.shown[-2000:]!r}")
        while self._read(0):
            pass
        status = self.start.process.returncode
        return 128 - status if status < 0 else status

    def _read(self, deadline):
        if not select.select([self._master], [], [], max(0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        self.shown += data
        return bool(data)

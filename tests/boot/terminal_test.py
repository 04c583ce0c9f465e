"""`bulkhead run -t`: a terminal in the zone."""
import signal

from harness import terminal, zone
from harness.case import Case


class Terminal(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)

    def open(self, *command, rows=33, columns=99):
        opened = terminal.Terminal(zone.command(*command, options=["-t"]), rows, columns, **self.options({}))
        self.track(opened.start)
        return opened

    def end(self, opened, status, timeout=60):
        self.assertEqual(opened.finish(timeout), status, opened.shown)
        self.assertEqual(opened.settings(), opened.settings_before, "the terminal's settings were not put back")
        self.assert_nothing_left()

    def test_size_and_resize(self):
        script = ("trap 'stty size; exit 5' WINCH; test -t 0 && test -t 1 && test -t 2 && tty && stty size; "
                  "while :; do sleep 0.1; done")
        with self.open("sh", "-c", script) as opened:
            opened.expect(rb"/dev/pts/\d+\r\n33 99\r\n", timeout=240)
            opened.resize(40, 120)
            opened.start.signal(signal.SIGWINCH)
            opened.expect(rb"40 120\r\n")
            self.end(opened, 5)

    def test_typing_and_control_c(self):
        script = "trap 'echo caught; exit 3' INT; echo ready; read line; echo got $line; while :; do sleep 0.2; done"
        with self.open("sh", "-c", script) as opened:
            opened.expect(rb"ready\r\n", timeout=240)
            opened.type(b"hello\r")
            opened.expect(rb"got hello\r\n")
            opened.type(b"\x03")
            opened.expect(rb"caught\r\n")
            self.end(opened, 3)

    def test_end_of_input(self):
        with self.open("cat") as opened:
            opened.type(b"a line\r")
            opened.expect(rb"a line\r\n.*a line\r\n", timeout=240)
            opened.type(b"\x04")
            self.end(opened, 0)

    def test_terminated(self):
        with self.open("sh", "-c", "echo ready; exec sleep 100") as opened:
            opened.expect(rb"ready\r\n", timeout=240)
            opened.start.signal(signal.SIGTERM)
            self.end(opened, 128 + signal.SIGTERM)

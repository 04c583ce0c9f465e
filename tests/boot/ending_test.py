"""Whatever way `bulkhead run` ends, nothing of it is left."""
import signal

from harness import program, zone
from harness.case import Case


class Ending(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)

    def open(self, script, wait_for=b"ready\n"):
        pipe = program.subprocess.PIPE
        start = self.start(*zone.command("sh", "-c", script), stdin=pipe, stdout=pipe, stderr=pipe)
        self.assertEqual(start.process.stdout.read(len(wait_for)), wait_for)
        return start

    def end(self, start, status):
        done = start.finish(timeout=30)
        self.assert_status(done, status)
        self.assert_nothing_left()
        return done

    def test_signals_are_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            start = self.open("echo ready; exec sleep 1000")
            start.signal(number)
            self.end(start, 128 + number)

    def test_command_may_answer_a_signal(self):
        start = self.open("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        start.signal(signal.SIGTERM)
        self.assertEqual(self.end(start, 9).out, b"bye\n")

    def test_command_that_ignores_signals(self):
        start = self.open("trap '' TERM; echo ready; while :; do sleep 1; done")
        start.signal(signal.SIGTERM)
        self.end(start, 128 + signal.SIGTERM)

    def test_signal_while_it_boots(self):
        pipe = program.subprocess.PIPE
        start = self.start(*zone.command("true"), stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            start.process.wait(0.5)
        except program.subprocess.TimeoutExpired:
            start.signal(signal.SIGTERM)
            self.end(start, 128 + signal.SIGTERM)

    def test_killed(self):
        start = self.open("echo ready; exec sleep 1000")
        start.signal(signal.SIGKILL)
        self.end(start, 128 + signal.SIGKILL)

    def test_background_processes_of_the_command(self):
        done = self.run_program(*zone.command("sh", "-c", "(sleep 1000; echo late) & echo early; exit 4"), timeout=240)
        self.assert_status(done, 4)
        self.assertEqual(done.out, b"early\n")

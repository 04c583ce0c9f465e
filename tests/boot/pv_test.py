"""A small kernel on Xen's PV ABI: `bulkhead boot -V pv`."""
import signal

from harness import kernels, program
from harness.case import Case

AS_PV = ("--engine", "dbt", "-V", "pv")


class Pv(Case):
    TIME_LIMIT = 120

    def boot(self, words, *options, **more):
        return self.run_program("boot", *AS_PV, "--kernel", kernels.XENPV, "--append", words, "-m", "64", *options, **more)

    def test_hello(self):
        done = self.boot("hello poweroff")
        self.assert_status(done, 0)
        self.assertEqual(done.out, b"hello from xen-3.0-x86_64\n", str(done))

    def test_emergency_console(self):
        self.assertIn(b"hello from the emergency console", self.boot("emergency poweroff", "--debugcon").out)

    def test_refusals(self):
        for vcpus in ("1", "2"):
            done = self.boot("refusals poweroff", "-c", vcpus)
            self.assert_status(done, 0)
            self.assertNotIn("FAIL", done.out.decode(), str(done))
            self.assertTrue(done.out.endswith(b"0 refusals failed\n"), str(done))

    def test_two_vcpus(self):
        done = self.boot("two-vcpus poweroff", "-c", "2")
        self.assert_status(done, 0)
        self.assertNotIn("FAIL", done.out.decode(), str(done))
        self.assertTrue(done.out.endswith(b"0 checks of two vCPUs failed\n"), str(done))

    def test_null_hypercall(self):
        done = self.boot("null-hypercall poweroff")
        self.assertRegex(done.out.decode(), r"^null hypercall \d+\.\d ns\n$", str(done))

    def test_ways_to_crash(self):
        for word in ("crash", "fault"):
            done = self.boot(word)
            self.assert_status(done, 125)

    def test_reboot_ends_it_when_told_so(self):
        self.assert_status(self.boot("hello reboot", "--no-reboot"), 0)

    def test_signals_end_it(self):
        pipe = program.subprocess.PIPE
        start = self.start("boot", *AS_PV, "--kernel", kernels.XENPV, "--append", "spin", "-m", "64",
                           stdin=pipe, stdout=pipe, stderr=pipe)
        self.assertEqual(start.process.stdout.readline(), b"spinning\n")
        start.signal(signal.SIGTERM)
        self.assert_status(start.finish(timeout=20), 128 + signal.SIGTERM)

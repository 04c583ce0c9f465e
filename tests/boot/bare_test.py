"""Small kernels on the bare machine: `bulkhead boot`."""
import json
import signal
import time
import zlib

from harness import kernels, program
from harness.case import Case

# These kernels have no Xen PV entry, which is what auto means on many hosts.
AS_PVH = ("--engine", "dbt", "-V", "pvh")


class Bare(Case):
    TIME_LIMIT = 120

    def boot(self, words, *options, kernel=kernels.MULTIBOOT, **more):
        return self.run_program("boot", *AS_PVH, "--kernel", kernel, "--append", words, *options, **more)

    def assert_says(self, done, text, status=0):
        self.assert_status(done, status)
        self.assertEqual(done.out.decode(), text, str(done))
        if status != 125:
            self.assertEqual(done.err, b"", str(done))

    def test_multiboot(self):
        done = self.boot("hello boot cmdline memory poweroff", "-m", "64")
        self.assert_says(done, "hello from the test kernel\nmultiboot\n"
                               f"{kernels.MULTIBOOT} hello boot cmdline memory poweroff\nmemory {64 * 1024 - 385} KiB\n")

    def test_pvh(self):
        done = self.boot("boot cmdline memory poweroff", "-m", "8", kernel=kernels.PVH)
        self.assert_says(done, f"pvh\nboot cmdline memory poweroff\nmemory {8 * 1024 - 385} KiB\n")

    def test_multiboot_modules(self):
        one, two = self.write("one", bytes(range(256)) * 100), self.write("two", b"x")
        done = self.boot("modules poweroff", "--module", f"{one} first a=b", "--module", two)
        self.assert_says(done, f"module 25600 crc {zlib.crc32(bytes(range(256)) * 100):x} {one} first a=b\n"
                               f"module 1 crc {zlib.crc32(b'x'):x} {two}\n")

    def test_pvh_initrd(self):
        content = bytes(range(251)) * 997
        done = self.boot("modules poweroff", "--initrd", self.write("initrd", content), kernel=kernels.PVH)
        self.assertRegex(done.out.decode(), rf"^module {len(content)} crc {zlib.crc32(content):x} ", str(done))

    def test_all_ways_to_power_off(self):
        for word in ("poweroff", "poweroff-pm1"):
            self.assert_says(self.boot(f"hello {word}"), "hello from the test kernel\n")

    def test_reset_with_no_reboot(self):
        for word in ("reset", "reset-keyboard"):
            self.assert_says(self.boot(f"hello {word}", "--no-reboot"), "hello from the test kernel\n")

    def test_reset_reboots(self):
        pipe = program.subprocess.PIPE
        start = self.start("boot", *AS_PVH, "--kernel", kernels.MULTIBOOT, "--append", "again",
                           "--report", "report.json", stdin=pipe, stdout=pipe, stderr=pipe)
        for _ in range(3):
            self.assertEqual(start.process.stdout.readline(), b"again\n")
        done = start.finish(b"x")
        self.assert_status(done, 0)
        self.assertGreaterEqual(json.loads((self.folder / "report.json").read_text())["resets"], 2)
        self.assert_nothing_left()

    def test_debug_exit(self):
        for value, status in ((0, 1), (21, 43), (63, 127)):
            self.assert_status(self.boot(f"exit={value}", "--debug-exit"), status)

    def test_no_debug_exit_unless_asked_for(self):
        self.assert_says(self.boot("exit=21"), "no more words\n", status=125)

    def test_debugcon(self):
        self.assert_says(self.boot("debugcon poweroff", "--debugcon"), "hello from port e9\n")
        self.assert_says(self.boot("debugcon poweroff"), "")

    def test_halt(self):
        done = self.boot("hello halt")
        self.assert_says(done, "hello from the test kernel\n", status=125)
        self.assert_one_line(done, "halted")

    def test_triple_fault(self):
        done = self.boot("hello triple")
        self.assert_says(done, "hello from the test kernel\n", status=125)
        self.assert_one_line(done, "triple fault")

    def test_standard_input(self):
        data = bytes(range(256)) * 200
        done = self.boot(f"read={len(data)} poweroff", data=data)
        self.assert_says(done, f"ready\ninput crc {zlib.crc32(data):x}\n")

    def test_interpreter(self):
        done = self.boot("hello memory poweroff", "--engine-option", "dbt.mode=interpreter", "-m", "64")
        self.assert_says(done, f"hello from the test kernel\nmemory {64 * 1024 - 385} KiB\n")

    def test_eight_vcpus(self):
        self.assert_says(self.boot("hello poweroff", "-c", "8"), "hello from the test kernel\n")

    def test_signals_end_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            start = self.spinning()
            start.signal(number)
            done = start.finish(timeout=20)
            self.assert_status(done, 128 + number)
            self.assert_nothing_left()

    def test_killed_leaves_nothing(self):
        start = self.spinning()
        start.signal(signal.SIGKILL)
        self.assert_status(start.finish(timeout=20), 128 + signal.SIGKILL)
        self.assert_nothing_left()

    def test_nobody_listens(self):
        pipe = program.subprocess.PIPE
        start = self.start("boot", *AS_PVH, "--kernel", kernels.MULTIBOOT, "--append", "again",
                           stdin=program.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        start.process.stdout.readline()
        start.process.stdout.close()
        self.assertEqual(start.process.wait(60 * program.PATIENCE), 128 + signal.SIGPIPE)
        start.process.stderr.close()
        self.assert_nothing_left()

    def test_spinning_guest_does_not_block_input_or_end(self):
        start = self.spinning()
        start.process.stdin.write(b"x" * 60000)  # nobody in there reads it
        start.process.stdin.flush()
        time.sleep(0.3)
        start.signal(signal.SIGTERM)
        self.assert_status(start.finish(timeout=20), 128 + signal.SIGTERM)

    def test_report(self):
        self.assert_status(self.boot("hello poweroff", "--report", "report.json", "-m", "32", "-c", "2"), 0)
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(report["exit_status"], 0)
        self.assertEqual((report["vcpus"], report["memory_bytes"]), (2, 32 << 20))
        self.assertEqual(report["resolved"]["engine"], "dbt")
        self.assertTrue(report["resolved"]["reason"])
        self.assertGreater(report["exits"]["port"]["count"], 10)
        self.assertIsNotNone(report["milestones_ms"]["first_console_byte"])
        self.assertGreater(report["monitor_rss_bytes"], 0)

    def test_wild_ports(self):
        self.assert_says(self.boot("wild-ports poweroff"), "every port answered\n")

    def test_wild_msrs(self):
        self.assert_says(self.boot("wild-msrs poweroff"), "every MSR answered\n")

    def test_wild_mmio(self):
        done = self.boot("wild-mmio poweroff", kernel=kernels.PVH)
        self.assert_status(done, 0)
        # What comes before it went through the virtio console's emergency write register.
        self.assertTrue(done.out.endswith(b"every page answered\n"), str(done))

    def spinning(self):
        pipe = program.subprocess.PIPE
        start = self.start("boot", *AS_PVH, "--kernel", kernels.MULTIBOOT, "--append", "spin",
                           stdin=pipe, stdout=pipe, stderr=pipe)
        self.assertEqual(start.process.stdout.readline(), b"spinning\n")
        return start

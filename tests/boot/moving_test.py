"""A guest whose vCPUs move to fresh ones while it runs: the engine's state is whole."""
import re

from harness import kernels, program, zone
from harness.case import Case


class Moving(Case):
    TIME_LIMIT = 390

    def move(self, vcpus, kernel, words, microseconds=1000):
        runner = program.PROGRAM.parent / "round_trip_run"
        done = program.subprocess.run([runner, "dbt", str(microseconds), str(vcpus), kernel, words], capture_output=True,
                                      timeout=self.TIME_LIMIT * program.PATIENCE)
        moved = re.search(rb"^moved (\d+) times$", done.stdout, re.MULTILINE)
        self.assertTrue(moved, done)
        return done, int(moved[1])

    def test_small_kernel(self):
        done, _ = self.move(1, kernels.MULTIBOOT, "hello boot cmdline memory poweroff", microseconds=100)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(b"hello from the test kernel\n", done.stdout)

    def test_debian_boot(self):
        zone.need(self)
        done, moved = self.move(1, kernels.stored()[0]["path"], "console=ttyS0 panic=-1 quiet")
        self.assertIn(b"Kernel panic - not syncing: VFS: Unable to mount root fs", done.stdout)
        self.assertGreater(moved, 100)

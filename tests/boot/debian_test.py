"""Debian's kernel on the bare machine, without a root file system: it panics, as it should."""
from harness import kernels, zone
from harness.case import Case


class Debian(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)
        self.kernel = kernels.stored()[0]

    def boot(self, append, *options, kernel=None, backend=("-V", "pvh", "--engine", "dbt"), **more):
        return self.run_program("boot", *backend, "--kernel", kernel or self.kernel["release"], "--append", append, *options,
                                timeout=240, **more)

    def test_panic_of_a_pv_guest(self):
        # It tells the hypervisor that it crashed, so it neither halts nor resets, whatever panic= says.
        for panic in ("0", "-1"):
            done = self.boot(f"console=hvc0 panic={panic}", "-c", "2", backend=("-V", "pv"))
            self.assert_status(done, 125)
            self.assertIn(b"Kernel panic - not syncing: VFS: Unable to mount root fs", done.out)
            self.assert_one_line(done, "panicked", "Unable to mount root")

    def test_pv_guest_without_memory_for_its_kernel(self):
        done = self.boot("console=hvc0", "-m", "16", backend=("-V", "pv"))
        self.assert_refused(done, self.kernel["path"], "16 MiB", "at least")

    def test_panic(self):
        done = self.boot("console=ttyS0 panic=0", "-c", "2")
        self.assert_status(done, 125)
        self.assertIn(b"Linux version " + self.kernel["release"].encode(), done.out)
        self.assertIn(b"Kernel panic - not syncing: VFS: Unable to mount root fs", done.out)
        self.assert_one_line(done, "panicked", "Unable to mount root")

    def test_panic_that_resets(self):
        # A guest that knows Xen says that it crashed instead.
        done = self.boot("console=ttyS0 panic=-1", "--no-reboot", "--abi", "none")
        self.assert_status(done, 0)
        self.assertIn(b"Kernel panic", done.out)
        self.assertEqual(done.err, b"")

    def test_console_hvc0_as_well(self):
        # The last console is the main one: where virtio-console is a module, there is none, and the UART has to do.
        done = self.boot("console=ttyS0 console=hvc0 panic=-1 quiet", "--no-reboot", "--abi", "none")
        self.assert_status(done, 0)

    def test_too_big_for_memory(self):
        done = self.boot("console=ttyS0", "-m", "16")
        self.assert_refused(done, self.kernel["path"], "16 MiB", "at least")

"""What is refused: status 125, nothing on stdout, one line on stderr that says what, where and what to do."""
import json
import os

from harness import kernels
from harness.case import Case


class Refused(Case):
    TIME_LIMIT = 120

    def boot(self, *options, kernel=kernels.MULTIBOOT, append="poweroff"):
        # These kernels have no Xen PV entry, which is what auto means on many hosts.
        how = () if {"-V", "--engine"} & set(map(str, options)) else ("--engine", "dbt", "-V", "pvh")
        return self.run_program("boot", *how, "--kernel", kernel, "--append", append, *options)

    def both(self, *options):
        """The refusals of `boot` and of `run` with these options."""
        yield self.boot(*options)
        yield self.run_program("run", "--kernel", kernels.PVH, "--initrd", "/dev/null", *options, "--", "true")

    def test_kernel_truncated(self):
        whole = kernels.PVH.read_bytes()
        for size in (40, 100, 0x1200):
            path = self.write(f"cut-at-{size}", whole[:size])
            self.assert_refused(self.boot(kernel=path), str(path), "truncated" if size > 64 else "")

    def test_bzimage_truncated(self):
        real = os.environ.get("BULKHEAD_TEST_BZIMAGE") or next((k["path"] for k in kernels.stored()), None)
        if real is None:
            self.skipTest("no kernel in the program's cache: `bulkhead kernel fetch` gets one")
        with open(real, "rb") as file:
            head = file.read(3 << 20)
        for size in (0x200, 0x240, 0x4000, len(head)):
            path = self.write(f"cut-at-{size}", head[:size])
            self.assert_refused(self.boot(kernel=path), str(path))
        with open(real, "rb") as file:
            whole = file.read()
        middle = len(whole) // 2
        corrupt = self.write("corrupt", whole[:middle] + bytes(100000) + whole[middle + 100000:])
        self.assert_refused(self.boot(kernel=corrupt), str(corrupt))

    def test_kernel_not_x86(self):
        arm = self.write("arm", kernels.patched(kernels.PVH.read_bytes(), 18, "<H", 183))
        self.assert_refused(self.boot(kernel=arm), str(arm), "x86")

    def test_kernel_of_unknown_format(self):
        for name, content in (("text", b"this is no kernel\n" * 100), ("zeros", bytes(100000)), ("one-byte", b"\x7f")):
            path = self.write(name, content)
            self.assert_refused(self.boot(kernel=path), str(path))

    def test_kernel_is_no_file(self):
        self.assert_refused(self.boot(kernel=self.folder), str(self.folder))
        self.assert_refused(self.boot(kernel=self.folder / "nothing"), "nothing")
        self.assert_refused(self.boot(kernel=self.write("empty", b"")), "empty")

    def test_kernel_too_big(self):
        # The physical address and both sizes of the first program header of an ELF64 file.
        whole = kernels.PVH.read_bytes()
        big = self.write("big", kernels.patched(whole, 64 + 40, "<Q", 300 << 20))
        self.assert_refused(self.boot("-m", "256", kernel=big), str(big), "256 MiB", "at least 3")
        far = self.write("far", kernels.patched(whole, 64 + 24, "<Q", 1 << 40))
        self.assert_refused(self.boot("-m", "256", kernel=far), str(far), "256 MiB")

    def test_initrd_does_not_fit(self):
        initrd = self.sparse("initrd", 300 << 20)
        for kernel in (kernels.PVH, kernels.MULTIBOOT):
            self.assert_refused(self.boot("-m", "256", "--initrd", initrd, kernel=kernel), str(initrd), "does not fit")

    def test_initrd_missing(self):
        self.assert_refused(self.boot("--initrd", "/nowhere/initrd", kernel=kernels.PVH), "/nowhere/initrd")

    def test_memory_out_of_range(self):
        for memory in ("0", "1", "1024G", "99999999999999999999", "-5", "lots", "512Q", ""):
            for done in self.both("-m", memory):
                self.assert_refused(done, "memory")

    def test_cpus_out_of_range(self):
        for cpus in ("0", "9", "1000000", "-1", "two", "99999999999999"):
            for done in self.both("-c", cpus):
                self.assert_refused(done)

    def test_rootfs_missing(self):
        done = self.run_program("run", "--kernel", kernels.PVH, "/nowhere/rootfs", "--", "true")
        self.assert_refused(done, "/nowhere/rootfs")

    def test_rootfs_of_unknown_format(self):
        image = self.write("image", b"no file system" * 10000)
        self.assert_refused(self.run_program("run", "--kernel", kernels.PVH, image, "--", "true"), str(image))

    def test_disk_missing(self):
        self.assert_refused(self.boot("--disk", "/nowhere/disk"), "/nowhere/disk")

    def test_command_line_mistakes(self):
        for arguments in ([], ["dance"], ["boot"], ["run"], ["run", "--"], ["boot", "--dance"], ["kernel"], ["run", "--cpus"],
                          ["boot", "--kernel", kernels.PVH, "--", "true"],
                          ["run", "--workdir", "relative", "--", "true"], ["run", "--name", "no spaces", "--", "true"],
                          ["run", "--boot-timeout", "0", "--", "true"], ["run", "--env", "=x", "--", "true"]):
            self.assert_refused(self.run_program(*arguments))

    def host(self):
        return json.loads(self.run_program("host", "--json").out)

    def test_backend_or_engine_not_there(self):
        for options in (("-V", "hvm"), ("-V", "hvm", "--engine", "dbt"), ("-V", "qemu"), ("--engine", "qemu"),
                        ("-V", "pv", "--engine", "kvm"), ("-V", "pv", "--engine", "mshv")):
            self.assert_refused(self.boot(*options))
        for backend in self.host()["virt_backends"]:
            if not backend["built_on"]:
                self.assert_refused(self.boot("-V", backend["name"]), "not built yet")
        self.assert_status(self.boot("--engine", "dbt", "-V", "pvh"), 0)

    def test_engine_the_host_lacks(self):
        for engine in self.host()["engines"]:
            if not engine["usable"]:
                self.assert_refused(self.boot("--engine", engine["name"]), engine["reason"])

    def test_pvh_is_not_replaced(self):
        engines = [engine for engine in self.host()["engines"] if engine["name"] != "dbt"]
        if any(engine["usable"] for engine in engines):
            self.skipTest("this host has hardware virtualization")
        for refusal in self.both("-V", "pvh"):
            self.assert_refused(refusal, "--engine dbt -V pvh", *[engine["reason"] for engine in engines])

    def test_cpu_model_unknown(self):
        self.assert_refused(self.boot("--cpu", "i386sx"), "i386sx")

    def test_report_cannot_be_written(self):
        self.assert_refused(self.boot("--report", "/nowhere/report"), "/nowhere/report")

    def test_command_line_too_long(self):
        self.assert_refused(self.boot(append="x" * 100000, kernel=kernels.PVH), "command line")

    def test_modules_without_multiboot(self):
        self.assert_refused(self.boot("--module", self.write("module", b"x"), kernel=kernels.PVH), "Multiboot")

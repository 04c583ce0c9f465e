"""`bulkhead run` is exact: streams, exit status, environment, root file system."""
import hashlib
import json
import os
import random

from harness import kernels, program, zone
from harness.case import Case

MEGABYTES = int(os.environ.get("BULKHEAD_TEST_MEGABYTES", "5"))


class Run(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)

    def zone(self, *command, options=(), timeout=240, **more):
        return self.run_program(*zone.command(*command, options=options), timeout=timeout, **more)

    def shell(self, script, **more):
        return self.zone("sh", "-c", script, **more)

    def assert_ran(self, done, out=b"", err=b"", status=0):
        self.assert_status(done, status)
        self.assertEqual(done.out, out, str(done))
        self.assertEqual(done.err, err, str(done))

    def test_status(self):
        for script, status in (("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255)):
            self.assert_ran(self.shell(script), status=status)

    def test_status_of_signals(self):
        for number in (9, 11, 15):
            self.assert_ran(self.shell(f"kill -{number} $$"), status=128 + number)

    def test_not_found(self):
        done = self.zone("no-such-command", "argument")
        self.assert_status(done, 127)
        self.assertEqual(done.out, b"")
        self.assert_one_line(done, "no-such-command")

    def test_not_executable(self):
        for command in ("/etc/passwd", "/etc"):
            done = self.zone(command)
            self.assert_status(done, 126)
            self.assert_one_line(done, command)

    def test_streams_are_separate(self):
        script = "echo out 1; echo err 1 >&2; printf 'out 2'; printf '\\377\\000\\r\\n' >&2; cat"
        self.assert_ran(self.shell(script, data=b"\0\1\2\r\n\x04\x03 in"), b"out 1\nout 2\0\1\2\r\n\x04\x03 in",
                        b"err 1\n\xff\0\r\n")

    def test_large_stream_is_exact(self):
        data = random.Random(1).randbytes(MEGABYTES << 20)
        path = self.write("data", data)
        with open(path, "rb") as stdin:
            done = self.shell("tee /dev/stderr", data=stdin, timeout=280)
        self.assert_status(done, 0)
        wanted = hashlib.sha256(data).hexdigest()
        self.assertEqual(hashlib.sha256(done.out).hexdigest(), wanted, f"stdout has {len(done.out)} bytes")
        self.assertEqual(hashlib.sha256(done.err).hexdigest(), wanted, f"stderr has {len(done.err)} bytes")

    def test_stdin_that_nobody_reads(self):
        done = self.shell("echo done", data=bytes(3 << 20))
        self.assert_ran(done, b"done\n")

    def test_stdin_from_nowhere(self):
        with open(os.devnull, "rb") as null:
            self.assert_ran(self.shell("wc -c", data=null), b"0\n")

    def test_output_to_a_file_is_whole(self):
        with open(self.folder / "out", "wb") as out:
            done = self.shell("seq 1 100000", stdout=out)
        self.assert_status(done, 0)
        self.assertEqual((self.folder / "out").read_bytes(), b"".join(b"%d\n" % i for i in range(1, 100001)))

    def test_output_that_nobody_wants(self):
        pipe = program.subprocess.PIPE
        start = self.start(*zone.command("yes"), stdin=program.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        self.assertEqual(start.process.stdout.read(4), b"y\ny\n")
        start.process.stdout.close()
        err = start.process.stderr.read()
        self.assertEqual(start.process.wait(240 * program.PATIENCE), 128 + 13, err)
        start.process.stderr.close()
        self.assert_nothing_left()

    def test_arguments_environment_directory_name(self):
        arguments = ["", "two words", "quote'\"$(x)", "ünïcode", "line\nbreak", "x" * 20000]
        script = 'for a; do printf "%s|" "$a"; done; printf "%s|%s|%s|%s" "$A" "$HOME" "$PWD" "$(hostname)"'
        done = self.zone("sh", "-c", script, "sh", *arguments,
                         options=["--env", "A=b c=d", "--workdir", "/usr/bin", "--name", "my-zone"])
        self.assert_ran(done, "".join(a + "|" for a in arguments).encode() + b"b c=d|/root|/usr/bin|my-zone")

    def test_what_the_zone_is(self):
        script = "nproc; id -u; grep -c ^processor /proc/cpuinfo; awk '/MemTotal/ {print $2}' /proc/meminfo; cat /proc/1/comm"
        done = self.shell(script, options=["-c", "2", "-m", "384", "--report", "report.json"])
        self.assert_status(done, 0)
        cpus, user, listed, memory, _ = done.out.decode().split()
        self.assertEqual((cpus, user, listed), ("2", "0", "2"), str(done))
        self.assertTrue(300_000 < int(memory) < 384 * 1024, str(done))
        report = json.loads((self.folder / "report.json").read_text())
        points = report["milestones_ms"]
        order = [points[name] for name in ("kernel_loaded", "agent_up", "command_started", "command_ended")]
        self.assertEqual(order, sorted(order), points)
        self.assertEqual(report["exit_status"], 0)
        self.assertLess(report["monitor_rss_bytes"], 64 << 20)

    def test_root_is_an_overlay_in_memory(self):
        script = "echo new > /etc/new && rm /etc/passwd && cat /etc/new && ls -d /etc/passwd"
        for _ in range(2):  # the second zone sees nothing of the first
            done = self.shell(script)
            self.assertEqual(done.out, b"new\n", str(done))
            self.assertNotEqual(done.status, 0)

    def test_writable_root_keeps(self):
        image = self.folder / "root.ext4"
        self.assert_ran(self.shell("echo kept > /kept && sync", options=["--writable", image]))
        self.assert_ran(self.shell("cat /kept", options=["--writable", image]), b"kept\n")

    def test_folder_as_root(self):
        root = self.folder / "root"
        (root / "bin").mkdir(parents=True)
        source = self.write("hello.c", b'#include <stdio.h>\nint main() { puts("from a folder"); return 7; }\n')
        program.subprocess.run(["gcc", "-static", "-o", root / "bin/hello", source], check=True)
        done = self.run_program("run", "--boot-timeout", "240", root, "--", "/bin/hello", timeout=280)
        self.assert_ran(done, b"from a folder\n", status=7)

    def test_disks(self):
        whole = random.Random(2).randbytes(1 << 20)
        read_only, writable = self.write("ro", whole), self.write("rw", bytes(1 << 20))
        script = ("cd /dev/bulkhead; sha256sum < disk1; cat disk1 > disk2 && sync; for d in disk1 disk2; do cat /sys/block/$(basename $(readlink $d))/ro; done; "
                  "echo x 2>/dev/null > disk1 || echo refused")
        done = self.shell(script, options=["--disk", f"{read_only},ro", "--disk", writable])
        self.assertEqual(done.out.decode().split(), [hashlib.sha256(whole).hexdigest(), "-", "1", "0", "refused"], str(done))
        self.assertEqual(writable.read_bytes(), whole)
        self.assertEqual(read_only.read_bytes(), whole)

    def test_json_line(self):
        done = self.shell("echo x", options=["--json"])
        self.assert_status(done, 0)
        self.assertEqual(done.out, b"x\n")
        line = done.err.decode()
        self.assertEqual(line.count("\n"), 1, line)
        self.assertEqual(json.loads(line[line.index("{"):])["exit_status"], 0)

    def test_guest_panic(self):
        done = self.shell("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60")
        self.assert_status(done, 125)
        lines = done.err.decode().splitlines()
        self.assertTrue(any(line.startswith("bulkhead: | ") and "RIP:" in line for line in lines), str(done))
        self.assertIn("panicked: Kernel panic - not syncing: sysrq triggered crash", lines[-1])

    def test_guest_powers_off_itself(self):
        done = self.shell("echo 1 > /proc/sys/kernel/sysrq; echo o > /proc/sysrq-trigger; sleep 60")
        self.assert_status(done, 125)
        self.assertIn("powered off", done.err.decode().splitlines()[-1])

    def test_agent_never_reached(self):
        for words, reason in (("spin", "did not reach its agent"), ("poweroff", "powered off"), ("reset", "reset"),
                              ("triple", "triple fault"), ("halt", "halted")):
            done = self.run_program("run", "-V", "pvh", "--engine", "dbt", "--kernel", kernels.PVH, "--initrd", self.write("initrd", b"x"), "--append", words,
                                    "--boot-timeout", "3", "--", "true", timeout=60)
            self.assert_status(done, 125)
            self.assertEqual(done.out, b"")
            self.assertIn(reason, done.err.decode().splitlines()[-1])

    def test_interpreter_and_translator_agree(self):
        script = "head -c 100000 /dev/zero | sha256sum; perl -e 'print join(q(,), map { sqrt($_) } 1..50)'"
        done = self.shell(script)
        slow = self.shell(script, options=["--engine-option", "dbt.mode=interpreter"], timeout=290)
        self.assert_ran(slow, done.out)

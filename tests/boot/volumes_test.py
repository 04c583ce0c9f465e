"""`--volume`: folders and files of the host in a zone, in both virt backends."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from harness import program, zone
from harness.case import Case

PV = ()
PVH = ("--engine", "dbt", "-V", "pvh")


class Volumes(Case):
    def setUp(self):
        super().setUp()
        zone.need(self)
        self.host = self.folder / "host"
        self.host.mkdir()
        self.host.chmod(0o755)

    def shell(self, script, *volumes, backend=PV, options=(), **more):
        options = ["--net", "none", *backend, *options]
        for volume in volumes:
            options += ["--volume", volume]
        return self.run_program(*zone.command("bash", "-c", script, options=options), timeout=280, **more)

    def assert_ran(self, done, out=b""):
        self.assert_status(done, 0)
        self.assertEqual(done.out, out, str(done))

    def begin(self, script):
        """A zone with the host's folder at /v, once it has made /v/ready."""
        pipe = program.subprocess.PIPE
        start = self.start(*zone.command("bash", "-c", script, options=["--net", "none", "--volume", f"{self.host}:/v"]),
                           stdin=pipe, stdout=pipe, stderr=pipe)
        deadline = time.monotonic() + 200
        while not (self.host / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return start

    def exerciser(self):
        shutil.copy(os.environ.get("BULKHEAD_EXERCISER", "build/bin/exerciser"), self.host / "exerciser")

    def all_of_posix(self, backend):
        self.exerciser()
        report = self.folder / "report.json"
        done = self.shell("/v/exerciser posix /v && /v/exerciser random /v 7 1500", f"{self.host}:/v", backend=backend,
                          options=["-c", "2", "--report", report])
        self.assert_status(done, 0)
        self.assertIn(b" 0 failures\n1500 steps: as in memory\n", done.out)
        counted = json.loads(report.read_text())["file_statistics"]
        self.assertEqual(counted["server_lost"], 0)
        self.assertEqual(counted["depth"], 0)
        self.assertEqual(counted["malformed"] + counted["unknown_nodes"] + counted["unknown_handles"], 0)
        for name in ("lookup", "create", "read", "write", "rename", "rename2", "setattr", "readdirplus", "fallocate"):
            self.assertGreater(counted["by_request"][name]["count"], 0, name)
            self.assertGreater(counted["by_request"][name]["p99_ns"], 0, name)
        self.assertEqual((self.host / "exercise/three").read_text(), "1")
        self.assertEqual((self.host / "exercise/one").stat().st_nlink, 2)

    def test_posix_pv(self):
        self.all_of_posix(PV)

    def test_posix_pvh(self):
        self.all_of_posix(PVH)

    def both_ways(self, backend):
        data = random.Random(5).randbytes(9_000_001)
        (self.host / "data").write_bytes(data)
        done = self.shell("sha256sum </v/data; cp /v/data /v/copy; echo more >>/v/copy", f"{self.host}:/v",
                          backend=backend)
        self.assert_ran(done, hashlib.sha256(data).hexdigest().encode() + b"  -\n")
        self.assertEqual(hashlib.sha256((self.host / "copy").read_bytes()).digest(),
                         hashlib.sha256(data + b"more\n").digest())

    def test_data_both_ways_pv(self):
        self.both_ways(PV)

    def test_data_both_ways_pvh(self):
        self.both_ways(PVH)

    def read_only(self, backend):
        (self.host / "a").write_text("as it was")
        script = """cat /ro/a; echo
            for change in 'echo x >/ro/a' 'touch /ro/new' 'rm /ro/a' 'chmod 777 /ro/a' 'mkdir /ro/d' 'ln /ro/a /ro/b'; do
              bash -c "$change" 2>/dev/null && echo "$change went through"
            done
            # Past the guest's own read-only mount: the server refuses, too.
            echo x 2>/dev/null >/run/bulkhead/files/volume0/a && echo written
            mount -o remount,bind,rw /ro 2>/dev/null; rm /ro/a 2>/dev/null && echo removed
            true"""
        self.assert_ran(self.shell(script, f"{self.host}:/ro:ro", backend=backend), b"as it was\n")
        self.assertEqual(sorted(os.listdir(self.host)), ["a"])
        self.assertEqual((self.host / "a").read_text(), "as it was")

    def test_read_only_pv(self):
        self.read_only(PV)

    def test_read_only_pvh(self):
        self.read_only(PVH)

    def test_files_and_several_volumes(self):
        (self.host / "one").write_text("1")
        (self.host / "two").mkdir()
        (self.host / "two/2").write_text("2")
        done = self.shell("cat /etc/one /srv/deep/down/2; echo 3 >/srv/deep/down/3; echo 4 >>/etc/one",
                          f"{self.host}/one:/etc/one", f"{self.host}/two:/srv/deep/down:rw", f"{self.host}/two:/two:ro")
        self.assert_ran(done, b"12")
        self.assertEqual((self.host / "one").read_text(), "14\n")
        self.assertEqual((self.host / "two/3").read_text(), "3\n")

    def test_links_lead_nowhere_else(self):
        secret = self.folder / "secret"
        secret.write_text("the host's")
        (self.host / "link").symlink_to(secret)
        (self.host / "up").symlink_to("..")
        (self.host / "passwd").symlink_to("/etc/passwd")
        done = self.shell("cat /v/link 2>/dev/null; ls /v/up/secret 2>/dev/null; ls /v/../v/up/bin >/dev/null; "
                          "cmp /v/passwd /etc/passwd", f"{self.host}:/v")
        self.assert_ran(done)  # every link was followed within the zone

    def test_files_belong_to_who_made_them(self):
        if os.geteuid() != 0:
            self.skipTest("only root can give files to others")
        self.host.chmod(0o777)
        done = self.shell("setpriv --reuid 1234 --regid 4321 --clear-groups touch /v/theirs; stat -c %u:%g /v/theirs",
                          f"{self.host}:/v")
        self.assert_ran(done, b"1234:4321\n")
        status = (self.host / "theirs").stat()
        self.assertEqual((status.st_uid, status.st_gid), (1234, 4321))

    def test_changes_of_the_host_are_seen(self):
        (self.host / "a").write_text("first")
        done = self.begin("cat /v/a; touch /v/ready; until [ -e /v/go ]; do sleep 0.2; done; sleep 1.5; cat /v/a "
                          "/v/new/deep")
        (self.host / "a").write_text(", then second")
        (self.host / "new").mkdir()
        (self.host / "new/deep").write_text(", and new")
        (self.host / "go").touch()
        self.assert_ran(done.finish(b"", 200), b"first, then second, and new")

    def test_mounts_that_come_later(self):
        def mount(*words):
            return subprocess.run(["mount", *map(str, words)], capture_output=True).returncode == 0
        if os.geteuid() != 0 or not mount("--bind", self.host, self.host):
            self.skipTest("only root can mount")
        self.addCleanup(subprocess.run, ["umount", "-l", self.host])
        if not mount("--make-shared", self.host):
            self.skipTest("mounts cannot be shared here")
        other = self.folder / "other"
        other.mkdir()
        (other / "file").write_text("below a mount")
        done = self.begin("mkdir /v/m; touch /v/ready; until [ -e /v/go ]; do sleep 0.2; done; sleep 1.5; cat /v/m/file; "
                          "touch /v/seen; while [ -e /v/m/file ]; do sleep 0.3; done")
        self.assertTrue(mount("--bind", other, self.host / "m"))
        (self.host / "go").touch()
        deadline = time.monotonic() + 100
        while not (self.host / "seen").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        subprocess.run(["umount", "-l", self.host / "m"], check=True)
        self.assert_ran(done.finish(b"", 200), b"below a mount")

    def what_is_mapped(self, backend):
        self.exerciser()
        done = self.shell("/v/exerciser mapped /v", f"{self.host}:/v", backend=backend)
        self.assert_status(done, 128 + signal.SIGKILL)
        self.assertEqual((self.host / "mapped").read_bytes(), b"m" * 100_000)

    def test_what_is_mapped_is_written_at_the_end_pv(self):
        self.what_is_mapped(PV)

    def test_what_is_mapped_is_written_at_the_end_pvh(self):
        self.what_is_mapped(PVH)

    def test_a_server_that_is_gone(self):
        done = self.begin("touch /v/ready; until ! [ -e /v/ready ]; do sleep 0.2; done; ls /v 2>&1; echo on")
        children = pathlib.Path(f"/proc/{done.process.pid}/task/{done.process.pid}/children").read_text().split()
        servers = [int(child) for child in children
                   if b"file-server" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]
        self.assertEqual(len(servers), 1)
        os.kill(servers[0], signal.SIGKILL)
        done = done.finish(b"", 200)
        self.assert_status(done, 0)
        self.assertTrue(done.out.endswith(b"on\n"), str(done))
        self.assertIn(b"file server has ended", done.err)

    def test_the_server_is_confined(self):
        if os.geteuid() != 0:
            self.skipTest("only root may look")
        done = self.begin("touch /v/ready; until [ -e /v/go ]; do sleep 0.2; done")
        children = pathlib.Path(f"/proc/{done.process.pid}/task/{done.process.pid}/children").read_text().split()
        for child in children:
            process = pathlib.Path(f"/proc/{child}")
            if b"file-server" not in (process / "cmdline").read_bytes():
                continue
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], "2")
            self.assertEqual(int(status["CapEff"], 16) & 1 << 21, 0, "CAP_SYS_ADMIN")
            self.assertEqual(int(status["CapBnd"], 16), 0)
            self.assertEqual(sorted(os.listdir(process / "root")), ["0", "fd"])
            self.assertEqual((process / "net/dev").read_text().count("\n"), 3, "a network of its own: lo and two titles")
        (self.host / "go").touch()
        self.assert_ran(done.finish(b"", 200))

    def test_refusals(self):
        for volume, word in ((f"{self.host}/none:/v", "No such file"), ("/dev/null:/v", "neither a folder nor"),
                             (f"{self.host}:v", "absolute"), (f"{self.host}", "HOST:GUEST"), (f"{self.host}:/", "not /"),
                             (":/v", "HOST:GUEST")):
            done = self.shell("true", volume)
            self.assert_status(done, 125)
            self.assert_one_line(done, word)
        done = self.shell("true", f"{self.host}:/etc/passwd")
        self.assert_status(done, 125)
        self.assert_one_line(done, "/etc/passwd")

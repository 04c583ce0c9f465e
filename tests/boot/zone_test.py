"""`bulkhead zone`: what one can do to zones that run, and what is left of them."""
import json
import signal
import socket
import subprocess

from harness import kernels, zone
from harness.case import Case

# Also /sbin/poweroff, which Linux starts when it is asked to power off (but it reboots by itself if there is no reboot).
INIT = rb"""
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>
int main(int count, char** words) {
  if (strstr(words[0], "poweroff") != NULL) return reboot(RB_POWER_OFF);
  (void)!write(1, "up\n", 3);
  for (;;) pause();
}
"""


def newc(name, data, mode):
    """One member of a cpio archive."""
    name = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


class Zone(Case):
    TIME_LIMIT = 300

    def setUp(self):
        super().setUp()
        zone.need(self)
        self.runtime = self.folder / "runtime"

    def options(self, popen):
        popen["environment"] = {"BULKHEAD_RUNTIME_DIR": str(self.runtime)} | popen.get("environment", {})
        return super().options(popen)

    def ask(self, *arguments, status=0):
        start = self.start("zone", *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        done = start.finish(timeout=60)
        self.assert_status(done, status)
        return done

    def open(self, script, *options, wait_for=b"ready\n"):
        pipe = subprocess.PIPE
        start = self.start(*zone.command("sh", "-c", script, options=["-V", "pv", *options]), stdin=pipe, stdout=pipe,
                           stderr=pipe)
        self.assertEqual(start.process.stdout.read(len(wait_for)), wait_for)
        return start

    def end(self, start, status):
        done = start.finish(timeout=30)
        self.assert_status(done, status)
        self.assert_nothing_left()
        self.assertEqual(list((self.runtime / "zones").iterdir()), [])
        return done

    def test_disk_comes_and_goes(self):
        disk = self.sparse("disk.img", 8 << 20)
        start = self.open("echo ready; until [ -b /dev/xvdb ]; do sleep 0.1; done; seq 1 100000 > /dev/xvdb; sync; "
                          "sha256sum /dev/xvdb; while [ -e /dev/xvdb ]; do sleep 0.1; done; echo gone; exec sleep 1000",
                          "--name", "hot")
        self.assertEqual(self.ask("disk-add", "hot", "--disk", "disk.img").out, b"xvdb\n")
        self.assert_refused(self.ask("disk-add", "hot", "--disk", "disk.img", status=125), "in use")
        self.assert_refused(self.ask("disk-add", "hot", "--disk", "nothing.img", status=125), "nothing.img")
        shown = start.process.stdout.readline().decode()
        seen = json.loads(self.ask("inspect", "hot").out)
        self.assertEqual([(d["name"], d["state"]) for d in seen["devices"] if d["kind"] == "vbd"],
                         [("xvda", "connected"), ("xvdb", "connected")])
        self.assertEqual(seen["disks"][1]["file"], str(disk.resolve()))
        self.assert_refused(self.ask("disk-remove", "hot", "xvda", status=125), "root")
        self.assert_refused(self.ask("disk-remove", "hot", "xvdq", status=125), "xvda, xvdb")
        self.ask("disk-remove", "hot", "xvdb")
        self.assertEqual(start.process.stdout.readline(), b"gone\n")
        wanted = b"".join(b"%d\n" % i for i in range(1, 100001))
        self.assertEqual(disk.read_bytes()[:len(wanted)], wanted)
        self.assertIn(subprocess.run(["sha256sum", disk], capture_output=True, check=True).stdout.decode().split()[0], shown)
        self.assertEqual(self.ask("disk-add", "hot", "--disk", "disk.img,ro").out, b"xvdb\n")  # its name is free again
        self.ask("stop", "hot")
        self.end(start, 128 + signal.SIGTERM)

    def test_stop_lets_the_command_answer(self):
        start = self.open("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done", "--name", "one")
        self.assert_refused(self.ask("reboot", "one", status=125), "cannot be rebooted")
        self.assertEqual(self.ask("stop", "one").err, b"")
        self.assertEqual(self.end(start, 9).out, b"bye\n")

    def test_stop_when_the_command_does_not_listen(self):
        start = self.open("trap '' TERM; echo ready; while :; do sleep 1; done", "--name", "one")
        self.assertIn("was stopped", self.ask("stop", "one", "-t", "1").err.decode())
        self.end(start, 128 + signal.SIGTERM)

    def test_kill_and_names(self):
        start = self.open("echo ready; exec sleep 1000", "--name", "one")
        refused = self.run_again("run", "--name", "one", "--", "true")
        self.assert_refused(refused, "--name one", "is running")
        other = self.open("echo ready; exec sleep 1000")  # nameless zones have no clash
        listed = json.loads(self.ask("list", "--json").out)
        self.assertEqual([z["name"] for z in listed], ["one", f"zone-{other.process.pid}"])
        self.assertEqual(listed[0]["pid"], start.process.pid)
        self.assertEqual((listed[0]["virt_backend"], listed[0]["engine"], listed[0]["state"]), ("pv", "dbt", "running"))
        self.ask("kill", f"zone-{other.process.pid}")
        self.assert_status(other.finish(timeout=30), 128 + signal.SIGKILL)
        self.ask("kill", "one")
        self.end(start, 128 + signal.SIGKILL)
        self.assert_refused(self.ask("kill", "one", status=125), "no zone 'one' is running")

    def run_again(self, *arguments):
        pipe = subprocess.PIPE
        return self.start(*arguments, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe).finish(timeout=60)

    def test_name_of_a_zone_that_was_killed(self):
        start = self.open("echo ready; exec sleep 1000", "--name", "one")
        start.signal(signal.SIGKILL)
        start.finish(timeout=30)
        self.assertEqual([p.name for p in (self.runtime / "zones").iterdir()], ["one.sock"])
        again = self.open("echo ready; exec sleep 1000", "--name", "one")
        self.ask("stop", "one")
        self.end(again, 128 + signal.SIGTERM)

    def test_clients_that_misbehave(self):
        start = self.open("echo ready; exec sleep 1000", "--name", "one")
        clients = []
        for data in (b"", b"{\"exec", b"x" * 70000, b"[" * 60000 + b"\n", b"{\"execute\":\"inspect\"}\n" * 500):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(self.runtime / "zones/one.sock"))
            client.setblocking(False)
            try:
                client.send(data)
            except OSError:
                pass
            clients.append(client)
        self.assertEqual(json.loads(self.ask("inspect", "one").out)["name"], "one")
        self.ask("kill", "one")
        for client in clients:
            client.close()
        self.end(start, 128 + signal.SIGKILL)

    # As a toolstack that cancels a suspend would leave it: the call returns 1, all vCPUs, grants and event channels go on.
    def suspend(self, *backend):
        write = ('open F, "+<", "/dev/xen/xenbus" or die $!; my $b = "control/shutdown\\0suspend"; '
                 'syswrite F, pack("VVVV", 11, 1, 0, length $b) . $b; sysread F, my $r, 16')
        script = ("sum() { echo 3 > /proc/sys/vm/drop_caches; sha256sum $(readlink -f $(command -v perl)); }; sum > /tmp/before; "
                  f"for n in 1 2 3; do perl -e '{write}'; until [ $(dmesg | grep -c 'suspending xenstore') = $n ]; do "
                  "sleep 0.2; done; sleep 1; sum | cmp - /tmp/before || exit 3; done; "
                  "for cpu in 0 1; do taskset -c $cpu sleep 0.1 || exit 4; done; echo alive $(nproc); cat /sys/hypervisor/guest_type")
        done = self.run_again(*zone.command("sh", "-c", script, options=[*backend, "-c", "2", "--report", "report.json"]))
        self.assert_status(done, 0)
        report = json.loads((self.folder / "report.json").read_text())
        return done.out, report["engine_counters"]

    def test_suspend_is_cancelled_and_the_zone_goes_on(self):
        out, counters = self.suspend("-V", "pv")
        self.assertEqual(out, b"alive 2\nPV\n")
        self.assertEqual(counters["cancelled_suspends"], 3)

    def test_suspend_of_a_pvh_zone_is_cancelled_too(self):
        out, counters = self.suspend("-V", "pvh", "--engine", "dbt")
        self.assertEqual(out, b"alive 2\nPVH\n")
        self.assertEqual(counters["xen_cancelled_suspends"], 3)

    def boot(self, *backend, console):
        source = self.write("init.c", INIT)
        subprocess.run(["gcc", "-static", "-Os", "-o", self.folder / "init", source], check=True)
        program = (self.folder / "init").read_bytes()
        archive = (newc("dev", b"", 0o40755) + newc("sbin", b"", 0o40755) + newc("init", program, 0o100755) +
                   newc("sbin/poweroff", program, 0o100755))
        self.write("initrd", archive + newc("TRAILER!!!", b"", 0))
        pipe = subprocess.PIPE
        start = self.start("boot", *backend, "--name", "bare", "--kernel", kernels.stored()[0]["release"], "--initrd",
                           "initrd", "--append", f"console={console} quiet", stdin=pipe, stdout=pipe, stderr=pipe)
        self.await_up(start)
        return start

    def await_up(self, start):
        while line := start.process.stdout.readline():
            if line.strip() == b"up":
                return
        self.fail("the guest did not come up")

    def test_bare_kernel_reboots_and_powers_off(self):
        start = self.boot("-V", "pv", console="hvc0")
        disk = self.sparse("disk.img", 1 << 20)
        self.assertEqual(self.ask("disk-add", "bare", "--disk", disk).out, b"xvda\n")
        self.ask("reboot", "bare")
        self.await_up(start)
        seen = json.loads(self.ask("inspect", "bare").out)
        self.assertEqual((seen["resets"], [d["name"] for d in seen["disks"]]), (1, ["xvda"]))
        self.assertEqual(self.ask("stop", "bare", "-t", "60").err, b"")
        self.end(start, 0)

    def test_bare_pvh_kernel_reboots_and_powers_off(self):
        start = self.boot("-V", "pvh", "--engine", "dbt", console="ttyS0")
        self.sparse("disk.img", 1 << 20)
        self.assert_refused(self.ask("disk-add", "bare", "--disk", "disk.img", status=125), "cannot take a disk")
        self.ask("reboot", "bare")
        self.await_up(start)
        seen = json.loads(self.ask("inspect", "bare").out)
        self.assertEqual(seen["resets"], 1)
        self.assertEqual(self.ask("stop", "bare", "-t", "60").err, b"")
        self.end(start, 0)

    def test_pvh_zone_without_an_abi_cannot_be_asked(self):
        start = self.boot("-V", "pvh", "--engine", "dbt", "--abi", "none", console="ttyS0")
        for request in ("reboot", "stop"):
            self.assert_refused(self.ask(request, "bare", status=125), "no way to ask")
        self.ask("kill", "bare")
        self.end(start, 128 + signal.SIGKILL)

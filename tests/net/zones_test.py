"""Zones that talk: over passt, taps, bridges and sockets, on the machines pv and pvh."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import kernels, program  # noqa: E402
from space import Content, DhcpServer, NetCase, OUTSIDE4, OUTSIDE6, NAME, run  # noqa: E402

GET, GET_MUCH = "curl -fsS --max-time 100", "curl -fsS --max-time 500"


class Zones(NetCase):
    # ---- the user network

    def by_name_and_address(self, machine):
        script = (f"{GET} http://{OUTSIDE4}:8000/3 | sha256sum; {GET} http://[{OUTSIDE6}]:8000/3 | sha256sum; "
                  f"{GET} -4 http://{NAME}:8000/3 | sha256sum; {GET} -6 http://{NAME}:8000/3 | sha256sum; hostname")
        done = self.in_zone(machine, "--net", "user", "--name", "talker", "--report", "r.json", script=script)
        self.assertEqual(done.out.decode(), f"{Content.digest(3)}  -\n" * 4 + "talker\n", str(done))
        self.assertEqual(done.err, b"")
        queue = json.loads((self.folder / "r.json").read_text())["network_statistics"]["net0"]["queues"][0]
        self.assertGreaterEqual(queue["in"]["bytes"], 12_000_000)
        for way in ("in", "out"):
            for name in ("packets", "dropped", "deepest", "p50_ns", "p99_ns"):
                self.assertIn(name, queue[way])
            self.assertGreater(queue[way]["p50_ns"], 0)
        self.assert_nothing_left()

    def test_user_by_name_and_address_pv(self):
        self.by_name_and_address("pv")

    def test_user_by_name_and_address_pvh(self):
        self.by_name_and_address("pvh")

    def test_user_by_dhcp(self):
        done = self.in_zone("pvh", "--net", "user,ip=dhcp,ipv6=off", script=f"ip -4 -br addr show eth0; {GET} http://{OUTSIDE4}:8000/1 | sha256sum")
        self.assertIn("10.0.2.15/24", done.out.decode())
        self.assertIn(Content.digest(1), done.out.decode())

    def published(self, machine):
        zone = self.zone(machine, "-p", "127.0.0.1:18080:80", "-p", "[::1]:18081:80",
                         script="nginx -g 'daemon off;' >/dev/null & until curl -s localhost >/dev/null; do sleep 0.1; done; echo up; cat; kill %1")
        self.wait_for_line(zone, b"up\n")
        for url in ("http://127.0.0.1:18080/", "http://[::1]:18081/"):
            page = subprocess.run(["curl", "-fsS", "--max-time", "60", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertIn(b"Welcome to nginx", page.stdout, f"{url}: {page.stderr}")
        self.end(zone)

    def test_user_published_port_pv(self):
        self.published("pv")

    def test_user_published_port_pvh(self):
        self.published("pvh")

    def test_user_port_that_is_taken(self):
        zone = self.zone("pvh", "-p", "127.0.0.1:8000:80", script="true")
        done = zone.finish(timeout=120)
        self.assert_refused(done, "passt says")

    def gigabyte(self, machine, *net):
        # In and out again, the same bytes; both sums by those who did not send them.
        script = (f"{GET_MUCH} http://$0:8000/1000 | tee >(sha256sum >&2) | {GET_MUCH} -T - http://$0:8000/".replace("$0", net[1]))
        done = self.zone(machine, "--net", net[0], script=script).finish(timeout=550)
        self.assert_status(done, 0)
        self.assertIn(Content.digest(1000).encode(), done.err)
        self.assertEqual(Content.received, [(1_000_000_000, Content.digest(1000))])

    def test_user_gigabyte_each_way_pv(self):
        self.gigabyte("pv", "user", OUTSIDE4)

    def test_user_gigabyte_each_way_pvh(self):
        self.gigabyte("pvh", "user", OUTSIDE4)

    def test_user_gigabyte_each_way_ipv6(self):
        self.gigabyte("pvh", "user", f"[{OUTSIDE6}]")

    def test_passt_dies(self):
        zone = self.zone("pvh", "--net", "user", script="echo up; read; sleep 0.3; cat /sys/class/net/eth0/carrier; curl -s --max-time 1 "
                         f"http://{OUTSIDE4}:8000/1 >/dev/null || echo unreachable")
        self.wait_for_line(zone, b"up\n")
        passt = [pid for pid in program.marked_processes(zone.mark) if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("passt")]
        # It jails itself so well that its environment is not to be read: then by its parent.
        passt = passt or [int(pid) for pid in subprocess.run(["pgrep", "-P", str(zone.process.pid), "passt"], stdout=subprocess.PIPE,
                                                             text=True).stdout.split()]
        self.assertEqual(len(passt), 1)
        os.kill(passt[0], signal.SIGKILL)
        done = zone.finish(b"\n", timeout=120)
        self.assert_status(done, 0)
        self.assertEqual(done.out, b"0\nunreachable\n")
        self.assert_one_line(done, "passt", "gone")

    # ---- taps

    def tap(self, machine):
        other = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; ip tuntap add dev tz mode tap multi_queue vnet_hdr; "
                                  "ip link set tz mtu 9000 up; ip addr add 10.9.0.1/24 dev tz; ip -6 addr add fd09::1/64 dev tz nodad; "
                                  f"echo ready; exec {sys.executable} -c 'from space import *; Server((\"::\", 8000), Content).serve_forever()'"],
                                 stdout=subprocess.PIPE, cwd=pathlib.Path(__file__).resolve().parent)
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.assertEqual(other.stdout.readline(), b"ready\n")
        time.sleep(1)
        net = f"tap=tz,netns=/proc/{other.pid}/ns/net,ip=10.9.0.2/24,ip=fd09::2/64"
        script = (f"cat /sys/class/net/eth0/mtu; ping -q -c 3 -s 8900 -M do 10.9.0.1 >/dev/null && echo large; "
                  f"{GET} http://10.9.0.1:8000/50 | sha256sum; {GET} http://[fd09::1]:8000/50 | sha256sum; echo up; cat")
        zone = self.zone(machine, "-c", "2", "--net", net, script=script)
        for line in (b"9000\n", b"large\n", *[f"{Content.digest(50)}  -\n".encode()] * 2, b"up\n"):
            self.wait_for_line(zone, line)
        for status in pathlib.Path(f"/proc/{zone.process.pid}/task").glob("*/status"):
            held = int(re.search(r"CapEff:\s*(\S+)", status.read_text())[1], 16) | int(re.search(r"CapPrm:\s*(\S+)", status.read_text())[1], 16)
            self.assertEqual(held & ((1 << 12) | (1 << 13) | (1 << 21)), 0, "NET_ADMIN, NET_RAW and SYS_ADMIN are given up")
        self.end(zone)

    def test_tap_in_a_namespace_pv(self):
        self.tap("pv")

    def test_tap_in_a_namespace_pvh(self):
        self.tap("pvh")

    def tap_gigabyte(self, machine):
        run("ip", "tuntap", "add", "dev", "tz", "mode", "tap", "multi_queue", "vnet_hdr")
        run("ip", "addr", "add", "10.9.0.1/24", "dev", "tz")
        run("ip", "link", "set", "tz", "up")
        self.gigabyte(machine, "tap=tz,ip=10.9.0.2/24", "10.9.0.1")

    def test_tap_gigabyte_each_way_pv(self):
        self.tap_gigabyte("pv")

    def test_tap_gigabyte_each_way_pvh(self):
        self.tap_gigabyte("pvh")

    def test_tap_is_removed(self):
        run("ip", "tuntap", "add", "dev", "tz", "mode", "tap", "vnet_hdr")
        run("ip", "link", "set", "tz", "up")
        zone = self.zone("pvh", "--net", "tap=tz,ip=10.9.0.2/24", script="cat /sys/class/net/eth0/carrier; read; sleep 0.3; "
                         "cat /sys/class/net/eth0/carrier; echo on")
        self.wait_for_line(zone, b"1\n")
        run("ip", "link", "del", "tz")
        done = zone.finish(b"\n", timeout=120)
        self.assert_status(done, 0)
        self.assertEqual(done.out, b"0\non\n")
        self.assert_one_line(done, "tap device tz", "gone")

    def test_a_lease_is_renewed(self):
        run("ip", "tuntap", "add", "dev", "tz", "mode", "tap", "vnet_hdr")
        run("ip", "addr", "add", "10.9.0.1/24", "dev", "tz")
        run("ip", "link", "set", "tz", "up")
        server = DhcpServer("tz", seconds=4)
        show = "ip -4 -br addr show eth0 | awk '{print $3}'"
        # It goes on while it is renewed, and goes by itself when nobody answers any more.
        zone = self.zone("pvh", "--net", "tap=tz,ip=dhcp", script=f"{show}; read; {show}; read; while ip -4 addr show eth0 | grep -q inet; do sleep 0.2; "
                         "done; echo none; read; until ip -4 addr show eth0 | grep -q inet; do sleep 0.2; done; " + show)
        self.wait_for_line(zone, b"10.9.0.7/24\n")
        while server.asked.count((3, "10.9.0.7")) < 4:  # at half of the time each: longer than one lease
            self.assertIsNone(zone.process.poll())
            time.sleep(0.1)
        for word, silent in ((b"10.9.0.7/24\n", False), (b"none\n", True), (b"10.9.0.7/24\n", False)):
            server.silent = silent
            zone.process.stdin.write(b"\n")
            zone.process.stdin.flush()
            self.wait_for_line(zone, word)
        self.assert_status(zone.finish(timeout=60), 0)

    # ---- two zones

    def test_a_flood_is_the_flooders_own(self):
        """One zone sends as much as it can; another one's round trips on the same bridge all come back, and it moves its bytes."""
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("10.88.0.1", 9))
        self.addCleanup(sink.close)
        flood = self.zone("pvh", "--name", "flood", "--net", "bridge=br0,ip=10.88.0.2/24", "--report", "flood.json",
                          script="for size in 1400 60000; do dd if=/dev/zero bs=$size status=none >/dev/udp/10.88.0.1/9 & done; echo up; read; kill %1 %2")
        self.wait_for_line(flood, b"up\n")
        done = self.in_zone("pv", "--net", "bridge=br0,ip=10.88.0.3/24", script="ping -q -c 100 -i 0.02 10.88.0.1 | grep -o ' 0% packet loss'; "
                            f"{GET} http://10.88.0.1:8000/20 | sha256sum")
        self.assertEqual(done.out, f" 0% packet loss\n{Content.digest(20)}  -\n".encode(), str(done))
        # Whatever it sent, its monitor holds none of it.
        self.assert_status(flood.finish(b"\n", timeout=120), 0)
        report = json.loads((self.folder / "flood.json").read_text())
        self.assertGreater(report["network_statistics"]["net0"]["queues"][0]["out"]["packets"], 10_000)
        self.assertLess(report["monitor_rss_bytes"], 256 << 20)

    def pair(self, first, second, net_of, prepare="true", address="10.88.0.2"):
        server = self.zone(first, "--name", "one", "--net", net_of(2), script=f"{prepare} >/dev/null; nginx -g 'daemon off;' >/dev/null & "
                           "until curl -s localhost >/dev/null; do sleep 0.1; done; echo up; cat; kill %1")
        self.wait_for_line(server, b"up\n")
        done = self.in_zone(second, "--name", "two", "--net", net_of(3), script=f"{prepare} >/dev/null; ping -q -c 5 -i 0.2 {address} | grep -o '5 received'; "
                            f"{GET} http://{address}/ | grep -o 'Welcome to nginx' | head -1")
        self.assertEqual(done.out, b"5 received\nWelcome to nginx\n", str(done))
        self.end(server)

    def test_two_zones_on_a_bridge(self):
        for arguments in (("net", "create", "br0", "--subnet", "10.88.0.1/24"), ("net", "list")):
            done = self.run_program(*arguments) if arguments[1] == "list" else self.start(*arguments).finish()
            self.assert_status(done, 0)
        self.assertEqual(done.out, b"br0 10.88.0.1/24\n")
        self.pair("pvh", "pv", lambda number: "bridge=br0")
        # To the world by NAT, and by the host's name server.
        done = self.in_zone("pvh", "--net", "bridge=br0", script=f"{GET} http://{NAME}:8000/1 | sha256sum")
        self.assertIn(Content.digest(1), done.out.decode())
        self.assert_status(self.start("net", "remove", "br0").finish(), 0)
        self.assert_nothing_left()

    def test_two_zones_and_a_vlan(self):
        modules = pathlib.Path(kernels.stored()[0]["path"]).parent.parent / "lib/modules"
        names = ("llc", "stp", "garp", "mrp", "8021q")
        for name in names:
            found = [path for path in modules.rglob("*.ko*") if path.name.split(".")[0] == name][0]
            Content.files[found.name] = found.read_bytes()
        release = next(modules.iterdir()).name
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        load = "; ".join(f"{GET} -o /tmp/{file} http://10.88.0.1:8000/module/{file} && insmod /tmp/{file}" for file in Content.files)
        prepare = (f"[ $(uname -r) = {release} ] && {load}; ip link add link eth0 name eth0.5 type vlan id 5; ip link set eth0.5 up; "
                   "ip addr add 10.5.0.$([ $(hostname) = one ] && echo 2 || echo 3)/24 dev eth0.5")
        self.pair("pvh", "pv", lambda number: f"bridge=br0,ip=10.88.0.{number}/24", prepare=prepare, address="10.5.0.2")

    def test_two_zones_and_a_socket(self):
        self.pair("pv", "pvh", lambda number: f"socket={self.folder}/joint,ip=10.88.0.{number}/24")

    # ---- limits, and hosts where it cannot be

    def test_a_limit_is_kept(self):
        began = time.monotonic()
        done = self.in_zone("pvh", "--net", "user,in-bytes=2M", "--report", "r.json", script=f"{GET} http://{OUTSIDE4}:8000/10 | sha256sum")
        self.assertIn(Content.digest(10), done.out.decode())
        self.assertGreater(time.monotonic() - began, 4)  # 10 MB at 2 MiB a second
        queue = json.loads((self.folder / "r.json").read_text())["network_statistics"]["net0"]["queues"][0]
        self.assertGreater(queue["in"]["throttled"], 0)

    def test_no_default_route(self):
        run("ip", "route", "del", "default")
        run("ip", "-6", "route", "del", "default")
        done = self.zone("pvh", "--net", "user", script="true").finish(timeout=60)
        self.assert_refused(done, "no default route", "--net none")
        done = self.zone("pvh", script="ls /sys/class/net").finish(timeout=200)
        self.assert_status(done, 0)
        self.assertEqual(done.out, b"lo\n")
        self.assert_one_line(done, "no network", "--net none")

    def test_devices_that_are_not_there(self):
        for net, words in (("bridge=nobr", ("no such bridge", "bulkhead net create nobr")), ("tap=lo", ("lo",)),
                           ("tap=t,netns=nowhere", ("/run/netns/nowhere",)), (f"socket={self.folder}", ("is no socket",))):
            done = self.zone("pvh", "--net", net, script="true").finish(timeout=60)
            self.assert_refused(done, *words)

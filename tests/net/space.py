"""A network namespace of the test's own, servers in it, and zones that start in it."""
import ctypes
import hashlib
import http.server
import os
import pathlib
import random
import socket
import socketserver
import struct
import subprocess
import threading

from harness import program
from harness.case import Case

OUTSIDE4, OUTSIDE6, NAME = "198.51.100.1", "2001:db8:1::1", "server.test"
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MACHINES = {"pv": ("-V", "pv", "--engine", "dbt"), "pvh": ("-V", "pvh", "--engine", "dbt")}
MILLION = 1_000_000


def run(*command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


class Content(http.server.BaseHTTPRequestHandler):
    """GET /N: N million bytes that are the same each time. GET /module/NAME: a file. PUT: remembers what came, by its hash."""

    protocol_version = "HTTP/1.1"
    files, received = {}, []

    def log_message(self, *_):
        pass

    @staticmethod
    def pieces(millions):
        block = random.Random(5).randbytes(MILLION)
        for number in range(millions):
            yield block[number % 1000:] + block[:number % 1000]

    @classmethod
    def digest(cls, millions):
        total = hashlib.sha256()
        for piece in cls.pieces(millions):
            total.update(piece)
        return total.hexdigest()

    def do_GET(self):
        name = self.path.rsplit("/", 1)[1]
        data = [self.files[name]] if name in self.files else self.pieces(int(name))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data[0]) if name in self.files else int(name) * MILLION))
        self.end_headers()
        for piece in data:
            self.wfile.write(piece)

    def do_PUT(self):
        total, size = hashlib.sha256(), 0
        while length := int(self.rfile.readline().split(b";")[0], 16):  # curl -T - sends chunks
            data = self.rfile.read(length)
            total.update(data)
            size += len(data)
            self.rfile.readline()
        self.rfile.readline()
        self.received.append((size, total.hexdigest()))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    address_family, daemon_threads = socket.AF_INET6, True


def answer_names(sock):
    """A name server that knows one name."""
    while True:
        query, client = sock.recvfrom(2048)
        end = query.index(b"\0", 12) + 5
        kind = struct.unpack(">H", query[end - 4:end - 2])[0]
        known = query[12:end - 5] == b"\x06server\x04test"
        data = {1: socket.inet_aton(OUTSIDE4), 28: socket.inet_pton(socket.AF_INET6, OUTSIDE6)}.get(kind) if known else None
        answer = b"" if data is None else b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
        sock.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(answer) > 0, 0, 0) + query[12:end] + answer, client)


class DhcpServer:
    """Gives 10.9.0.7 on one device for a few seconds each time, and remembers who asked: (message type, the address that was its own)."""

    def __init__(self, device, seconds):
        self.seconds, self.asked, self.silent = seconds, [], False
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option, value in ((socket.SO_REUSEADDR, 1), (socket.SO_BROADCAST, 1), (socket.SO_BINDTODEVICE, device.encode())):
            self.sock.setsockopt(socket.SOL_SOCKET, option, value)
        self.sock.bind(("", 67))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query = self.sock.recv(2048)
            options = {query[at]: query[at + 2:at + 2 + query[at + 1]] for at in self.places(query)}
            kind = options[53][0]
            self.asked.append((kind, socket.inet_ntoa(query[12:16])))
            if self.silent:
                continue
            answer = bytearray(query[:240])
            answer[0], answer[16:20] = 2, socket.inet_aton("10.9.0.7")
            answer += bytes([53, 1, {1: 2, 3: 5}[kind], 51, 4]) + struct.pack(">I", self.seconds)
            answer += b"\x01\x04" + socket.inet_aton("255.255.255.0") + b"\x36\x04" + socket.inet_aton("10.9.0.1") + b"\xff"
            self.sock.sendto(answer, ("255.255.255.255", 68))

    @staticmethod
    def places(query):
        at = 240
        while at < len(query) and query[at] != 255:
            yield at
            at += 2 + query[at + 1]


class NetCase(Case):
    TIME_LIMIT = 600

    def setUp(self):
        state = os.environ.get("BULKHEAD_NET_STATE")
        text = pathlib.Path(state).read_text() if state and os.path.exists(state) else "net_setup.py has not run"
        if text != "ready":
            self.skipTest(text)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
            self.skipTest("no network namespaces here")
        run("mount", "--make-rprivate", "/")
        super().setUp()
        self.rootfs = os.environ["BULKHEAD_NET_ROOTFS"]
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1")
        for device in ("d0", "d1"):
            run("ip", "link", "set", device, "up")
        run("ip", "addr", "add", OUTSIDE4 + "/24", "dev", "d0")
        run("ip", "addr", "add", OUTSIDE6 + "/64", "dev", "d0", "nodad")
        run("ip", "route", "add", "default", "via", "198.51.100.254")
        run("ip", "-6", "route", "add", "default", "via", "2001:db8:1::fe", "dev", "d0")
        resolver = self.write("resolv.conf", b"nameserver 198.51.100.1\n")
        run("mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf"))
        Content.received, Content.files = [], {}
        self.server = Server(("::", 8000), Content)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind(("198.51.100.1", 53))
        threading.Thread(target=answer_names, args=(names,), daemon=True).start()
        self._traces = type(self._traces)(self.temporary)  # as it is from here on

    def options(self, popen):
        popen["environment"] = {"BULKHEAD_RUNTIME_DIR": str(self.folder / "runtime")} | popen.get("environment", {})
        return super().options(popen)

    def zone(self, machine, *options, script, memory=512):
        """Starts one; its standard output is a pipe."""
        return self.start("run", *MACHINES[machine], "-m", str(memory), "--boot-timeout", "240", *options, self.rootfs, "--", "bash", "-c",
                          script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def in_zone(self, machine, *options, script, timeout=300, memory=512):
        done = self.zone(machine, *options, script=script, memory=memory).finish(timeout=timeout)
        self.assert_status(done, 0)
        return done

    def wait_for_line(self, zone, line):
        got = zone.process.stdout.readline()
        if got != line:
            self.fail(f"{got!r} instead of {line!r}: {zone.process.stderr.read() if zone.process.poll() is not None else ''}")

    def end(self, zone):
        """Closes the zone's input, which it waits for."""
        done = zone.finish(timeout=120)
        self.assert_status(done, 0)
        return done

"""Images of ours as qemu-nbd serves them: what its clients read, and what they write, is what we say is there."""
import os, time
from images import *

if shutil.which("qemu-nbd") is None:
    print("skipped: qemu-nbd (package qemu-utils) is not installed")
    sys.exit(77)
MIB = 1 << 20
SECRET = ["--object", "secret,id=k,file=key"]
KINDS = ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "refcount_bits=64", "lazy_refcounts=on",
         "extended_l2=on", "compression_type=zstd"]


class Served:
    """An image under qemu-nbd while the block lasts; its value is the address for clients."""

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        self.socket = os.path.join(FOLDER, "nbd.sock")
        self.server = subprocess.Popen(["qemu-nbd", "-t", "-k", self.socket, *self.options], stderr=subprocess.PIPE, text=True)
        while not os.path.exists(self.socket):
            if self.server.poll() is not None:
                raise AssertionError(f"qemu-nbd {' '.join(self.options)}: {self.server.stderr.read()}")
            time.sleep(0.01)
        return f"nbd:unix:{self.socket}"

    def __exit__(self, *_):
        self.server.terminate()
        error = self.server.communicate()[1]
        assert self.server.returncode == 0, f"qemu-nbd: {self.server.returncode}: {error}"
        if os.path.exists(self.socket):
            os.remove(self.socket)


def served_is(raw, *options):
    with Served("-r", *options) as address:
        peer("compare", "-f", "raw", "-F", "raw", raw, address)


def contents():
    raw = make_raw("a.raw", 12 * MIB, seed=11)
    for kind in KINDS:
        for more in ([], ["-c"]):
            ours("convert", "-f", "raw", *more, "-O", "qcow2", *(["-o", kind] if kind else []), raw, "a.qcow2")
            served_is(raw, "-f", "qcow2", "a.qcow2")


def chains_and_snapshots():
    raw = make_raw("base.raw", 8 * MIB, seed=12)
    ours("convert", "-f", "raw", "-O", "qcow2", raw, "base.qcow2")
    ours("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "mid.qcow2")
    ours("bench", "-w", "-c", "200", "-d", "8", "-s", "4096", "-S", "40k", "--pattern", "5", "mid.qcow2")
    ours("create", "-f", "qcow2", "-o", "extended_l2=on", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2", "10M")
    ours("bench", "-w", "-c", "100", "-d", "8", "-s", "3k", "-S", "90k", "--pattern", "6", "top.qcow2")
    ours("convert", "-O", "raw", "top.qcow2", "then.raw")
    ours("snapshot", "-c", "then", "top.qcow2")
    ours("bench", "-w", "-c", "100", "-d", "8", "-s", "64k", "-S", "70k", "--pattern", "7", "top.qcow2")
    ours("convert", "-O", "raw", "top.qcow2", "now.raw")
    served_is("now.raw", "-f", "qcow2", "top.qcow2")
    served_is("then.raw", "-l", "snapshot.name=then", "top.qcow2")


def external_data_file():
    raw = make_raw("a.raw", 6 * MIB, seed=13)
    for kind in ("data_file=d.bin", "data_file=d.bin,data_file_raw=on"):
        ours("convert", "-f", "raw", "-O", "qcow2", "-o", kind, raw, "a.qcow2")
        served_is(raw, "-f", "qcow2", "a.qcow2")


def clients_write():
    for kind in KINDS:
        ours("create", "-f", "qcow2", *(["-o", kind] if kind else []), "a.qcow2", "8M")
        ours("bench", "-w", "-c", "50", "-d", "8", "-s", "64k", "-S", "130k", "--pattern", "3", "a.qcow2")
        with Served("-f", "qcow2", "--discard=unmap", "a.qcow2") as address:
            run(["qemu-io", "-f", "raw", "-c", "write -P 9 1000k 300k", "-c", "write -z 3M 100k", "-c", "discard 4M 256k", "-c",
                 "write -P 8 4097k 512", "-c", "flush", address])
            peer("convert", "-f", "raw", "-O", "raw", address, "seen.raw")
        clean("a.qcow2"), same("seen.raw", "a.qcow2")


def encrypted():
    with open("key", "wb") as file:
        file.write(b"a key of bytes")
    raw = make_raw("a.raw", 4 * MIB, seed=14)
    for kind in ("", ",extended_l2=on", ",cluster_size=4k"):
        ours("convert", "-f", "raw", "-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-file=key,encrypt.iter-time=20" + kind, raw, "a.qcow2")
        opened = [*SECRET, "--image-opts", "driver=qcow2,file.filename=a.qcow2,encrypt.key-secret=k"]
        served_is(raw, *opened)
        with Served(*opened) as address:
            run(["qemu-io", "-f", "raw", "-c", "write -P 4 1M 70k", "-c", "write -z 2M 5k", "-c", "flush", address])
            peer("convert", "-f", "raw", "-O", "raw", address, "seen.raw")
        ours("compare", "-f", "raw", "seen.raw", "a.qcow2", "--other-key-file", "key")


def bitmaps():
    """What a bitmap of ours marks is what a client is told, and what clients change is marked for us."""
    ours("create", "-f", "qcow2", "a.qcow2", "16M")
    ours("bitmap", "--add", "-g", "64k", "a.qcow2", "b")
    ours("bench", "-w", "-c", "4", "-d", "1", "-s", "4096", "-S", "3M", "a.qcow2")

    def marked():
        ours("bitmap", "--disable", "a.qcow2", "b")
        with Served("-r", "-f", "qcow2", "-B", "b", "a.qcow2") as address:
            found = peer("map", "--output=json", "--image-opts", "driver=nbd,server.type=unix,server.path=" + address.split(":", 2)[2] +
                         ",x-dirty-bitmap=qemu:dirty-bitmap:b").stdout
        ours("bitmap", "--enable", "a.qcow2", "b")
        # Through that option marked places are said to hold no data.
        return [(one["start"] // 65536, one["length"] // 65536) for one in json.loads(found) if not one["data"]]

    assert marked() == [(0, 1), (48, 1), (96, 1), (144, 1)], marked()
    with Served("-f", "qcow2", "a.qcow2") as address:
        run(["qemu-io", "-f", "raw", "-c", "write 10M 128k", address])
    clean("a.qcow2")
    assert marked() == [(0, 1), (48, 1), (96, 1), (144, 1), (160, 2)], marked()


def in_use():
    """Each side keeps away from what the other has open for writing; readers share."""
    ours("create", "-f", "qcow2", "a.qcow2", "8M")
    with Served("-f", "qcow2", "a.qcow2"):
        for command in (["bench", "-w", "-c", "1", "a.qcow2"], ["check", "--repair", "a.qcow2"], ["snapshot", "-c", "s", "a.qcow2"],
                        ["convert", "a.qcow2", "b.raw"]):
            done = ours(*command, expect=1)
            assert "in use" in done.stderr, done
        ours("info", "-U", "a.qcow2")
    with Served("-r", "-f", "qcow2", "a.qcow2"):
        ours("convert", "a.qcow2", "b.raw")
        assert "in use" in ours("resize", "a.qcow2", "9M", expect=1).stderr
    writer = subprocess.Popen([*OURS, "bench", "-w", "-c", "100000000", "-S", "4096", "a.qcow2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        while not any(os.path.realpath(f"/proc/{writer.pid}/fd/{fd}").endswith("/a.qcow2") for fd in os.listdir(f"/proc/{writer.pid}/fd")):
            time.sleep(0.01)
        for _ in range(100):  # the file is open a moment before it is locked
            done = run(["qemu-io", "-c", "write 0 4k", "a.qcow2"], None)
            if done.returncode:
                break
        assert "lock" in done.stderr, done
        assert writer.poll() is None
    finally:
        writer.kill(), writer.communicate()


all_cases([contents, chains_and_snapshots, external_data_file, clients_write, encrypted, bitmaps, in_use])

"""A zone's qcow2 disk on a host file system that is too small: with werror=enospc and werror=stop the guest waits until there is space, and
nothing is lost; with werror=report it hears of the error, and the image is whole.

As root, in a mount namespace of its own."""
import ctypes, hashlib, os, time
from images import *

if os.geteuid() != 0 or ctypes.CDLL(None).unshare(0x00020000) != 0:
    print("skipped: it takes root, to mount a small file system")
    sys.exit(77)
run(["mount", "--make-rprivate", "/"])
os.mkdir("small")
run(["mount", "-t", "tmpfs", "-o", "size=24M", "none", "small"])
MACHINES = {"pv": "xvdb", "pvh": "vdb"}
# Random bytes that the guest sums before it writes them, so that only the disk can lose some.
WRITE = """set -e; head -c 33554432 /dev/urandom >/dev/shm/data; sha256sum </dev/shm/data | cut -d' ' -f1
dd if=/dev/shm/data of=/dev/$0 bs=256k oflag=direct conv=fsync status=none && echo written
echo 3 >/proc/sys/vm/drop_caches; sha256sum </dev/$0 | cut -d' ' -f1"""


def start(machine, policy):
    ours("create", "-q", "-f", "qcow2", "small/a.qcow2", "32M")
    return subprocess.Popen([OURS[0], "run", "-V", machine, "--engine", "dbt", "--name", f"space-{os.getpid()}", "--boot-timeout", "300", "--disk",
                             f"small/a.qcow2,werror={policy}", "--", "sh", "-c", WRITE, MACHINES[machine]], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def waits(zone, machine):
    """Until the disk waits for space, as `zone inspect` shows."""
    while zone.poll() is None:
        told = run([OURS[0], "zone", "inspect", f"space-{os.getpid()}"], None)
        if "no space" in told.stdout.split('"waits_for"')[-1]:
            return
        time.sleep(0.1)
    raise AssertionError(f"the zone ended: {zone.stderr.read()}")


def resumes(machine, policy):
    zone = start(machine, policy)
    try:
        before = zone.stdout.readline().strip()
        waits(zone, machine)
        run(["mount", "-o", "remount,size=96M", "small"])
        out, error = zone.communicate(timeout=300)
    finally:
        zone.kill(), zone.wait()
    assert zone.returncode == 0 and out == f"written\n{before}\n", (zone.returncode, before, out, error)
    assert error.count("waits: ") == 1, f"stderr: {error}"
    clean("small/a.qcow2")
    peer("convert", "-O", "raw", "small/a.qcow2", "a.raw")
    assert hashlib.sha256(open("a.raw", "rb").read()).hexdigest() == before
    os.remove("small/a.qcow2")
    run(["mount", "-o", "remount,size=24M", "small"])


def enospc_on_pv():
    resumes("pv", "enospc")


def stop_on_pvh():
    resumes("pvh", "stop")


def report_on_pv():
    zone = start("pv", "report")
    out, error = zone.communicate(timeout=300)
    assert "error writing" in error and "written" not in out, (zone.returncode, out, error)
    assert ours("check", "small/a.qcow2", expect=None).returncode in (0, 3)
    ours("check", "--repair", "leaks", "small/a.qcow2"), clean("small/a.qcow2")


all_cases([enospc_on_pv, stop_on_pvh, report_on_pv])

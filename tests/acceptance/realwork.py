"""Real work in a zone with 2 vCPUs and 1 GiB, compared with the same work on the host, byte for byte.

The host does it in the same root file system (a chroot in a mount namespace of its own), so that the programs are the same."""
import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
import time

import zones
from harness import program

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ("gcc", "libc6-dev", "python3", "perl", "openssl", "xz-utils", "sqlite3", "git")
SUITE = "bookworm"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "bulkhead-acceptance"


def names():
    return sorted(path.stem for path in (HERE / "work").glob("*.sh"))


def rootfs():
    """A folder with the packages; made once."""
    folder = CACHE / f"{SUITE}-{hashlib.sha256(' '.join(PACKAGES).encode()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    making = folder.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(making)],
                          capture_output=True, text=True)
    assert done.returncode == 0, f"mmdebstrap failed: {done.stderr[-1000:]}"
    for list_file in (making / "var/lib/apt/lists").glob("*_*"):
        list_file.unlink()
    making.rename(folder)
    return folder


def input_archive(folder):
    """What the work starts from, as a tar file: a disk of the zone, a file for the host."""
    path = folder / "input.tar"
    for algorithm in ("rsa", "ed25519"):
        subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, "-out", folder / f"{algorithm}.pem"], check=True,
                       capture_output=True)
    with tarfile.open(path, "w") as tar:
        for key in sorted(folder.glob("*.pem")):
            tar.add(key, key.name)
        tar.add(program.PROJECT / "bench/zbench.c", "zbench.c")
        for file in sorted((HERE / "work").iterdir()):
            tar.add(file, file.name)
    return path


def on_the_host(root, archive, script):
    inside = ('set -e; mount -t tmpfs tmpfs "$1/tmp"; mount -t proc proc "$1/proc" 2>/dev/null || mount --rbind /proc "$1/proc"; '
              'mount --rbind /dev "$1/dev"; cp "$2" "$1/tmp/input.tar"; '
              'exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root INPUT=/tmp/input.tar sh -c "$3"')
    isolate = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    return subprocess.run([*isolate, "sh", "-c", inside, "sh", str(root), str(archive), script], capture_output=True,
                          timeout=900 * program.PATIENCE, cwd="/")


def in_a_zone(folder, root, archive, script):
    return zones.start(folder, "run", "-c", 2, "-m", "1G", "--disk", f"{archive},ro", "--env", "INPUT=/dev/bulkhead/disk1", "--boot-timeout", 300,
                       "--report", "report.json", root, "--", "sh", "-c", script, timeout=3000)


def first_difference(ours, theirs):
    for ours_line, theirs_line in zip(ours.splitlines(), theirs.splitlines()):
        if ours_line != theirs_line:
            return f"zone {ours_line[:200]!r}, host {theirs_line[:200]!r}"
    return f"the zone printed {len(ours)} bytes, the host {len(theirs)}"


def compare(name):
    script = f"mkdir /tmp/work && cd /tmp/work && tar xf $INPUT && exec sh -eu ./{name}.sh"
    root = rootfs()
    with program.own_folder() as folder:
        archive = input_archive(folder)
        began = time.monotonic()
        host = on_the_host(root, archive, script)
        host_seconds = time.monotonic() - began
        assert host.returncode == 0, f"on the host: status {host.returncode}: {host.stderr[-1000:].decode(errors='replace')}"
        done = in_a_zone(folder, root, archive, script)
        assert done.status == 0, f"in the zone: {done}"
        assert done.out == host.stdout, f"different: {first_difference(done.out, host.stdout)}"
        points = program.json_of(folder / "report.json")["milestones_ms"]
    zone_seconds = (points["command_ended"] - points["command_started"]) / 1000
    lines = len(host.stdout.splitlines())
    return f"{lines} lines equal; zone {zone_seconds:.1f} s, host {host_seconds:.1f} s, {zone_seconds / host_seconds:.1f} times"

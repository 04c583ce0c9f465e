"""In a zone, on qcow2 disks with backing chains, while each live job works on them: mkfs, mount, fio with verification and a
package's installation; then the contents are verified in the zone, and from outside in what the job left.

Usage: zone_job_test.py path/to/bulkhead [--folder KEPT] [KIND... | prepare]; needs root (for the files' owners), mmdebstrap, e2fsprogs
and qemu-utils. The root file system with fio, and the packages to be installed, are made once (from the Debian archive) in the kept folder.
Zones with Xen's block device and with virtio's take turns from kind to kind."""
import os, pathlib, shutil, sys, time

KEPT = pathlib.Path(sys.argv[sys.argv.index("--folder") + 1] if "--folder" in sys.argv else
                    os.path.expanduser("~/.cache/bulkhead/tests")).absolute()
for tool in ("mmdebstrap", "mke2fs", "e2fsck"):
    if shutil.which(tool) is None:
        print(f"skipped: {tool} is not installed")
        sys.exit(77)
if os.geteuid() != 0:
    print("skipped: it must be run as root, for the owners of a root file system's files")
    sys.exit(77)
from images import *

PROGRAM, SIZE = OURS[0], "768M"
PACKAGES = ["hello", "tree", "bc", "jq", "libjq1", "libonig5"]
KINDS = {"mirror": ["{disk}", "{target}"], "mirror-top": ["{disk}", "{target}", "--sync", "top"], "backup": ["{disk}", "{target}"],
         "backup-bitmap": ["{disk}", "{target}", "--bitmap", "changes", "--existing"], "stream": ["{disk}"], "commit": ["{disk}"],
         "commit-below": ["{disk}", "--top", "{middle}"]}
MACHINES = {"pv": ("xvdb", "xvdc"), "pvh": ("vdb", "vdc")}
GUEST = """set -e
mount /dev/$0 /mnt && mkfs.ext4 -q /dev/$1 && mkdir -p /mnt/fio && mount /dev/$1 /mnt/fio
mount -t proc proc /mnt/proc
echo READY
FIO="fio --name=f --directory=/fio --size=24M --rw=randwrite --bs=4k --ioengine=psync --fsync=64 --verify=crc32c --randseed=7"
chroot /mnt $FIO --output=/fio/log1
chroot /mnt sh -c 'DEBIAN_FRONTEND=noninteractive dpkg -i /debs/*.deb' >/dev/null 2>&1
test "$(chroot /mnt hello)" = "Hello, world!" && test "$(echo 6*7 | chroot /mnt bc)" = 42
chroot /mnt fio --name=g --directory=/fio --size=16M --rw=randrw --bs=16k --ioengine=psync --verify=sha256 --output=/fio/log2
sync; echo WORKED
read line
echo 3 >/proc/sys/vm/drop_caches
chroot /mnt $FIO --verify_only=1 --output=/fio/log3
chroot /mnt dpkg -V hello tree bc jq >/fio-dpkg 2>&1 || cat /fio-dpkg
test "$(echo '{"a":5}' | chroot /mnt jq .a)" = 5
umount /mnt/proc; umount /mnt/fio; umount /mnt; echo VERIFIED
"""


def prepare():
    KEPT.mkdir(parents=True, exist_ok=True)
    base = KEPT / "fio-root.raw"
    if base.exists():
        return base
    debs, tar, tree = KEPT / "debs", KEPT / "fio-root.tar", KEPT / "tree"
    shutil.rmtree(debs, True), shutil.rmtree(tree, True)
    debs.mkdir(), tree.mkdir()
    for command, folder in ((["mmdebstrap", "--quiet", "--variant=minbase", "--include=fio", "bookworm", str(tar)], KEPT),
                            (["apt-get", "download", *PACKAGES], debs), (["tar", "xf", str(tar), "-C", str(tree)], KEPT)):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            print(f"skipped: {' '.join(command[:2])}: {done.stderr.strip()[-300:]}")
            sys.exit(77)
    shutil.move(debs, tree / "debs")
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(base) + ".part", SIZE])
    os.rename(str(base) + ".part", base)
    shutil.rmtree(tree), tar.unlink()
    return base


def make_chain(stem, base):
    names = [f"{stem}-{part}.qcow2" for part in ("base", "middle", "top")]
    if base is None:
        ours("create", "-q", "-f", "qcow2", names[0], "128M")
        peer_io(names[0], "write -P 9 0 20M")
    else:
        ours("convert", "-f", "raw", "-O", "qcow2", str(base), names[0])
    ours("create", "-q", "-f", "qcow2", "-b", names[0], "-F", "qcow2", names[1])
    peer_io(names[1], "write -P 7 60M 4M" if base is None else "read 0 4k")
    ours("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", names[1], "-F", "qcow2", names[2])
    return names


def zone(*arguments):
    return run([PROGRAM, "zone", *arguments])


def until(guest, word):
    for line in guest.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"the guest ended before {word}: {guest.stderr.read()[-2000:]}")


def judge(image):
    while image is not None:
        run(["qemu-img", "check", image])
        image = info(image).get("full-backing-filename")


def judge_files(image, clean_=True):
    peer("convert", "-O", "raw", image, "judged.raw")
    done = run(["e2fsck", "-f", "-n" if clean_ else "-y", "judged.raw"], None)
    if done.returncode not in ((0,) if clean_ else (0, 1)):
        raise AssertionError(f"e2fsck of {image}: {done.returncode}\n{done.stdout[-2000:]}")
    os.remove("judged.raw")


def same_work(image):
    """What the job copied at one moment holds what the guest had finished before it began."""
    peer("convert", "-O", "raw", image, "judged.raw")
    run(["e2fsck", "-f", "-y", "judged.raw"], None)
    found = run(["debugfs", "-R", "cat /etc/debian_version", "judged.raw"]).stdout
    os.remove("judged.raw")
    assert found.startswith("12"), found


def second_increment(name, disks):
    """What has changed since the first one, with the guest at rest: then the copies are the disks."""
    command = [PROGRAM, "run", "-V", "pv", "--engine", "dbt", "--name", name, "--boot-timeout", "300"]
    for chain in disks.values():
        command += ["--disk", chain[2]]
    guest = subprocess.Popen([*command, "--", "sh", "-c", "echo READY; read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    try:
        until(guest, "READY")
        for device, disk in zip(MACHINES["pv"], disks):
            zone("job", "backup", name, device, f"{disk}-target.qcow2", "--bitmap", "changes", "--existing", "--wait")
        guest.communicate("\n", 120)
    finally:
        guest.kill(), guest.wait()
    for disk, chain in disks.items():
        same(chain[2], f"{disk}-target.qcow2")


def one(kind, base, machine):
    name = f"zone-job-{os.getpid()}"
    for old in os.listdir("."):
        os.remove(old)
    root, data = MACHINES[machine]
    disks = {root: make_chain("root", base), data: make_chain("data", None)}
    if kind == "backup-bitmap":  # a full copy from before, and what has changed since
        for disk, chain in disks.items():
            peer("convert", "-O", "qcow2", chain[2], f"{disk}-target.qcow2")
            ours("bitmap", "--add", chain[2], "changes")
    command = [PROGRAM, "run", "-V", machine, "--engine", "dbt", "--name", name, "--boot-timeout", "300", "-m", "512M"]
    for chain in disks.values():
        command += ["--disk", chain[2]]
    guest = subprocess.Popen([*command, "--", "sh", "-c", GUEST, root, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    jobs, current = {}, {}
    try:
        until(guest, "READY")
        for disk, chain in disks.items():
            fields = {"disk": disk, "target": f"{disk}-target.qcow2", "middle": chain[1]}
            verb = kind.split("-")[0]
            arguments = [word.format(**fields) for word in KINDS[kind]]
            speeds = ("64K", "32K") if kind in ("backup-bitmap", "commit-below") else ("1M", "256K")  # these have little to do
            more = ["--speed", speeds[0] if disk == root else speeds[1]] + (["--auto-complete"] if kind == "mirror" else [])
            jobs[disk] = zone("job", verb, name, *arguments, *more).stdout.strip()
            if kind == "backup-bitmap":  # what the guest changes is saved first all the same
                run([PROGRAM, "zone", "job", "pause", name, jobs[disk]], None)  # it may have found nothing to do
            current[disk] = {"mirror": fields["target"], "mirror-top": fields["target"], "commit": chain[1]}.get(kind, chain[2])
        until(guest, "WORKED")
        running = [job for job in json.loads(zone("job", "list", name, "--json").stdout) if job["status"] != "concluded"]
        for disk, job in jobs.items():
            zone("job", "speed", name, job, "0") if any(one["id"] == job for one in running) else None
            run([PROGRAM, "zone", "job", "resume", name, job], None) if kind == "backup-bitmap" else None
            zone("job", "wait", name, job)
            zone("job", "complete", name, job, "--wait") if kind in ("mirror-top", "commit") else None
        for _ in range(600):  # ready is not yet the end for those that complete by themselves
            left = [job for job in json.loads(zone("job", "list", name, "--json").stdout) if job["status"] != "concluded"]
            if not left:
                break
            time.sleep(0.1)
        assert not left, left
        guest.stdin.write("\n"), guest.stdin.flush()
        until(guest, "VERIFIED")
        assert guest.wait(60) == 0, guest.stderr.read()
    finally:
        guest.kill(), guest.wait()
    for disk, image in current.items():
        judge(image)
        judge_files(image)
        if kind.startswith("backup"):
            judge(f"{disk}-target.qcow2")
            judge_files(f"{disk}-target.qcow2", False)
    if kind.startswith("backup"):
        same_work(f"{root}-target.qcow2")
    if kind == "backup-bitmap":
        second_increment(name, disks)
    assert running, "the jobs were done before the guest's work was"
    return len(running)


base = prepare()
if "prepare" in sys.argv[2:]:
    sys.exit(0)
failed = 0
for number, kind in enumerate(KINDS):
    chosen = [word for word in sys.argv[2:] if word in KINDS]
    if chosen and kind not in chosen:
        continue
    machine, begin = list(MACHINES)[number % len(MACHINES)], time.monotonic()
    try:
        running = one(kind, base, machine)
        print(f"ok: {kind} on {machine}, {time.monotonic() - begin:.0f} s; {running} of 2 jobs were still at work when the guest had done its own",
              flush=True)
    except AssertionError as error:
        failed = 1
        print(f"FAILED: {kind} on {machine}: {error}", flush=True)
sys.exit(failed)

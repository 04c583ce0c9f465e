"""Runs the same kernel and initrd on both sides and returns what their consoles said."""
import pathlib
import shlex
import subprocess
import sys

# In a dom0, in the folder with kernel, initrd and disk: one domU after the other, its console into console-TYPE, the xenstore
# as dom0 sees it into xenstore-TYPE. The disk is copied, for what a loop device can stand on is not known of this folder.
IN_DOM0 = r"""
modprobe -q -a xen-blkback loop
cp disk /run/compare-disk
for type in {types}; do
  printf '%s\n' "name='compare-$type'" "type='$type'" "kernel='$PWD/kernel'" "ramdisk='$PWD/initrd'" 'extra="{append} -- hold"' \
    "memory={memory}" "vcpus={cpus}" "tsc_mode='native'" "on_crash='destroy'" "on_poweroff='destroy'" \
    "disk=['format=raw,vdev=xvda,access=rw,target=/run/compare-disk']" >/run/compare-$type.cfg
  log=/var/log/xen/console/guest-compare-$type.log
  xl create -q /run/compare-$type.cfg >&2 || exit 1
  n=0; until grep -q '^@@ end' $log 2>/dev/null || [ $n = 240 ]; do sleep 0.5; n=$((n + 1)); done
  xenstore-ls -fp / >xenstore-$type; xl dmesg >xl-dmesg-$type
  cp $log console-$type; chmod a+r console-$type
  xl destroy compare-$type
done
"""


def run_domus(dom0, folder, options, types):
    """{type: console output} of real domUs. `dom0` runs a command as root in a dom0, in its current folder, under the same path."""
    script = IN_DOM0.format(types=" ".join(types), memory=options.memory, cpus=options.cpus, append=options.append)
    (folder / "in-dom0").write_text(script)
    done = subprocess.run([*shlex.split(dom0), "bash", "./in-dom0"], cwd=folder, stdin=subprocess.DEVNULL)
    out = {}
    for kind in types:
        console = folder / f"console-{kind}"
        if not console.exists():
            sys.exit(f"compare-with-xen: no {kind} domU came up (status {done.returncode} of: {dom0})")
        out[kind] = console.read_text(errors="replace")
    return out


def zone_append(kind, append):
    """Our pvh zones have no xenbus console; their first console is a UART."""
    return append.replace("console=hvc0", "console=ttyS0") if kind == "pvh" else append


def run_zone(kind, how, folder, options, kernel):
    """The console output of our zone: a bare kernel with the initrd (boot), or the same program as a command (run)."""
    common = ["--engine", options.engine, "-V", kind, "-c", str(options.cpus), "-m", str(options.memory), "--kernel", kernel,
              "--cpu", options.cpu, "--name", f"compare-{kind}", *options.zone_option]
    if how == "boot":
        disk = folder / f"disk-{kind}"
        disk.write_bytes((folder / "disk").read_bytes())
        command = [options.bulkhead, "boot", *common, "--no-reboot", "--initrd", folder / "initrd", "--disk", disk,
                   "--append", options.zone_append or zone_append(kind, options.append)]
    else:
        root = folder / "root"
        for name in ("dev", "proc", "sys", "tmp", "run", "etc"):
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "tell").write_bytes((folder / "guest").read_bytes())
        (root / "tell").chmod(0o755)
        command = [options.bulkhead, "run", *common, "--append", "loglevel=7", root, "--", "/tell"]
    try:
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=options.timeout)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), f"no end within {options.timeout} s"
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace").strip()

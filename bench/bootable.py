"""What benches boot: an initrd with a program, its libraries and a kernel's modules, and the kernels that there are."""
import json
import pathlib
import re
import subprocess
import sys


def entry(number, name, mode, content=b"", device=(0, 0)):
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    pad = lambda data: data + b"\0" * (-len(data) % 4)
    return pad(head) + pad(content)


def libraries(program):
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return sorted(set(re.findall(r"(/\S+)", text)))


def module_files(tree, modules):
    for name in modules:
        found = [path for path in tree.rglob("*.ko*") if path.name.split(".")[0].replace("-", "_") == name]
        if not found:
            continue  # built in
        data = found[0].read_bytes()
        if found[0].suffix == ".xz":
            data = subprocess.run(["xz", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
        yield data


def write_initrd(path, files, kernel, modules):
    """`files`: name to bytes; the kernel's modules become /modules/0.ko and so on."""
    files = dict(files)
    for number, data in enumerate(module_files(kernel.parent.parent / "lib/modules", modules)):
        files[f"modules/{number}.ko"] = data
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents if str(parent) != "."} | {"dev"})
    members = [entry(i + 1, name, 0o040755) for i, name in enumerate(folders)]
    members += [entry(i + 1000, name, 0o100755, data) for i, (name, data) in enumerate(files.items())]
    path.write_bytes(b"".join(members) + entry(0, "TRAILER!!!", 0))
    return path


def find_kernel(bulkhead, release):
    """The file of this release, or of the newest cloud kernel of 6.1."""
    listed = json.loads(subprocess.run([bulkhead, "kernel", "list", "--json"], stdout=subprocess.PIPE, check=True).stdout)
    wanted = [k for k in listed if (k["release"] == release if release else re.match(r"6\.1\..*cloud", k["release"]))]
    if not wanted:
        sys.exit("no such kernel: `bulkhead kernel fetch cloud` gets one")
    return pathlib.Path(wanted[0]["path"])


def tsc_khz(build):
    """What guests are told of the TSC's rate; QEMU's microvm hangs under TCG without it."""
    program = build / "bench/init"
    if program.exists():
        return int(subprocess.run([program], stdout=subprocess.PIPE, check=True).stdout)
    return int(float(re.search(r"cpu MHz\s*: ([0-9.]+)", open("/proc/cpuinfo").read())[1]) * 1000)

"""The initrd that both sides boot: guest.cc, and the modules it loads."""
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def compile_guest(output):
    source = HERE / "guest.cc"
    if not output.exists() or output.stat().st_mtime < source.stat().st_mtime:
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["g++", "-std=c++23", "-O2", "-static", "-o", output, source], check=True)
    return output


def cpio_entry(number, name, mode, content, device=(0, 0)):
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    pad = lambda data: data + b"\0" * (-len(data) % 4)
    return pad(head) + pad(content)


def with_dependencies(tree, wanted):
    """Files of these modules and of what they depend on, in the order of loading. What is built in has no file."""
    known = {file.name.split(".")[0].replace("-", "_"): file for file in tree.rglob("*.ko*")}
    order = []

    def add(name):
        file = known.get(name.replace("-", "_"))
        if file is None or file in order:
            return
        depends = subprocess.run(["modinfo", "-F", "depends", file], stdout=subprocess.PIPE, text=True, check=True).stdout
        for dependency in filter(None, depends.strip().split(",")):
            add(dependency)
        order.append(file)

    for name in wanted:
        add(name)
    return order


def make(path, guest, modules):
    entries = [cpio_entry(1, "dev", 0o040755, b""), cpio_entry(2, "dev/console", 0o020600, b"", (5, 1)),
               cpio_entry(3, "init", 0o100755, guest.read_bytes()), cpio_entry(4, "modules", 0o040755, b"")]
    for number, module in enumerate(modules):
        entries.append(cpio_entry(5 + number, f"modules/{number:02}-{module.name}", 0o100644, module.read_bytes()))
    path.write_bytes(b"".join(entries) + cpio_entry(0, "TRAILER!!!", 0, b""))
    return path

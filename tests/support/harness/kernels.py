"""Guest kernels: those in the program's cache, the small one that is built here, and broken ones."""
import json
import struct

from . import program

MULTIBOOT = program.GUESTS / "test-kernel.multiboot"
PVH = program.GUESTS / "test-kernel.pvh"
XENPV = program.GUESTS / "test-kernel.xenpv"


def stored():
    """[{release, path, bytes}], newest first."""
    done = program.run(["kernel", "list", "--json"])
    if done.status != 0:
        raise AssertionError(str(done))
    return json.loads(done.out)


def fetch(what, suite=None, timeout=600):
    """Returns (kernel, None), or (None, why not)."""
    arguments = ["kernel", "fetch", what, "--json"] + (["--suite", suite] if suite else [])
    done = program.run(arguments, timeout=timeout)
    if done.status != 0:
        return None, done.err.decode(errors="replace").strip()
    return json.loads(done.out), None


def patched(data, offset, form, *values):
    """A copy of `data` with a struct written over it."""
    copy = bytearray(data)
    struct.pack_into(form, copy, offset, *values)
    return bytes(copy)

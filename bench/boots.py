"""What the benches that boot guests share: the initrd, the monitors, one boot and its marks, zbench's numbers."""
import json
import os
import pathlib
import select
import subprocess
import sys
import time

from bootable import entry, tsc_khz

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build"
MARKER = b"BULKHEAD-BENCH init"
# The same for all. The TSC's rate is told, because QEMU's microvm with ACPI has neither a timer that kernels use nor another clock
# to find it by: without it Linux hangs there, and without ACPI there is only one vCPU and no power-off.
COMMAND_LINE = "panic=-1 tsc_early_khz={tsc_khz}"


# ---- what they are asked

def add_guest_options(parser, memory):
    parser.add_argument("-c", "--cpus", type=int, default=1)
    parser.add_argument("-m", "--memory", type=int, default=memory, help=f"MiB (default {memory})")
    parser.add_argument("--kernel", help="a bzImage (default: the Debian cloud kernel, by `bulkhead kernel fetch`)")
    parser.add_argument("--append", default="", help="more of a kernel command line, for all")
    parser.add_argument("--bulkhead", default=str(BUILD / "bin/bulkhead"))
    parser.add_argument("--bulkhead-option", action="append", default=[], help="one more argument for `bulkhead boot`")
    parser.add_argument("--qemu-cpu", default="max", help="QEMU's -cpu (default max: what TCG can do, as ours is what the host can do)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one boot (default 300)")
    parser.add_argument("--json", metavar="FILE", help="write all the numbers there")


def prepare(options):
    """The initrd and the kernel; fills in what the command line says about this host."""
    initrd = make_initrd(BUILD / "bench")
    kernel = options.kernel or default_kernel(options.bulkhead)
    options.command_line = COMMAND_LINE.format(tsc_khz=tsc_khz(BUILD))
    return kernel, initrd


# ---- what is booted

def compile_static(source, output):
    compiler = "gcc" if source.suffix == ".c" else "g++"
    newer = not output.exists() or output.stat().st_mtime < source.stat().st_mtime
    if newer:
        subprocess.run([compiler, "-O2", "-static", "-o", output, source, "-lm", "-lpthread"], check=True)
    return output


def make_initrd(folder):
    folder.mkdir(parents=True, exist_ok=True)
    init = compile_static(HERE / "init.cc", folder / "init")
    zbench = compile_static(HERE / "zbench.c", folder / "zbench")
    archive = b"".join([
        entry(1, "dev", 0o040755),
        entry(2, "dev/console", 0o020600, b"", (5, 1)),
        entry(3, "init", 0o100755, init.read_bytes()),
        entry(4, "zbench", 0o100755, zbench.read_bytes()),
        entry(0, "TRAILER!!!", 0)])
    path = folder / "initrd.cpio"
    path.write_bytes(archive)
    return path


def default_kernel(bulkhead):
    done = subprocess.run([bulkhead, "kernel", "fetch", "--json", "cloud"], stdout=subprocess.PIPE)
    if done.returncode != 0:
        sys.exit("no kernel to boot: name one with --kernel")
    return json.loads(done.stdout)["path"]


# ---- the two monitors

class Monitor:
    def __init__(self, options, kernel, initrd):
        self.options, self.kernel, self.initrd = options, kernel, initrd


class Qemu(Monitor):
    """QEMU's translator, a program by name or path."""
    console = "ttyS0"
    guest_mapping = "/memfd:memory-backend-memfd"

    def __init__(self, options, kernel, initrd, program, name="qemu"):
        super().__init__(options, kernel, initrd)
        self.program, self.name = program, name

    def version(self):
        done = subprocess.run([self.program, "--version"], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.splitlines()[0].removeprefix("QEMU emulator version ")

    def command(self, append, look_at_memory):
        o = self.options
        machine = "microvm,pit=on,pic=on,rtc=on,isa-serial=on"
        memory = []
        if look_at_memory:  # guest memory that has a name in smaps; otherwise QEMU's own default
            machine += ",memory-backend=ram"
            memory = ["-object", f"memory-backend-memfd,id=ram,size={o.memory}M"]
        return [self.program, "-accel", "tcg", "-M", machine, "-cpu", o.qemu_cpu, "-smp", str(o.cpus), "-m", str(o.memory), *memory,
                "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", self.kernel, "-initrd", self.initrd, "-append", append]


class Bulkhead(Monitor):
    """Us, with the engine dbt and one virt backend."""
    guest_mapping = "/memfd:bulkhead-guest-ram"

    def __init__(self, options, kernel, initrd, backend="pvh", name="bulkhead", program=None):
        super().__init__(options, kernel, initrd)
        self.backend, self.name, self.program = backend, name, program or options.bulkhead
        self.console = "hvc0" if backend == "pv" else "ttyS0"

    def command(self, append, look_at_memory):
        o = self.options
        return [self.program, "boot", "--engine", "dbt", "-V", self.backend, "-c", str(o.cpus), "-m", str(o.memory), "--no-reboot",
                *o.bulkhead_option, "--kernel", self.kernel, "--initrd", self.initrd, "--append", append]


def resident_beyond(pid, guest_mapping):
    """KiB resident in the process, but for mappings of that name."""
    total, guest, found = 0, False, False
    for line in open(f"/proc/{pid}/smaps"):
        field = line.split()
        if not field[0].endswith(":"):
            guest = guest_mapping in line
            found = found or guest
        elif field[0] == "Rss:" and not guest:
            total += int(field[1])
    if not found:
        sys.exit(f"no mapping {guest_mapping} in process {pid}: cannot tell the guest's memory from the monitor's")
    return total


class Boot:
    """One boot, from the start of the process to its end."""

    def __init__(self, monitor, arguments_of_init="", look_at_memory=False):
        o = monitor.options
        append = " ".join(part for part in (f"console={monitor.console}", o.command_line, o.append, "-- " + arguments_of_init if arguments_of_init else "") if part)
        command = [str(part) for part in monitor.command(append, look_at_memory)]
        self.to_marker = None
        self.output = b""
        self.resident_kib = None
        began = time.monotonic()
        # A held guest waits for a line from us; others have no input at all.
        process = subprocess.Popen(command, stdin=subprocess.PIPE if look_at_memory else subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            os.set_blocking(process.stdout.fileno(), False)
            while True:
                chunk = self.wait_for_output(process, began + o.timeout)
                if chunk == b"":
                    break
                self.output += chunk
                if self.to_marker is None and MARKER in self.output:
                    self.to_marker = time.monotonic() - began
                    if look_at_memory:
                        self.resident_kib = resident_beyond(process.pid, monitor.guest_mapping)
                        process.stdin.write(b"\n")
                        process.stdin.flush()
            status = process.wait(timeout=30)
            self.to_exit = time.monotonic() - began
        except (TimeoutError, subprocess.TimeoutExpired) as late:
            sys.exit(f"{monitor.name}: {late}:\n{self.output[-2000:].decode(errors='replace')}")
        finally:
            process.kill()
            process.wait()
        if self.to_marker is None or status != 0:
            tail = self.output[-2000:].decode(errors="replace")
            sys.exit(f"{monitor.name} ended with status {status}, init {'not ' if self.to_marker is None else ''}reached:\n"
                     f"{' '.join(command)}\n{tail}")

    @staticmethod
    def wait_for_output(process, deadline):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise TimeoutError(f"no end within the time: {process.args}")
        return os.read(process.stdout.fileno(), 65536)


def zbench_numbers(text):
    lines = [line.split() for line in text.decode(errors="replace").splitlines() if line.startswith("ZB ")]
    return {name: (float(value), unit) for _, name, value, unit in (line for line in lines if len(line) == 4)}

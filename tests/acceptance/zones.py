"""Boots, launches and streams."""
import hashlib
import json
import random
import statistics

from harness import kernels, program, traces

# label, what `bulkhead kernel fetch` is asked for, the suite
KERNELS = (("cloud-6.1", "cloud", None), ("generic-6.1", "generic", None), ("cloud-6.12", "cloud", "bookworm-backports"))
_fetched = {}


def release(what, suite):
    if (what, suite) not in _fetched:
        kernel, reason = kernels.fetch(what, suite)
        assert kernel is not None, reason
        _fetched[what, suite] = kernel["release"]
    return _fetched[what, suite]


def start(folder, *arguments, **more):
    """Runs to the end, with everything that was left behind as an error."""
    (folder / "tmp").mkdir(exist_ok=True)
    before = traces.Traces(folder / "tmp")
    pipe = program.subprocess.PIPE
    streams = dict(stdin=pipe, stdout=pipe, stderr=pipe)
    timeout = more.pop("timeout", 300)
    data = more.pop("data", b"")
    started = program.Start(arguments, environment={"TMPDIR": str(folder / "tmp")}, cwd=folder, **(streams | more))
    done = started.finish(None if "stdin" in more else data, timeout)
    left = before.differences(started.mark)
    assert not left, f"left behind: {left}"
    return done


def milliseconds(values):
    return f"median {statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})"


BACKENDS = {"pv": ("-V", "pv"), "pvh": ("-V", "pvh", "--engine", "dbt")}


def boots(backend, what, suite, vcpus, times):
    """Each boot must reach its command, which says which kernel it runs on and how many CPUs it has and that it is what was asked for."""
    kernel, points, rss, failures = release(what, suite), [], [], []
    for _ in range(times):
        with program.own_folder() as folder:
            done = start(folder, "run", *BACKENDS[backend], "-c", vcpus, "--kernel", kernel, "--boot-timeout", 200, "--report", "report.json", "--",
                         "sh", "-c", "uname -r; nproc; cat /sys/hypervisor/guest_type")
            if (done.status, done.out, done.err) != (0, f"{kernel}\n{vcpus}\n{backend.upper()}\n".encode(), b""):
                failures.append(str(done))
                continue
            report = json.loads((folder / "report.json").read_text())
            points.append(report["milestones_ms"]["command_started"])
            rss.append(report["monitor_rss_bytes"] / 2**20)
    assert not failures, f"{len(failures)} of {times} failed; the first: {failures[0]}"
    assert max(rss) < 64, f"the monitor had {max(rss):.1f} MiB beyond guest memory"
    return f"{kernel}: {times} of {times}, command started: {milliseconds(points)}; monitor at most {max(rss):.1f} MiB"


def launches(times):
    seconds = []
    for number in range(times):
        with program.own_folder() as folder:
            done = start(folder, "run", "--", "true")
            assert (done.status, done.out, done.err) == (0, b"", b""), f"launch {number + 1}: {done}"
            seconds.append(done.seconds)
    return f"{times} times status 0, whole command: {milliseconds([s * 1000 for s in seconds])}"


def stream(megabytes):
    data = random.Random(3).randbytes(megabytes * 1_000_000)
    wanted = hashlib.sha256(data).hexdigest()
    with program.own_folder() as folder:
        (folder / "data").write_bytes(data)
        with open(folder / "data", "rb") as stdin, open(folder / "out", "wb") as out:
            done = start(folder, "run", "--report", "report.json", "--", "cat", stdin=stdin, stdout=out, timeout=1800)
        assert done.status == 0, str(done)
        got = (folder / "out").read_bytes()
        assert hashlib.sha256(got).hexdigest() == wanted, f"{len(got)} bytes came back, or others"
        points = json.loads((folder / "report.json").read_text())["milestones_ms"]
    seconds = (points["command_ended"] - points["command_started"]) / 1000
    return f"{megabytes} MB there and back, sha256 equal, {megabytes / seconds:.1f} MB/s"

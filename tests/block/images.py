"""What the tests of disk images share: running both programs, and a folder that goes away."""
import atexit, json, os, random, shutil, subprocess, sys, tempfile

if len(sys.argv) < 2:
    sys.exit("usage: TEST path/to/bulkhead")
OURS = [os.path.abspath(sys.argv[1]), "disk"]
if shutil.which("qemu-img") is None or shutil.which("qemu-io") is None:
    print("skipped: qemu-img and qemu-io (package qemu-utils) are not installed")
    sys.exit(77)
FOLDER = tempfile.mkdtemp(prefix="bulkhead-block-")
atexit.register(shutil.rmtree, FOLDER, True)
os.chdir(FOLDER)


def run(command, expect=0):
    done = subprocess.run(command, capture_output=True, text=True)
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
    return done


def ours(*arguments, expect=0):
    return run(OURS + list(arguments), expect)


def peer(*arguments, expect=0):
    return run(["qemu-img"] + list(arguments), expect)


def peer_io(image, *commands, options=()):
    flat = [part for command in commands for part in ("-c", command)]
    return run(["qemu-io"] + list(options) + flat + [image])


def clean(image):
    """Both sides say that nothing is wrong with it, leaks included."""
    peer("check", image)
    ours("check", image)


def same(a, b, *options):
    """Both sides say that the contents are the same."""
    peer("compare", *options, a, b)
    ours("compare", *options, a, b)


def make_raw(name, size, seed=1, pieces=40):
    """A raw image with runs of random bytes, of one byte, and holes."""
    source = random.Random(seed)
    with open(name, "wb") as file:
        file.truncate(size)
        for _ in range(pieces):
            length = source.choice([512, 4096, 65536, 200 * 1024 + 512])
            offset = source.randrange(0, max(1, (size - length) // 512)) * 512
            file.seek(offset)
            file.write(source.randbytes(length) if source.random() < 0.6 else bytes([source.randrange(256)]) * length)
        file.truncate(size)
    return name


def info(image):
    return json.loads(ours("info", "--output=json", image).stdout)


def all_cases(cases):
    failed = 0
    wanted = os.environ.get("CASES", "").split()  # by name; none: all
    for case in cases:
        if wanted and case.__name__ not in wanted:
            continue
        try:
            case()
            print(f"ok: {case.__name__}", flush=True)
        except AssertionError as error:
            failed += 1
            print(f"FAILED: {case.__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)

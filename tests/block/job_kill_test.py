"""A guest that writes while a job works on its disk's chain, killed at random: each time the image opens, qemu-img finds no
error in it, leaks are cleared by our repair, and every write that a flush had acknowledged is there."""
from images import *
import signal, struct, time

SEED = int(os.environ.get("KILL_SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "40"))
WRITER = os.path.join(os.path.dirname(OURS[0]), "job_writer")
SIZE = "48M"
KINDS = ["", "extended_l2=on", "cluster_size=4k", "cluster_size=512k", "compat=0.10"]
source = random.Random(SEED)
count, done = 0, {}


def new_name(stem):
    global count
    count += 1
    return os.path.join(FOLDER, f"{stem}{count}.qcow2")


def chain(image):
    return [one["filename"] for one in json.loads(peer("info", "--backing-chain", "--output=json", image).stdout)]


def wait_free(image):
    # The kernel puts away what a killed program had in flight a moment after the program is gone.
    for _ in range(100):
        if run(["qemu-img", "info", "--backing-chain", image], None).returncode == 0:
            return
        time.sleep(0.05)


def grow(image, depth):
    while len(chain(image)) < depth:
        kind, top = source.choice(KINDS), new_name("i")
        ours("create", "-f", "qcow2", "-b", image, "-F", "qcow2", *(["-o", kind] if kind else []), top, SIZE)
        image = top
    return image


def job_for(image):
    below = chain(image)
    target, speed = new_name("t"), source.choice(["4M", "30M", "200M", "0"])
    kind = source.choice(["none", "mirror", "mirror", "mirror-top", "backup", "bitmap", "stream", "stream-base", "commit", "commit-base",
                          "commit-inner"])
    keys = {"none": [], "mirror": ["kind=mirror", f"target={target}"],
            "mirror-top": ["kind=mirror", "sync=top", f"target={target}"],
            "backup": ["kind=backup", f"target={target}"], "bitmap": ["kind=backup", f"target={target}", "bitmap=b0"],
            "stream": ["kind=stream"], "stream-base": ["kind=stream", f"base={below[-1]}"],
            "commit": ["kind=commit"], "commit-base": ["kind=commit", f"base={below[-1]}"],
            "commit-inner": ["kind=commit", f"top={below[1]}"]}[kind]
    next_image = {"mirror": target, "mirror-top": target, "commit": below[1], "commit-base": below[-1]}.get(kind, image)
    if kind == "bitmap":
        if info(image)["format-specific"]["data"]["compat"] == "0.10":
            return job_for(image)
        ours("bitmap", "--remove", image, "b0", expect=None)
        ours("bitmap", "--add", image, "b0")
    return kind, keys + ([f"speed={speed}"] if keys else []), next_image


def die(why):
    keep = os.environ.get("KILL_KEEP")
    if keep:
        shutil.copytree(FOLDER, keep, dirs_exist_ok=True)
    sys.exit(f"FAILED: seed {SEED}, after {done}: {why}")


def judge(image):
    for one in chain(image):
        found = run(["qemu-img", "check", one], None)
        if found.returncode not in (0, 3):
            die(f"qemu-img check {one}: {found.stdout}{found.stderr}")
        if found.returncode == 3 or source.random() < 0.1:
            ours("check", "--repair", "leaks", one)
            clean(one)
    peer("convert", "-O", "raw", image, "now.raw")
    verdict = run([WRITER, "verify", "journal", "now.raw"], None)
    if verdict.returncode != 0:
        die(verdict.stdout + verdict.stderr)


current = new_name("i")
ours("create", "-f", "qcow2", current, SIZE)
pivots = ended = 0
try:
    for round_ in range(ROUNDS):
        current = grow(current, 3)
        kind, keys, next_image = job_for(current)
        done[kind] = done.get(kind, 0) + 1
        with open("journal", "ab"):
            pass
        with open("journal", "r+b") as file:
            file.write(bytes(16))
        writer = subprocess.Popen([WRITER, "write", "journal", current, str(source.randrange(1 << 30)), *keys],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if source.random() < 0.9:
            writer.stdout.readline()
        time.sleep(source.random() ** 2 * 1.2)
        alive = writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        said = writer.communicate()[1]
        if not alive:
            die(f"{kind} {keys}: {said}")
        with open("journal", "rb") as file:
            pivoted, concluded = struct.unpack("II", file.read(8))
        pivots, ended = pivots + pivoted, ended + (concluded != 0)
        current = next_image if pivoted else current
        wait_free(current)
        judge(current)
        wanted = set(map(os.path.realpath, chain(current)))
        for name in os.listdir("."):
            if name.endswith(".qcow2") and os.path.realpath(name) not in wanted:
                os.remove(name)
except AssertionError as error:
    die(error)
print(f"ok: {ROUNDS} kills of seed {SEED}, {ended} jobs had ended, {pivots} had taken over: {done}")

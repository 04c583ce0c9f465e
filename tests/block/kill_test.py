"""Writers that are killed at random: no image may be worse than leaking, and what a flush had acknowledged is there."""
from images import *
import signal, time

SEED = int(os.environ.get("KILL_SEED", random.randrange(1 << 30)))
ROUNDS = int(os.environ.get("KILL_ROUNDS", "60"))
source = random.Random(SEED)
ours("create", "-f", "qcow2", "base.qcow2", "64M")
peer_io("base.qcow2", "write -P 200 0 8M")
for kind in ["", "lazy_refcounts=on", "extended_l2=on", "cluster_size=4k", "cluster_size=512"]:
    ours("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", *(["-o", kind] if kind else []), "a.qcow2")
    # What was there and flushed before stays, whatever becomes of writers behind it.
    ours("bench", "-w", "-c", "256", "-s", "4096", "--pattern", "77", "a.qcow2")
    for round_ in range(ROUNDS // 5):
        command = OURS + ["bench", "-w", "-r", "-c", "1000000", "-d", "32", "-s", "4096", "-o", "1M", "--pattern",
                          str(1 + round_), "--seed", str(source.randrange(1 << 20)), "--flush-interval", "100", "a.qcow2"]
        writer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(source.random() * 0.25)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        code = ours("check", "a.qcow2", expect=None)
        dirty = "lazy" in kind
        if code.returncode not in ((0, 2, 3) if dirty else (0, 3)):
            sys.exit(f"FAILED: seed {SEED}, {kind}: {code.stdout}{code.stderr}")
        if not dirty and run(["qemu-img", "check", "a.qcow2"], None).returncode not in (0, 3):
            sys.exit(f"FAILED: seed {SEED}, {kind}: qemu-img check finds errors")
        if dirty or round_ % 4 == 3:
            ours("check", "--repair", "all", "a.qcow2")
            clean("a.qcow2")
        peer_io("a.qcow2", "read -P 77 0 1M")
print(f"ok: {ROUNDS} kills of seed {SEED}")

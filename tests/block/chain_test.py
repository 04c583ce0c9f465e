"""Random work on random chains by both programs in turn; at each step contents must be what a plain file says."""
from images import *

SEED = int(os.environ.get("CHAIN_SEED", random.randrange(1 << 30)))
STEPS = int(os.environ.get("CHAIN_STEPS", "60"))
MIB = 1 << 20
KINDS = ["", "cluster_size=4k", "extended_l2=on", "compat=0.10", "lazy_refcounts=on", "refcount_bits=8", "compression_type=zstd",
         "cluster_size=512"]


class Chain:
    def __init__(self, source):
        self.source, self.size = source, 6 * MIB
        self.images, self.saved, self.count = [], {}, 0
        self.content = bytearray(self.size)
        self.grow()

    def pick(self):
        return self.source.choice([ours, peer])

    def grow(self):
        name, kind = f"i{len(self.images)}-{self.count}.qcow2", self.source.choice(KINDS)
        self.count += 1
        command = ["create", "-f", "qcow2"] + (["-o", kind] if kind else [])
        command += ["-b", self.images[-1], "-F", "qcow2"] if self.images else []
        self.pick()(*command, name, str(self.size))
        self.images.append(name)
        self.saved = {}

    def top(self):
        return self.images[-1]

    def place(self):
        length = self.source.choice([512, 4096, 65536, 130 * 1024])
        return self.source.randrange(0, (self.size - length) // 512) * 512, length

    def write(self):
        commands = []
        for _ in range(self.source.randrange(1, 8)):
            (offset, length), byte = self.place(), self.source.randrange(1, 256)
            zero = self.source.random() < 0.3
            commands.append(f"write -z {offset} {length}" if zero else f"write -P {byte} {offset} {length}")
            self.content[offset:offset + length] = bytes([0 if zero else byte]) * length
        peer_io(self.top(), *commands)

    def bench(self):
        byte, size, count = self.source.randrange(1, 256), self.source.choice([4096, 12288, 65536]), self.source.randrange(1, 30)
        offset, _ = self.place()
        offset = min(offset, self.size - size)
        step = self.source.choice([size, 3 * size + 512])
        count = min(count, (self.size - size - offset) // step + 1)
        ours("bench", "-w", "-d", "8", "-c", str(count), "-s", str(size), "-S", str(step), "-o", str(offset), "--pattern", str(byte), self.top())
        places = (self.size - offset) // size * size
        for i in range(count):
            at = min(offset + (i * step) % places, self.size - size)
            self.content[at:at + size] = bytes([byte]) * size

    def snapshot(self):
        name = f"s{self.count}"
        self.count += 1
        self.pick()("snapshot", "-c", name, self.top())
        self.saved[name] = bytes(self.content)

    def go_back(self):
        if self.saved:
            name = self.source.choice(sorted(self.saved))
            self.pick()("snapshot", "-a", name, self.top())
            self.content = bytearray(self.saved[name])

    def forget(self):
        if self.saved:
            name = self.source.choice(sorted(self.saved))
            self.pick()("snapshot", "-d", name, self.top())
            del self.saved[name]

    def convert(self):
        kind = self.source.choice(KINDS)
        command = ["convert", "-O", "qcow2"] + (["-c"] if self.source.random() < 0.5 else []) + (["-o", kind] if kind else [])
        name = f"flat{self.count}.qcow2"
        self.count += 1
        self.pick()(*command, self.top(), name)
        self.images, self.saved = [name], {}

    def rebase(self):
        if len(self.images) > 2 and not self.saved:
            self.pick()("rebase", "-b", self.images[-3], "-F", "qcow2", self.top())
            del self.images[-2]

    def commit(self):
        if len(self.images) > 1 and not self.saved:
            self.pick()("commit", self.top())

    def judge(self):
        with open("expected.raw", "wb") as file:
            file.write(self.content)
        same("expected.raw", self.top(), "-f", "raw", "-F", "qcow2")
        for image in self.images:
            clean(image)

    def step(self):
        kinds = [self.write] * 4 + [self.bench] * 3 + [self.snapshot, self.go_back, self.forget, self.convert, self.rebase, self.commit]
        work = self.source.choice(kinds + ([self.grow] if len(self.images) < 5 else []))
        work()
        self.judge()
        return work.__name__


chain, done = Chain(random.Random(SEED)), []
try:
    for _ in range(STEPS):
        done.append("?")
        done[-1] = chain.step()
    print(f"ok: {STEPS} steps of seed {SEED}")
except AssertionError as error:
    sys.exit(f"FAILED: seed {SEED}, after {' '.join(done)}: {error}")

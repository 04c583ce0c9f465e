"""Random work on random chains by both programs in turn; at each step contents must be what a plain file says. Some images are encrypted, and
some have a bitmap, in which both must mark what is written."""
import time
from images import *

SEED = int(os.environ.get("CHAIN_SEED", random.randrange(1 << 30)))
STEPS = int(os.environ.get("CHAIN_STEPS", "60"))
MIB, GRAIN = 1 << 20, 64 << 10
KINDS = ["", "cluster_size=4k", "extended_l2=on", "compat=0.10", "lazy_refcounts=on", "refcount_bits=8", "compression_type=zstd",
         "cluster_size=512"]
SECRET = ["--object", "secret,id=k,file=key"]
KEYS = ["--key-file", "key", "--backing-key-file", "key"]
with open("key", "wb") as secret_file:
    secret_file.write(b"what opens them all")


class Image:
    def __init__(self, name, kind, secret):
        self.name, self.kind, self.secret = name, kind, secret

    def options(self, make):
        """What `make` calls it when it is made."""
        words = [self.kind] if self.kind else []
        if self.secret:
            words += (["encrypt.format=luks,encrypt.key-file=key,encrypt.iter-time=5"] if make is ours else
                      ["encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=40"])
        return ["-o", ",".join(words)] if words else []


def peer_makes(*arguments):
    # Its measuring of how many rounds are enough fails now and then on a busy host.
    for _ in range(50):
        done = peer(*arguments, expect=None)
        if "CPU usage" not in done.stderr:
            break
    if done.returncode:
        raise AssertionError(f"qemu-img {' '.join(arguments)}: {done.stderr}")


class Chain:
    def __init__(self, source):
        self.source, self.size = source, 6 * MIB
        self.images, self.saved, self.count, self.marked = [], {}, 0, None
        self.content = bytearray(self.size)
        self.grow()

    def pick(self):
        return self.source.choice([ours, peer])

    def new_image(self, stem):
        self.count += 1
        return Image(f"{stem}{self.count}.qcow2", self.source.choice(KINDS), self.source.random() < 0.3)

    def peer_words(self, last=None, alone=False):
        """The chain up to images[last], or that image alone, in the words of the other side."""
        below = self.images[:len(self.images) if last is None else last + 1][::-1][:1 if alone else None]
        words = [f"driver=qcow2,file.filename={below[0].name}"]
        words += [f"{'backing.' * depth}encrypt.key-secret=k" for depth, image in enumerate(below) if image.secret]
        return ",".join(words)

    def by_peer(self, verb, *arguments, last=None):
        peer(verb, *SECRET, "--image-opts", *arguments, self.peer_words(last))

    def grow(self):
        image, make = self.new_image("i"), self.pick()
        backing = ["-b", self.images[-1].name, "-F", "qcow2"] if self.images else []
        if make is ours:
            ours("create", "-f", "qcow2", *image.options(ours), *backing, *KEYS, image.name, str(self.size))
        else:  # it has no words for a backing file's key
            peer_makes("create", *SECRET, "-f", "qcow2", *image.options(peer), *backing, *(["-u"] if backing else []), image.name, str(self.size))
        self.images.append(image)
        self.saved, self.marked = {}, None

    def top(self):
        return self.images[-1]

    def put(self, offset, length, byte):
        self.content[offset:offset + length] = bytes([byte]) * length
        if self.marked is not None:
            self.marked.update(range(offset // GRAIN, (offset + length - 1) // GRAIN + 1))

    def place(self):
        length = self.source.choice([512, 4096, 65536, 130 * 1024])
        return self.source.randrange(0, (self.size - length) // 512) * 512, length

    def write(self):
        commands = []
        for _ in range(self.source.randrange(1, 8)):
            (offset, length), byte = self.place(), self.source.randrange(1, 256)
            zero = self.source.random() < 0.3
            commands.append(f"write -z {offset} {length}" if zero else f"write -P {byte} {offset} {length}")
            self.put(offset, length, 0 if zero else byte)
        peer_io(self.peer_words(), *commands, options=[*SECRET, "--image-opts"])

    def bench(self):
        byte, size, count = self.source.randrange(1, 256), self.source.choice([4096, 12288, 65536]), self.source.randrange(1, 30)
        offset, _ = self.place()
        offset = min(offset, self.size - size)
        step = self.source.choice([size, 3 * size + 512])
        count = min(count, (self.size - size - offset) // step + 1)
        ours("bench", "-w", "-d", "8", "-c", str(count), "-s", str(size), "-S", str(step), "-o", str(offset), "--pattern", str(byte), *KEYS,
             self.top().name)
        places = (self.size - offset) // size * size
        for i in range(count):
            self.put(min(offset + (i * step) % places, self.size - size), size, byte)

    def mark(self):
        """A bitmap begins, or ends."""
        if self.top().kind == "compat=0.10":
            return
        how = "--add" if self.marked is None else "--remove"
        if self.pick() is ours:
            ours("bitmap", how, *(["-g", "64k"] if how == "--add" else []), self.top().name, "b")
        else:
            peer("bitmap", *SECRET, "--image-opts", how, *(["-g", "64k"] if how == "--add" else []), self.peer_words(alone=True), "b")
        self.marked = set() if self.marked is None else None

    def unmarked(self):
        """What follows changes what a bitmap is for."""
        if self.marked is not None:
            self.mark()

    def snapshot(self):
        name = f"s{self.count}"
        self.count += 1
        if self.pick() is ours:
            ours("snapshot", "-c", name, self.top().name)
        else:
            self.by_peer("snapshot", "-c", name)
        self.saved[name] = bytes(self.content)

    def of_saved(self, how):
        name = self.source.choice(sorted(self.saved))
        if self.pick() is ours:
            ours("snapshot", how, name, self.top().name)
        else:
            self.by_peer("snapshot", how, name)
        return name

    def go_back(self):
        if self.saved:
            self.unmarked()
            self.content = bytearray(self.saved[self.of_saved("-a")])

    def forget(self):
        if self.saved:
            del self.saved[self.of_saved("-d")]

    def convert(self):
        image, make, packed = self.new_image("flat"), self.pick(), self.source.random() < 0.5
        image.secret = image.secret and not packed
        packing = ["-c"] if packed else []
        if make is ours:
            ours("convert", "-O", "qcow2", *packing, *image.options(ours), *KEYS, self.top().name, image.name)
        else:
            peer_makes("convert", *SECRET, "--image-opts", "-O", "qcow2", *packing, *image.options(peer), self.peer_words(), image.name)
        self.images, self.saved, self.marked = [image], {}, None

    def rebase(self):
        if len(self.images) > 2 and not self.saved:
            self.unmarked()
            to = ["-b", self.images[-3].name, "-F", "qcow2"]
            # It has no words for the new one's key.
            if self.pick() is ours or any(image.secret for image in self.images[:-2]):
                ours("rebase", *to, *KEYS, self.top().name)
            else:
                self.by_peer("rebase", *to)
            del self.images[-2]

    def commit(self):
        if len(self.images) > 1 and not self.saved:
            self.unmarked()
            if self.pick() is ours:
                ours("commit", *KEYS, self.top().name)
            else:
                self.by_peer("commit")

    def judge(self):
        with open("expected.raw", "wb") as file:
            file.write(self.content)
        peer("compare", *SECRET, "--image-opts", "driver=raw,file.filename=expected.raw", self.peer_words())
        ours("compare", "-f", "raw", "-F", "qcow2", "--other-key-file", "key", "--backing-key-file", "key", "expected.raw", self.top().name)
        for depth, image in enumerate(self.images):
            ours("check", image.name)
            self.by_peer("check", last=depth)
        if self.marked is not None:
            self.judge_marks()

    def judge_marks(self):
        found = json.loads(ours("bitmap", "--output=json", self.top().name).stdout)
        assert [(one["name"], one["flags"], one["granularity"]) for one in found] == [("b", ["auto"], GRAIN)], found
        shown = marked_grains(self.top().name, self.peer_words())
        assert shown == self.marked, f"marked: {sorted(shown)}, written: {sorted(self.marked)}"

    def step(self):
        kinds = ([self.write] * 4 + [self.bench] * 3 + [self.mark] * 2 +
                 [self.snapshot, self.go_back, self.forget, self.convert, self.rebase, self.commit])
        work = self.source.choice(kinds + ([self.grow] if len(self.images) < 5 else []))
        work()
        self.judge()
        return work.__name__


def marked_grains(image, words):
    """The bits of the bitmap "b", as clients of qemu-nbd are told; through this option marked places hold no data."""
    socket = os.path.join(FOLDER, "nbd.sock")
    # Only what does not record now can be shown without changing the image.
    ours("bitmap", "--disable", image, "b")
    server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", socket, *SECRET, "--image-opts", "-B", "b", words], stderr=subprocess.PIPE, text=True)
    try:
        while not os.path.exists(socket):
            if server.poll() is not None:
                raise AssertionError(f"qemu-nbd: {server.stderr.read()}")
            time.sleep(0.01)
        shown = json.loads(peer("map", "--output=json", "--image-opts", "driver=nbd,server.type=unix,server.path=" + socket +
                                ",x-dirty-bitmap=qemu:dirty-bitmap:b").stdout)
    finally:
        server.terminate(), server.communicate()
        if os.path.exists(socket):
            os.remove(socket)
    ours("bitmap", "--enable", image, "b")
    return {grain for one in shown if not one["data"]
            for grain in range(one["start"] // GRAIN, (one["start"] + one["length"]) // GRAIN)}


if shutil.which("qemu-nbd") is None:
    sys.exit("qemu-nbd is not installed, though qemu-img is")
chain, done = Chain(random.Random(SEED)), []
try:
    for _ in range(STEPS):
        done.append("?")
        done[-1] = chain.step()
    print(f"ok: {STEPS} steps of seed {SEED}")
except AssertionError as error:
    sys.exit(f"FAILED: seed {SEED}, after {' '.join(done)}: {error}")

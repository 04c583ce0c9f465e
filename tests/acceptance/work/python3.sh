# Numbers, texts, compression, processes, threads and exceptions in Python.
python3 --version
cat > work.py <<'P'
import cmath, collections, decimal, fractions, hashlib, heapq, itertools, json, math, multiprocessing, random, re, struct
import subprocess, sys, threading, zlib, bz2, lzma

def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()

def square_sums(n):
    return sum(i * i % 7 for i in range(n))

def primes(limit):
    sieve = bytearray([1]) * limit
    for i in range(2, int(limit ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i::i] = bytes(len(range(i * i, limit, i)))
    return [i for i in range(2, limit) if sieve[i]]

def main():
    sys.set_int_max_str_digits(0)
    rng = random.Random(7)
    floats = [rng.uniform(-1e3, 1e3) for _ in range(20000)]
    for name in "sin cos tan atan exp2 expm1 erf cbrt tanh lgamma".split():
        print(name, digest([getattr(math, name)(x / 100) for x in floats]))
    print("sqrt log pow", digest([(math.sqrt(abs(x)), math.log(abs(x) + 1), abs(x) ** 1.7) for x in floats]))
    print("hex", [x.hex() for x in floats[:5]], math.fsum(floats).hex(), cmath.exp(1j * floats[0]))
    print("round", digest([(round(x, 2), int(x), x // 7, x % 7, f"{x:.3e}") for x in floats]))
    decimal.getcontext().prec = 1000
    print("decimal", decimal.Decimal(2).sqrt(), decimal.Decimal(1).exp())
    print("big", digest(3 ** 20000 % (10 ** 3000 + 7)), digest(math.factorial(3000)), sum(fractions.Fraction(1, i) for i in range(1, 300)))
    print("primes", len(primes(300000)), digest(primes(300000)))
    words = [hashlib.md5(str(i).encode()).hexdigest()[:rng.randint(1, 12)] for i in range(50000)]
    print("sort", digest(sorted(words)), digest(sorted(words, key=lambda w: (len(w), w[::-1]))))
    print("count", collections.Counter("".join(words)).most_common(16), heapq.nlargest(5, words))
    print("regex", digest(re.findall(r"(?:[a-f]+\d){2,}", " ".join(words))), len(re.sub(r"\d", "", "".join(words))))
    data = " ".join(words).encode()
    for name, module in (("zlib", zlib), ("bz2", bz2), ("lzma", lzma)):
        packed = module.compress(data)
        print(name, len(packed), hashlib.sha256(packed).hexdigest(), module.decompress(packed) == data)
    print("crc", zlib.crc32(data), zlib.adler32(data), hashlib.blake2b(data).hexdigest(), hashlib.sha3_256(data).hexdigest())
    print("json", digest(json.loads(json.dumps({w: [i, i / 3] for i, w in enumerate(words[:5000])}))))
    print("struct", struct.pack("<dfeqh", 1.1, 2.2, 3.3, -4, 5).hex())
    print("permutations", digest(list(itertools.permutations(range(7)))))
    with multiprocessing.Pool(2) as pool:
        print("pool", pool.map(square_sums, range(10000, 10040)))
    total, lock = [0], threading.Lock()
    def add():
        for _ in range(20000):
            with lock:
                total[0] += 1
    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print("threads", total)
    def deep(n):
        if n == 0: raise KeyError("bottom")
        deep(n - 1)
    try:
        deep(500)
    except KeyError as error:
        print("exception", error)
    try:
        1 // 0
    except ZeroDivisionError as error:
        print("exception", error)
    done = subprocess.run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])
    print("signal", done.returncode)

main()
P
python3 work.py
python3 -m compileall -q -f -d x --invalidation-mode unchecked-hash work.py && sha256sum __pycache__/*.pyc
for module in json re decimal email asyncio typing; do python3 -c "import $module, sys; print('$module', len(dir($module)))"; done

# Compiles zbench.c in several ways, byte for byte the same, and runs it: by a clock of its own with the same numbers, and by
# the real clock, where only the names and units are the same.
gcc --version | head -n 1
cat clock.h zbench.c sink.c > steady.c
for flags in -O2 "-O3 -march=x86-64-v3" "-Os -static -flto"; do
  gcc $flags -w -o zbench zbench.c -lm -pthread
  gcc $flags -w -o steady steady.c -lm -pthread
  echo "flags $flags"
  sha256sum zbench steady
  for name in int sha256 fp tree sort memcpy chase atomic syscall pipe fault fork exec pread4k; do
    ./steady $name
  done
  ZB_SECS=0.01 ./zbench | awk '{ print $1, $2, $4, ($3 > 0) }'
done
gcc -O2 -S -o - zbench.c | sha256sum
gcc -O2 -E zbench.c | sha256sum

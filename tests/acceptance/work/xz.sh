# Compresses with two threads and back, in several ways.
xz --version | head -n 1
{ seq 1 200000; find /usr/share /usr/lib -type f -size -200k | LC_ALL=C sort | head -n 300 | xargs cat; } > data
sha256sum data
for options in "-T2 --block-size=1MiB -6" "-T2 --block-size=2MiB -1" "-T1 -5" "-T2 --block-size=1MiB --x86 --lzma2=preset=4" "-T1 --format=lzma -3" "-T2 --block-size=1MiB --check=sha256 -2"; do
  xz -k -c $options data > packed
  echo "$options $(wc -c < packed) $(sha256sum < packed)"
  xz -d -T2 -c < packed | sha256sum
  xz -t packed && echo tested
done
head -c 100000 packed > cut; xz -t cut 2>/dev/null || echo "cut off: $?"
gzip -9 -n -c data | sha256sum; bzip2 -c data 2>/dev/null | sha256sum

# A disk read for long: how many exits to user space come of it, beyond those of a zone that does nothing.
exits() { tr -d '\n' <"$1" | grep -o '"'"$2"'": { *"count": [0-9]*' | grep -o '[0-9]*$'; }
dd if=/dev/urandom of=/tmp/disk bs=1M count=64 status=none
for work in true 'dd if=/dev/bulkhead/disk1 of=/dev/null bs=64k iflag=direct status=none'; do
  bulkhead run --abi none --engine kvm -V pvh --boot-timeout 300 --disk /tmp/disk,ro --report /tmp/report.json \
    "$LAB/rootfs/debian.erofs" -- sh -c "$work" || exit 1
  echo "mmio $(exits /tmp/report.json mmio) port $(exits /tmp/report.json port): $work"
  mmio+=("$(exits /tmp/report.json mmio)")
done
echo "1024 reads of 64 KiB made $((mmio[1] - mmio[0])) exits of memory accesses"
[ $((mmio[1] - mmio[0])) -lt 50 ]

#!/bin/bash
# A zone on a tap device with and without the kernel's vhost-net: the same traffic, as virtio and checksums have it; what is in the report;
# how many exits to user space come of it; and a tap that is removed.
set -u
failed() { echo "FAILED: $*"; exit 1; }
ip link set lo up
zone() { # VHOST SCRIPT
  bulkhead run --abi none --engine kvm -V pvh -c 2 --boot-timeout 300 --disk /tmp/data,ro --report /tmp/report.json \
    --net "tap=tz,vhost=$1,ip=10.9.0.2/24,ip=fd09::2/64,queues=2" "$LAB/rootfs/debian.erofs" -- bash -c "$2"
}
ip tuntap add dev tz mode tap multi_queue vnet_hdr
ip link set tz mtu 9000 up
ip addr add 10.9.0.1/24 dev tz
ip -6 addr add fd09::1/64 dev tz nodad
dd if=/dev/urandom of=/tmp/data bs=1M count=32 status=none
sum=$(sha256sum </tmp/data | cut -d' ' -f1)
number() { tr -d ' \n' <"$1" | grep -o "\"$2\":[^,}]*" | head -1 | cut -d: -f2; }
exits() { tr -d ' \n' <"$1" | grep -o '"mmio":{"count":[0-9]*' | grep -o '[0-9]*$'; }
for vhost in off on auto; do
  # Both ways on each family, by what bash alone can do. The zone sends its disk, and sums what it is sent.
  ( for at in 10.9.0.1 fd09::1; do "$LAB/bin/net_probe" accept $at 7100 /tmp/data >/tmp/came.$at; done ) & peer=$!
  out=$(zone $vhost 'for at in 10.9.0.1 fd09::1; do
      for i in $(seq 100); do exec 3<>/dev/tcp/$at/7100 && break; sleep 0.1; done 2>/dev/null
      cat /dev/bulkhead/disk1 >&3 & head -c 33554432 <&3 | sha256sum | cut -d" " -f1; wait; exec 3>&-; done; cat /sys/class/net/eth0/mtu')
  status=$?
  [ $status = 0 ] || { kill $peer; failed "vhost=$vhost: status $status: $out"; }
  wait $peer
  [ "$out" = "$sum"$'\n'"$sum"$'\n9000' ] || failed "vhost=$vhost: the zone says $out, not $sum"
  for at in 10.9.0.1 fd09::1; do
    [ "$(cat /tmp/came.$at)" = "$sum" ] || failed "vhost=$vhost: to $at came $(cat /tmp/came.$at)"
  done
  used=$(number /tmp/report.json vhost)
  [ "$used" = "$([ $vhost = off ] && echo false || echo true)" ] || failed "vhost=$vhost: the report says $used"
  echo "vhost=$vhost: 32 MiB each way by IPv4 and IPv6, the same bytes; exits of memory accesses: $(exits /tmp/report.json)"
done
# A limit is ours to keep, so then the kernel does not carry the frames; asking for both is refused.
bulkhead run --engine kvm -V pvh --net tap=tz,vhost=on,in-bytes=1M "$LAB/rootfs/debian.erofs" -- true 2>/tmp/error && failed "vhost=on with a limit"
grep -q 'knows no limits' /tmp/error || failed "$(cat /tmp/error)"
# The device goes: link down, one line, and the zone goes on.
mkfifo /tmp/go
zone on 'cat /sys/class/net/eth0/carrier; read line; for i in $(seq 100); do [ "$(cat /sys/class/net/eth0/carrier)" = 0 ] && break; sleep 0.1; done
  cat /sys/class/net/eth0/carrier; echo on' </tmp/go >/tmp/out 2>/tmp/error & zone=$!
exec 4>/tmp/go
until grep -q 1 /tmp/out; do kill -0 $zone 2>/dev/null || failed "no zone: $(cat /tmp/error)"; sleep 0.2; done
ip link del tz
echo >&4
wait $zone || failed "status $?: $(cat /tmp/error)"
[ "$(tr '\n' ' ' </tmp/out)" = "1 0 on " ] || failed "a removed tap: $(cat /tmp/out)"
[ "$(grep -c 'gone' /tmp/error)" = 1 ] || failed "a removed tap is said so once: $(cat /tmp/error)"
echo "vhost: all as it must be"

# boots.sh TIMES [OPTION...]: every staged cloud kernel with 1 and 2 vCPUs.
times=$1; shift
status=0
for kernel in $(ls "$LAB/kernels"); do
  for vcpus in 1 2; do
    good=0
    for _ in $(seq "$times"); do
      out=$(timeout 300 bulkhead run "$@" -c $vcpus --kernel "$kernel" --boot-timeout 280 "$LAB/rootfs/debian.erofs" -- \
        sh -c 'cat /sys/hypervisor/guest_type; nproc; uname -r' </dev/null 2>/tmp/err)
      if [ "$out" = "PVH
$vcpus
$kernel" ]; then good=$((good + 1)); else echo "$kernel, $vcpus vCPUs: $out $(tail -n 3 /tmp/err)"; fi
    done
    echo "$kernel, $vcpus vCPUs: $good of $times"
    [ $good = "$times" ] || status=1
  done
done
exit $status

# auto is pvh on kvm, and the guest says so; by KVM's own interception and without it.
status=0
for way in "" --engine-option=kvm.xen=off; do
  out=$(bulkhead run $way --boot-timeout 300 --report /tmp/report.json "$LAB/rootfs/debian.erofs" -- cat /sys/hypervisor/guest_type) || status=1
  report=$(tr -d '\n' </tmp/report.json)
  case "$out/$report" in
    'PVH/'*'"engine": "kvm",'*'"reason": "auto: the hardware engine kvm is usable'*) echo "auto $way: $out on kvm" ;;
    *) echo "auto $way: $out, $report"; status=1 ;;
  esac
done
exit $status

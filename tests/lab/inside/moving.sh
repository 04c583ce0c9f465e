# moving.sh [MICROSECONDS [VCPUS]]: a Debian kernel boots and panics for want of a root, while its vCPUs move to fresh ones.
kernel=$(ls "$LAB"/kernels/*/boot/vmlinuz-* | head -n 1)
timeout 900 round_trip_run kvm "${1:-1000}" "${2:-1}" "$kernel" "console=ttyS0 panic=-1" >/tmp/moving 2>&1
tail -n 4 /tmp/moving
grep -q 'Kernel panic - not syncing: VFS: Unable to mount root' /tmp/moving && grep -q '^moved [1-9][0-9]' /tmp/moving

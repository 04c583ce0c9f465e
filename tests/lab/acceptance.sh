# acceptance.sh FOLDER [OPTION...]: the short acceptance list with these options of `bulkhead run`. A line for each row:
# name, a tab, the result. The same rows with the same results whatever runs the zone.
folder=$1; shift
images=${ROOTFS:-$folder/rootfs/debian.erofs}
row() { printf '%s\t%s\n' "$1" "$2"; }
boot() { timeout 600 bulkhead run --boot-timeout 500 "$@" </dev/null 2>/tmp/acceptance-error; }
for kernel in $(ls "$folder/kernels"); do
  for vcpus in 1 2; do
    out=$(boot "$@" -c $vcpus --kernel "$kernel" "$images" -- sh -c 'nproc; uname -r')
    row "boots $kernel, $vcpus vCPU" "$(echo $out) status $?"
  done
done
boot "$@" "$images" -- sh -c 'exit 37'; row 'exit status' $?
row 'a signal' "$(boot "$@" "$images" -- sh -c 'kill -9 $$'; echo $?)"
row 'stdin to stdout, 1 MB' "$(head -c 1000000 /dev/zero | tr '\0' x | timeout 600 bulkhead run --boot-timeout 500 "$@" "$images" -- cat 2>/dev/null | sha256sum | head -c 16)"
for work in "$folder"/work/*.sh; do
  name=$(basename "$work" .sh)
  timeout 2400 bulkhead run "$@" -c 2 -m 1G --boot-timeout 500 --disk "$folder/input.tar,ro" --env INPUT=/dev/bulkhead/disk1 \
    "$folder/rootfs/work.erofs" -- sh -c "mkdir /tmp/work && cd /tmp/work && tar xf \$INPUT && exec sh -eu ./$name.sh" \
    </dev/null >/tmp/acceptance-work 2>/tmp/acceptance-error
  status=$?
  if cmp -s /tmp/acceptance-work "$folder/expected/$name"; then
    row "work: $name" "as on the host, $(wc -l <"$folder/expected/$name") lines, status $status"
  else
    row "work: $name" "differs, status $status: $(tail -c 200 /tmp/acceptance-error | tr '\n\t' '  ')"
  fi
done

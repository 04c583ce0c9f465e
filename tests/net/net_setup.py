"""Makes a Debian root file system with what the tests run in zones. The file BULKHEAD_NET_STATE says "ready" or why not."""
import os
import pathlib
import shutil
import subprocess
import sys

state = pathlib.Path(os.environ["BULKHEAD_NET_STATE"])
folder = pathlib.Path(os.environ["BULKHEAD_NET_ROOTFS"])
SUITE = "bookworm"
PACKAGES = "nginx-light,curl,kmod,iproute2,iputils-ping"


def skip(why):
    state.write_text(why)
    print(f"skipped: {why}")
    sys.exit(77)


if os.geteuid() != 0:
    skip("network namespaces with devices in them take root")
for tool in ("passt", "mmdebstrap", "ip", "nft"):
    if shutil.which(tool) is None:
        skip(f"{tool} is not installed")
if not (folder / "usr/sbin/nginx").exists():
    shutil.rmtree(folder, ignore_errors=True)
    done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(folder)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        skip("making the root file system: " + done.stdout.decode(errors="replace")[-500:])
state.write_text("ready")

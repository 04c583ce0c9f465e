"""Gets what a zone needs into the program's cache: a kernel and the default root file system. Prints why it cannot.

The file BULKHEAD_ZONE_STATE says afterwards whether zones can be started: "ready", or the reason for skipping."""
import os
import pathlib
import sys

from harness import program

# What is the host's or the network's fault, not ours.
MISSING = ("apt-get failed", "there is no package", "making the default Debian root file system", "is not installed")

state = pathlib.Path(os.environ["BULKHEAD_ZONE_STATE"])
state.unlink(missing_ok=True)
done = program.run(["run", "--boot-timeout", "300", "--", "true"], timeout=1200)
text = done.err.decode(errors="replace").strip()
if done.status == 0:
    state.write_text("ready")
    sys.exit(0)
if done.status == 125 and any(word in text for word in MISSING):
    state.write_text(text)
    print(f"skipped: {text}")
    sys.exit(77)
state.write_text("ready")  # the cases are to show what is wrong
print(done)
sys.exit(1)

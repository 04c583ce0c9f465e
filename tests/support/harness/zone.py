"""Whether zones with Debian's kernel and the default root file system can be started here at all."""
import os
import pathlib

from . import program


def need(case):
    """Skips the case with the reason when tests/boot/zone_setup.py could not get what a zone needs."""
    state = os.environ.get("BULKHEAD_ZONE_STATE")
    if state is None:
        return  # started by hand: let it try
    text = pathlib.Path(state).read_text() if os.path.exists(state) else "zone_setup.py has not run"
    if text != "ready":
        case.skipTest(text)


# Time for a kernel to boot on a loaded host, in seconds.
BOOT = int(60 * program.PATIENCE)


def command(*arguments, options=()):
    """The program's arguments for a command in a default zone."""
    return ["run", "--boot-timeout", str(4 * BOOT), *options, "--", *arguments]

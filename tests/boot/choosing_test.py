"""docs/choosing.md shows refusals as they are."""
import json
import pathlib

from harness.case import Case

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs/choosing.md"


class Choosing(Case):
    TIME_LIMIT = 60

    def shown(self):
        """(arguments, stderr) of each command in the document."""
        lines = [line.strip() for line in DOCUMENT.read_text().splitlines() if line.startswith("    ")]
        for command, answer in zip(lines, lines[1:]):
            if command.startswith("$ bulkhead "):
                yield command.split()[2:], answer + "\n"

    def test_refusals_are_as_documented(self):
        host = json.loads(self.run_program("host", "--json").out)
        kvm = next(engine for engine in host["engines"] if engine["name"] == "kvm")
        if "has no VT-x/AMD-V under it" not in kvm["reason"] or any(e["usable"] for e in host["engines"] if e["name"] != "dbt"):
            self.skipTest("this host is not the one that the document speaks of")
        if not next(backend for backend in host["virt_backends"] if backend["name"] == "pv")["built_on"]:
            self.skipTest("virt backend pv is not built")
        commands = list(self.shown())
        self.assertGreater(len(commands), 5)
        for arguments, answer in commands:
            refusal = self.run_program(*arguments)
            self.assert_refused(refusal)
            self.assertEqual(refusal.err.decode(), answer, " ".join(arguments))

"""Runs cases by name: python3 -m harness.main FILE [Class.test ...]. Status 77 when all of them were skipped."""
import importlib.util
import pathlib
import sys
import unittest

SKIPPED = 77


def load(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main(path, *names):
    loader = unittest.TestLoader()
    module = load(path)
    suite = loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    for test, reason in result.skipped:
        print(f"skipped {test.id()}: {reason}")
    if not result.wasSuccessful():
        return 1
    return SKIPPED if result.testsRun and len(result.skipped) == result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

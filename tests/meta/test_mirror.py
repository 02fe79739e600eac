"""Every module has a test file of its name."""

from __future__ import annotations

from tests.meta.sources import ROOT, python_files

WITHOUT_TEST = {
    # Plain data without a decision in it, used by every other test. The list may only shrink.
    "swarmd/domain/plans.py",
    "swarmd/domain/shards.py",
}


def test_every_module_has_a_test_file() -> None:
    names = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    modules = {
        str(path.relative_to(ROOT)): f"test_{path.stem}.py"
        for path in python_files()
        if path.name not in ("__init__.py", "__main__.py")
    }
    missing = {module for module, test in modules.items() if test not in names}
    assert not missing - WITHOUT_TEST, f"no tests/**/test_<module>.py for {sorted(missing - WITHOUT_TEST)}"
    assert not WITHOUT_TEST - missing, f"these have a test, or are gone: take them off: {sorted(WITHOUT_TEST - missing)}"

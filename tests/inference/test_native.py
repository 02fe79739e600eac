"""The struct layouts: they fit the pinned wheel, and whatever does not fit is refused in one sentence."""

from __future__ import annotations

import ctypes as c
import importlib.metadata
import tomllib

import pytest

from swarmd.inference import native
from swarmd.inference.native import WHEEL_VERSION, ContextParams, EngineMismatch, ModelParams, open_library
from tests.meta.sources import ROOT


def test_pyproject_pins_the_wheel_whose_layouts_these_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"xllamacpp=={WHEEL_VERSION}" in project["dependencies"]


def test_the_installed_wheel_passes() -> None:
    check = open_library().check
    assert check.passed
    assert check.wheel_version == WHEEL_VERSION
    assert check.compared >= 30


def test_another_wheel_is_refused_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2031.1.1")
    monkeypatch.setattr(c, "CDLL", lambda path: pytest.fail("it was loaded"))
    with pytest.raises(EngineMismatch, match=r"and 2031\.1\.1 is installed: run 'make install'"):
        open_library()


def shifted(known: type[c.Structure], at: int) -> type[c.Structure]:
    """The same struct as a build would have it that put 8 bytes more before field `at`."""
    fields = list(known._fields_)

    class Shifted(c.Structure):
        _fields_ = [*fields[:at], ("news", c.c_uint64), *fields[at:]]

    return Shifted


@pytest.mark.parametrize("field", ["n_ctx", "n_seq_max", "flash_attn_type", "yarn_ext_factor", "type_k", "embeddings"])
def test_a_shifted_context_struct_is_refused(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = [name for name, _ in ContextParams._fields_].index(field)
    signatures = {**native._SIGNATURES, "llama_context_default_params": (shifted(ContextParams, at),)}
    monkeypatch.setattr(native, "_SIGNATURES", signatures)
    with pytest.raises(EngineMismatch, match=r"layout is not the known one \(\w+ reads .+, expected .+\): reinstall"):
        open_library()


def test_a_shifted_model_struct_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = {**native._SIGNATURES, "llama_model_default_params": (shifted(ModelParams, 11),)}
    monkeypatch.setattr(native, "_SIGNATURES", signatures)
    with pytest.raises(EngineMismatch, match="layout is not the known one"):
        open_library()


def test_a_function_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_SIGNATURES", {**native._SIGNATURES, "llama_vanished": (None,)})
    with pytest.raises(EngineMismatch, match="does not export llama_vanished"):
        open_library()

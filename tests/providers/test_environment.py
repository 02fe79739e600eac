"""Keys around the node."""

from __future__ import annotations

from pathlib import Path

from swarmd.kit.disk import Disk
from swarmd.providers.environment import keys_of, read_file_now


def test_the_first_variable_that_is_usable_counts() -> None:
    environ = {
        "OPENAI_API_KEY": " sk-0123456789 ", "GROQ_API_KEY": "short", "NVIDIA_API_KEY": "nvapi-123456",
        "OTHER_API_KEY": "x" * 20, "MISTRAL_API_KEY": "with blank 123", "DEEPINFRA_TOKEN": "deepinfra-1",
    }  # fmt: skip
    assert keys_of(environ) == {
        "openai": "sk-0123456789", "nvidia_nim": "nvapi-123456", "deepinfra": "deepinfra-1",
    }  # fmt: skip


def test_the_file_in_the_data_folder(tmp_path: Path) -> None:
    assert read_file_now(tmp_path, disk=Disk()) == {}
    (tmp_path / ".env").write_text(
        '# keys\nOPENAI_API_KEY="sk-quoted-12345"\nexport GROQ_API_KEY = gsk_1234567890\n'
        "PATH=/evil\nnonsense\nANTHROPIC_API_KEY=\n"
    )
    assert read_file_now(tmp_path, disk=Disk()) == {
        "OPENAI_API_KEY": "sk-quoted-12345", "GROQ_API_KEY": "gsk_1234567890", "ANTHROPIC_API_KEY": "",
    }  # fmt: skip
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert read_file_now(tmp_path, disk=Disk()) == {}

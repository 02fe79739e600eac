"""Builds llama.cpp's `llama-bench` and `ggml-rpc-server`, which `bench.decode` compares with, in `bench/data/llama.cpp/bin`.

    python -m bench.rpc_build

The sources are those in the source distribution of llama-cpp-python, fetched by that name with pip; the compiler and cmake
come from the system. They get the instructions that the wheel with our engine was built with (AVX2 and its like, not all
that this processor has), so that two ways to split a model are compared, not two compilations of it. Some ten minutes of
two processors, at the lowest priority, once: what is there is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile

from bench.fleet import ROOT

FOLDER = ROOT / "bench" / "data" / "llama.cpp"
BIN = FOLDER / "bin"
PROGRAMS = ("llama-bench", "ggml-rpc-server")
PACKAGE = "llama-cpp-python"
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_RPC=ON", "-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON",
    "-DGGML_F16C=ON", "-DGGML_BMI2=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
)  # fmt: skip


class Unbuilt(Exception):
    """The programs cannot be built here; the text says what is missing."""


def present() -> bool:
    return all((BIN / program).is_file() for program in PROGRAMS)


def build() -> None:
    """Raises Unbuilt."""
    missing = [tool for tool in ("cmake", "c++", "make") if shutil.which(tool) is None]
    if missing:
        raise Unbuilt(f"needs {', '.join(missing)}: install what the system has for compiling C++")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not list(FOLDER.glob("*.tar.gz")):
        _run("pip", sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--no-binary", PACKAGE, "--dest", str(FOLDER), PACKAGE)  # fmt: skip
    (archive,) = FOLDER.glob("*.tar.gz")
    source, work = FOLDER / "source", FOLDER / "build"
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(source, filter="data")
    (tree,) = source.glob("*/vendor/llama.cpp")
    _run("cmake", "cmake", "-S", str(tree), "-B", str(work), *FLAGS)
    _run("the compiler", "cmake", "--build", str(work), "--parallel", str(os.cpu_count() or 1), "--target", *PROGRAMS)
    BIN.mkdir(exist_ok=True)
    for program in PROGRAMS:
        shutil.copy2(work / "bin" / program, BIN / program)
    shutil.rmtree(source)
    shutil.rmtree(work)


def _run(what: str, *command: str) -> None:
    done = subprocess.run(["nice", "-n", "19", *command], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise Unbuilt(f"{what} ended with {done.returncode}")


def main() -> int:
    try:
        if not present():
            build()
    except Unbuilt as error:
        print(f"bench.rpc_build: {error}", file=sys.stderr)
        return 1
    print(", ".join(PROGRAMS), "are built")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""An NVIDIA driver that a compiler makes: it answers what a test wants, through the real calling conventions."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = """
#include <stddef.h>
#include <string.h>
static const char *names[] = {NAMES};
static const size_t memories[] = {MEMORIES};
static const int capabilities[] = {CAPABILITIES};
int cuInit(unsigned flags) { return flags ? 1 : INIT; }
int cuDriverGetVersion(int *version) { *version = CUDA; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 100 + ordinal; return 0; }
int cuDeviceGetName(char *name, int room, int device) { strncpy(name, names[device - 100], room); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = memories[device - 100]; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = capabilities[device - 100];
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
    return 0;
}
int cuGetErrorString(int error, const char **text) { *text = error == 803 ? "driver mismatch" : NULL; return 0; }
"""


def compile_library(path: Path, source: str = "int here;") -> Path:
    """A shared library of C code; skips the test where there is no compiler for it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a library with")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-shared", "-fPIC", "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


def compile_driver(folder: Path, cuda: int, gpus: list[tuple[str, int, int]], init: int = 0) -> Path:
    """A libcuda.so.1.

    Args:
        folder: where it is written.
        cuda: the newest CUDA that it runs, as cuDriverGetVersion says it: 12040 is 12.4.
        gpus: name, bytes of memory and compute capability, such as 75, of each.
        init: what cuInit answers; 0 is no error.
    """
    values = {
        "NAMES": ", ".join(f'"{name}"' for name, _, _ in gpus) or "0",
        "MEMORIES": ", ".join(f"{memory}u" for _, memory, _ in gpus) or "0",
        "CAPABILITIES": ", ".join(str(capability) for _, _, capability in gpus) or "0",
        "INIT": str(init),
        "CUDA": str(cuda),
        "COUNT": str(len(gpus)),
    }
    defines = "\n".join(f"#define {name} {value}" for name, value in values.items())
    return compile_library(folder / "libcuda.so.1", f"{defines}\n{SOURCE}")

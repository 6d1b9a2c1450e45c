"""The C extension; everything else is in pyproject.toml."""

from setuptools import Extension, setup

SOURCES = ["_nsmodule.c", "calls.c", "guard.c", "init_elf.c", "ioctls.c", "plan.c", "process.c", "scan.c", "scanmod.c", "spawn.c", "steps.c"]

setup(
    ext_modules=[
        Extension(
            "nsutil._ns",
            [f"src/{name}" for name in SOURCES],
            extra_compile_args=["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fvisibility=hidden"],
        )
    ]
)

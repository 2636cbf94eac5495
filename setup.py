"""The parts of the build that pyproject.toml cannot say: the accelerators, which an installation can do without."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Without a C compiler the same rows come out, more slowly.
        Extension(
            f"trailsift._native._{name}",
            [f"src/trailsift/_native/{name}.c"],
            extra_compile_args=["-O3", "-std=c11"],
            optional=True,
        )
        for name in ("groups", "keys", "scan")
    ]
)

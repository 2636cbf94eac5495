"""The parts of the build that pyproject.toml cannot say: the accelerator, which an installation can do without."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "trailsift._scan",
            ["src/trailsift/_scan.c"],
            extra_compile_args=["-O3", "-std=c11"],
            # Without a C compiler the same rows come out, more slowly.
            optional=True,
        )
    ]
)

"""Commands of the AWS side: ``trailsift aws ...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from trailsift.cli.options import JsonOption

aws = App(name="aws", help="The AWS side as files: made without credentials, for you to look at and to use.")


@aws.command(help_epilogue="")
def package(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The zip to write.")] = Path("firehose.zip"),
    arch: Annotated[Literal["arm64", "x86_64"], Parameter(help="The machine that Lambda runs it on.")] = "arm64",
    python: Annotated[str, Parameter(help="Version of Lambda's Python.")] = "3.13",
    rules: Annotated[Path | None, Parameter(help="A rules file to pack: what the stream keeps.")] = None,
    wheels: Annotated[Path | None, Parameter(help="A folder of wheels, where there is no network.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Build the zip of the Lambda function that transforms a Firehose stream.

    Example: `trailsift aws package --arch arm64 --output transform.zip`
    """
    from trailsift.aws.package import HANDLER, build
    from trailsift.views.console import print_json

    made = build(output, arch=arch, python=python, rules=rules, wheels=wheels)
    if as_json:
        print_json({**made._asdict(), "path": str(made.path), "handler": HANDLER})
    else:
        print(f"{made.path}: {made.size:,} bytes, python{made.python} on {made.arch}, handler {HANDLER}")
        print(f"sha256 {made.sha256}")
    return 0


"""Render all files for AWS. Needs no credentials and makes no network calls."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from trailsift.deploy import athena_sql, boards, steampipe, template
from trailsift.deploy.package import ARCH, PYTHON, Arch
from trailsift.deploy.tables import StackConfig
from trailsift.errors import UsageError
from trailsift.storage.output_file import new_file


def files(config: StackConfig, stack: str = "trailsift", *, python: str = PYTHON, arch: Arch = ARCH) -> dict[str, str]:
    """Return the files as path -> text. ``stack``: the name of the CloudFormation stack, which names the stream, too.

    ``python`` and ``arch`` are those that the function's zip is built for.

    Raise UsageError if the bucket has a prefix: the template creates the whole bucket.
    """
    if "/" in config.bucket:
        raise UsageError(
            f"the template creates the bucket: name it without a prefix, {config.bucket.partition('/')[0]}"
        )
    stream, function = stack, f"{stack}-transform"
    texts = {
        # Narrow: AWS takes 51,200 bytes by themselves, more only from a bucket.
        # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
        "cloudformation.json": boards.to_json(template.template(config, python=python, arch=arch), indent=1),
        "cloudwatch/dashboard.json": boards.to_json(boards.cloudwatch_dashboard(config.regions[0], stream, function)),
        "athena.sql": athena_sql.script(athena_sql.statements(config)),
        "grafana/provisioning/datasources/trailsift.yaml": boards.data_sources(config, stack),
        "grafana/provisioning/dashboards/trailsift.yaml": boards.PROVIDER,
        "grafana/policy.json": boards.to_json(boards.grafana_policy(config, stack)),
        **steampipe.files(config),
    }
    for board in get_args(boards.Board):
        texts[f"grafana/dashboards/{board}.json"] = boards.to_json(
            boards.grafana_dashboard(board, config, stream, function)
        )
    return texts


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    """Write the files into a folder; return their paths, in order.

    The folder itself may be a link, which the user has named. Raise UsageError if one of those below it is one, which
    would lead somewhere else, or is not a folder; then nothing is written.
    """
    paths = []
    for name in texts:
        for below in [*Path(name).parents][-2::-1]:
            place = folder / below
            if place.is_symlink():
                raise UsageError(
                    f"{place} is a link: files below it would be written elsewhere. Remove it, or name another folder "
                    "with --out"
                )
            if place.exists() and not place.is_dir():
                raise UsageError(f"{place} is not a folder: remove it, or name another one with --out")
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path, "w", private=False, encoding="utf-8") as file:
            file.write(text)
        paths.append(path)
    return paths

"""Everything of the AWS side as files. Needs no credentials and speaks to nobody."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from trailsift.deploy import athena_sql, boards, steampipe, template
from trailsift.deploy.tables import StackConfig
from trailsift.errors import UsageError


def files(place: StackConfig, stack: str = "trailsift") -> dict[str, str]:
    """Path -> text. ``stack`` is the name under which the template is deployed: the stream is called by it.

    UsageError where the bucket has a prefix: the template makes the whole bucket.
    """
    if "/" in place.bucket:
        raise UsageError(f"the template makes the bucket: name it without a prefix, {place.bucket.partition('/')[0]}")
    stream, function = stack, f"{stack}-transform"
    made = {
        "cloudformation.json": boards.text(template.template(place)),
        "cloudwatch/dashboard.json": boards.text(boards.cloudwatch(place.regions[0], stream, function)),
        "athena.sql": athena_sql.script(athena_sql.statements(place)),
        "grafana/provisioning/datasources/trailsift.yaml": boards.data_sources(place, stack),
        "grafana/provisioning/dashboards/trailsift.yaml": boards.PROVIDER,
        **steampipe.files(place),
    }
    for board in get_args(boards.Board):
        made[f"grafana/dashboards/{board}.json"] = boards.text(boards.grafana(board, place, stream, function))
    return made


def write(folder: Path, made: dict[str, str]) -> list[Path]:
    """Writes them; the paths in their order."""
    paths = []
    for name, text in made.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        paths.append(path)
    return paths

"""What docs/operate.md tells to install: units, cron lines, policies and the container do what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT
from trailsift.cli.app import COMMANDS

DEPLOY = ROOT / "deploy"
SERVICES = sorted((DEPLOY / "systemd").glob("*.service"))
TIMERS = sorted((DEPLOY / "systemd").glob("*.timer"))
PROGRAM = "/opt/trailsift/bin/trailsift"
#: What every unit has, whatever it does.
HARDENED = {
    "User": "trailsift",
    "ProtectSystem": "strict",
    "ReadWritePaths": "/var/lib/trailsift",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "RestrictSUIDSGID": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallFilter": "@system-service",
}
#: The worst rating that `systemd-analyze security` may give, of 100; less is better.
WORST = 20


def settings(path: Path) -> list[tuple[str, str]]:
    """Return the settings of a unit or of a file of variables, in order."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and line[0] not in "#[;"]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def started(path: Path) -> list[list[str]]:
    """Return the words of the commands that a unit starts."""
    return [shlex.split(value) for name, value in settings(path) if name == "ExecStart"]


def test_there_is_something_to_check() -> None:
    assert {path.stem for path in SERVICES} == {"trailsift-ingest", "trailsift-upkeep", "trailsift-watch"}
    assert {path.stem for path in TIMERS} == {"trailsift-ingest", "trailsift-upkeep"}


# -- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_unit_is_confined(path: Path) -> None:
    found = dict(settings(path))
    assert {name: found.get(name) for name in HARDENED} == HARDENED


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_unit_starts_commands_that_exist(path: Path) -> None:
    names = {name for _, name, _ in COMMANDS}
    for words in started(path):
        assert words[0] == PROGRAM
        if words[1] == "watch" and "watch" not in names:
            pytest.skip("there is no command watch yet")
        done = subprocess.run(
            [sys.executable, "-m", "trailsift", words[1], "--help"], capture_output=True, text=True, check=True
        )
        assert all(word in done.stdout for word in words[2:] if word.startswith("--"))


def test_variables_are_those_of_the_units() -> None:
    given = {name for name, _ in settings(DEPLOY / "systemd" / "trailsift.conf")}
    used = {
        name for path in SERVICES for words in started(path) for name in re.findall(r"\$\{(\w+)\}", " ".join(words))
    }
    assert used <= given and "TRAILSIFT_LAKE" in given


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that is there."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the units were not verified")
    for path in (*SERVICES, *TIMERS):
        (tmp_path / path.name).write_text(path.read_text("utf-8").replace(PROGRAM, "/bin/true"), "utf-8")
    return tmp_path


def test_systemd_takes_the_units(units: Path) -> None:
    words = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(units.iterdir()))]
    done = subprocess.run(words, capture_output=True, text=True)
    # A machine without the user, or without a running systemd, says so of every unit.
    wrong = [line for line in done.stderr.splitlines() if str(units) in line or "trailsift" in line]
    assert (done.returncode, wrong) == (0, [])


def test_systemd_finds_what_is_wrong(units: Path) -> None:
    """A check that takes everything would be none."""
    path = units / "trailsift-ingest.service"
    path.write_text(path.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystem=perhaps"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True)
    assert "protect system" in done.stderr.lower()


@pytest.mark.parametrize("name", [path.name for path in SERVICES])
def test_systemd_rates_the_units(name: str, units: Path) -> None:
    words = ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={WORST}", str(units / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze rates no files")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


# -- cron ------------------------------------------------------------------------------------------------------------


def test_cron_lines_run(small_logs: Path, tmp_path: Path) -> None:
    """As they stand, but for the places: a second run finds nothing to do, and both are silent."""
    program = tmp_path / "trailsift"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m trailsift "$@"\n')
    program.chmod(0o755)
    places = {
        PROGRAM: str(program),
        "/srv/cloudtrail/AWSLogs": str(small_logs / "AWSLogs"),
        "/var/lib/trailsift/my.lake": str(tmp_path / "my.lake"),
        "/var/cache/trailsift": str(tmp_path / "cache"),
        # The logs are older than two days.
        "--since -2d": "--since 2020-01-01",
    }
    text = (DEPLOY / "cron" / "trailsift").read_text("utf-8")
    for mark, place in places.items():
        assert mark in text
        text = text.replace(mark, place)
    env = dict(os.environ)
    lines = []
    for line in text.splitlines():
        if match := re.fullmatch(r"([A-Z_]+)=(.*)", line):
            env[match[1]] = match[2]
        elif not line.startswith("#"):
            lines.append(re.fullmatch(r"([\d*/,-]+ ){5}trailsift (.*)", line))
    assert len(lines) == 2
    for match in (*lines, *lines):
        assert match is not None and "%" not in match[2], "cron takes a percent sign for a line end"
        done = subprocess.run(["/bin/sh", "-c", match[2]], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((DEPLOY / "policies").glob("*.json")), ids=lambda path: path.name)
def test_policy_names_what_it_allows(path: Path) -> None:
    """Actions and resources in full, nothing about trails, and lists only under a prefix."""
    policy = json.loads(path.read_text("utf-8"))
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Effect"] == "Allow" and all(
            re.fullmatch(r"(s3|sqs|kms|glue):[A-Za-z]+", name) for name in actions
        )
        assert re.fullmatch(r"arn:aws:(s3|sqs|kms|glue):[a-z0-9:-]*:[^*]+(/\*)?", statement["Resource"])
        if "s3:ListBucket" in actions:
            assert all(prefix.endswith("/*") for prefix in statement["Condition"]["StringLike"]["s3:prefix"])


def test_policies_are_on_the_page() -> None:
    page = (ROOT / "docs" / "operate.md").read_text("utf-8")
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".conf"]
    missing = [path.name for path in files if path.name not in page and path.parent.name != "systemd"]
    assert not missing


# -- the container ---------------------------------------------------------------------------------------------------

DOCKERFILE = DEPLOY / "Dockerfile"
#: A local image with Python (and, for the first, a C compiler) to build on, where python:3.13 cannot be had; and a
#: pip.conf for the build.
BUILD_IMAGE, PIP_CONF = "TRAILSIFT_TEST_BUILD_IMAGE", "TRAILSIFT_TEST_PIP_CONF"


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile and what follows each, without comments."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def test_image_runs_without_root_and_holds_what_is_pinned() -> None:
    found = instructions()
    stages = [number for number, (name, _) in enumerate(found) if name == "FROM"]
    final = found[stages[-1] :]
    assert [rest for name, rest in final if name == "USER"] == ["10001:10001"]
    assert not [rest for name, rest in final if name == "RUN"], "nothing is installed into what runs"
    assert [rest for name, rest in final if name == "ENTRYPOINT"] == ['["trailsift"]']
    assert not [rest for name, rest in found if name == "ADD"]
    installed = [rest for name, rest in found if name == "RUN" and "pip install" in rest]
    assert len(installed) == 2 and "--require-hashes" in installed[0] and "--no-index" in installed[1]
    images = [rest for name, rest in found if name == "ARG"]
    assert all(re.fullmatch(r"\w+_IMAGE=python:3\.\d+(-slim)?", image) for image in images)


def test_image_is_built_of_files_that_are_there() -> None:
    """And of no others: whatever else lies in the folder, such as logs and lakes, is not sent to the builder."""
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied: set[str] = set()
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            copied |= set(rest.split()[:-1])
    assert copied == let_in
    assert not [place for place in copied if not (ROOT / place).exists()]


def test_linter_finds_nothing() -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = str(program) if program.exists() else shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed: the Dockerfile was not linted")
    done = subprocess.run([found, str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def builder() -> list[str] | None:
    """Return the words of a program that builds and runs images here; None if there is none."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return ["docker"]
    if shutil.which("podman"):
        # runc also runs where the machine has cgroups of both versions.
        return ["podman", *(["--runtime", "runc"] if shutil.which("runc") else [])]
    return None


@pytest.fixture(scope="module")
def image() -> Iterator[list[str]]:
    """The words that run the image with the limits that the page names; ``{}`` stands for volumes."""
    words = builder()
    if words is None:
        pytest.skip("neither docker nor podman is at work here: the image was not built")
    base, pip_conf = os.environ.get(BUILD_IMAGE), os.environ.get(PIP_CONF)
    options = ["--network", "host", *(["--isolation", "chroot"] if words[0] == "podman" else [])]
    options += [f"--build-arg={name}_IMAGE={base}" for name in ("BUILD", "PYTHON")] if base else []
    if pip_conf:
        options += ["--secret", f"id=pip,src={pip_conf}"]
        options += ["--volume", "/etc/ssl/certs:/etc/ssl/certs:ro"] if words[0] == "podman" else []
    name = "trailsift-test:operate"
    command = [*words, "build", *options, "-f", str(DOCKERFILE), "-t", name, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode and re.search(r"pull|registry|resolve|unauthorized|no such host", done.stderr) and not base:
        pytest.skip(f"python:3.13 cannot be pulled here: set {BUILD_IMAGE} to a local image with Python")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    limits = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    limits += ["--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
    yield [*words, "run", "--rm", *limits, "{}", name]
    subprocess.run([*words, "rmi", "--force", name], capture_output=True)


def run(image: list[str], volumes: list[str], *words: str, program: str = "") -> subprocess.CompletedProcess[str]:
    at = image.index("{}")
    options = [f"--volume={volume}" for volume in volumes] + ([f"--entrypoint={program}"] if program else [])
    command = [*image[:at], *options, *image[at + 1 :], *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_container(image: list[str], small_logs: Path, tmp_path: Path) -> None:
    """Ingest, ask, compact and look after a lake: without root, without network, on a root that cannot be written."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake").chmod(0o777)
    for path in (small_logs, *small_logs.rglob("*")):
        path.chmod(path.stat().st_mode | 0o555 if path.is_dir() else 0o644)
    for folder in (small_logs.parent, small_logs.parent.parent, tmp_path, tmp_path.parent):
        folder.chmod(folder.stat().st_mode | 0o055)
    volumes = [f"{tmp_path / 'lake'}:/lake", f"{small_logs}:/logs:ro"]
    version = run(image, volumes, "--version")
    assert version.stdout.startswith("trailsift ") and "C modules: yes" in version.stdout, version.stderr
    first = run(image, volumes, "ingest", "/logs/AWSLogs", "--json", "--quiet")
    assert first.returncode == 0 and json.loads(first.stdout)["stored"] == 20_000, first.stderr
    for words in (["compact"], ["expire", "--events", "20y", "--save"], ["verify"], ["detect"]):
        done = run(image, volumes, *words)
        assert done.returncode == 0 and done.stdout, done.stderr
    reading = [f"{tmp_path / 'lake'}:/lake:ro"]
    asked = run(image, reading, "query", "SELECT count(*) FROM events", "--format", "csv")
    assert asked.stdout.split() == ["count_star()", "20000"], asked.stderr
    assert run(image, reading, "status").returncode == 0
    who = run(image, volumes, "-c", "id -u; touch /x /opt/trailsift/x /usr/x; ls /opt/trailsift/bin", program="/bin/sh")
    assert who.stdout.split()[0] == "10001" and who.stderr.count("Read-only file system") == 3
    assert not re.search(r"\bpip\b|\bgcc\b", who.stdout)
    assert {path.stat().st_uid for path in (tmp_path / "lake").iterdir()} == {10001}

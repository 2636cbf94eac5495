"""Run every command that reads, one after the other, on one lake, and print what each said, as JSON.

`python -m support.readers LAKE ANSWERS [NUMBER ...]`, in a process that may have no right to write, or to read. The
numbers are those of the commands, if not all of them are asked.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from support.commands import load, run
from support.hostile_lakes import READING, texts


def main() -> int:
    lake, answers = sys.argv[1], Path(sys.argv[2])
    asked = [READING[int(number)] for number in sys.argv[3:]] or READING
    os.environ["XDG_CACHE_HOME"] = str(answers / "cache")
    (answers / "rules.toml").write_text('[[rule]]\nname = "reads"\naction = "drop"\nwhen = { read_only = true }\n')
    names = {"$ANSWERS": str(answers), "$RULES": str(answers / "rules.toml")}
    load()
    said = {}
    for words in asked:
        command = texts(list(words), names)
        command += [] if words == ["columns"] else ["--lake", lake]
        said[" ".join(words)] = run(command, answers / "output")
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())

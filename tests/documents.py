"""The commands of the documents, run as written against Local AWS, and what they print compared with what the documents show.

    .venv/bin/python tests/documents.py [directory of the binaries, target/debug when absent]

The fenced `sh` blocks of docs/operations.md and docs/cost.md run in one shell, in their order, unless the comment before one says
`not run: why` or `deployed`: deploy.py runs the latter. Those of README.md run where the comment says `run`. A `text` block below is what
must be printed, apart from identifiers and dates; without one it ends at the first command that fails, and so does the test.
A block with the comment `until` only looks, and is repeated until it shows what it should, or a minute has passed.
"""

import os
import re
import subprocess
import time

from stack import BINARIES, ROOT, local_aws, said

BLOCK = re.compile(r"(?:^<!-- (.*?) -->\n\n)?^```sh\n(.*?)^```\n(?:\n^```text\n(.*?)^```\n)?", re.M | re.S)
# What differs from run to run, and what is put in its place.
MASKS = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\b[0-9a-f]{28,64}\b", "HEX"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\dZ| UTC)", "TIME"),
    (r"\b\d{4}-\d\d-\d\d\b", "DAY"),
    (r"(:secret:[\w/-]+)-\w{6}\b", r"\1-SUFFIX"),
    (r"\b\d+ days left", "DAYS days left"),
    (r"Makefile:\d+", "Makefile:LINE"),
]


def main():
    for name in ("README.md", "docs/cost.md", "docs/operations.md"):
        with open(os.path.join(ROOT, name)) as file:
            text = file.read()
        blocks = [(text[:match.start(2)].count("\n"), *match.groups()) for match in BLOCK.finditer(text)]
        assert len(blocks) == len(re.findall("^```sh$", text, re.M)), f"{name} has a block of commands that is not read"
        run([(f"{name}:{line}", note, *rest) for line, note, *rest in blocks
             if (note == "run" if name == "README.md" else note != "deployed" and not (note or "").startswith("not run: "))])
        said(f"the commands of {name} print what it shows")
    print("3 passed, 0 failed")


def run(blocks):
    assert blocks, "there is nothing to run"
    with local_aws(subprocess.DEVNULL, ["--hurry"]) as endpoint:
        port = endpoint.rsplit(":", 1)[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "AWS_"))}
        environment |= {
            "PORT": port, "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local", "AWS_PAGER": "", "PATH": f"{ROOT}/.venv/bin:{environment['PATH']}",
            "CARGO_TARGET_DIR": os.path.dirname(os.path.abspath(BINARIES)),
        }
        shell = Shell(environment)
        for place, note, commands, shown in blocks:
            give_up = time.monotonic() + 60
            while True:
                told, status = shell.run(f"set {'+' if shown else '-'}e\n" + commands.replace(":4566", f":{port}"))
                if masked(told) == masked(shown) if shown else status == "0":
                    break
                assert note == "until" and time.monotonic() < give_up, f"{place} shows\n{masked(shown or '')}\nand prints\n{masked(told)}"
                time.sleep(1)
        shell.end()


class Shell:
    """One for all blocks of a document, as a reader has it."""

    def __init__(self, environment):
        self.bash = subprocess.Popen(["bash"], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, commands):
        """What is printed, and the status of the last command."""
        self.bash.stdin.write(f"{commands}\nprintf '\\nended with %s\\n' $?\n")
        self.bash.stdin.flush()
        lines = []
        while not (line := self.bash.stdout.readline()).startswith("ended with "):
            assert line, f"it fails in\n{commands}\nwhich prints\n{''.join(lines)}"
            lines.append(line)
        return "".join(lines), line.split()[-1]

    def end(self):
        self.bash.stdin.close()
        self.bash.wait(timeout=20)


def masked(text):
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


if __name__ == "__main__":
    main()

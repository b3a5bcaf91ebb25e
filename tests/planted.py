"""Bugs planted on purpose, one at a time, in a copy of the code: the simulator has to find each of them.

    python3 tests/planted.py [TARGET [NAME…]]

A copy lies below TARGET, and is built there, apart from everything else. Each bug is given some hundred seeds. Without TARGET it is
only seen to that each bug still has its place in the code.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent

# Where, what stands there, what is put in its place, and the promises of which one is broken by it.
BUGS = {
    "a new pair is not verified": (
        "shared/records/src/install.rs",
        "let verified = material.verify(&candidate.wanted, now).map_err(refused)?;\n        let version",
        "let verified = Leaf::from_pem(&material.certificate).map_err(|error| refused(error.to_string()))?;\n        let version",
        {1},
    ),
    "tags are written before the promotion": (
        "shared/records/src/install.rs",
        "        let promotion = self.move_current(",
        "        let mut early = record.clone();\n"
        "        early.promote(Pair::of(&leaf, version.clone(), issuer.clone(), now));\n"
        "        self.tag(&early).await?;\n"
        "        let promotion = self.move_current(",
        {1},
    ),
    "the token of an order is random": (
        "functions/issue-client-cert/src/pca.rs",
        ".idempotency_token(token)",
        ".idempotency_token({\n"
        "                let state = std::collections::hash_map::RandomState::new();\n"
        "                std::hash::BuildHasher::hash_one(&state, token).to_string()\n"
        "            })",
        {2},
    ),
    "a renewal is not exported": (
        "shared/lifecycle/src/renewal.rs",
        "Step::Export { reason: reason.to_owned() }",
        'Step::Tell { code: "export", message: reason.to_owned() }',
        {4},
    ),
    "a permanent failure is tried again": (
        "shared/runtime/src/failure.rs",
        '"RequestInProgressException",\n',
        '"RequestInProgressException",\n        "InvalidStateException",\n',
        {8},
    ),
    "a pair is promoted from whatever has the label": (
        "shared/records/src/install.rs",
        "let promotion = self.move_current(&name, &replaces, &version).await?;",
        "let whichever = self.describe(&name).await?.and_then(|state| state.current).unwrap_or(replaces);\n"
        "        let promotion = self.move_current(&name, &whichever, &version).await?;",
        {2},
    ),
    "a rollout is judged by the creation of the version": (
        "shared/records/src/install.rs",
        "record.promote(Pair::of(&leaf, version, issuer.clone(), state.changed));",
        "record.promote(Pair::of(&leaf, version, issuer.clone(), now));",
        {4},
    ),
    "a retired CA leaves though a pair needs it": (
        "shared/lifecycle/src/trust.rs",
        "if let Some(name) = needed_by {\n        return Retiring::Needed",
        "if let Some(name) = needed_by.filter(|_| store.held.is_empty()) {\n        return Retiring::Needed",
        {5},
    ),
    "a pair becomes current before trust stores hold its CA": (
        "shared/lifecycle/src/trust.rs",
        "store.leaving.contains_key(issuer) || declares(store) && !store.trusts(issuer)",
        "store.leaving.contains_key(issuer) && declares(store)",
        {5},
    ),
    "a rollout that failed is left alone": (
        "shared/lifecycle/src/rollout.rs",
        "(!known || !to_blame.is_empty())",
        "(!known && self.deployment.as_ref().is_some_and(|ended| ended.progress != Progress::Failed))",
        {4, 6},
    ),
}
SEEDS = 20
# So many of 22 days; after that they are seasons, in which pairs live for longer, and so CAs refuse for longer.
SHORT_SEEDS = 100
MOST_SEEDS = 400


def main():
    for bug, (path, before, _, _) in BUGS.items():
        places = (ROOT / path).read_text().count(before)
        assert places == 1, f"{bug}: {path} has {places} places like this:\n{before}"
    if not sys.argv[1:]:
        return
    target = pathlib.Path(sys.argv[1]).resolve()
    asked = sys.argv[2:] or list(BUGS)
    copy = target / "planted"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    missed = [bug for bug in asked if not is_found(bug, copy)]
    sys.exit(f"not found: {', '.join(missed)}" if missed else None)


def is_found(bug, copy):
    path, before, after, promises = BUGS[bug]
    source = copy / path
    clean = source.read_text()
    source.write_text(clean.replace(before, after))
    began = time.monotonic()
    try:
        # Not where the code itself is built: cargo would take the one for the other.
        command = ["cargo", "build", "--locked", "--quiet", "-p", "workflow", "--bin", "simulate", "--target-dir", "target"]
        subprocess.run(command, cwd=copy, check=True)
        for first in range(0, MOST_SEEDS, SEEDS):
            # With every other score no event of AWS arrives: what events make up for is seen too.
            events = ["--events", "none"] if first // SEEDS % 2 else []
            seeds = ["--seeds", f"{first}..{first + SEEDS}", "--years", "0.06" if first < SHORT_SEEDS else "0.25", *events]
            run = subprocess.run([copy / "target/debug/simulate", *seeds], capture_output=True, text=True)
            broken = {int(number) for number in re.findall(r"broke promise (\d)", run.stderr)}
            assert run.returncode in (0, 1), run.stderr
            if broken & promises:
                lines = run.stderr.strip().splitlines()
                print(f"found: {bug}; in {first + SEEDS} seeds, {time.monotonic() - began:.0f} s with the build", flush=True)
                print("\n".join(f"    {line}" for line in lines[: lines.index("", 1) if "" in lines[1:] else None]), flush=True)
                return True
        print(f"NOT FOUND in {MOST_SEEDS} seeds: {bug}", flush=True)
        return False
    finally:
        source.write_text(clean)


main()

"""Mutants of the core, each held against the tests of its own module: what survives shows what no test looks at.

Run it from the repository's root:

    python -m benchmarks.mutants scratch            # draws 200 and tries them; run again, it resumes
    python -m benchmarks.mutants scratch --again    # tries the survivors again, after tests were added

`scratch` gets a copy of the sources and tests, in which one place at a time is changed. The draw is kept in
benchmarks/results/mutants.json; remove that file to draw anew. A survivor that changes nothing anybody can observe is given
a reason there by hand, under `equivalent`. A mutant whose place was rewritten since the draw is `gone`.

A process that has imported everything but medst forks for each mutant, so that a mutant costs its tests and no start.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED, DRAWN = 13, 200
RESULTS = Path(__file__).parent / "results" / "mutants.json"

TESTS = {
    "batch.py": "tests/test_batch.py",
    "model/medst.py": "tests/model/test_medst.py",
    "model/projection.py": "tests/model/test_projection.py",
    "model/text.py": "tests/model/test_text.py",
    "model/vision.py": "tests/model/test_vision.py",
    "objective/__init__.py": "tests/objective/test_objective.py",
    "objective/global_.py": "tests/objective/test_global_.py",
    "objective/loss.py": "tests/objective/test_objective.py",
    "objective/local.py": "tests/objective/test_local.py",
    "objective/temporal.py": "tests/objective/test_temporal.py",
    "pretrain/setup.py": "tests/pretrain/test_loop.py",
    "pretrain/dry_run.py": "tests/pretrain/test_dry_run.py",
    "pretrain/step.py": "tests/pretrain/test_step.py",
    "pretrain/memory.py": "tests/pretrain/test_memory.py",
    "pretrain/loop.py": "tests/pretrain/test_loop.py",
    "pretrain/schedule.py": "tests/pretrain/test_schedule.py",
    "pretrain/checkpoint.py": "tests/pretrain/test_checkpoint.py",
    "pretrain/divergence.py": "tests/pretrain/test_loop.py",
    "pretrain/environment.py": "tests/pretrain/test_environment.py",
    "pretrain/metrics.py": "tests/pretrain/test_metrics.py",
    "pretrain/signals.py": "tests/pretrain/test_loop.py",
    "pretrain/training.py": "tests/pretrain/test_loop.py",
    "pretrain/validate.py": "tests/pretrain/test_loop.py",
}
"""The mirrored test file of each module of the core."""

IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
"""Of modules that the fork has from its parent."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(source: str) -> Iterator[tuple[dict[str, Any], Callable[[], str]]]:
    """Each mutant of a module in the order of the source: what it is, and what makes its source."""
    tree = ast.parse(source)
    statements: dict[ast.AST, ast.stmt] = {}
    for statement in ast.walk(tree):  # outer ones first
        if isinstance(statement, ast.stmt):
            statements |= dict.fromkeys(ast.walk(statement), statement)
    for node, kind, holder, field, index, new in _places(tree):

        def make(
            holder: Any = holder, field: str = field, index: int | None = index, old: Any = node, new: Any = new
        ) -> str:
            def put(value: Any) -> None:
                if index is None:
                    setattr(holder, field, value)
                else:
                    getattr(holder, field)[index] = value

            put(new)
            changed = ast.unparse(ast.fix_missing_locations(tree))
            put(old)
            return changed

        at = {"line": node.lineno, "statement": ast.unparse(statements[node]).partition("\n")[0][:80]}
        yield {**at, "kind": kind, "before": ast.unparse(node), "after": ast.unparse(new)}, make


Place = tuple[Any, str, ast.AST, str, "int | None", Any]
"""Node, kind of change, the node that holds it, its field there and its index in the field, and the new node."""


def _places(tree: ast.AST) -> Iterator[Place]:
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_params"):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _left_out(node):
                continue
            yield from ((node, kind, tree, field, index, new) for kind, new in _changes(node, tree))
            yield from _places(node)


def _left_out(node: ast.AST) -> bool:
    """Whether a node is one whose change nobody could observe, or is text for a reader."""
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__repr__", "__str__")
    documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return documented or isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert)


def _changes(node: ast.AST, holder: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kind and new node of each change of a node itself; its children are visited by themselves."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            new.ops = [SWAPPED[type(operator)]()]  # type: ignore[list-item]
            yield "comparison", new
        case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str()) | ast.JoinedStr()):
            pass  # a path
        case ast.BinOp() | ast.AugAssign() if type(new.op) in SWAPPED:
            new.op = SWAPPED[type(new.op)]()  # type: ignore[assignment]
            yield "arithmetic", new
        case ast.BoolOp():
            new.op = SWAPPED[type(new.op)]()  # type: ignore[assignment]
            yield "boolean", new
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign", operand
        case ast.Constant(value=bool()):
            yield "constant", ast.Constant(not new.value)
        case ast.Constant(value=int()):
            yield "constant", ast.Constant(new.value + 1)
        case ast.Constant(value=float()):
            yield "constant", ast.Constant(new.value * 2 or 1.0)
        case ast.Call(args=[first, second, *rest]) if not any(isinstance(a, ast.Starred) for a in (first, second)):
            new.args = [second, first, *rest]
            yield "arguments", new
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr) and not isinstance(holder, ast.ClassDef | ast.Module):
        yield "deleted", ast.Pass()
    if isinstance(node, ast.Return) and node.value is not None:
        yield "deleted", ast.Return()
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        new = copy.deepcopy(node)
        new.test = ast.UnaryOp(ast.Not(), new.test)
        yield "condition", new


def draw(sources: Path) -> dict[str, Any]:
    """The mutants that are tried, of all that the core has."""
    every = [{"file": file, **what} for file in TESTS for what, _ in mutants((sources / file).read_text())]
    return {"seed": SEED, "places": len(every), "mutants": random.Random(SEED).sample(every, DRAWN)}


def find(row: dict[str, Any], source: str) -> Callable[[], str] | None:
    """What makes a drawn mutant of a source that may have changed since; None where its place is gone."""
    same = [
        (what["statement"] == row["statement"], -abs(what["line"] - row["line"]), number, make)
        for number, (what, make) in enumerate(mutants(source))
        if all(what[name] == row[name] for name in ("kind", "before", "after"))
    ]
    # In another statement only where there is no doubt.
    return max(same)[3] if any(one[0] for one in same) or len(same) == 1 else None


class Watch:
    """A pytest plugin: the first test that fails, and cohorts from a folder instead of prepared anew."""

    def __init__(self, cohorts: Path) -> None:
        self.cohorts, self.failed = cohorts, ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed = self.failed or (report.nodeid if report.failed else "")

    def pytest_collectreport(self, report: Any) -> None:
        self.failed = self.failed or (f"{report.nodeid} (import)" if report.failed else "")

    def pytest_collection_finish(self) -> None:
        prepare, phantom = map(importlib.import_module, ("medst.cohort.prepare", "medst_phantom.mimic"))
        make, write = prepare.prepare, phantom.write_phantom

        def prepared(dataset: str, raw: Path, out: Path, *more: Any, **named: Any) -> Any:
            kept = self.cohorts / dataset
            if not kept.exists():
                make(dataset, raw, kept, *more, **named)
            shutil.copytree(kept, out)

        def written(out: Path, **named: Any) -> None:
            kept = self.cohorts / "raw"
            if not kept.exists():
                write(kept, **named)
            out.symlink_to(kept)

        prepare.prepare, phantom.write_phantom = prepared, written  # type: ignore[attr-defined]


def _child(scratch: Path, tests: str, cpu_seconds: int, answer: int) -> None:
    os.setsid()
    os.nice(19 - os.nice(0))
    if cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    os.chdir(scratch)
    said = os.open(scratch / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["PYTHONPATH"] = str(scratch / "src")
    sys.path[:0] = [str(scratch / "src"), str(scratch)]
    pytest = importlib.import_module("pytest")
    watch = Watch(scratch / "cohorts")
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=0"]
    code = int(pytest.main([*options, f"--basetemp={scratch / 'temporary'}", "-W", IMPORTED, tests], plugins=[watch]))
    os.write(answer, json.dumps({"code": code, "failed": watch.failed}).encode())
    os._exit(0)


def attempt(scratch: Path, tests: str, cpu_seconds: int = 0, wall_seconds: float = 1200) -> dict[str, Any]:
    """Run tests in a fork: pytest's exit status, the first failed test, and CPU seconds.

    Args:
        cpu_seconds: most that the tests may take; 0 is no limit. CPU time, for it depends on no other process.
        wall_seconds: most that they may take in all, for those that wait forever.
    """
    shutil.rmtree(scratch / "temporary", ignore_errors=True)
    reading, answer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        try:
            _child(scratch, tests, cpu_seconds, answer)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(1)
    os.close(answer)
    end, late = time.monotonic() + wall_seconds, False
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        late = late or time.monotonic() > end
        if late:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever the tests left running
    with os.fdopen(reading) as file:
        said = file.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"code": -1, "failed": "(died, or ran out of time)", **(json.loads(said) if said else {}), "cpu": spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for the copy that is changed")
    parser.add_argument("--again", action="store_true", help="try the survivors again")
    parser.add_argument("--against", help="a test file in place of the mirrored one")
    options = parser.parse_args()
    scratch: Path = options.scratch.resolve()
    root = Path(__file__).parents[1]
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch / "cohorts", ignore_errors=True)
    for name in ("src", "tests"):
        shutil.rmtree(scratch / name, ignore_errors=True)
        shutil.copytree(root / name, scratch / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(root / name, scratch / name)

    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    for name in (
        "torch",
        "transformers",
        "accelerate",
        "polars",
        "cv2",
        "sklearn",
        "hypothesis",
        "beartype",
        "jaxtyping",
    ):
        importlib.import_module(name)
    for name in ("BertModel", "PreTrainedTokenizerFast"):
        getattr(sys.modules["transformers"], name)

    sources = scratch / "src" / "medst"
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else draw(sources)
    rows, usual = results["mutants"], dict[str, float]()
    # Whole runs are slow, so what is tested by them comes last.
    for row in sorted(rows, key=lambda row: row["file"] == "pretrain/loop.py"):
        if row.get("killed_by") or row.get("equivalent") or ("killed_by" in row and not options.again):
            continue
        tests, target = options.against or TESTS[row["file"]], sources / row["file"]
        original = target.read_text()
        make = find(row, original)
        if make is None:
            row["gone"] = True
        else:
            row.pop("gone", None)
            if tests not in usual:
                plain = attempt(scratch, tests)
                if plain["code"]:
                    raise SystemExit(f"{tests} fails without a mutant: {plain['failed']}; see {scratch / 'said.txt'}")
                usual[tests] = plain["cpu"]
            target.write_text(make())
            try:
                found = attempt(scratch, tests, 30 + int(4 * usual[tests]))
            finally:
                target.write_text(original)
            row["killed_by"] = found["failed"] if found["code"] else None
        print(row, flush=True)
        count_and_write(results)
    count_and_write(results)


def count_and_write(results: dict[str, Any]) -> None:
    """Write the results, one row per line, with how many there are of each kind."""
    rows = results.pop("mutants")
    for name in ("killed_by", "equivalent", "gone"):
        results[name.removesuffix("_by")] = sum(bool(row.get(name)) for row in rows)
    tried = [row for row in rows if "killed_by" in row]
    results["tried"] = len(tried)
    results["survived"] = sum(not (row.get("killed_by") or row.get("equivalent") or row.get("gone")) for row in tried)
    lines = ",\n  ".join(map(json.dumps, rows))
    RESULTS.write_text(json.dumps(results, indent=1)[:-2] + f',\n "mutants": [\n  {lines}\n ]\n}}\n')
    results["mutants"] = rows


if __name__ == "__main__":
    main()

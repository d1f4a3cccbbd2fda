"""The tree says what the design says: read with ast, so that a broken file is reported rather than imported."""

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "birthplace_lm"
CONFIGS = ROOT / "configs"
LONGEST_FILE, LONGEST_FUNCTION = 250, 60
KNOWS_HYDRA = {"cli", "composing", "stages"}
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NOT_A_VARIANT = {
    "__init__", "causal_sums", "fused", "fused_terms", "grids", "heads", "scored", "scores", "terms", "tiled_softmax",
}  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every file of the package as (path below the package, syntax tree)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The absolute imports of a file as (line, dotted name), also those inside functions.

    >>> list(imported(ast.parse("import a.b\\nfrom c.d import e")))
    [(1, 'a.b'), (2, 'c.d.e')]
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def importers(*libraries: str) -> dict[str, str]:
    """Which files import one of the libraries: {"cli/train.py": "cli/train.py:3 imports hydra.main"}."""
    return {
        path: f"{path}:{line} imports {name}"
        for path, tree in sources()
        for line, name in imported(tree)
        if name.split(".")[0] in libraries
    }


def top(path: str) -> str:
    """The file or folder right below the package: "cli" for cli/train.py, "stages" for stages.py."""
    return path.split("/")[0].removesuffix(".py")


def dotted(node: ast.expr) -> str:
    """The name an expression spells: "torch.load" for the function of torch.load(path), "" for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def names_bound(tree: ast.Module) -> set[str]:
    """The names that a file defines or imports at its top level: what an import from it can find."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def exists(target: str) -> bool:
    """Whether a dotted name of the package leads to something that a file binds (or to a method of it)."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        folder = ROOT.joinpath(*parts[:cut])
        for path in (folder.with_suffix(".py"), folder / "__init__.py"):
            if path.is_file():
                return parts[cut] in names_bound(ast.parse(path.read_text(encoding="utf-8")))
    return False


def targets(config: object) -> Iterator[str]:
    """Every `_target_` in a config, however deep."""
    if isinstance(config, dict):
        if isinstance(config.get("_target_"), str):
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value)


def read_config(path: Path) -> object:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_there_is_something_to_look_at() -> None:
    assert {"__init__.py", "transformer.py", "corpus.py"} <= {path for path, _ in sources()}
    assert list((CONFIGS / "attention").glob("*.yaml"))


def test_files_are_short() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {str(path): lines for path, lines in lengths.items() if lines >= LONGEST_FILE}


def test_functions_are_short() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, Function)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}


def test_only_the_entrance_knows_hydra() -> None:
    assert not [where for path, where in importers("hydra", "omegaconf").items() if top(path) not in KNOWS_HYDRA]


def test_only_loggers_knows_wandb() -> None:
    assert not [where for path, where in importers("wandb").items() if top(path) != "loggers"]


def test_nothing_runs_code_out_of_a_file() -> None:
    unsafe = list(importers(*UNSAFE_MODULES).values())
    for path, tree in sources():
        unsafe += [f"{path}:{line} imports {name}" for line, name in imported(tree) if name == "torch.load"]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and dotted(node.func) in {"eval", "exec", "torch.load"}:
                unsafe.append(f"{path}:{node.lineno} calls {dotted(node.func)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                unsafe.append(f"{path}:{node.value.lineno} passes allow_pickle={ast.unparse(node.value)}")
    assert not unsafe


def test_everything_public_says_what_it_is() -> None:
    silent = []
    for path, tree in sources():
        public = [n for n in tree.body if isinstance(n, Function | ast.ClassDef) and not n.name.startswith("_")]
        silent += [] if ast.get_docstring(tree) else [f"{path}: the file"]
        silent += [f"{path}:{node.lineno} {node.name}" for node in public if not ast.get_docstring(node)]
    assert not silent


def test_every_attention_variant_has_its_config() -> None:
    without = []
    for path in sorted((PACKAGE / "attention").glob("*.py")):
        config = CONFIGS / "attention" / f"{path.stem}.yaml"
        found = list(targets(read_config(config))) if config.is_file() else []
        if path.stem not in NOT_A_VARIANT and not any(
            target.startswith(f"birthplace_lm.attention.{path.stem}.") for target in found
        ):
            without.append(f"{path.relative_to(ROOT)}: {config.relative_to(ROOT)} has the targets {found}")
    assert not without


def test_every_attention_config_names_a_class_of_the_folder() -> None:
    for path in sorted((CONFIGS / "attention").glob("*.yaml")):
        config = read_config(path)
        assert isinstance(config, dict), f"{path.name} is empty"
        if "defaults" not in config:  # a config that starts from another one inherits its target
            assert config.get("_target_", "").startswith("birthplace_lm.attention."), path.name


def test_every_target_of_a_config_exists() -> None:
    ours = [
        (path.relative_to(ROOT).as_posix(), target)
        for path in sorted(CONFIGS.rglob("*.yaml"))
        for target in targets(read_config(path))
        if target.startswith("birthplace_lm.")
    ]
    assert ours
    assert not [(path, target) for path, target in ours if not exists(target)]


def test_nothing_is_left_for_later() -> None:
    marks = ("TO" + "DO", "FIX" + "ME")
    files = [path for folder in (PACKAGE, CONFIGS, ROOT / "tests") for path in folder.rglob("*")]
    texts = {path: path.read_text("utf-8") for path in files if path.suffix in {".py", ".yaml"}}
    assert not [str(path.relative_to(ROOT)) for path, text in texts.items() if any(mark in text for mark in marks)]

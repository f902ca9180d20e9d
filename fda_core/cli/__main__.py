"""`python -m fda_core.cli` is the `fda` command."""

from fda_core.cli.main import run

if __name__ == "__main__":
    run()

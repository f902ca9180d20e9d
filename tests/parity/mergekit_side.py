"""Run mergekit's own command on several documents; executed by mergekit's interpreter.

One process for all of them, since loading it takes longer than any of these merges. Reads a
JSON list of [document, output] from standard input and prints a JSON list: null or the error.
"""

import json
import sys
import traceback


def main() -> None:
    """Run every document and print how each ended."""
    from mergekit.scripts.run_yaml import main as mergekit_yaml

    ends = []
    for document, output in json.load(sys.stdin):
        options = ["--quiet", "--no-copy-tokenizer", "--random-seed", "0"]
        try:
            mergekit_yaml.main([document, output, *options], standalone_mode=False)
            ends.append(None)
        except Exception as problem:
            traceback.print_exc()
            ends.append(f"{type(problem).__name__}: {problem}")
    sys.stdout.write("\n" + json.dumps(ends) + "\n")


if __name__ == "__main__":
    main()

"""`python -m worker`: one process that takes units, one at a time, until it is told to end."""

import argparse
import os
import sys
from collections.abc import MutableMapping, Sequence

from pydantic import ValidationError

from fda_core.errors import FdaError
from worker.settings import Settings, visible_devices


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker and return the exit code."""
    try:
        settings = _settings(arguments)
        settings = _prepare(settings, os.environ)
        # Only now, with the environment set, may torch be loaded.
        from worker.logs import set_up_logs
        from worker.serve import serve
        from worker.status import new_worker_id

        worker = new_worker_id()
        set_up_logs(settings.log_level, worker=worker, as_json=not sys.stderr.isatty())
        return serve(settings, worker=worker)
    except ValidationError as problem:
        for fault in problem.errors():
            print(
                f"FDA_{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}", file=sys.stderr
            )
    except FdaError as problem:
        print(f"{problem.code}: {problem.message}", problem.hint or "", sep="\n", file=sys.stderr)
    return 2


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m worker", description="Take units of merges from queues and run them."
    )
    parser.add_argument("--queues", help="cpu, gpu, gpu-large, with commas")
    parser.add_argument("--device", help="auto, cpu, gpu, cuda:1")
    given = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    return Settings(**given)


def _prepare(settings: Settings, environment: MutableMapping[str, str]) -> Settings:
    """Set what torch and its libraries read when they are loaded."""
    threads = str(settings.threads)
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = threads
    # Threads that spin while they wait slow every other process down.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment.setdefault("KMP_BLOCKTIME", "0")
    # Units of many sizes follow each other for weeks: do not let memory fall into pieces.
    environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    device, visible = visible_devices(
        settings.torch_device, environment.get("CUDA_VISIBLE_DEVICES")
    )
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    return settings.model_copy(update={"device": device})


if __name__ == "__main__":
    sys.exit(main())

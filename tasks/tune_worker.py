"""Run trials of a search that another host leads: of the one that the same params, data and weights make."""

from __future__ import annotations

import time
from pathlib import Path

import optuna

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.cli import main
from tasks.core.config.tune_params import TuneParams
from tasks.core.tuning.search_inputs import Search, read_search
from tasks.core.tuning.shared_study import POLL_S, crew, join
from tasks.core.tuning.studies import STORAGE, shared_url


def tune_worker(
    params: TuneParams, data: Path, policy: Path, weights: Path, settings: Path, parallel: int, wait: float
) -> None:
    """Take trials from the queue until none is left.

    Args:
        data, policy, weights, settings: as tune's, with the same content.
        parallel: trials side by side; 0: as many as tune.parallel.
        wait: for the search to be begun, in seconds.

    Raises:
        BadInput: no database is named, or it does not hold the search.
        StageFailed: the database cannot be used.
    """
    if not shared_url():
        raise BadInput(
            f"{STORAGE} is not set: it names the database, postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if parallel:
        params = params.model_copy(update={"parallel": parallel})
    for path in (data, policy, weights):
        if not path.exists():
            raise BadInput(f"{path}: is not here; copy it from the leading host, or `dvc pull` it")
    about = read_search(params, data, policy, weights, settings)
    _await(about, wait)
    with crew(about) as processes:
        print(f"tune_worker: {len(processes)} trials side by side in {about.name}", flush=True)
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise StageFailed("a worker has ended early; its trial is run elsewhere")
    print(f"tune_worker: no trial of {about.name} is left", flush=True)


def _await(about: Search, wait: float) -> optuna.Study:
    until = time.monotonic() + wait
    while True:
        try:
            return join(about)
        except KeyError:
            if time.monotonic() > until:
                raise BadInput(
                    f"the database holds no {about.name}: start the run on the leading host, and see that params.yaml, "
                    "data/ingest, data/augment and data/start are the same here"
                ) from None
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(tune_worker, section="tune")

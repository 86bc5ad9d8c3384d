"""From a params.yaml in which keys are `auto` to one in which none is."""

from __future__ import annotations

from pathlib import Path

from tasks.core.auto.draft import Draft
from tasks.core.auto.questions import begin, choose_downscale, choose_network
from tasks.core.auto.refinements import choose_augmentations, choose_lr, choose_passes, most_trials
from tasks.core.auto.rules import follow
from tasks.core.auto.trials import Trials
from tasks.core.common.progress import Progress
from tasks.core.config.params_file import Asked
from tasks.core.data.dataset import Dataset
from tasks.core.distributed.world import world


def settle(asked: Asked, dataset: Dataset, journal: Path) -> Draft:
    """Answer every question that `asked` leaves open.

    Args:
        journal: a folder with the outcomes of earlier trials on the same data, to which new ones are added.

    Raises:
        BadInput: a value that was set by hand does not suit the data.
    """
    with world() as ranks, Progress("recipe", 0) as progress:
        trials = Trials(dataset, ranks, journal, asked.pipeline.recipe.seed)
        draft = Draft(asked, trials, dataset.input, len(dataset.train), progress)
        begin(draft)
        progress.expect(most_trials(draft))
        choose_downscale(draft)
        choose_network(draft)
        choose_augmentations(draft)
        choose_lr(draft)
        choose_passes(draft)
        follow(draft)
    return draft

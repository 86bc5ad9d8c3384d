"""params.yaml: what is accepted, and the one line for what is not."""

from pathlib import Path

import pytest
import yaml

from tasks.core.common.errors import BadInput
from tasks.core.config.compression_params import PruneParams
from tasks.core.config.params import TrainParams
from tasks.core.config.params_file import load_pipeline, load_section

ROOT = Path(__file__).parents[3]


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("params.yaml", "data/raw/fashion-mnist"),
        ("examples/accurate.yaml", "data/raw/fashion-mnist"),
        ("examples/texts.yaml", "data/raw/languages.csv"),
    ],
)
def test_pipeline_is_accepted_when_it_is_a_committed_one(name: str, source: str) -> None:
    assert load_pipeline(ROOT / name).ingest.source == source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epoch: 3}", ["train.epoch", "unknown key"]),
        ("train: {epochs: many}", ["train.epochs", "integer", "'many'"]),
        ("train: {epochs: 0}", ["train.epochs", "greater than or equal to 1"]),
        ("train: {lr: .nan}", ["train.lr", "finite"]),
        ("prune: {ratios: [0.5, 1.5]}", ["prune.ratios.1", "between 0 and 1", "1.5"]),
        ("prune: {ratios: [0.5, sparse-1.5]}", ["prune.ratios.1", "between 0 and 1", "sparse-1.5"]),
        ("prune: {ratios: [sparse]}", ["prune.ratios.0", "sparse-2of4", "'sparse'"]),
        ("prune: {ratios: [sparse-2of4, sparse-2of4]}", ["prune", "twice"]),
        ("prune: {ratios: [true]}", ["prune.ratios.0", "share of the channels", "True"]),
        ("prune: {ratios: [0.5, 0.5]}", ["prune", "twice"]),
        ("prune: {steps: 9, epochs: 3}", ["prune", "steps (9)"]),
        ("quantize: {schemes: [int8]}", ["quantize", "fp32 is missing"]),
        ("tune: {space: {speed: {low: 1, high: 2}}}", ["tune", "speed", "not a key of train"]),
        ("tune: {space: {lr: {low: 2, high: 1}}}", ["tune.space.lr", "below high"]),
        ("trane: {}", ["trane", "unknown key"]),
    ],
)
def test_pipeline_is_refused_in_one_line_when_a_key_is_wrong(
    text: str, words: list[str], tmp_path: Path
) -> None:
    given = {"ingest": {"source": "x"}, "prune": {"ratios": [0.5]}, "quantize": {"schemes": ["fp32"]}}
    for section, values in yaml.safe_load(text).items():
        given[section] = {**given.get(section, {}), **values}
    path = write(tmp_path, yaml.safe_dump(given))
    with pytest.raises(BadInput) as refused:
        load_pipeline(path)
    message = str(refused.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path), *words]), message


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [", "not valid YAML"), ("- a", "must hold a mapping"), ("{}", "ingest: is missing")],
)
def test_pipeline_is_refused_in_one_line_when_the_file_is_no_mapping(
    text: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words):
        load_pipeline(write(tmp_path, text))


def test_ratios_keep_their_words_when_they_name_sparsity(tmp_path: Path) -> None:
    path = write(tmp_path, "prune: {ratios: [0.50, sparse-0.80, sparse-2of4], epochs: 6}")
    params: PruneParams = load_section("prune", path)
    assert params.ratios == [0.5, "sparse-0.80", "sparse-2of4"], "folders are named by these words"


def test_section_takes_the_values_of_best_when_tuning_found_some(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {epochs: 3, lr: 0.1}")
    best = tmp_path / "best.yaml"
    best.write_text("lr: 0.2\n", encoding="utf-8")
    params: TrainParams = load_section("train", path, best)
    assert (params.epochs, params.lr) == (3, 0.2)

"""A folder with an encoder of sentences, as a beginning and as a teacher. The encoder is a small BERT that has learned nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import distributed, nn

from tasks.core.augmentation.policy import resolve_policy
from tasks.core.auto.augmentations import IMAGES_OFF
from tasks.core.common.errors import BadInput
from tasks.core.config.params import AugmentParams, TrainParams
from tasks.core.data.dataset import open_dataset
from tasks.core.data.texts import Texts
from tasks.core.data.tokens import hashes_of
from tasks.core.distributed.world import World
from tasks.core.models.sentence_encoder import SentenceEncoder, is_encoder
from tasks.core.models.transfer import begin
from tasks.core.training.encoder_targets import AT_ONCE, embeddings_of, encoder_targets
from tasks.train import train
from tests.ranks import ranks
from tests.unit.models.test_transfer import found, of_rain_and_snow
from tests.unit.test_ingest_texts import FOOD, WEATHER, ingested, sentences
from tests.unit.test_train import accuracy

pytestmark = pytest.mark.slow  # transformers is imported, which takes seconds

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hail", "rain", "snow", "##s", *WEATHER[1:], *FOOD]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(PIECES), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_embeddings_are_the_mean_over_tokens_when_texts_differ_in_length(encoder: Path) -> None:
    from transformers import BertModel

    texts = ["Rain and snow", "salt", "bread soup salt oven " * 60]
    found_NE = SentenceEncoder("start.teacher", encoder).encode(np.array(texts, object))
    assert found_NE.shape == (3, 16)
    bert = BertModel.from_pretrained(encoder).eval()
    numbers = [PIECES.index(piece) for piece in ("rain", "[UNK]", "snow")]
    with torch.inference_mode():
        alone = bert(input_ids=torch.tensor([numbers])).last_hidden_state[0].mean(0)
    assert torch.allclose(found_NE[0], alone, atol=1e-5)


def test_words_begin_with_what_the_encoder_says_of_them_when_its_folder_is_named(
    encoder: Path, tmp_path: Path
) -> None:
    model = of_rain_and_snow(16)
    begun = begin(model, found(str(encoder), tmp_path, "text_cnn"), 100)
    table = model.get_submodule("table")
    assert begun is not None and begun.rows == len(PIECES) - 5, "all pieces that are words"
    rows = dict(zip(table.keys.tolist(), table.weight[1:].detach(), strict=True))
    assert hashes_of(["hail"])["hail"] in rows, "a word that no text for training has"
    words = [piece for piece in PIECES if piece.isalpha()]
    said = SentenceEncoder("start.weights", encoder).encode(np.array(words, object))
    said = said - said.mean(0)
    for at, word in enumerate(words):
        likeness = nn.functional.cosine_similarity(rows[hashes_of([word])[word]], said[at], dim=0)
        assert likeness == pytest.approx(1, abs=1e-4), word


def texts(count: int) -> Texts:
    return Texts.of_strings(text for text, _ in sentences(count))


def read(rank: int, encoder: Path, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found_NE = embeddings_of(SentenceEncoder("start.teacher", encoder), texts(2 * AT_ONCE + 76), world)
    np.save(folder / f"{rank}.npy", found_NE)
    distributed.destroy_process_group()


def test_every_rank_has_the_embeddings_of_all_texts_when_two_share_the_reading(
    encoder: Path, tmp_path: Path
) -> None:
    with ranks(2) as on_two_ranks:
        on_two_ranks(read, encoder=encoder, folder=tmp_path)
    alone_NE = SentenceEncoder("start.teacher", encoder).encode(np.asarray(texts(2 * AT_ONCE + 76)))
    for rank in (0, 1):
        assert np.allclose(np.load(tmp_path / f"{rank}.npy"), alone_NE, atol=1e-5)


def test_targets_are_what_the_other_texts_teach_when_labels_are_wrong() -> None:
    draws = np.random.default_rng(0)
    truth_N = draws.integers(0, 3, 600)
    embeddings_NE = np.eye(3)[truth_N] @ draws.normal(size=(3, 8)) + 0.2 * draws.normal(size=(600, 8))
    labels_N = np.where(draws.random(600) < 0.2, (truth_N + 1) % 3, truth_N)
    targets_NK, right = encoder_targets(embeddings_NE.astype(np.float32), labels_N, 4, 1.0, 0)
    assert (targets_NK.argmax(1) == truth_N).mean() > 0.97
    assert right == pytest.approx((targets_NK.argmax(1) == labels_N).mean())
    assert targets_NK[:, 3].max() < 0.01, "a class without a text"
    sure_NK = targets_NK[np.arange(600), truth_N]
    assert np.log(sure_NK).mean() < np.log(0.95), "calibrated: a fifth of the labels are not what it says"
    half_NK, _ = encoder_targets(embeddings_NE.astype(np.float32), labels_N, 4, 0.5, 0)
    assert np.allclose(half_NK, targets_NK / 2 + np.eye(4)[labels_N] / 2, atol=1e-6)
    noise_NE = draws.normal(size=(600, 300)).astype(np.float32)
    _, right = encoder_targets(noise_NE, truth_N, 3, 1.0, 0)
    assert right < 0.45, "nobody judges what he has learned by heart"


def learned(root: Path, teacher: Path | None) -> float:
    """Of the last epoch, how often the network says what it was to learn, after the stages start and train on texts of which a
    third have the other label."""
    draws = np.random.default_rng(1)
    other = {"weather": "food", "food": "weather"}
    root.mkdir()
    ingested(
        root, [(text, other[label] if draws.random() < 1 / 3 else label) for text, label in sentences(600)]
    )
    places = {"data": root / "out", "policy": root / "policy.json", "checkpoints": root / "checkpoints"}
    policy = resolve_policy(AugmentParams(**IMAGES_OFF), open_dataset(root / "out"))
    places["policy"].write_text(json.dumps(policy))
    weights = found("random", root, "text_bag", teacher=teacher and str(teacher))
    (out := root / "trained").mkdir()
    params = TrainParams(
        arch="text_bag", width=8, epochs=3, batch_size=32, optimizer="adamw", lr=0.01, label_smoothing=0.0, distill_weight=1.0
    )  # fmt: skip
    train(params, weights=weights, out=out, **places)
    return float(pd.read_csv(out / "history.csv")["train_accuracy"].iloc[-1])


def test_network_learns_what_the_encoder_says_when_it_is_the_teacher(encoder: Path, tmp_path: Path) -> None:
    assert learned(tmp_path / "taught", encoder) > 0.9
    assert learned(tmp_path / "alone", None) < 0.8
    kept = tmp_path / "taught/start/teacher"
    assert is_encoder(kept) and (kept / "model.safetensors").exists()


def test_folder_is_refused_in_one_line_when_it_is_no_encoder_that_can_be_read(
    encoder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(encoder, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    for key in ("weights", "teacher"):
        with pytest.raises(
            BadInput, match=rf"^start\.{key}: .*broken: no encoder that transformers can read [^\n]*$"
        ):
            found(**{"weights": "random", key: str(broken)}, folder=tmp_path, arch="text_bag")
        shutil.rmtree(tmp_path / "start")


def test_teacher_is_refused_in_one_line_when_it_encodes_texts_and_these_are_images(
    encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"start\.teacher: is an encoder of texts, and these are images"):
        accuracy(tmp_path / "images", encoder)

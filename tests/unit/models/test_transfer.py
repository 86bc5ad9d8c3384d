"""What training starts from: where it is found, what is taken over, and which layers learn when."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from tokenizers import Tokenizer, models
from torch import nn

from tasks.core.common.errors import BadInput
from tasks.core.config.params import StartParams
from tasks.core.data.texts import Tokens
from tasks.core.data.tokens import Words, hashes_of
from tasks.core.models.architectures import _renamed, build, published
from tasks.core.models.depth import depth_units, learning_units
from tasks.core.models.saved import save_model
from tasks.core.models.spec import Spec
from tasks.core.models.tables import adopt
from tasks.core.models.transfer import begin, take_over
from tasks.core.training.optimizer import Recipe, make_optimizer
from tasks.start import start
from tests.unit.training.test_loop import network, train


def spec(arch: str = "resnet_small", channels: int = 1, side: int = 28, classes: int = 5) -> Spec:
    return Spec(arch, 16, 0.0, (side, side, channels), classes)


def found(weights: str, folder: Path, arch: str = "resnet_small", teacher: str | None = None) -> Path:
    """What the stage finds."""
    settings = folder / "params.yaml"
    settings.write_text(
        f"ingest: {{source: x}}\ntrain: {{arch: {arch}}}\nprune: {{ratios: [0.5]}}\nquantize: {{schemes: [fp32]}}\n"
    )
    out = folder / "start"
    out.mkdir()
    start(StartParams(weights=weights, teacher=teacher), settings, out)
    return out


def test_everything_but_the_classifier_is_taken_over_when_there_are_other_classes() -> None:
    torch.manual_seed(0)
    learned, model = build(spec()), build(spec(classes=7))
    head = model.head.weight.clone()  # type: ignore[union-attr]
    taken = take_over(model, learned.state_dict())
    assert taken.left == ["head.weight: 5 x 64 there, 7 x 64 here", "head.bias: 5 there, 7 here"]
    assert torch.equal(model.head.weight, head)  # type: ignore[union-attr]
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(tensor, learned.state_dict()[name]), name


def test_rows_of_words_are_taken_over_by_their_keys_when_vocabularies_differ() -> None:
    def of_words(words: list[int], classes: int) -> nn.Module:
        model = build(Spec("text_cnn", 8, 0.0, None, classes, rows=100))
        adopt(model, Tokens.of(np.array(words * 2, np.uint32), np.array([len(words), 2 * len(words)])))
        return model

    learned, model = of_words([3, 5, 9], 5), of_words([4, 5, 9, 11], 7)
    before = model.get_submodule("table").weight.clone()
    taken = take_over(model, learned.state_dict(), 6)
    assert taken.rows == 3 and "3 rows of words" in str(taken)
    assert taken.left == ["head.weight: 5 x 32 there, 7 x 32 here", "head.bias: 5 there, 7 here"]
    here, there = model.get_submodule("table"), learned.get_submodule("table")
    assert here.keys.tolist() == [3, 4, 5, 9, 11]
    assert torch.equal(here.weight[[1, 3, 4]], there.weight[1:]), "the rows of 3, 5 and 9"
    assert torch.equal(here.weight[[0, 2, 5]], before[[0, 1, 4]])
    small = of_words([4, 5, 9, 11], 7)
    assert take_over(small, learned.state_dict(), 4).rows == 2, "no room for another word"
    wider = build(Spec("text_cnn", 16, 0.0, None, 5, rows=100))
    with pytest.raises(BadInput, match="of another network"):
        take_over(wider, learned.state_dict(), 100)


def embeddings(folder: Path, pieces: list[str], **more: torch.Tensor) -> Path:
    """A folder as model2vec writes it: of each piece its number and 1."""
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[0]))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = torch.tensor([[float(i), 1.0] for i in range(len(pieces))])
    save_file({"embeddings": rows, **more}, folder / "model.safetensors")
    return folder


def of_rain_and_snow(width: int) -> nn.Module:
    model = build(Spec("text_cnn", width, 0.0, None, 5, rows=100))
    flat, lengths = zip(*Words(9).tokens_of(np.array(["rain snow xyzzy"] * 2, object)), strict=True)
    adopt(model, Tokens.of(np.concatenate(flat), np.cumsum(np.concatenate(lengths))))
    return model


def test_words_begin_with_their_static_embeddings_when_a_folder_has_them(tmp_path: Path) -> None:
    pieces = ["[UNK]", "\u2581rain", "\u2581Snow", "\u2581snow", "snow", "\u2581two words"]
    start_ = found(str(embeddings(tmp_path / "static", pieces)), tmp_path, "text_cnn")
    model = of_rain_and_snow(3)
    before = model.get_submodule("table").weight.clone()
    taken = begin(model, start_, 100)
    assert taken is not None and taken.rows == 2 and taken.taken == 0
    table = model.get_submodule("table")
    at = dict(zip(table.keys.tolist(), table.weight[1:].tolist(), strict=True))
    rain, snow, unknown = (at[hashed] for hashed in hashes_of(["rain", "snow", "xyzzy"]).values())
    assert rain[0] / rain[1] == pytest.approx(1), "piece 1"
    assert snow[0] / snow[1] == pytest.approx(2), "piece 2: the first of the two, in the words' own letters"
    kept = table.weight[1:][(table.keys == hashes_of(["xyzzy"])["xyzzy"]).nonzero()[0, 0]]
    assert kept.tolist() == unknown and torch.equal(table.weight[:, 2], before[:, 2]), "the rest stays"
    assert not table.weight[0].any()


def test_rows_are_principal_components_when_they_are_narrower_than_embeddings(tmp_path: Path) -> None:
    pieces = ["[UNK]", "rain", "snow"]
    mapped = {"mapping": torch.tensor([0, 2, 1]), "weights": torch.tensor([1.0, 1.0, 4.0])}
    start_ = found(str(embeddings(tmp_path / "static", pieces, **mapped)), tmp_path, "text_cnn")
    model = of_rain_and_snow(1)
    begin(model, start_, 100)
    table = model.get_submodule("table")
    rows = dict(zip(table.keys.tolist(), table.weight[1:, 0].tolist(), strict=True))
    rain, snow = (abs(rows[hashed]) for hashed in hashes_of(["rain", "snow"]).values())
    _, _, axes = torch.linalg.svd(torch.tensor([[2.0, 1.0], [4.0, 4.0]]))  # weighted, not yet scaled
    wanted = (torch.tensor([[2.0, 1.0], [4.0, 4.0]]) @ axes[0]).abs()
    assert rain / snow == pytest.approx(float(wanted[0] / wanted[1]), rel=1e-4)


@pytest.mark.parametrize(
    ("pieces", "more", "message"),
    [
        (["[UNK]", "hail"], {}, "none of the network's words"),
        (["[UNK]", "rain"], {"mapping": torch.tensor([0])}, "the tokenizer is of other embeddings"),
        (["[UNK]", "rain"], {"mapping": torch.tensor([0, 7])}, "the tokenizer is of other embeddings"),
    ],
)
def test_start_says_what_is_wrong_when_embeddings_do_not_fit(
    pieces: list[str], more: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        begin(of_rain_and_snow(4), found(str(embeddings(tmp_path / "static", pieces, **more)), tmp_path), 100)


def test_start_says_what_is_wrong_when_a_folder_holds_a_tokenizer_alone(tmp_path: Path) -> None:
    folder = embeddings(tmp_path / "static", ["[UNK]", "rain"])
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model.safetensors: no such file"):
        found(str(folder), tmp_path)
    (tmp_path / "start").rmdir()
    save_file({"other": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match="no tensor `embeddings`"):
        found(str(folder), tmp_path)
    (tmp_path / "start").rmdir()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"tokenizer.json: no tokenizer"):
        found(str(folder), tmp_path)


@pytest.mark.parametrize(("channels", "there"), [(1, 3), (3, 1)])
def test_first_layer_puts_out_the_same_for_grey_images_when_channels_differ(
    channels: int, there: int
) -> None:
    learned, model = build(spec(channels=there)).eval(), build(spec(channels=channels)).eval()
    take_over(model, learned.state_dict())
    grey_NCHW = torch.rand(4, 1, 28, 28)
    with torch.inference_mode():
        one, other = (
            net(grey_NCHW.expand(-1, c, -1, -1)) for net, c in ((learned, there), (model, channels))
        )
    assert torch.allclose(one, other, atol=1e-4)


def test_large_kernel_gives_its_middle_when_images_are_small() -> None:
    learned, model = build(spec("resnet18", 3, 224)), build(spec("resnet18", 1, 28))
    take_over(model, learned.state_dict())
    middle = learned.conv1.weight[:, :, 2:5, 2:5].sum(1, keepdim=True)  # type: ignore[index]
    assert torch.allclose(model.conv1.weight, middle)  # type: ignore[arg-type]


def test_weights_of_another_network_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match=r"of another network: .* and \d+ more; set train\.arch") as caught:
        take_over(build(spec("mobilenet_v2")), build(spec()).state_dict())
    assert "\n" not in str(caught.value)


def test_start_finds_nothing_when_weights_are_random(tmp_path: Path) -> None:
    assert begin(build(spec()), found("random", tmp_path), 0) is None


@pytest.mark.parametrize("folder", [True, False])
def test_start_keeps_a_copy_when_weights_are_a_file_or_in_a_folder(tmp_path: Path, folder: bool) -> None:
    torch.manual_seed(0)
    learned = build(spec())
    (tmp_path / "there").mkdir()
    save_model(learned, spec(), tmp_path / "there")
    path = tmp_path / "there"
    model = build(spec())
    taken = begin(model, found(str(path if folder else path / "model.safetensors"), tmp_path), 0)
    assert taken is not None and not taken.left
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), learned.parameters(), strict=True))


def test_start_takes_what_torchvision_publishes_when_weights_are_pretrained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is where torch keeps what it has downloaded, so that it need not be."""
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    learned = mobilenet_v3_small().state_dict()
    kept = tmp_path / "hub" / "checkpoints" / Path(MobileNet_V3_Small_Weights.DEFAULT.url).name
    kept.parent.mkdir(parents=True)
    torch.save(learned, kept)
    model = build(spec("mobilenet_v3_small"))
    taken = begin(model, found("pretrained", tmp_path, "mobilenet_v3_small"), 0)
    assert taken is not None and [line.split(":")[0] for line in taken.left] == [
        "classifier.3.weight",
        "classifier.3.bias",
    ]
    name = "features.4.block.1.0.weight"
    assert torch.equal(model.state_dict()[name], learned[name])


@pytest.mark.parametrize(
    ("weights", "arch", "said"),
    [
        ("nowhere.safetensors", "resnet_small", r"start\.weights: nowhere\.safetensors: no such file"),
        ("params.yaml", "resnet_small", r"start\.weights: params\.yaml: not a safetensors file"),
        ("pretrained", "resnet_small", r"start\.weights: none are published for resnet_small"),
        ("pretrained", "nonsense", r"start\.weights: torchvision publishes none for nonsense"),
    ],
)
def test_start_is_refused_in_one_line_when_there_are_no_such_weights(
    weights: str, arch: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=said) as caught:
        found(weights, tmp_path, arch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arch", ["resnet_small", "resnet18", "mobilenet_v3_small", "efficientnet_b0"])
def test_units_are_all_parameters_from_input_to_output_when_a_network_is_divided(arch: str) -> None:
    model = build(spec(arch))
    units = depth_units(model)
    ours = [id(p) for unit in units for p in unit.parameters()]
    assert ours == [id(p) for p in model.parameters()]
    assert len(units) >= 4
    assert isinstance(units[-1], nn.Linear) or any(isinstance(m, nn.Linear) for m in units[-1].modules())


def test_layers_join_from_the_last_to_the_first_when_they_are_unfrozen() -> None:
    assert [learning_units(7, epoch, 2, 2) for epoch in range(6)] == [1, 1, 3, 5, 7, 7]
    assert [learning_units(7, epoch, 0, 0) for epoch in range(2)] == [7, 7]


def test_only_the_last_layer_changes_when_the_others_are_frozen() -> None:
    model, before = network(), network()
    recipe = Recipe(epochs=1, batch_size=32, lr=0.05, freeze_epochs=1)
    train(model, recipe)
    changed = {
        name
        for (name, now), then in zip(model.named_parameters(), before.parameters(), strict=True)
        if not torch.equal(now, then)
    }
    assert changed == {"head.weight", "head.bias"}
    assert all(p.requires_grad for p in model.parameters())


def test_layers_learn_slower_the_nearer_they_are_to_the_input_when_rates_decay_by_depth() -> None:
    model = network()
    optimizer = make_optimizer(model, Recipe(epochs=1, batch_size=32, lr=1.0, depth_decay=0.5))
    rates: dict[Any, float] = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    by_name = {name: rates[p] for name, p in model.named_parameters()}
    assert by_name["head.weight"] == 1.0
    assert by_name["stem.0.weight"] == 0.5 ** (len(depth_units(model)) - 1)
    assert by_name["stem.0.weight"] < by_name["blocks.0.conv1.weight"] < by_name["blocks.2.conv1.weight"]


@pytest.mark.parametrize(("photo", "name"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_weights_of_the_package_know_a_photograph_when_a_network_takes_them_over(
    photo: str, name: int
) -> None:
    """A palace and a daisy, by ImageNet's numbers."""
    shape = (224, 224, 3)
    network = build(Spec("timm/efficientnet_lite0", 32, 0.0, shape, 1000)).eval()
    assert take_over(network, published("timm/efficientnet_lite0")).left == []
    pixels_HWC = load_sample_image(photo)
    image = Image.fromarray(pixels_HWC[:, 107:534]).resize(shape[:2], Image.Resampling.BICUBIC)
    x_NCHW = torch.tensor((np.asarray(image, np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert name in network(x_NCHW)[0].topk(5).indices.tolist()


def test_package_is_refused_when_its_weights_are_of_another_network() -> None:
    with pytest.raises(BadInput, match="not the weights of Linear that were expected"):
        _renamed({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}, nn.Linear(3, 4), Path("x.pth"))

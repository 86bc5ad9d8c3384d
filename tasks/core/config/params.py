"""The parameters of every stage: a frozen pydantic model a section of params.yaml.

A wrong key, type or range is one clear line that names the section and the key, before any work
starts. Nothing here says where or on how many machines a stage runs: that is the environment's.
The line below a key is its description wherever people read of it: `modelpress params`, the README.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "step", "exponential", "one_cycle", "constant"]
Count = Annotated[int, Field(ge=1)]


class Auto:
    """Marks a key that may be `auto` in params.yaml: the stage recipe settles it for the data."""


AUTO = Auto()


class Params(BaseModel):
    """What all sections share: immutable, and no key that is not known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, allow_inf_nan=False, use_attribute_docstrings=True
    )


class IngestParams(Params):
    """Where the data are and how they become packed arrays."""

    source: str = Field(min_length=1)
    """IDX files, or a folder CLASS/*.png, with or without train/ val/ test/ above, or a zip or tar of one; of texts a CSV, TSV, JSON, JSON lines or Parquet file, or a folder of train, val and test"""
    labels: str | None = None
    """a CSV or JSON file in the source, of file names and labels; none: metadata.csv if it is there, else folders"""
    text: str | None = Field(default=None, min_length=1)
    """the column of the texts; none: by its name (text, sentence, review, …), else the one with the longest texts"""
    label: str | None = Field(default=None, min_length=1)
    """the column of a text's label; none: by its name (label, class, category, …), else the one with the fewest values"""
    encoding: str = Field(default="auto", min_length=1)
    """of a table of texts, such as cp1252; auto: UTF-8, or UTF-16 by its mark"""
    max_tokens: Literal["auto"] | Annotated[int, Field(ge=4, le=4096)] = "auto"
    """of a text; what stands behind them is not seen; auto: enough for 99 of 100 texts, at most 256"""
    tokens: Literal["words", "bpe"] = "words"
    """of texts; words: by the rule that a model's file follows itself, raw texts in; bpe: byte pairs, learned from the texts for training, for texts whose words are no runs of letters"""
    bpe_vocabulary: Annotated[int, Field(ge=300, le=100_000)] = 8000
    """byte pairs at most"""
    groups: Annotated[int, Field(ge=1)] | str | None = None
    """what must stay in one split: 1: images of one folder, 2: of the one above; a regular expression of paths; column:NAME of the labels' table"""
    size: Literal["auto"] | Annotated[int, Field(ge=8, le=512)] = "auto"
    """side in pixels; auto: what most images have, else a square of their median"""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """auto: grey if every image is grey, else rgb"""
    val_fraction: Literal["auto"] | Annotated[float, Field(gt=0, lt=0.5)] = "auto"
    """held out where there is no val/; auto: about 2,000 images, but from 0.1 to 0.2 of those that there are"""
    test_fraction: Literal["auto"] | Annotated[float, Field(gt=0, lt=0.5)] = "auto"
    """held out where there is no test/; auto: about 700 images, but from 0.15 to 0.2 of those that there are"""
    min_per_class: Annotated[int, Field(ge=3)] = 10
    """a class with fewer images is refused"""
    max_megapixels: Positive = 50.0
    """larger images are left out, counted and named"""
    seed: int = 0
    """of the split"""


class RecipeParams(Params):
    """How much compute the keys that are `auto` may spend."""

    budget: Literal["quick", "normal", "thorough"] = "normal"
    """for the whole run, about 4, 25 or 60 minutes on two cores, less with few images; counted in multiply-accumulates, not in time"""
    seed: int = 0
    """of the trials"""


class AugmentParams(Params):
    """Ranges at strength 1; `train.augment_strength` scales them all."""

    flip_horizontal: Annotated[bool, AUTO] = True
    """left and right, half the time"""
    flip_vertical: Annotated[bool, AUTO] = False
    """top and bottom, half the time"""
    rotate: Annotated[float, Field(ge=0, le=180), AUTO] = 0.0
    """degrees, either way"""
    scale: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """zoom, from 1 - scale to 1 + scale"""
    translate: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """share of the side, either way"""
    crop: Annotated[int, Field(ge=0, le=64), AUTO] = 2
    """pixels of padding before a random crop"""
    brightness: Annotated[Fraction, AUTO] = 0.0
    """factor, from 1 - brightness to 1 + brightness"""
    contrast: Annotated[Fraction, AUTO] = 0.0
    """likewise"""
    saturation: Annotated[Fraction, AUTO] = 0.0
    """likewise; not on grey images"""
    hue: Annotated[float, Field(ge=0, le=0.5), AUTO] = 0.0
    """turns of the colour circle, either way; not on grey images"""
    permute_channels: Annotated[bool, AUTO] = False
    """red, green and blue change places, where colour says nothing; not on grey images"""
    randaugment: Annotated[int, Field(ge=0, le=10), AUTO] = 0
    """operations an image, drawn from 14 that move or colour it (arXiv:1909.13719); 0: off"""
    randaugment_magnitude: Fraction = 0.3
    """how far they go, of the furthest"""
    trivialaugment: Annotated[bool, AUTO] = False
    """one of the same operations an image, its magnitude drawn as well (arXiv:2103.10158)"""
    erase: Annotated[Fraction, AUTO] = 0.0
    """probability that a random rectangle is filled with the mean"""
    mixup: Annotated[NonNegative, AUTO] = 0.0
    """alpha of the Beta distribution that blends two images (arXiv:1710.09412); 0: off"""
    cutmix: Annotated[NonNegative, AUTO] = 0.0
    """likewise, pasting a rectangle (arXiv:1905.04899); 0: off"""
    synonyms: Annotated[Fraction, AUTO] = 0.0
    """of texts: share of the words that become a synonym (WordNet)"""
    insert: Annotated[Fraction, AUTO] = 0.0
    """share of the words of which a synonym is put somewhere"""
    swap: Annotated[Fraction, AUTO] = 0.0
    """share of the words that change places"""
    delete: Annotated[Fraction, AUTO] = 0.0
    """share of the words that are left out"""
    shuffle_sentences: Annotated[Fraction, AUTO] = 0.0
    """share of the texts whose sentences stand in another order"""
    token_dropout: Annotated[Fraction, AUTO] = 0.0
    """share of the words that become unknown"""
    seed: int = 0
    """of the contact sheet"""


class StartParams(Params):
    """What training starts from."""

    weights: Annotated[str, Field(min_length=1), AUTO] = "random"
    """random; pretrained: published for train.arch; a .safetensors file, a folder with one; of texts also a folder of static embeddings, as model2vec writes it, or of an encoder of sentences, as transformers does; models:/NAME@champion"""
    teacher: str | None = Field(default=None, min_length=1)
    """a network of any architecture that the dense one learns from, too, of the same examples: data/train of another run, or models:/NAME@champion; of texts also the folder of an encoder of sentences, as transformers writes it; none: none"""
    trials: str | None = Field(default=None, min_length=1)
    """trials.csv of an earlier search (data/tune/trials.csv of its run), from which tune's sampler learns; none: none"""


class TrainParams(Params):
    """The dense model and how it is trained; `batch_size` is global, whatever the ranks."""

    arch: Annotated[str, Field(pattern=r"^[a-z0-9_./]+$"), AUTO] = "resnet_small"
    """resnet_small, convnet_small (max pooling), a classifier of torchvision (efficientnet_b0, convnext_tiny, …), or timm/NAME; of texts text_bag, text_cnn, text_transformer"""
    width: Annotated[int, Field(ge=8, le=256), AUTO] = 32
    """channels of the first stage of resnet_small and convnet_small; numbers that a word has in networks of texts"""
    vocabulary: Annotated[int, Field(ge=16, le=2_000_000), AUTO] = 50_000
    """of texts: words, and for text_bag pairs of words, that have a row of their own, at most"""
    downscale: Annotated[int, Field(ge=1, le=16), AUTO] = 1
    """the network sees the mean of so many by so many pixels as one; inside the graph"""
    batch_norm: bool = True
    """in resnet_small and convnet_small; other networks have the norms that they have"""
    dropout: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """of activations, where the network has dropout, else before the last layer"""
    stochastic_depth: Annotated[float, Field(ge=0, lt=1)] | None = None
    """probability that the last residual branch drops out, those before it less often; none: the network's own"""
    epochs: Annotated[Count, AUTO] = 10
    """passes over the images for training"""
    batch_size: Annotated[int, Field(ge=2), AUTO] = 128
    """global, whatever the number of ranks"""
    optimizer: Annotated[Optimizer, AUTO] = "sgd"
    """sgd has Nesterov momentum"""
    lr: Annotated[Positive, AUTO] = 0.1
    """at the peak, for batch_size images a step"""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """of sgd"""
    weight_decay: Annotated[NonNegative, AUTO] = 5e-4
    """L2, not on norms and biases"""
    schedule: Annotated[Schedule, AUTO] = "cosine"
    """of the learning rate after the warm-up"""
    warmup_epochs: Annotated[NonNegative, AUTO] = 1.0
    """the learning rate grows from 0 for so long"""
    clip_norm: NonNegative = 0.0
    """gradients are scaled down to this norm; 0: off"""
    accumulate: Count = 1
    """parts in which a batch is computed, one after another: more need less memory"""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.1
    """share of the target that all classes have in common"""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: in the loss rare classes count as much as frequent ones"""
    logit_adjustment: NonNegative = 0.0
    """log of each class's share, so many times, is added to the logits in training (arXiv:2007.07314); 1: balanced, with label_smoothing 0"""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """balanced: every class is drawn equally often, in prune, press and int8_qat, too"""
    ema_decay: Annotated[float, Field(ge=0, lt=1), AUTO] = 0.0
    """of the average of weights that is kept; 0: the last weights are kept"""
    distill_weight: Fraction = 0.5
    """share of the loss that is the teacher's, where start.teacher names one"""
    temperature: Positive = 4.0
    """of the teacher's and the student's logits"""
    augment_strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    """scales every range of augment; 0: no augmentation"""
    early_stopping: Annotated[int, Field(ge=0)] = 0
    """epochs without a better loss before the end; 0: off"""
    freeze_epochs: Annotated[int, Field(ge=0)] = 0
    """epochs in which the last layer alone learns; batch norm's statistics follow the data all the same"""
    unfreeze_epochs: Annotated[int, Field(ge=0)] = 0
    """then epochs in which more and more layers join, the last ones first"""
    depth_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """factor of lr from each layer to the one before it"""
    l1: NonNegative = 0.0
    """L1 of weights, not of norms and biases, by soft thresholding, which makes zeros; 0: off"""
    bn_sparsity: NonNegative = 0.0
    """L1 on batch norm's scales, for prune.criterion bn_scale (arXiv:1708.06519); 0: off"""
    shard: bool = False
    """several ranks divide parameters, gradients and optimizer state (FSDP2): for networks that do not fit one device"""
    compile: bool = False
    """the network is compiled (torch.compile), which takes up to a minute before it pays; for GPUs, mostly"""
    deterministic: bool = True
    """the same bits every time; false: the fastest kernels of a GPU, whose sums differ from run to run"""
    seed: int = 0
    """of weights, order and augmentation"""


class EvaluateParams(Params):
    """What is measured, and how often."""

    repeats: Annotated[int, Field(ge=10), AUTO] = 300
    """timed runs at batch 1, a candidate and thread count"""
    bootstrap: Annotated[int, Field(ge=100)] = 10_000
    """resamples of the test set"""
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    """of the expected calibration error"""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """share of the answers that must be right; below the confidence that ensures it, predict says unsure"""
    baseline_images: Annotated[int, Field(ge=100)] = 10_000
    """for training that the baselines learn from, at most"""
    seed: int = 0
    """of the bootstrap, and of the baselines"""


class SelectParams(Params):
    """The bar: what counts as good enough, and what is best among those."""

    objective: Literal["fastest", "smallest"] = "fastest"
    """what is best among the candidates within the bar"""
    max_drop_points: NonNegative = 1.0
    """of accuracy on the validation images, at the upper end of the 95 % interval"""
    max_latency_ms: Positive | None = None
    """p50 of one image on one thread; none: any"""
    max_size_kb: Positive | None = None
    """of the file, in 1,000 bytes; none: any"""


class AblateParams(Params):
    """The budget of `modelpress ablate`, the same for every technique; no stage reads this."""

    techniques: list[str] = []
    """names, as the command lists them; none: all"""
    epochs: Count = 4
    """of every training"""
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    """of the images for training, but at least 1,000 or all there are"""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """trainings of each variant, each with weights, order and augmentation of its own"""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """resamples of seeds and test images"""


class ReportParams(Params):
    """The page's heading, and how many mistakes it shows."""

    title: str = "modelpress"
    """its heading"""
    mistakes: Annotated[int, Field(ge=0, le=200)] = 24
    """most confident ones that are shown"""


class RegistryParams(Params):
    """What the flow does with the selected model; no stage reads this."""

    name: str = Field(default="modelpress", min_length=1, pattern=r"^[^/:.%\"']+$")
    """the registered model's in MLflow"""

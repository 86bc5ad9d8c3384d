"""What the report says, without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tasks.core.common.errors import BadInput, StageFailed
from tasks.core.config.params import ReportParams, SelectParams
from tasks.core.evaluation.candidates import DENSE
from tasks.core.pruning.channels import IS_OUTPUT
from tasks.core.reporting.learning import learning
from tasks.core.reporting.sections import headline
from tasks.report import report
from tasks.select import select
from tests.builders import CANDIDATES, Folders, Made, build

VOID = {"meta", "link", "img", "br", "wbr"}


class Balanced(HTMLParser):
    """Collects tags that are closed in the wrong order, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, *_: object) -> None:
        """An element without content is balanced in itself."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def make(root: Path, mistakes: int = 24, select_params: SelectParams | None = None, **changes: Any) -> str:
    folders = build(root, **changes)
    for name in ("select", "report"):
        (root / name).mkdir()
    select(select_params or SelectParams(), out=root / "select", **folders.select)
    report(ReportParams(title="Example", mistakes=mistakes), out=root / "report", **folders.report)
    return (root / "report" / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """The page's text, with every run of blanks as one; its tags must be balanced."""
    parser = Balanced()
    parser.feed(page)
    assert parser.wrong == [] and parser.open == []
    return " ".join(parser.text.split())


def test_answer_comes_first_when_a_candidate_was_selected(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data"))
    first = text.index("3.19\u00d7 faster, 3.59\u00d7 smaller, 0.46 points less accurate")
    assert first < text.index("91.85 %") < text.index("95 % interval 0.05 to 0.87") < text.index("Candidates")
    sections = ["Candidates", "Accuracy against latency and size", "Nodes", "Learning", "Recipe", "Tuning"]
    sections += [
        "Search",
        "Where the selected model errs",
        "Most confident mistakes",
        "Augmentation",
        "Data",
        "Provenance",
    ]
    found = re.findall(r"<h2>(.*?)</h2>", make(tmp_path / "again"))
    assert found == sections


def test_verdicts_are_words_when_candidates_are_listed(tmp_path: Path) -> None:
    page = make(tmp_path / "data")
    verdicts = re.findall(r'class="verdict[^"]*">([^<]*)<', page)
    assert verdicts.count("✕ outside the bar") == 2
    assert verdicts.count("✓ selected") == 1
    assert verdicts.count("the reference") == 1
    assert verdicts.count("within the bar") == 4
    assert page.count('<tr class="selected">') == 5  # candidates, sizes, latencies, speed-ups, nodes


def test_figures_have_their_intervals_when_candidates_are_listed(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data"))
    assert "95 % interval 3.15\u00d7 to 3.23\u00d7" in text
    assert "0.05710.0568 to 0.0576" in text  # p50, one image, one thread
    assert text.count("3.15\u00d7 to 3.23\u00d7") == 1 + 1 + 4  # the headline's, the table's, the latencies'
    assert "0.028" in text and "< 0.001" in text  # McNemar's p


def test_zeros_are_said_not_to_be_speed_when_a_candidate_is_sparse(tmp_path: Path) -> None:
    sparse = Made("prune-0.5-fp32", 0.2, 0.3, 0.18, sparsity=0.5)
    text = text_of(make(tmp_path / "data", candidates=(*CANDIDATES[:2], sparse)))
    said = "The zeros of prune-0.5-fp32 make the compressed file smaller and not the model faster"
    assert said in text and "50.0 %" in text
    assert "The zeros of" not in text_of(make(tmp_path / "plain"))


def test_weaknesses_are_named_when_there_are_some(tmp_path: Path) -> None:
    candidates = (*CANDIDATES[:6], Made("press-1", 0.3, 0.3, 0.09, warning="int8 loses 3.1 points"))
    kept = [{"layer": "head", "reason": IS_OUTPUT}, {"layer": "stem.0", "reason": "it has 8 channels"}]
    pruned = {0.25: {"kept_whole": kept}, 0.625: {"collapsed": True, "val_accuracy": 0.11}}
    page = make(tmp_path / "data", candidates=candidates, pruned=pruned)
    text = text_of(page.replace("\u00a0", " "))
    listed = text[text.index("Worth knowing") : text.index("Accuracy against latency and size")]
    assert listed.split(" ", 2)[2].strip() == (
        "prune-0.5-int8 is slower than prune-0.5-fp32 at one image on one thread: 0.0668 ms against 0.0571 ms. "
        "press-1: int8 loses 3.1 points. "
        "prune-0.625 has collapsed: 11.00 % on the validation examples is little more than guessing. "
        "prune-0.25 left 1 layer whole besides the classifier stem.0: it has 8 channels"
    )
    assert page.count("<details>") == 2  # and the choices of the recipe


def test_recipe_says_what_was_tried_and_chosen_when_keys_were_auto(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data"))
    shown = text[text.index("Recipe What") :]
    assert "within the budget quick" in shown
    assert "vgg11 was not tried." in shown
    assert "augmentationshifts ✓90.00 %0.3500.260± 0.02021,000" in shown.replace("\u00a0", " ")
    assert "augmentationnone of them80.00 %0.610\u201321,000" in shown.replace("\u00a0", " ")
    assert "train.archconvnet_small90.0% in a trial" in shown


def test_recipe_says_so_when_nothing_was_auto(tmp_path: Path) -> None:
    assert "Nothing was auto: every value" in text_of(make(tmp_path / "data", settled=False))


def test_no_weakness_is_named_when_there_is_none(tmp_path: Path) -> None:
    assert "Worth knowing" not in make(tmp_path / "data", candidates=CANDIDATES[:2])


def test_nodes_are_listed_by_reason_when_some_stay_in_floating_point(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data", candidates=CANDIDATES[:2]))
    assert "dense-int8173" in text and "dense-fp32020" in text  # name, int8, fp32
    assert "depthwiseConvconv2d_4, conv2d_9" in text and "last layerGemmlinear" in text


def test_nodes_are_counts_alone_when_none_were_recorded(tmp_path: Path) -> None:
    root = tmp_path / "data"
    make(root, candidates=CANDIDATES[:2])
    path = root / "evaluate" / "accuracy.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for entry in content.values():
        del entry["nodes"]
    path.write_text(json.dumps(content), encoding="utf-8")
    report(ReportParams(title="Example"), out=tmp_path, **Folders(root).report)
    text = text_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "dense-int8173" in text and "In floating point in" not in text


def test_processor_is_described_when_latencies_are_shown(tmp_path: Path) -> None:
    page = make(tmp_path / "data")
    assert "Example CPU @ 2.60GHz; avx2, avx512f, avx512_vnni;" in page
    assert "integer dot products (VNNI): yes; 8-bit sums overflow: no</dd>" in page


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        (
            (Made(DENSE), Made("prune-0.5-fp32", 3, 0.4, 0.1)),
            "The dense model stays: no compressed one is within",
        ),
        ((Made(DENSE), Made("dense-int8", 0, 0.1, 0.9)), "The dense model is the fastest within the bar"),
        (
            (Made(DENSE), Made("dense-int8", -0.3, 0.2, 0.09, 662_000)),
            "2.00\u00d7 faster, 2.00\u00d7 larger, 0.30 points more",
        ),
        (
            (Made(DENSE), Made("dense-int8", 0.001, 0.2, 0.09, 331_000)),
            "2.00\u00d7 faster, 1.00\u00d7 smaller, just as accurate",
        ),
    ],
)
def test_headline_fits_the_outcome_when_it_is(
    tmp_path: Path, candidates: tuple[Made, ...], wanted: str
) -> None:
    assert f"<h1>{wanted}" in make(tmp_path / "data", candidates=candidates)


def test_headline_says_slower_when_the_smallest_is() -> None:
    metrics = {"knows": True, "selected": "a", "speedup_b1": 0.5, "size_ratio": 4.0, "drop_points": 0.2}
    assert headline(metrics) == "2.00\u00d7 slower, 4.00\u00d7 smaller, 0.20 points less accurate"


def test_tuning_is_said_to_be_off_when_there_were_no_trials(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data", tuned=False))
    assert "Tuning was off" in text and "found by tuning" not in text


def test_tuned_values_are_marked_when_tuning_found_them(tmp_path: Path) -> None:
    text = text_of(make(tmp_path / "data"))
    assert "lr0.142found by tuning" in text and "width24found by tuning" in text
    assert text.count("found by tuning") == 2


def test_absence_of_mistakes_is_said_when_there_are_none(tmp_path: Path) -> None:
    assert "made no mistake" in text_of(make(tmp_path / "data", mistaken=0))


def test_pictures_are_as_many_as_asked_when_there_are_more(tmp_path: Path) -> None:
    page = make(tmp_path / "data", mistakes=5)
    assert page.count('class="pixelated" alt="Test image') == 5
    assert "None are shown" in make(tmp_path / "none", mistakes=0)


def test_matrix_gives_way_to_a_list_when_there_are_many_classes(tmp_path: Path) -> None:
    page = make(tmp_path / "data", classes=[f"class {i}" for i in range(70)])
    text = text_of(page)
    assert '<table class="matrix">' not in page
    assert "With 70 classes the matrix would not be readable" in text
    assert "The lowest 60 of 70." in text


def test_colour_pictures_are_shown_smooth_when_large(tmp_path: Path) -> None:
    page = make(tmp_path / "data", channels=3, side=128, classes=["a", "b"])
    assert 'class="pixelated"' not in page
    assert "in colour" in text_of(page)


def test_names_are_escaped_when_they_look_like_html(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    page = make(tmp_path / "data", classes=[hostile, "b"], hostile=hostile)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8


def test_page_is_the_same_bytes_when_run_twice(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    assert one == two
    assert str(tmp_path) not in one


def test_page_asks_for_nothing_when_read_as_text(tmp_path: Path) -> None:
    page = make(tmp_path / "data")
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"|url\(([^)]*)\)', page)
    assert addresses
    assert all((a or b).startswith(("data:", "#")) for a, b in addresses)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_stage_fails_when_the_selection_is_stale(tmp_path: Path) -> None:
    make(tmp_path / "data")
    folders = build(tmp_path / "fewer", candidates=CANDIDATES[:2])
    stale = {**folders.report, "selection": tmp_path / "data" / "select"}
    with pytest.raises(StageFailed, match=r"prune-0\.5-fp32 is not in"):
        report(ReportParams(), out=tmp_path, **stale)


def test_missing_input_is_bad_input_when_a_stage_was_not_run(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    with pytest.raises(BadInput, match=r"metrics\.json: no such file; run the stage select first"):
        report(ReportParams(), out=tmp_path, **folders.report)


@pytest.mark.slow
def test_command_line_makes_both_outputs_when_given_the_folders(tmp_path: Path) -> None:
    folders = build(tmp_path / "data")
    for stage, paths in (("select", folders.select), ("report", folders.report)):
        words = [w for name, path in paths.items() for w in (f"--{name}", str(path))]
        out = tmp_path / "data" / stage
        command = [sys.executable, "-m", f"tasks.{stage}", *words, "--out", str(out)]
        done = subprocess.run(
            [*command, "--params", str(folders.root / "params.yaml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "data" / "report" / "report.html").stat().st_size > 20_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "needed"), [("quantize", ["onnx", "onnxruntime"]), ("select", ["onnxruntime"]), ("report", [])]
)
def test_heavy_libraries_stay_out_when_the_stage_is_imported(stage: str, needed: list[str]) -> None:
    heavy = "{'torch', 'matplotlib', 'pandas', 'sklearn', 'onnx', 'onnxruntime', 'mlflow', 'dvc', 'prefect'}"
    code = f"import sys, tasks.{stage}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(needed)


def test_settings_of_the_registry_stay_out_when_shown(tmp_path: Path) -> None:
    """The page is a function of what the stages used; no stage uses the registry's section."""
    page = make(tmp_path / "data")
    assert "<h3>registry</h3>" not in page
    assert "<h3>prune</h3>" in page
    assert json.dumps([0.25, 0.5, 0.625])[1:-1] in page


def test_learning_shows_searched_models_last_when_there_are_some(tmp_path: Path) -> None:
    build(tmp_path)
    shutil.copytree(tmp_path / "prune/0.5", tmp_path / "prune/sparse-0.8")
    shown = learning(
        tmp_path / "train",
        tmp_path / "prune",
        tmp_path / "press",
        {"ratios": ["sparse-0.8", 0.5, 0.25], "distill_weight": 0.9},
    )
    names = ["0.25 removed", "0.5 removed", "sparse-0.8", "press-1", "press-2"]
    assert [row[0] for row in shown["left"]] == ["dense", *names]
    curves = [label for _, label in shown["figures"][-1]["legend"]]
    assert curves == [name for name in names if name != "press-1"], "it was not trained after the cut"


def test_ratio_stays_out_when_params_no_longer_ask_for_it(tmp_path: Path) -> None:
    """DVC leaves the folder of a ratio that was taken out of params.yaml where it is."""
    root = tmp_path / "data"
    page = make(root)
    shutil.copytree(root / "prune" / "0.5", root / "prune" / "0.9")
    (root / "again").mkdir()
    report(ReportParams(title="Example"), out=root / "again", **Folders(root).report)
    assert (root / "again" / "report.html").read_text(encoding="utf-8") == page


def test_page_says_first_that_nothing_is_to_be_shipped_when_the_model_knows_nothing(tmp_path: Path) -> None:
    page = make(tmp_path / "data", simple=0.95)
    heading = page[page.index("<h1>") : page.index("</h1>")]
    assert "Do not ship this: the dense model knows no more than a random forest" in heading
    assert "more test examples" in page[: page.index("<main>")], "what to try"


def test_baselines_stand_beside_the_dense_model_when_it_is_read(tmp_path: Path) -> None:
    page = make(tmp_path / "data")
    table = page[page.index('aria-label="Table of baselines"') :]
    names = re.findall(r'<th scope="row">([^<]+)</th>', table[: table.index("</table>")])
    assert names == ["random forest", "majority", "dense-fp32"]

"""What select promises of a model, and whether it is found to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flows.registry.gate import AGREEMENT, SPEED, Checked, check
from tasks.core.common.errors import BadInput
from tasks.core.runtime import promise
from tasks.core.runtime.session import fingerprint, predict, session
from tests.builders import FINGERPRINT, SLOW_ROWS, rows_model, ship
from tests.integration.toy import ROOT, modelpress


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that keeps its promise."""
    return ship(tmp_path / "select", rows_model())


def replaced(model: Path, content: bytes) -> Path:
    """`model` with other bytes, which the promise takes for the ones that it is about: as if this machine
    computed something else."""
    model.write_bytes(content)
    path = model.with_name(promise.PROMISE)
    promised = json.loads(path.read_text(encoding="utf-8"))
    promised["sha256"][promise.MODEL] = promise._digest(model)
    path.write_text(json.dumps(promised), encoding="utf-8")
    return model


def test_promise_holds_when_the_model_does_the_same_here(model: Path) -> None:
    checked = check(model)
    assert (checked.accuracy_holds, checked.speed_holds, checked.holds) == (True, True, True)
    assert checked.here.agreement == checked.here.accuracy == 1.0
    assert checked.least_speedup == pytest.approx(SPEED * 2.0)
    assert checked.here.speedup_b1 > 2.0
    assert checked.here.reference_p50_ms > 2.0 * checked.here.p50_ms
    assert checked.here.fingerprint == fingerprint()
    assert checked.promised.fingerprint == FINGERPRINT
    assert "holds here: 100.00%" in checked.verdict


def test_accuracy_does_not_hold_when_the_model_predicts_something_else(model: Path) -> None:
    checked = check(replaced(model, rows_model(bias=40.0)))
    assert (checked.accuracy_holds, checked.speed_holds, checked.holds) == (False, True, False)
    with np.load(model.with_name(promise.SAMPLES)) as sample:
        changed_N = predict(session(model, 1), sample["images_NHWC"]).argmax(1)
        assert checked.here.agreement == (changed_N == sample["predicted_N"]).mean() < AGREEMENT
        assert checked.here.accuracy == (changed_N == sample["labels_N"]).mean()
    assert (
        f"{checked.here.agreement:.2%} of the predictions are the promised ones, not 99%" in checked.verdict
    )
    assert "times as fast" not in checked.verdict


def test_accuracy_holds_when_fewer_than_one_prediction_in_a_hundred_differs(model: Path) -> None:
    with np.load(model.with_name(promise.SAMPLES)) as sample:
        means_NK = sample["images_NHWC"].mean((2, 3))
    lead_N = np.sort(means_NK.max(1) - means_NK[:, 0])  # what the first class lacks to be predicted
    lead_N = lead_N[lead_N > 0]
    checked = check(replaced(model, rows_model(bias=float(lead_N[:2].mean()) + 0.01)))
    assert 0.99 < checked.here.agreement < 1
    assert checked.holds


@pytest.mark.slow
def test_speed_does_not_hold_when_the_model_is_as_slow_as_the_reference(tmp_path: Path) -> None:
    checked = check(ship(tmp_path, SLOW_ROWS))
    assert (checked.accuracy_holds, checked.speed_holds) == (True, False)
    assert "times as fast as the reference, not 1.60 times" in checked.verdict
    assert "predictions" not in checked.verdict


def test_speedup_is_enough_when_it_is_faster_than_asked(tmp_path: Path) -> None:
    model = ship(tmp_path, rows_model(), speedup=1e5)
    assert not check(model).holds
    assert check(model, enough=1.0).holds


@pytest.mark.slow
def test_slower_model_is_held_to_its_own_promise_when_none_was_faster(tmp_path: Path) -> None:
    """The smallest model may be slower than the reference, and says so."""
    model = ship(tmp_path, rows_model(work=100_000), speedup=0.5)
    assert check(model, enough=1.0).least_speedup == pytest.approx(SPEED * 0.5)


def test_overflow_is_named_when_it_explains_other_predictions(model: Path) -> None:
    checked = check(replaced(model, rows_model(bias=40.0)))
    assert not checked.overflows, "float weights do not overflow"
    likely = Checked(checked.promised, checked.here, checked.least_speedup, overflows=True)
    assert "likely because 8-bit sums overflow on this processor" in likely.verdict


@pytest.mark.parametrize("name", promise.COMPANIONS)
def test_check_is_refused_when_a_companion_is_missing(name: str, model: Path) -> None:
    model.with_name(name).unlink()
    with pytest.raises(BadInput, match=f"select/{name}: no such file") as refused:
        check(model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [promise.MODEL, promise.SAMPLES, promise.REFERENCE])
def test_check_is_refused_when_a_file_was_changed(name: str, model: Path) -> None:
    path = model.with_name(name)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadInput, match=rf"select/{name}: its SHA-256 is not that in .*promise\.json"):
        check(model)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": {}}', "\N{REPLACEMENT CHARACTER}"])
def test_check_is_refused_when_the_promise_is_none(content: str, model: Path) -> None:
    model.with_name(promise.PROMISE).write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"promise\.json: not the promise that stage select writes"):
        check(model)


def test_check_is_refused_when_the_promise_has_no_digest_of_the_model(model: Path) -> None:
    path = model.with_name(promise.PROMISE)
    promised = json.loads(path.read_text(encoding="utf-8"))
    del promised["sha256"][promise.MODEL]
    path.write_text(json.dumps(promised), encoding="utf-8")
    with pytest.raises(BadInput, match="not the promise"):
        check(model)


def test_model_is_checked_under_another_name_when_it_was_renamed(model: Path) -> None:
    assert check(model.rename(model.with_name("shoes.onnx"))).holds


@pytest.mark.slow
def test_command_exits_0_with_a_table_when_the_promise_holds(model: Path, tmp_path: Path) -> None:
    done = modelpress(tmp_path, "check", "select/model.onnx", check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["predictions", "as", "promised", "100.00%", "100.00%", "yes"] in lines
    assert ["processor", *FINGERPRINT["cpu_model"].split(), *fingerprint()["cpu_model"].split()] in lines
    here = "yes" if fingerprint()["vnni"] else "no"
    assert ["integer", "dot", "products", "(VNNI)", "yes", here] in lines
    assert done.stdout.splitlines()[-1].startswith("What was promised holds here")


@pytest.mark.slow
def test_command_exits_1_with_the_verdict_when_the_promise_does_not_hold(tmp_path: Path) -> None:
    ship(tmp_path, SLOW_ROWS)
    done = modelpress(tmp_path, "check", "model.onnx")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("modelpress: What was promised does not hold here: it is ")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[-1] for line in lines if line[:2] == ["times", "faster"]] == ["no"]


@pytest.mark.slow
def test_command_prints_json_when_asked(model: Path, tmp_path: Path) -> None:
    assert json.loads(modelpress(tmp_path, "check", "select/model.onnx", "--json").stdout)["holds"] is True
    replaced(model, rows_model(bias=40.0))
    done = modelpress(tmp_path, "check", "select/model.onnx", "--json")
    content = json.loads(done.stdout)
    assert (done.returncode, content["holds"]) == (1, False)
    assert content["verdict"] in done.stderr
    assert content["promised"]["agreement"] == 1.0
    assert content["here"]["agreement"] < AGREEMENT


@pytest.mark.slow
def test_command_exits_2_and_names_the_file_when_there_is_no_model(tmp_path: Path) -> None:
    done = modelpress(tmp_path, "check", "model.onnx")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "model.onnx: no such file" in done.stderr


@pytest.mark.slow
def test_file_is_checked_without_torch_and_mlflow_when_run_as_a_command(model: Path) -> None:
    heavy = {"torch", "mlflow", "prefect", "dvc", "pandas", "pydantic", "sklearn"}
    code = f"""
import sys
from flows.cli.main import main
try:
    main(["check", {str(model)!r}, "--json"])
except SystemExit as end:
    print(end.code, set(sys.modules) & {heavy!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"


@pytest.mark.slow
def test_rules_are_told_when_help_is_asked(tmp_path: Path) -> None:
    told = " ".join(modelpress(tmp_path, "check", "--help", check=True).stdout.split())
    page = (ROOT / "docs/how-to/another-machine.md").read_text(encoding="utf-8")
    for text in (told, page):
        assert f"at least {100 * AGREEMENT:.0f} % of its predictions" in text
        assert f"at least {100 * SPEED:.0f} % of the promised" in text

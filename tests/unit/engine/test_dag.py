"""flows/engine/dag.py on a project whose graph is known."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
from dvc.repo import Repo, lock_repo

from flows.engine import dag
from tasks.core.common.errors import BadInput

pytestmark = pytest.mark.slow  # processes


def test_read_gives_edges_and_order_when_stages_form_a_matrix(done: Path) -> None:
    stages = {stage.name: stage for stage in dag.read(done).stages}
    assert stages["prune@0.5"].after == ("train",)
    assert stages["evaluate"].after == ("prune@0.25", "prune@0.5")
    assert stages["ingest"].after == ("data/raw/in.txt.dvc",)
    assert stages["data/raw/in.txt.dvc"].tracks_data
    assert (stages["prune@0.5"].cores, stages["train"].cores) == (1, None)
    assert stages["prune@0.5"].outs == (Path("data/prune/0.5"),)
    order = list(stages)
    assert all(order.index(before) < order.index(name) for name in stages for before in stages[name].after)


def test_pending_is_empty_when_nothing_changed(done: Path) -> None:
    assert dag.read(done).pending() == []


def test_pending_is_the_changed_stage_and_all_after_it_when_a_parameter_changed(done: Path) -> None:
    params = done / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 3"))
    assert [s.name for s in dag.read(done).pending()] == ["train", "prune@0.5", "prune@0.25", "evaluate"]


def test_pending_begins_with_the_data_when_raw_data_changed(done: Path) -> None:
    (done / "data/raw/in.txt").unlink()
    (done / "data/raw/in.txt").write_text("other\n")
    assert dag.read(done).pending()[0].name == "data/raw/in.txt.dvc"


def test_pending_names_a_stage_when_its_output_is_missing(done: Path) -> None:
    shutil.rmtree(done / "data/prune/0.25")
    assert [s.name for s in dag.read(done).pending()] == ["prune@0.25", "evaluate"]


def test_read_removes_candidates_when_they_left_params(done: Path) -> None:
    params = done / "params.yaml"
    params.write_text(params.read_text().replace("[0.5, 0.25]", "[0.5]"))
    plan = dag.read(done, clean=True)
    assert plan.removed == (Path("data/prune/0.25"),)
    assert sorted(p.name for p in (done / "data/prune").iterdir() if p.is_dir()) == ["0.5"]


def test_read_leaves_all_folders_when_not_asked_to_clean(done: Path) -> None:
    params = done / "params.yaml"
    params.write_text(params.read_text().replace("[0.5, 0.25]", "[0.5]"))
    assert dag.read(done).removed == ()
    assert (done / "data/prune/0.25").is_dir()


def test_read_goes_on_when_a_killed_process_left_half_a_list_of_readers(done: Path) -> None:
    left = done / ".dvc/tmp/rwlock"
    left.write_text('{"write": {', encoding="utf-8")
    assert dag.read(done).pending() == []
    left.write_bytes(b"")
    assert dag.read(done).pending() == []


def test_locked_gives_all_stages_when_dvc_is_in_the_middle_of_rewriting_the_file(done: Path) -> None:
    path = done / dag.LOCK
    content, stages = path.read_bytes(), list(dag.locked(done))
    assert stages == ["ingest", "train", "prune@0.5", "prune@0.25", "evaluate"]
    emptied = threading.Event()

    def rewrite() -> None:
        with Repo(str(done)) as repo, lock_repo(repo):
            path.write_bytes(b"")
            emptied.set()
            time.sleep(0.5)
            path.write_bytes(content)

    dvc = threading.Thread(target=rewrite)
    dvc.start()
    assert emptied.wait(60)
    assert list(dag.locked(done)) == stages
    dvc.join()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dvc.yaml", "stages: [", "dvc.yaml"),
        ("dvc.yaml", "stages:\n  a:\n    cmd: 'true'\n    deps: [b]\n    outs: [b]\n", "b"),
        ("dvc.yaml", "stages:\n  a:\n    cmd: 'true'\n    meta: {cores: two}\n", "a: meta.cores"),
        ("params.yaml", "ingest: {}\n", "prune.ratios"),
    ],
)
def test_read_raises_one_line_when_a_file_is_broken(done: Path, name: str, content: str, said: str) -> None:
    (done / name).write_text(content)
    with pytest.raises(BadInput) as caught:
        dag.read(done)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_raises_when_the_folder_is_no_dvc_repository(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(BadInput, match="not inside of a DVC repository"):
        dag.read(tmp_path)

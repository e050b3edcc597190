"""From train to a repository of the hub and back: uploads, what they leave out, and what is checked before the work."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from conftest import Outcome
from huggingface_hub import ModelCard, constants
from localhub import LocalHub
from transformers import pipeline

from mrpcbench.errors import MrpcbenchError, UsageError
from mrpcbench.hub import client, uploads
from mrpcbench.hub.cards import BEGIN, END, with_section
from mrpcbench.models.sources import ModelSource
from mrpcbench.onnx_export import publishing
from mrpcbench.quickstart import CHECKPOINT_DIR
from mrpcbench.records import store
from mrpcbench.schema.records import EvaluateRecord, ExportRecord, TrainRecord
from mrpcbench.schema.requests import DEFAULT_MODEL, ExportPlan
from mrpcbench.training.model_card import is_stale

Run = Callable[..., Outcome]
REPO = ("models", "me/tuned")
BASE_CARD = b"---\nlicense: apache-2.0\nlanguage: en\n---\n# base\n"
OLD = ["pytorch_model.bin", "model-00001-of-00002.safetensors", "vocab.txt", "onnx/model.onnx", "onnx-int8/model.onnx"]
KEPT = ["LICENSE", "images/plot.png", ".gitattributes"]


@pytest.fixture
def signed_in(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    monkeypatch.setattr(client, "READ_S", 5.0)
    return local_hub


def refused(name: str, **options: bool) -> str:
    with pytest.raises(UsageError) as caught:
        uploads.target(name, **options)
    assert str(caught.value).startswith(f"--push-to-hub {name}: ")
    return str(caught.value)


def test_a_model_goes_to_the_hub_and_back_with_its_graph(
    mrpcbench: Run, signed_in: LocalHub, glue_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in CHECKPOINT_DIR.iterdir()}
    base = signed_in.put("models", DEFAULT_MODEL, files | {"README.md": BASE_CARD})
    data = signed_in.put("datasets", "nyu-mll/glue", glue_files)
    signed_in.put(*REPO, dict.fromkeys([*OLD, *KEPT, "README.md"], b"?"))
    train = ("train", "--max-steps", "2", "--output-dir", "model", "--results", "train.json", "--push-to-hub", "tuned")
    Path("model/onnx-int8").mkdir(parents=True)
    Path("model/onnx-int8/model.onnx").write_bytes(b"a graph of earlier weights")
    done = mrpcbench(*train)
    assert done.status == 0, done.err
    record = store.load_as(TrainRecord, tmp_path / "train.json")
    repo = signed_in.repos[REPO]
    assert f"uploaded: {record.train.pushed}" in done.err
    assert record.train.pushed == f"{signed_in.url}/me/tuned/commit/{repo.refs['main']}"
    assert (record.train.base_model.revision, record.model.revision) == (base, None)
    assert [item.revision for item in record.data] == [data, data]
    lineage = json.loads(repo.files["mrpcbench.json"])
    assert (lineage["base_model_revision"], lineage["data_revision"]) == (base, data)
    assert not set(OLD) & set(repo.files)
    assert set(KEPT) <= set(repo.files)
    assert not [name for name in repo.files if re.match(r"onnx|checkpoint|mrpcbench-run", name)]
    assert "POST /api/validate-yaml" in signed_in.requests  # it refuses the commit of a card with errors
    check_card(repo.files["README.md"].decode(), base, data)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "fresh"))
    monkeypatch.delenv("HF_TOKEN")
    signed_in.forget()
    assert mrpcbench("evaluate", "--model", "me/tuned", "--results", "evaluate.json").status == 0
    assert len(signed_in.requests) <= 16
    scored = store.load_as(EvaluateRecord, tmp_path / "evaluate.json")
    assert (scored.model.revision, scored.model.name) == (repo.refs["main"], "me/tuned")
    assert scored.model.model_sha256 == record.model.model_sha256
    loaded = pipeline(
        "text-classification", model=str(tmp_path / "fresh/models--me--tuned/snapshots" / repo.refs["main"])
    )
    assert loaded({"text": "One.", "text_pair": "Two."})["label"] in ("EQUIVALENT", "NOT_EQUIVALENT")

    monkeypatch.setenv("HF_TOKEN", "hf_me")
    export = ("export", "--model", "model", "--results", "export.json", "--push-to-hub", "me/tuned")
    done = mrpcbench(*export)
    assert done.status == 0, done.err
    exported = store.load_as(ExportRecord, tmp_path / "export.json")
    assert f"uploaded: {exported.export.pushed}" in done.err
    assert exported.export.pushed and exported.export.pushed.endswith(repo.refs["main"])
    assert repo.files["onnx/model.onnx"] == Path("model/onnx/model.onnx").read_bytes()
    card = repo.files["README.md"].decode()
    assert f"`{exported.model.graph_sha256}`" in card
    assert 'from_pretrained("me/tuned", subfolder="onnx")' in card
    signed_in.forget()
    assert mrpcbench("evaluate", "--model", "me/tuned", "--backend", "onnx", "--results", "graph.json").status == 0
    graph = store.load_as(EvaluateRecord, tmp_path / "graph.json")
    assert (graph.model.revision, graph.model.proven) == (repo.refs["main"], True)
    assert np.isclose(graph.score.accuracy, scored.score.accuracy)
    assert not [line for line in signed_in.requests if "model.safetensors" in line]

    signed_in.forget()
    done = mrpcbench(*train, "--resume", "--private")
    assert (done.status, signed_in.requests[-1]) == (2, "GET /api/models/me/tuned")
    assert "me/tuned exists and is public" in done.err
    done = mrpcbench(*train, "--resume")
    assert "nothing is left to train" in done.err
    assert "onnx/model.onnx" in repo.files, "a graph of the same weights"
    assert f"`{exported.model.graph_sha256}`" in repo.files["README.md"].decode()


def check_card(text: str, base: str, data: str) -> None:
    """The card of a model trained on the hub's data, as a reader sees it."""
    found = ModelCard(text).data
    assert (found.license, found.language, found.base_model) == ("apache-2.0", "en", DEFAULT_MODEL)
    assert found.datasets == ["nyu-mll/glue"]
    assert {result.metric_type: result.dataset_name for result in found.eval_results} == {
        "accuracy": "GLUE MRPC",
        "f1": "GLUE MRPC",
    }
    assert all(result.dataset_revision == data for result in found.eval_results)
    assert all(re.search(r"95% interval 0\.\d+ to [01]\.\d+", result.metric_name) for result in found.eval_results)
    assert "# ModernBERT-base for paraphrases (GLUE MRPC)" in text
    assert 'pipeline("text-classification", model="me/tuned")' in text
    assert "mrpcbench evaluate --model me/tuned" in text
    assert f"at commit `{base}`" in text
    assert BEGIN in text


# Before the work


def test_without_a_token_with_a_wrong_one_or_offline_nothing_starts(
    mrpcbench: Run, local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "not signed in; run `hf auth login`, or set HF_TOKEN" in refused("tuned")
    assert local_hub.requests == []
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    done = mrpcbench("train", "--data", "quickstart", "--model", "quickstart", "--push-to-hub", "tuned")
    assert (done.status, done.out) == (2, "")
    assert "error: --push-to-hub tuned: the hub rejects the token in HF_TOKEN (401)" in done.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused("tuned")


def test_a_repository_is_made_or_checked_before_the_work(signed_in: LocalHub) -> None:
    assert uploads.target("new", private=True).repo_id == "me/new"
    assert signed_in.repos["models", "me/new"].private
    assert uploads.target("me/new", private=True).repo_id == "me/new"
    signed_in.put("models", "me/open", {})
    assert "me/open exists and is public" in refused("open", private=True)
    signed_in.put("models", "other/tuned", {})
    for name in ("other/tuned", "other/nothing"):
        assert f"me cannot write to {name}; name a repository of me" in refused(name)
    assert "me has no such repository" in refused("nothing", create=False)
    assert "not a repository name" in refused("a/b/c")


# After the work


def test_a_failed_upload_says_where_the_files_are(signed_in: LocalHub) -> None:
    to = uploads.target("tuned")
    signed_in.fail("commit/main", "status", 403)
    with pytest.raises(MrpcbenchError, match=r"^--push-to-hub tuned: the upload failed \(.*\); kept here$"):
        uploads.commit(to, {"a.txt": b"a"}, is_stale, "message", "kept here")


@pytest.mark.skipif(not hasattr(huggingface_hub, "configure_http_backend"), reason="its client has a limit of its own")
def test_a_request_of_an_upload_has_a_time_limit(signed_in: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    to = uploads.target("tuned")
    monkeypatch.setattr(uploads, "UPLOAD_S", 0.2)
    signed_in.fail("commit/main", "hang", 3)
    with pytest.raises(MrpcbenchError, match=r"the upload failed .*timed out"):
        uploads.commit(to, {"a.txt": b"a"}, is_stale, "message", "kept here")


def test_a_graph_goes_only_to_the_repository_of_its_weights(signed_in: LocalHub, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT_DIR, tmp_path / "model"))
    weights = (folder / "model.safetensors").read_bytes()
    plan, source = ExportPlan(model=str(folder), push_to_hub="tuned"), ModelSource(str(folder), folder)
    signed_in.put(*REPO, {"model.safetensors": weights[::-1]})
    with pytest.raises(UsageError, match=r"me/tuned has other weights than --model .* \(model.safetensors\)"):
        publishing.check_target(plan, source)
    signed_in.put(*REPO, {"model.safetensors": weights})
    found = publishing.check_target(plan, source)
    assert found is not None
    assert [publishing.is_stale(name) for name in (*OLD, *KEPT)] == [
        False,
        False,
        False,
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_section_of_a_graph_is_replaced_or_added() -> None:
    card = with_section("# mine\n", "one")
    assert card == f"# mine\n\n{BEGIN}\none\n{END}\n"
    assert with_section(card + "after", "two") == f"# mine\n\n{BEGIN}\ntwo\n{END}\nafter"

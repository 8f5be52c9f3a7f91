"""Model folders, local and on the Hugging Face hub."""

import json
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file
from tests.model import small
from tests.model.small import frontal_embedding, text_embedding

import medst
from medst import weights
from medst.errors import MedstError
from medst.recipes.settings import ObjectiveSettings, Recipe
from medst.tokenizer import learn_tokenizer
from medst.use import Model
from medst.weights.model_folder import Margin, keep_margin
from medst.weights.trained_on import TRAINED_ON

EARLIER = Path(__file__).parents[1] / "data" / "earlier"
TOKENIZER = learn_tokenizer(["no acute process", "the effusion has grown"], 50)
RECIPE = Recipe(
    name="tiny",
    model=small.SETTINGS,
    objective=ObjectiveSettings(),
)


def make(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    model, objective = weights.build(RECIPE, TOKENIZER)
    return Model(model.eval(), objective.eval(), TOKENIZER, RECIPE, "none")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = make()
    weights.save(tmp_path / "model", made.model, made.objective, made.tokenizer, made.recipe)
    return tmp_path / "model"


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_a_saved_model_loads_unchanged(saved: Path) -> None:
    made, loaded = make(), medst.load(saved)
    assert same(made.model, loaded.model)
    assert loaded.objective is not None
    assert same(made.objective, loaded.objective)  # type: ignore[arg-type]
    assert loaded.recipe.model == made.model.settings
    assert not loaded.model.training
    pieces = loaded.tokenizer("the effusion", return_tensors="pt")
    text = pieces["input_ids"], pieces["attention_mask"]
    torch.testing.assert_close(text_embedding(loaded.model, *text), text_embedding(made.model, *text))
    picture = torch.randn(2, 1, small.SIDE, small.SIDE)
    assert torch.equal(frontal_embedding(loaded.model, picture), frontal_embedding(made.model, picture))
    assert {tensor.device.type for tensor in [*loaded.model.parameters(), *loaded.model.buffers()]} == {"cpu"}


def test_saving_a_model_twice_gives_the_same_bytes_and_fingerprint(tmp_path: Path) -> None:
    for name in "ab":
        made = make()
        weights.save(tmp_path / name, made.model, made.objective, made.tokenizer, made.recipe)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    assert medst.load(tmp_path / "a").fingerprint == medst.load(tmp_path / "b").fingerprint
    assert len(medst.load(tmp_path / "a").fingerprint) == 64


def test_the_patients_of_training_are_saved_and_never_shared(tmp_path: Path) -> None:
    made, noted = make(), tmp_path / "noted.json"
    noted.write_text("{}")
    weights.save(tmp_path / "model", made.model, None, made.tokenizer, made.recipe, trained_on=noted)
    assert (tmp_path / "model" / TRAINED_ON).read_bytes() == noted.read_bytes()
    medst.load(tmp_path / "model").save_pretrained(tmp_path / "shared")
    assert not (tmp_path / "shared" / TRAINED_ON).exists()


def test_an_older_model_is_replaced_completely(saved: Path) -> None:
    (saved / "stale.txt").write_text("from before")
    (saved.with_name("model.part")).mkdir()
    made = make(seed=1)
    weights.save(saved, made.model, None, made.tokenizer, made.recipe)
    assert not (saved / "stale.txt").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    loaded = medst.load(saved)
    assert loaded.objective is None
    assert same(loaded.model, made.model)


def test_a_save_killed_between_any_two_disk_changes_leaves_a_complete_model(
    tmp_path: Path, killing: Callable[[int], AbstractContextManager[list[str]]]
) -> None:
    old, new = make(seed=1), make(seed=2)
    folder = tmp_path / "best"
    for killed_after in range(100):
        weights.save(folder, old.model, old.objective, old.tokenizer, old.recipe)
        with killing(killed_after) as asked:
            weights.save(folder, new.model, new.objective, new.tokenizer, new.recipe)
        loaded = medst.load(folder)
        assert any(same(loaded.model, made.model) for made in (old, new)), killed_after
        weights.save(folder, new.model, new.objective, new.tokenizer, new.recipe)
        assert {path.name for path in tmp_path.iterdir()} == {"best"}
        assert same(medst.load(folder).model, new.model)
        if len(asked) <= killed_after:
            break
    assert killed_after > 10


def test_an_untrained_model_has_other_weights_and_keeps_the_random_state(saved: Path) -> None:
    loaded = medst.load(saved)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two, other = (loaded.untrained(seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one.model, two.model)
    assert not same(one.model, other.model)
    assert not same(one.model, loaded.model)


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    before = torch.get_rng_state()
    medst.load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_model_can_be_trained(saved: Path) -> None:
    model = medst.load(saved).model.train()
    small.make_pairs([True, False], [7, 5]).run(model).image[0, 0].backward()
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


# ------------------------------------------------------------------------------------------------------ what is refused


def rewrite(path: Path, **tensors: torch.Tensor | None) -> None:
    state = load_file(path)
    for name, tensor in tensors.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    save_file(state, path)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"vision__norm__weight": None}, r"missing: vision.norm.weight"),
        ({"vision__norm__weight": torch.zeros(3)}, r"of another shape: vision.norm.weight \(3, not 16\)"),
        ({"vision__norm__weight": torch.zeros(16).half()}, r"of another type: .*float16, not float32"),
        ({"strange": torch.zeros(3), "vision__norm__bias": None}, r"missing: vision.norm.bias; unexpected: strange"),
    ],
)
def test_entries_that_do_not_fit_are_listed(saved: Path, tensors: Any, said: str) -> None:
    rewrite(saved / "model.safetensors", **tensors)
    with pytest.raises(MedstError, match=r"model.safetensors does not fit its config.json; .*" + said):
        medst.load(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved: Path, value: float) -> None:
    rewrite(saved / "model.safetensors", vision__norm__weight=torch.full((16,), value))
    with pytest.raises(MedstError, match=r"model\.safetensors holds NaN or infinity in vision\.norm\.weight; take"):
        medst.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "objective.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_refused_with_a_sentence(saved: Path, name: str) -> None:
    whole, draw = (saved / name).read_bytes(), random.Random(name)
    for _ in range(40):
        content = bytearray(whole)
        head = draw.random() < 0.5  # of a safetensors file, its JSON
        for _ in range(draw.choice((1, 1, 3))):
            content[draw.randrange(min(len(content), 3000) if head else len(content))] ^= draw.randrange(1, 256)
        (saved / name).write_bytes(content)
        if name.endswith(".safetensors"):
            with pytest.raises(MedstError):
                medst.load(saved)
        else:
            with suppress(MedstError):
                medst.load(saved)
    for odd in (b"", b"[" * 50_000, b"\0" * 100, b"null"):
        (saved / name).write_bytes(odd)
        with pytest.raises(MedstError, match=name):
            medst.load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "objective.safetensors"])
def test_a_truncated_file_is_named(saved: Path, name: str) -> None:
    path = saved / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(MedstError, match=rf"{name} is damaged or not a safetensors file"):
        medst.load(saved)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json is damaged"),
        ("[]", "config.json is damaged"),
        ('{"format": 1}', "config.json is damaged"),
        ('{"format": 1, "recipe": {"colour": 3}}', "config.json is damaged"),
        ('{"format": 2, "model": {}}', "config.json is damaged"),
        ('{"format": 2, "model": {"colour": 3}, "crop": 224}', "config.json: ModelSettings has no field colour"),
        ('{"format": 99, "recipe": {}}', "model format 99, but this medst reads 1 to 2; update medst"),
    ],
)
def test_a_strange_config_is_refused(saved: Path, text: str, said: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(MedstError, match=said):
        medst.load(saved)


@pytest.mark.parametrize(
    ("part", "field", "value"), [("vision", "depth", 10**8), ("text", "pieces", 2000), ("text", "width", "32")]
)
def test_settings_in_a_config_must_be_in_their_range(saved: Path, part: str, field: str, value: Any) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["model"][part][field] = value
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(MedstError, match=rf"config.json: model.{part}.{field} is '?{value}'?; it must be "):
        medst.load(saved)
    config["crop"], config["model"][part][field] = 257, getattr(getattr(small.SETTINGS, part), field)
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(MedstError, match=r"config.json: data.crop is 257; it must be "):
        medst.load(saved)


def test_a_setting_that_config_json_lost_is_not_replaced_by_a_default(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["model"]["text"]["dropout"]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(MedstError, match=r"config.json is damaged: its settings are not those that were saved"):
        medst.load(saved)


def test_a_folder_of_format_2_without_a_digest_of_its_settings_opens(saved: Path) -> None:
    expected = medst.load(saved)
    config = json.loads((saved / "config.json").read_text())
    del config["sha256"]
    (saved / "config.json").write_text(json.dumps(config))
    assert same(medst.load(saved).model, expected.model)


def test_unknown_and_renamed_settings_of_the_recipe_are_ignored(saved: Path) -> None:
    """Settings with another name, type or range are ignored; the others are kept."""
    file, expected = saved / "recipe.json", medst.load(saved)
    record = json.loads(file.read_text())
    record["optimiser"]["learning_rate"] = record["optimiser"].pop("lr")
    record["optimiser"]["epochs"] = 77
    record["objective"]["local_temperature"] = "warm"
    record["data"] |= {"crop": 1, "vocabulary": -1, "patients": None}
    record["run"] = ["fast"]
    record["teacher"] = {"decay": 0.99}
    file.write_text(json.dumps(record))
    loaded = medst.load(saved)
    assert same(loaded.model, expected.model)
    assert loaded.recipe == replace(RECIPE, optimiser=replace(RECIPE.optimiser, epochs=77))
    assert loaded.crop == RECIPE.data.crop
    file.unlink()
    assert medst.load(saved).recipe == replace(RECIPE, name="custom")


def test_unknown_and_renamed_settings_of_format_1_are_ignored(tmp_path: Path) -> None:
    shutil.copytree(EARLIER / "run" / "best", tmp_path / "model")
    before = medst.load(tmp_path / "model")
    assert before.recipe.optimiser.lr == 0.002
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["recipe"]["optimiser"]["learning_rate"] = config["recipe"]["optimiser"].pop("lr")
    config["recipe"]["run"]["colour"] = "blue"
    config["recipe"]["data"]["crop"] = 200
    file.write_text(json.dumps(config))
    after = medst.load(tmp_path / "model")
    assert same(before.model, after.model)
    assert (after.crop, after.recipe.optimiser.epochs) == (200, 4)
    after.save_pretrained(tmp_path / "again")
    assert medst.load(tmp_path / "again").recipe == after.recipe


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(
        MedstError, match=r"not a model folder; it needs config.json, model.safetensors and a tokenizer"
    ):
        medst.load(saved)


def test_a_run_in_place_of_its_model_is_answered_with_the_model(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    saved.rename(run / "best")
    with pytest.raises(MedstError, match=rf"a tokenizer; this is a run, give {run / 'best'}\.$"):
        medst.load(run)


@pytest.mark.parametrize("value", [0, 28996])
def test_a_vocabulary_setting_of_an_earlier_version_is_ignored(saved: Path, value: int) -> None:
    record = json.loads((saved / "recipe.json").read_text())
    assert "vocabulary" not in record["model"]["text"]
    record["model"]["text"]["vocabulary"] = value
    (saved / "config.json").write_text(json.dumps({"format": 1, "recipe": record}))
    assert medst.load(saved).recipe == RECIPE


def test_a_tokenizer_of_another_model_is_refused(saved: Path) -> None:
    learn_tokenizer(["quite another text, and longer"], 90).save_pretrained(str(saved))
    with pytest.raises(MedstError, match=r"has 50 word embeddings, but the tokenizer has \d+ pieces; put back"):
        medst.load(saved)


# -------------------------------------------------------------------------------------------------------------- the hub


def test_save_pretrained_and_from_pretrained(tmp_path: Path) -> None:
    made = make()
    made.save_pretrained(tmp_path / "model")
    loaded = Model.from_pretrained(tmp_path / "model")
    assert same(made.model, loaded.model)
    assert same(made.objective, loaded.objective)  # type: ignore[arg-type]
    assert same(medst.load(tmp_path / "model").model, made.model)


def test_the_model_card_describes_the_model_and_its_use(tmp_path: Path) -> None:
    made = make()
    made.save_pretrained(tmp_path / "model")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.library_name == "medst"
    assert card.data.pipeline_tag == "feature-extraction"
    assert {"chest-x-ray", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    assert "medst.load(" in card.text
    assert "Not a medical device" in card.text
    assert f"{sum(p.numel() for p in made.model.parameters()):,}" in card.text
    assert "| word order | seen |" in card.text
    assert "{{" not in card.text


def test_a_pushed_model_is_loaded_by_its_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands in for the hub."""
    hub = tmp_path / "hub"

    class Url:
        def __init__(self, repo_id: str) -> None:
            self.repo_id = repo_id

    def create(self: HfApi, repo_id: str, **_: object) -> Url:
        (hub / repo_id).mkdir(parents=True)
        return Url(repo_id)

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **_: object) -> str:
        shutil.copytree(folder_path, hub / repo_id, dirs_exist_ok=True)
        return f"https://hub.example/{repo_id}"

    def snapshot(repo_id: str, *, allow_patterns: list[str], **_: object) -> str:
        pulled = tmp_path / "pulled"
        for pattern in allow_patterns:
            for file in (hub / repo_id).glob(pattern):
                pulled.mkdir(exist_ok=True)
                shutil.copy(file, pulled)
        return str(pulled)

    def one_file(repo_id: str, filename: str, **_: object) -> str:
        return str(hub / repo_id / filename)

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr("medst.hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", one_file)
    made = make()
    made.push_to_hub("someone/a-model")
    assert {
        "README.md",
        "config.json",
        "recipe.json",
        "model.safetensors",
        "objective.safetensors",
        "tokenizer.json",
    } <= {path.name for path in (hub / "someone" / "a-model").iterdir()}
    assert json.loads((hub / "someone" / "a-model" / "config.json").read_text())["format"] == 2
    pulled = medst.load("someone/a-model")
    assert same(pulled.model, made.model)
    assert pulled.tokenizer.get_vocab() == TOKENIZER.get_vocab()


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_an_impossible_margin_is_refused(saved: Path, value: float) -> None:
    keep_margin(saved, Margin(value, 60, 0.3))
    with pytest.raises(MedstError, match=r"config\.json"):
        medst.load(saved)


def test_a_margin_without_a_digest_is_refused(saved: Path) -> None:
    keep_margin(saved, Margin(0.02, 60, 0.3))
    assert medst.load(saved).margin == Margin(0.02, 60, 0.3)
    config = json.loads((saved / "config.json").read_text())
    del config["sha256"]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(MedstError, match=r"config.json is damaged \(margin\)"):
        medst.load(saved)

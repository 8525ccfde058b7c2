"""Configurations: what is accepted, and what is said about what is not."""

import re

import pytest
import yaml

from bitscout.core import BompScore, FrontObjective
from bitscout.errors import ConfigError
from bitscout.pipeline import RunConfig, dump_config, load_config, make_config, preset_names


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dumped_configuration_loads_as_the_same(tmp_path):
    config = load_config("quickstart", ["seed=3", "space.widths=[0.1, 0.5]"])
    path = write(tmp_path, dump_config(config))
    assert load_config(path) == config


def test_empty_file_is_all_defaults(tmp_path):
    assert load_config(write(tmp_path, "")) == RunConfig()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_carries_its_own_name(name):
    assert load_config(name).name == name


@pytest.mark.parametrize(("name", "ref_size"), [("bomp-cifar10", 8), ("bomp-cifar100", 6)])
def test_paper_presets_carry_the_papers_numbers(name, ref_size):
    config = load_config(name)
    assert config.searcher.n_trials == 100
    assert (config.training.epochs, config.training.qaft_epochs) == (20, 1)
    assert (config.final.epochs, config.final.qaft_epochs) == (200, 5)
    assert config.final.max_networks is None
    assert config.space.bits == [4, 5, 6, 7, 8]
    assert config.space.act_bits == 8
    assert config.searcher.surrogate == "paper"
    assert config.objective.build() == BompScore(0.8, ref_size)


def test_settings_win_over_the_file_and_are_read_as_yaml(tmp_path):
    path = write(tmp_path, "training: {epochs: 3, lr: 0.2}\n")
    config = load_config(path, ["training.lr=1e-3", "training.flip=true", "name=other"])
    assert (config.training.epochs, config.training.lr) == (3, 1e-3)
    assert config.training.flip is True
    assert config.name == "other"


@pytest.mark.parametrize("text", ["1e-3", "1E3", "+2.", ".5", "-1e-7"])
def test_numbers_are_read_as_yaml_1_2_does(text):
    config = load_config("quickstart", [f"budget.size_kb={text.lstrip('-')}"])
    assert config.budget.size_kb == float(text.lstrip("-"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["traning.epochs=3"], r"`traning` is not a key; did you mean `training`\? Known here: "),
        (["training.epoch=3"], r"`training\.epoch` is not a key; did you mean `epochs`\?"),
        (["training.epochs=-1"], r"`training\.epochs`: input should be greater than .* got -1"),
        (["training.epochs=0"], r"`training\.epochs`: 0 is for given networks"),
        (["searcher.name=guided"], r"`searcher\.name`: guided is for given networks"),
        (["objective.score=penalized"], r"needs a bound"),
        (
            ["space={name: model}", "searcher.name=guided", "objective.score=accuracy"],
            r"nothing says how small",
        ),
        (["space={name: model, bit: [2]}", "budget.size_kb=9"], r"`space\.bit` is not a key"),
        (["training.epochs=many"], r"`training\.epochs`: input should be a valid integer.*'many'"),
        (["training.epochs=2.5"], r"`training\.epochs`: .*integer.*got 2\.5"),
        (["seed=-1"], r"`seed`: .* got -1"),
        (["space.bits=[4, 9]"], r"`space\.bits\.1`: .* less than or equal to 8; got 9"),
        (["dataset.name=cifar11"], r"`dataset\.name`: input should be 'digits'.* got 'cifar11'"),
        (["name=a/b"], r"`name`: .*pattern.* got 'a/b'"),
        (["objective.front=[accuracy, speed]"], r"unknown metric 'speed'; known: accuracy, size"),
        (
            ["objective.front=[accuracy, energy_mj]"],
            r"`objective\.front: energy_mj` needs hardware .*lists them\)\.$",
        ),
        (["objective.front=[accuracy, accuracy]"], r"metrics must be different"),
        (["objective.front=[accuracy]"], r"`objective\.front`: .*at least 2"),
        (["objective={front: null, score: null}"], r"`objective`: .*a `score` or a `front`"),
        (["objective.front=[macs, size_bytes]"], r"accuracy must be one of the metrics"),
        (["budget.latency_ms=3"], r"`budget\.latency_ms` needs hardware that knows latency_ms"),
        (["budget.latency=3"], r"`budget\.latency` is not a key; did you mean `latency_ms`"),
        (["seed"], r"--set expects key\.path=value, .* got 'seed'"),
        (["seed.x=1", "seed.y=2", "name.z=1"], r"Cannot set `name\.z`: `name` is a value"),
        (["seed=[1"], r"--set seed=\[1 is not valid YAML"),
        (["training=5"], r"`training`: .*got 5"),
    ],
)
def test_faults_are_named_with_what_was_expected_and_what_came(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", settings)


def test_all_faults_are_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        make_config({"seed": -1, "trainin": {}, "searcher": {"batch": 0}})
    assert str(caught.value).startswith("the configuration has 3 faults:")
    assert len(str(caught.value).splitlines()) == 4


def test_unknown_presets_name_the_nearest_and_list_all():
    with pytest.raises(ConfigError, match=r"no preset 'quikstart'; did you mean `quickstart`"):
        load_config("quikstart")


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read .*absent\.yaml: No such file"):
        load_config(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(binary)
    with pytest.raises(ConfigError, match="expected keys and values, got list"):
        load_config(write(tmp_path, "- 1\n"))
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path / 'run.yaml'} is not valid YAML")):
        load_config(write(tmp_path, "a: [1\n"))


def test_front_objective_knows_accuracy_by_its_short_name():
    config = make_config({"objective": {"front": ["accuracy", "size_bytes", "macs"]}})
    expected = FrontObjective(("val_accuracy", "size_bytes", "macs"))
    assert config.objective.build() == expected
    assert config.objective.score is None


def test_every_key_is_documented():
    def check(model):
        for name, field in model.model_fields.items():
            assert f"{name}:" in model.__doc__, (model.__name__, name)
            if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(RunConfig)


def test_dump_is_plain_yaml():
    assert yaml.safe_load(dump_config(RunConfig()))["schema_version"] == 1


def test_the_hls4ml_profile_chooses_the_quantizers():
    from bitscout.pipeline.components import build_quantization

    quantization = build_quantization(RunConfig(quantization={"profile": "hls4ml"}))
    assert type(quantization.weight_observer).__name__ == "PowerOfTwoPerTensorObserver"
    assert quantization.exact_steps


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight_observer": "mse"}, "one power of two for each layer's weights"),
        ({"learn_weight_steps": True}, "learned ones are not"),
        ({"learn_act_steps": True}, "learned ones are not"),
        ({"exact_steps": False}, "activation steps that are powers of two"),
    ],
)
def test_the_hls4ml_profile_refuses_what_contradicts_it(keys, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(quantization={"profile": "hls4ml", **keys})

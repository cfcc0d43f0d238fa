import copy
import math
import pickle

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError, SettingsError
from sngd_tune.settings import FisherSettings, LayerSettings, as_settings

BAD = [
    ({"granularity": "blocks"}, r"granularity='blocks': must be 'diagonal', 'block:b'"),
    ({"granularity": "block:0"}, "granularity='block:0'"),
    ({"granularity": 3}, "granularity=3"),
    ({"root": "qr"}, "root='qr': must be one of cholesky"),
    ({"rank": 0}, "rank=0: must be an integer ≥ 1"),
    ({"rank": 2.5}, "rank=2.5"),
    ({"root": "eigh", "rank": 4}, "rank=4: must be left out with root='eigh'"),
    ({"granularity": "block:8", "root": "nystrom"}, "root='nystrom': must be another root"),
    ({"relative_damping": -1e-3}, r"relative_damping=-0.001: must be finite and ≥ 0; try 1e-2"),
    ({"relative_damping": math.nan}, "relative_damping=nan"),
    ({"relative_damping": math.inf}, "relative_damping=inf"),
    ({"relative_damping": 0}, "relative_damping=0: must be positive where absolute_damping is 0"),
    ({"absolute_damping": -1}, "absolute_damping=-1"),
    ({"fisher_interval": 0}, "fisher_interval=0: must be an integer ≥ 1"),
    ({"fisher_interval": True}, "fisher_interval=True"),
    ({"statistics_interval": 1.5}, "statistics_interval=1.5"),
    ({"warmup_batches": -1}, "warmup_batches=-1"),
    ({"decay": 1.0}, r"decay=1.0: must be in \[0, 1\)"),
    ({"kl_bound": 0}, "kl_bound=0"),
    ({"step_bound": "clip"}, "step_bound='clip': must be one of none, graft, kl"),
    ({"root_scale": "half"}, "root_scale='half': must be one of natural, unit"),
    ({"root_scale": "unit", "step_bound": "kl"}, "step_bound='kl': must be 'graft' or 'none' with root_scale='unit'"),
    (
        {"root_scale": "unit", "damping_policy": "levenberg_marquardt"},
        "damping_policy='levenberg_marquardt': must be 'fixed' with root_scale='unit'.*; try root_scale='natural'",
    ),
    ({"refresh_schedule": "never"}, "refresh_schedule='never'"),
    ({"relative_damping": "1e-2"}, r"relative_damping='1e-2': must be a number, not a word; YAML reads 1\.0e-2 as a"),
    ({"rank": "8"}, "rank='8': must be a number, not a word"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_bad_values_name_value_rule_and_remedy(values, message):
    with pytest.raises(SettingsError, match=message) as raised:
        FisherSettings(**values)
    assert isinstance(raised.value, ConfigurationError)
    assert isinstance(raised.value, ValueError)


def test_defaults_are_filled_in():
    assert (FisherSettings().root, FisherSettings().rank) == ("nystrom", 16)
    assert (FisherSettings(granularity="block:4").root, FisherSettings(root="eigh").rank) == ("cholesky", None)


def test_unknown_keys_are_refused():
    with pytest.raises(SettingsError, match=r"'damping': not a Fisher setting; known are .*relative_damping"):
        FisherSettings.from_dict({"damping": 1})


def test_frozen():
    with pytest.raises(AttributeError):
        FisherSettings().decay = 0.5


SETTINGS = st.builds(
    FisherSettings,
    granularity=st.sampled_from(["input", "diagonal"]) | st.integers(1, 999).map("block:{}".format),
    relative_damping=st.floats(1e-9, 1e3),
    fisher_interval=st.integers(1, 10**6),
    decay=st.floats(0, 0.999),
    positions=st.none() | st.integers(1, 10**6),
)
PATTERNS = st.text("abz019_.*?[!]- ", max_size=12)


@given(SETTINGS | st.dictionaries(PATTERNS, SETTINGS | st.just("none")).map(lambda d: as_settings({**d, "x": {}})))
def test_round_trip(settings):
    """Through plain values, and through the YAML that a recipe holds; patterns keep their order."""
    assert as_settings(settings.to_dict()) == settings
    assert as_settings(yaml.safe_load(yaml.safe_dump(settings.to_dict(), sort_keys=False))) == settings


def test_what_stands_for_settings():
    mixed = as_settings({"encoder.*": {"granularity": "kron"}, "head": "none", "*": FisherSettings(rank=4)})
    assert isinstance(mixed, LayerSettings)
    assert list(mixed.items()) == [
        ("encoder.*", FisherSettings(granularity="kron")),
        ("head", None),
        ("*", FisherSettings(rank=4)),
    ]
    assert as_settings({"granularity": "input", "rank": 8, "positions": None}) == FisherSettings(rank=8)
    assert as_settings(None) == FisherSettings()
    assert as_settings(mixed) is mixed
    assert as_settings(dict(reversed(list(mixed.to_dict().items())))) != mixed  # the first that matches counts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, r"\{\}: names neither a setting nor a layer; try \{'rank': 16\}, or None for the defaults"),
        (8, "8: must be FisherSettings or a mapping of its fields, such as"),
        ([{"rank": 8}], r"\[\{'rank': 8\}\]: must be FisherSettings or a mapping"),
        ({"rnk": 8}, "'rnk': not a Fisher setting; known are .*rank"),
        ({"head": {"rnk": 8}}, "'head': 'rnk': not a Fisher setting; known are .*rank"),
        ({"head": {"rank": 0}}, "'head': rank=0: must be an integer ≥ 1"),
        ({"head": {"rank": 8}, "rank": 4}, "'rank': 4: must be FisherSettings or a mapping of its fields"),
        ({"head": FisherSettings(), "stem": None}, "'stem': None: must be FisherSettings or a mapping"),
        ({0: {"rank": 8}}, "0: must be a word, as a pattern of module names; try '0', quoted in YAML"),
    ],
)
def test_what_stands_for_none_is_named(value, message):
    with pytest.raises(SettingsError, match=f"^{message}"):
        as_settings(value)


def test_settings_of_layers_are_frozen_values():
    settings = as_settings({"stem": "none", "head": {"granularity": "kron", "fisher": "exact"}, "*": {}})
    assert settings.needs_outputs
    assert not as_settings({"*": {"rank": 8}}).needs_outputs
    assert pickle.loads(pickle.dumps(settings)) == copy.deepcopy(settings) == settings
    assert len({settings, as_settings(settings.to_dict())}) == 1
    with pytest.raises(TypeError):
        settings["head"] = FisherSettings()

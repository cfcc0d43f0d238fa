import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError, SettingsError
from sngd_tune.settings import FisherSettings

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
    ({"refresh_schedule": "never"}, "refresh_schedule='never'"),
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


@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "granularity": st.one_of(
                st.sampled_from(["input", "diagonal"]), st.integers(1, 999).map("block:{}".format)
            ),
            "relative_damping": st.floats(1e-9, 1e3),
            "fisher_interval": st.integers(1, 10**6),
            "decay": st.floats(0, 0.999),
        },
    )
)
def test_round_trip(values):
    settings = FisherSettings(**values)
    assert FisherSettings.from_dict(settings.to_dict()) == settings

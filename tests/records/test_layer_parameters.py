"""Parameters of single layers: their names, what the layers see, and the settings that come out."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sngd_tune.errors import ConfigurationError
from sngd_tune.records.names import of_layers, patterns, seen_by, split
from sngd_tune.records.parameters import LAYER_PARAMETERS, PARAMETERS, check_value, is_active, ordered
from sngd_tune.records.trial import TrialConfig
from sngd_tune.settings import FisherSettings, LayerSettings, ModelSettings, as_settings

PATTERNS = ("encoder.*", "encoder.0", "head", "[24]", "?.attention")


def trial(parameters: Mapping[str, Any]) -> TrialConfig:
    return TrialConfig.from_flat(parameters, workload="digits_mlp", epochs=1, seed=0)


def fisher(**parameters: Any) -> ModelSettings:
    """The settings of a trial, whose parameters of single layers are written ``rank_at_head``."""
    found = trial({name.replace("_at_", "@"): value for name, value in parameters.items()}).fisher
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["lr", "rank@head", "rank@encoder.*", "granularity@[!0-9]?", "rank@"])
def test_a_name_is_a_parameter_and_a_pattern(name: str) -> None:
    assert of_layers(*split(name)) == name


def test_layers_see_their_own_values_over_the_plain_ones() -> None:
    values = {"rank": 8, "rank@head": 2, "lr": 0.1, "rank@encoder.*": 4, "decay@head": 0.5}
    assert seen_by(values, "head") == {"rank": 2, "lr": 0.1, "decay": 0.5}
    assert seen_by(values, "encoder.*") == {"rank": 4, "lr": 0.1}
    assert seen_by(values, None) == seen_by(values, "stem") == {"rank": 8, "lr": 0.1}
    assert patterns(values) == ("head", "encoder.*")


def test_the_order_is_the_tables_and_then_that_of_the_patterns() -> None:
    names = ["rank@encoder.0", "rank@encoder.*", "granularity@encoder.0", "rank", "lr", "granularity@encoder.*"]
    assert ordered(names) == [
        "lr", "rank", "granularity@encoder.0", "rank@encoder.0", "granularity@encoder.*", "rank@encoder.*",
    ]  # fmt: skip
    assert ordered(reversed(list(PARAMETERS))) == list(PARAMETERS)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        # Overlaid: the plain values, with the layers' own in their places.
        ({"rank": 4}, FisherSettings(rank=4)),
        ({"rank_at_head": 8}, {"head": FisherSettings(rank=8), "*": FisherSettings()}),
        (
            {"rank": 4, "decay": 0.5, "rank_at_head": 8},
            {"head": FisherSettings(rank=8, decay=0.5), "*": FisherSettings(rank=4, decay=0.5)},
        ),
        (
            {"granularity": "block", "block": 32, "block_at_head": 4},
            {"head": FisherSettings(granularity="block:4"), "*": FisherSettings(granularity="block:32")},
        ),
        (
            {"granularity_at_head": "block"},
            {"head": FisherSettings(granularity="block:64"), "*": FisherSettings()},
        ),
        # A plain value without a meaning beside the layers' own is left out for them.
        (
            {"rank": 4, "granularity_at_head": "kron"},
            {"head": FisherSettings(granularity="kron"), "*": FisherSettings(rank=4)},
        ),
        (
            {"root": "nystrom", "rank": 4, "retained_trace": 0.9, "granularity_at_head": "kron"},
            {"head": FisherSettings(granularity="kron"), "*": FisherSettings(rank=4, retained_trace=0.9)},
        ),
        (
            {"rank": 4, "root_at_head": "eigh"},
            {"head": FisherSettings(root="eigh"), "*": FisherSettings(rank=4)},
        ),
        (
            {"root": "eigh", "granularity_at_head": "diagonal"},
            {"head": FisherSettings(granularity="diagonal"), "*": FisherSettings(root="eigh")},
        ),
        (
            {"granularity": "kron", "fisher": "sampled", "granularity_at_head": "input"},
            {"head": FisherSettings(), "*": FisherSettings(granularity="kron", fisher="sampled")},
        ),
        (
            {"refresh_schedule": "drift", "drift_threshold": 0.3, "refresh_schedule_at_head": "fixed"},
            {
                "head": FisherSettings(refresh_schedule="fixed"),
                "*": FisherSettings(refresh_schedule="drift", drift_threshold=0.3),
            },
        ),
        # What has a meaning beside the layers' own values may have none beside the plain ones.
        (
            {"granularity": "diagonal", "granularity_at_head": "input", "root_at_head": "nystrom", "rank_at_head": 2},
            {"head": FisherSettings(rank=2), "*": FisherSettings(granularity="diagonal")},
        ),
        # No local Fisher layer at all; what other layers have makes no difference to that.
        (
            {"rank": 4, "decay": 0.5, "granularity_at_head": "none"},
            {"head": "none", "*": FisherSettings(rank=4, decay=0.5)},
        ),
        # Every relative damping is scaled, an absolute one stays.
        (
            {"damping_scale": 10, "absolute_damping": 0.5, "relative_damping_at_head": 0.25},
            {
                "head": FisherSettings(relative_damping=2.5, absolute_damping=0.5),
                "*": FisherSettings(relative_damping=1.0, absolute_damping=0.5),
            },
        ),
    ],
)
def test_what_a_trial_gives_its_layers(parameters: dict[str, Any], expected: Any) -> None:
    assert fisher(**parameters) == as_settings(expected)


def test_patterns_are_tried_in_the_order_in_which_they_appear_and_the_rest_last() -> None:
    names = ["rank@encoder.0", "decay@encoder.*", "decay@encoder.0"]
    for order in itertools.permutations(names):
        found = trial({name: 0.5 if "decay" in name else 2 for name in order}).fisher
        assert isinstance(found, LayerSettings)
        assert list(found) == [*patterns(order), "*"]
        assert found["encoder.0"] == FisherSettings(rank=2, decay=0.5)


def test_a_trial_needs_the_likelihood_where_any_of_its_layers_does() -> None:
    assert trial({"granularity@head": "kron", "fisher@head": "sampled"}).needs_likelihood
    assert not trial({"granularity@head": "kron"}).needs_likelihood


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"granularity_at_head": "kron", "rank_at_head": 4},
            r"rank@head=4: has a meaning only where layers head have optimizer in \['sngd'\] and granularity in \['in",
        ),
        ({"root": "eigh", "rank_at_head": 4}, r"rank@head=4: .* and root in \['nystrom'\]"),
        ({"granularity": "kron", "rank": 4, "granularity_at_head": "input"}, "rank=4: has a meaning only where"),
        (
            {"granularity_at_head": "kron", "root_at_head": "nystrom"},
            "layers head: root='nystrom': must be another root with granularity='kron'",
        ),
        ({"optimizer": "exact_ngd", "relative_damping_at_head": 1.0}, "have optimizer in .'sngd'."),
        ({"optimizer": "adamw", "rank_at_head": 1}, "have optimizer in .'sngd'."),
        ({"base": "adamw", "step_bound_at_head": "kl"}, "layers head have optimizer in .* and base in"),
        ({"relative_damping_at_head": 0.0}, "layers head: relative_damping=0.0: must be positive"),
        ({"granularity": "none"}, "granularity='none': must be one of diagonal, "),
        ({"granularity_at_head": "none", "decay_at_head": 0.5}, "layers head have optimizer in .* and granularity in"),
        ({"optimizer": "adamw", "damping_scale": 2.0}, "damping_scale=2.0: has a meaning only where optimizer in"),
        ({"damping_scale": 0.0}, "damping_scale=0.0: must be > 0"),
    ],
)
def test_a_value_of_single_layers_needs_a_meaning_beside_what_they_see(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fisher(**parameters)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lr@head", "^'lr@head': lr is the same for all layers; leave @head out; not so: granularity, block, .*rank"),
        ("base@head", "base is the same for all layers"),
        ("rnk@head", "'rnk@head': not a parameter; did you mean 'rank'"),
        ("@head", "'@head': not a parameter"),
        ("rank@*", r"'rank@\*': the pattern '\*' matches every layer; leave @\* out"),
        ("rank@", "'rank@': '' is no pattern of module names: must be 1 to 100 of letters"),
        ("rank@a b", "'a b' is no pattern of module names"),
        ("damping_scale@head", "damping_scale is the same for all layers"),
        ("rank@a=b", "write '\\?' for any other character"),
        ("rank@" + 101 * "a", "is no pattern of module names"),
    ],
)
def test_names_that_no_layer_has_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_value(name, 4)


def test_every_setting_may_be_given_for_single_layers_and_nothing_else() -> None:
    assert set(FisherSettings().to_dict()) == LAYER_PARAMETERS - {"block"}
    assert PARAMETERS.keys() > LAYER_PARAMETERS


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "granularity": st.sampled_from(["diagonal", "block", "input", "kron", "none"]),
    "block": st.integers(1, 99),
    "fisher": st.sampled_from(["empirical", "sampled"]),
    "root": st.sampled_from(["nystrom", "cholesky", "eigh"]),
    "rank": st.integers(1, 99),
    "relative_damping": st.floats(1e-4, 10),
    "fisher_interval": st.integers(1, 99),
}


@st.composite
def overlays(draw: st.DrawFn) -> dict[str, Any]:
    """Flat parameters in any order, as a trial may have them: those without a meaning are taken out."""
    own = draw(st.lists(st.sampled_from(PATTERNS), unique=True, max_size=3))
    names = draw(st.permutations([of_layers(name, pattern) for pattern in (None, *own) for name in VALUES]))
    kept = names[: draw(st.integers(0, len(names)))]
    values = {name: draw(VALUES[split(name)[0]]) for name in kept}
    if values.get("granularity") == "none":  # of single layers only
        del values["granularity"]
    values = {name: value for name, value in values.items() if not _nystrom_elsewhere(name, values)}
    return {name: value for name, value in values.items() if is_active(name, values)}


def _nystrom_elsewhere(name: str, values: Mapping[str, Any]) -> bool:
    parameter, pattern = split(name)
    return (parameter, values[name]) == ("root", "nystrom") and (
        seen_by(values, pattern).get("granularity", "input") != "input"
    )


@given(overlays())
def test_each_layer_has_what_a_trial_with_its_values_written_out_has(values: dict[str, Any]) -> None:
    found = trial(values).fisher
    assert found is not None
    layers = {"*": found} if isinstance(found, FisherSettings) else dict(found)
    assert list(layers) == [*patterns(values), "*"]
    for pattern, settings in layers.items():
        seen = seen_by(values, None if pattern == "*" else pattern)
        if seen.get("granularity") == "none":
            assert settings is None
            continue
        seen = {name: value for name, value in seen.items() if not _nystrom_elsewhere(name, seen)}
        written_out = {name: value for name, value in seen.items() if is_active(name, seen)}
        assert trial(written_out).fisher == settings
        own = {split(name)[0]: value for name, value in values.items() if split(name)[1] == pattern}
        assert own.items() <= written_out.items()

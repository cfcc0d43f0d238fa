"""Small studies that the tests of the search share."""

import functools
import textwrap
from pathlib import Path

from sngd_tune.records.study import StudyConfig
from sngd_tune.search.load import parse_study

SEARCH_SPACES = Path(__file__).parents[2] / "search_spaces"

HEAD = textwrap.dedent("""\
    schema: 1
    name: small
    workload: digits_mlp
    epochs: 4
    """)

CONDITIONAL = HEAD + textwrap.dedent("""\
    fixed: {optimizer: sngd, kl_bound: 1e-3}
    space:
      base: {choices: [sgd, adamw]}
      lr:
        - {low: 1e-2, high: 1, log: true, when: {base: sgd}}
        - {low: 1e-4, high: 5e-3, log: true, when: {base: adamw}}
      granularity: {choices: [diagonal, block, input]}
      block: {low: 8, high: 64, step: 8, when: {granularity: block}}
      root:
        - {choices: [nystrom, cholesky], when: {granularity: input}}
        - {choices: [cholesky, eigh], when: {granularity: block}}
      rank: {low: 2, high: 32, log: true, when: {granularity: input, root: nystrom}}
      step_bound: {choices: [graft, kl, none], when: {base: sgd}}
    start:
      - {base: adamw, granularity: block, block: 16}
    """)

#: Parameters of single layers, conditional ones and fixed ones among them; both patterns match layer 0.
LAYERED = HEAD + textwrap.dedent("""\
    fixed:
      optimizer: sngd
      fisher_interval@[02]: 20
      decay@0: 0.5
    space:
      base: {choices: [sgd, adamw]}
      granularity: {choices: [diagonal, input]}
      rank: {low: 2, high: 32, when: {granularity: input}}
      rank@0:
        - {low: 2, high: 8, when: {granularity@0: input, base: sgd}}
        - {low: 9, high: 32, when: {granularity@0: input, base: adamw}}
      granularity@0: {choices: [block, input, kron]}
      block@0: {choices: [8, 16], when: {granularity@0: block}}
      fisher@0: {choices: [empirical, sampled], when: {granularity@0: kron}}
      rank@[02]: {low: 2, high: 16, when: {granularity: input}}
    start:
      - {base: sgd, granularity@0: input, rank@0: 4}
    """)

FINITE = HEAD + textwrap.dedent("""\
    fixed: {optimizer: sngd}
    space:
      base: {choices: [sgd, adamw]}
      momentum: {low: 0.0, high: 0.5, step: 0.25, when: {base: sgd}}
    """)


@functools.cache
def study(text: str, *overrides: str) -> StudyConfig:
    """The study of a YAML text."""
    return parse_study(text, "study.yaml", overrides)

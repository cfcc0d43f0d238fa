"""Rules for batch scripts of Slurm that start Ray."""

import re
from collections.abc import Iterator

from sngd_tune.cluster.rules.documents import Kind
from sngd_tune.cluster.rules.rule import Rule, each

__all__ = ["RULES"]


def _authentication(script: str) -> Iterator[str]:
    if not re.search(r"\bRAY_AUTH_MODE=token\b", script):
        yield "RAY_AUTH_MODE=token is not exported"
    if not re.search(r"\bRAY_AUTH_TOKEN_PATH=\S", script) or re.search(r"\bRAY_AUTH_TOKEN=", script):
        yield "RAY_AUTH_TOKEN_PATH does not name a file with the token"
    if not re.search(r"^\s*umask 0?77\b", script, re.MULTILINE):
        yield "without umask 077 others on the node can read the token"


def _open_addresses(script: str) -> Iterator[str]:
    if re.search(r"ray start\b[^\n]*--head", script) and not re.search(
        r"--include-dashboard[= ]false|--dashboard-host[= ](127\.0\.0\.1|localhost)", script
    ):
        yield "the head starts a dashboard"
    if re.search(r"0\.0\.0\.0", script):
        yield "something listens on 0.0.0.0"


def _limits(script: str) -> Iterator[str]:
    for option in ("--time", "--mem", "--cpus-per-task", "--nodes"):
        if not re.search(rf"^#SBATCH\s+{option}[= ]\S", script, re.MULTILINE):
            yield f"#SBATCH {option} is missing"


def _deadline_signal(script: str) -> Iterator[str]:
    match = re.search(r"^#SBATCH\s+--signal=B:(?:SIG)?(\w+)@(\d+)", script, re.MULTILINE)
    if not match or int(match[2]) < 60:
        yield "#SBATCH --signal gives the study less than a minute before the time is up"
    elif not re.search(rf"^\s*trap\s+(?!'')[^\n]*\b{match[1]}\b", script, re.MULTILINE):
        yield f"nothing traps {match[1]}"


def _ports(script: str) -> Iterator[str]:
    for option in ("--port", "--node-manager-port", "--object-manager-port", "--min-worker-port"):
        if not re.search(rf'(?<![\w-]){option}="?\$', script):
            yield f"{option} is Ray's own choice or a fixed one, which another job on the node may have"


RULES: tuple[Rule, ...] = (
    each(Kind.SLURM, "authentication", _authentication, "export both, and write the token after `umask 077`"),
    each(Kind.SLURM, "open-addresses", _open_addresses, "start the head with --include-dashboard=false"),
    each(Kind.SLURM, "limits", _limits, "say what the job may take, and for how long"),
    each(Kind.SLURM, "deadline-signal", _deadline_signal, "set --signal=B:USR1@120 and trap it"),
    each(Kind.SLURM, "ports", _ports, "take ports from the number of the job"),
)

"""Keeping passwords out of logs, messages, MLflow and reports."""

import re

__all__ = ["redact"]

# The user name may be empty (token-only URLs); the password reaches to the last @ before the path, as browsers read it.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s:/@\"']*):[^\s/\"']*@")
# Databases take it behind the path as well: ``?user=ann&password=…``.
_PARAMETER = re.compile(r"(?P<key>[?&][A-Za-z_]*(?:password|passwd|pwd|token|secret)=)[^\s&#\"']+", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with the password of every URL replaced by ``***``.

    >>> redact("postgresql://ann:s3cret@db/mlflow is down")
    'postgresql://ann:***@db/mlflow is down'
    >>> redact("postgresql://db/mlflow?user=ann&password=s3cret")
    'postgresql://db/mlflow?user=ann&password=***'
    """
    return _PARAMETER.sub(r"\g<key>***", _CREDENTIALS.sub(r"\g<scheme>\g<user>:***@", text))

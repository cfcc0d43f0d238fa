"""From a study file to proposals: YAML → `StudyConfig` → Optuna distributions → Ray Tune's searcher.

The one package that imports Optuna. Reading and checking a file (`load`) needs no Ray.
"""

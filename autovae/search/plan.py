"""What a study would do, in words and numbers, without doing it."""

from __future__ import annotations

from autovae.search.study import Study

__all__ = ["plan_rows"]


def plan_rows(study: Study, trials: int | None = None) -> list[tuple[str, str]]:
    """(what, value) lines: purpose, data, space, trials, training, score, finals."""
    file = study.file
    size = study.space.size
    training = {**file.training, **study.space.fixed}
    rows = [
        ("study", f"{study.name} (version {file.version})"),
        ("purpose", file.purpose),
        ("data", file.data),
        ("space", f"{study.space.name}: {'continuous' if size is None else f'{size} different choices'}"),
        *((f"  {name}", value) for name, value in study.space.describe()),
        ("trials", f"{trials or file.trials}, {file.batch} trained together, sampler {file.sampler}"),
        (
            "baselines",
            "; ".join([*map(_words, study.baselines()), *(f"{name} prior (finals)" for name in study.rivals)]),
        ),
        ("training", ", ".join(f"{name} = {value}" for name, value in training.items()) or "defaults of VAESpec"),
        ("score", f"{file.score.metric}, K = {file.score.samples} on {file.score.points} validation points"),
        (
            "finals",
            f"top {file.finals.top} and the baselines over {file.finals.seeds} seeds, K = {file.score.final_samples}",
        ),
    ]
    return rows


def _words(settings: dict[str, object]) -> str:
    rest = [str(value) for name, value in settings.items() if name not in ("posterior", "prior")]
    return ", ".join([f"{settings['posterior']}|{settings['prior']}", *rest])

"""The time left in the progress of a sweep, by the methods of the cells to come."""

from __future__ import annotations

from types import SimpleNamespace

from rich.console import Console

from hashzoo.api.watch import Watch
from hashzoo.results.durations import Durations


def job(method: str, seed: int = 0, dataset: str = "digits", epochs: int = 5):
    identity = SimpleNamespace(
        method=method,
        dataset=dataset,
        backbone="tiny",
        bits=8,
        seed=seed,
        budget={"backbone": "full", "epochs": epochs},
        key=f"{method} {seed} {dataset} {epochs}",
    )
    return SimpleNamespace(metrics=("map@all",), identity=identity, title=f"{method} seed {seed}", refusal="")


def cell(one, seconds: float, status: str = "ok"):
    return SimpleNamespace(
        identity=one.identity, provenance={"seconds": seconds}, status=status, metrics={"map@all": 0.5}, reason="r"
    )


def finish(watch: Watch, one, seconds: float, status: str = "ok") -> None:
    watch.event(one, "started", None)
    watch.event(one, "done", cell(one, seconds, status))


def watching(*jobs, past: Durations | None = None) -> Watch:
    return Watch(Console(force_terminal=False), jobs, past)


def test_the_time_left_is_that_of_the_methods_to_come_and_not_of_the_mean(capsys):
    jobs = [job(method, seed) for method in ("lsh", "slow") for seed in range(3)]
    watch = watching(*jobs)
    finish(watch, jobs[0], 1)
    assert watch.left() == "about 2s left and 3 more cells of methods that were not measured yet"
    finish(watch, jobs[3], 100)
    assert watch.left() == "about 202s left"  # the mean would say 202, and 51 after the first two
    finish(watch, jobs[1], 1)
    finish(watch, jobs[2], 1)
    assert watch.left() == "about 200s left"
    assert capsys.readouterr().out.splitlines()[-1].endswith("; about 200s left")


def test_cells_that_were_measured_before_tell_the_time_from_the_start():
    past = Durations([cell(job("slow", 7), 60), cell(job("lsh", 7), 2)])
    assert watching(job("slow"), job("lsh"), past=past).left() == "about 62s left"


def test_a_cell_most_like_the_one_to_come_tells_its_time():
    past = Durations([cell(job("slow", epochs=50), 500), cell(job("slow", dataset="scenes"), 9)])
    past.add(cell(job("slow"), 60))
    assert past.estimate(job("slow", 1).identity) == 60
    assert past.estimate(job("slow", epochs=50).identity) == 500
    assert past.estimate(job("slow", dataset="scenes", epochs=9).identity) == 9
    assert past.estimate(job("other").identity) is None


def test_failed_and_skipped_cells_tell_no_time():
    assert Durations([cell(job("slow"), 1, "failed")]).estimate(job("slow").identity) is None


def test_cells_at_a_time_share_the_time_left():
    jobs = [job("slow", seed) for seed in range(6)]
    watch = watching(*jobs, past=Durations([cell(job("slow", 9), 60)]))
    assert watch.left() == "about 360s left"
    watch.event(jobs[0], "started", None)
    watch.event(jobs[1], "started", None)
    assert watch.left() == "about 180s left"


def test_skipped_cells_take_no_time():
    skipped = job("slow")
    skipped.refusal = "it needs several labels"
    assert watching(skipped, past=Durations([cell(job("slow", 9), 60)])).left() == ""

"""A run directory that is followed while it grows."""

from pathlib import Path

from comfyload.record.model import Sample, Sent
from comfyload.record.run import RunWriter
from comfyload.web.follow import RunFollower
from comfyload.web.rows import rows
from comfyload.web.series import chart, charts_of
from comfyload.web.states import Filter, chips
from tests.unit.judge_runs import failed, job, manifest


def test_what_is_appended_shows_after_the_next_refresh(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", manifest(3)) as writer:
        follower = RunFollower(tmp_path / "run")
        assert not follower.refresh()
        writer.write_line(Sent(index=0, prompt_id="id-0", due=0.0))
        assert follower.refresh()
        writer.write_line(job(0, 0.0, 2.0))
        writer.write_line(failed(1, 1.0, 3.0))
        writer.write_sample(Sample(t=4.5, source="comfy", name="queue_remaining", value=1.0))
        assert follower.refresh()
        assert not follower.refresh()
    total, page = rows(follower, Filter())
    assert total == 2
    assert [(row.index, row.id, row.badge, row.latency) for row in page] == [
        (1, "id-1", "attention", 3.0),
        (0, "id-0", "done", 2.0),
    ]
    assert {(chip.key, chip.count) for chip in chips(follower, Filter()) if chip.group == "state"} >= {
        ("done", 1),
        ("attention", 1),
    }
    assert follower.record(1) == failed(1, 1.0, 3.0)
    assert [head.name for head in charts_of(follower)] == ["latency", "phases", "flow", "queue"]
    flow = chart(follower, "flow", width=10)
    assert flow is not None
    assert flow.columns[flow.names.index("came due.last")][-1] == 2
    assert follower.latest_s == 4.5

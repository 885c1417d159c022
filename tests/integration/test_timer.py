"""How late arrivals leave, against the machine's own floor: a loop of `clock_nanosleep` in C, run in turn."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from comfyload import clock
from comfyload.load import Engine, Stop
from comfyload.record.model import Execution, Line, Prompt, Record
from comfyload.record.plan import Open, Plan, Stage

pytestmark = pytest.mark.alone

FLOOR = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static int by_size(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return (d > 0) - (d < 0); }
int main(void) {
    enum { N = 1000 };
    static double late[N];
    struct timespec due, now;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (int i = 0; i < N; i++) {
        due.tv_nsec += 1000000;
        if (due.tv_nsec >= 1000000000) { due.tv_nsec -= 1000000000; due.tv_sec++; }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        late[i] = (now.tv_sec - due.tv_sec) + 1e-9 * (now.tv_nsec - due.tv_nsec);
    }
    qsort(late, N, sizeof *late, by_size);
    printf("%.9f\n", late[N / 2]);
}
"""


class Now:
    """A client that notes when it was called."""

    async def run(self, prompt: Prompt) -> Execution:
        return Execution(outcome="completed", sent=time.monotonic())


def median_lateness() -> float:
    lines: list[Line] = []

    async def main() -> float:
        watch = clock.stopwatch()
        zero = time.monotonic() - watch()
        prompt = Prompt(id="", index=0, workflow="w", warmup=False, graph_of=lambda _: b"")
        plan = Plan(load=Open(stages=[Stage(per_s=1000)], arrivals="constant"), jobs=1000)
        await Engine(plan, lambda _: prompt, Now(), lines.append, clock=watch, rng=Random(1), stop=Stop()).run()
        return zero

    zero = clock.run(main())
    late = sorted((r.execution.sent or 0) - zero - r.due for r in lines if isinstance(r, Record))
    return late[len(late) // 2]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_median_start_lateness_at_1000_per_second_is_near_the_machines_floor(tmp_path: Path) -> None:
    source, program = tmp_path / "floor.c", tmp_path / "floor"
    source.write_text(FLOOR, encoding="ascii")
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    ratios = []
    for _ in range(3):
        floor = float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)
        ratios.append(median_lateness() / floor)
    assert sorted(ratios)[1] <= 1.5, ratios

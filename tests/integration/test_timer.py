"""How late arrivals leave, against the machine's own floor: a loop of `clock_nanosleep` in C, run in turn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from bench.clients.schedule import run

from comfyload import clock

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


def median_lateness() -> float:
    return median(clock.run(run(1000, 1000)))


@pytest.mark.long
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

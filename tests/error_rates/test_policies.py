"""The share of jobs that a policy gets done in time lies inside the ± that is printed beside it."""

from __future__ import annotations

import numpy as np
import pytest

from comfyload.advise.choose_policy import OURS
from tests.error_rates.laws import chance
from tests.error_rates.policies import CASES, rows

pytestmark = pytest.mark.timeout(240)


def test_scores_of_one_baseline_are_held_against_other_worlds() -> None:
    found = rows("1 server, 15%x2.5", seed=1, true_worlds=4, replications=3)
    ours = [row for row in found if row.printed.policy == OURS]
    assert len(ours) == 7 and len(found) == 70
    assert all(abs(row.printed.success - row.truth) <= (row.printed.success_half_width or 0) + 0.1 for row in ours)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nine_rows_of_ten_hold_the_truth() -> None:
    found = [row for name in CASES for row in rows(name, seed=3, true_worlds=16, replications=12)]
    inside = np.mean([row.holds for row in found])
    assert inside >= 0.9 - chance(0.9, len(found)) / 3
    ours = np.mean([row.holds for row in found if row.printed.policy == OURS])
    assert ours >= 0.9 - chance(0.9, 28) / 3

"""A run's pictures: each is defined once, and drawn the same in a page, a README or anywhere else."""

from collections.abc import Iterable, Sequence

from comfyload.judge.summary import Measured
from comfyload.record.environment.which_gpu import is_simulated
from comfyload.record.model import Line, Sample
from comfyload.report.charts.chart import png, script
from comfyload.report.charts.chart_data import ChartData, JobColumns, series
from comfyload.report.charts.concurrency import concurrency_chart
from comfyload.report.charts.distribution import Limit, distribution_chart
from comfyload.report.charts.flow import flow_chart
from comfyload.report.charts.gpu import gpu_chart
from comfyload.report.charts.latency import latency_chart
from comfyload.report.charts.nodes import nodes_chart, waterfall_chart
from comfyload.report.page import Chart

__all__ = ["Chart", "charts", "concurrency_chart", "png", "script"]

_QUEUE = ("comfy", "queue_remaining")


def charts(
    measured: Measured, lines: Iterable[Line], samples: Iterable[Sample] = (), *, limits: Sequence[Limit] = ()
) -> list[Chart]:
    """Every picture of the run, the withheld ones too. `limits`: words and seconds of gates on latency.

    One pass over the lines and one over the samples; the journal is never held as a whole.
    """
    columns, chart_data, readings = JobColumns(measured), ChartData(measured, lines), series(samples)
    return [
        latency_chart(measured, chart_data, columns),
        distribution_chart(measured, limits),
        flow_chart(columns, readings.get(_QUEUE), servers=len(measured.manifest.fleet)),
        gpu_chart(columns, readings, simulated=any(map(is_simulated, measured.manifest.fleet))),
        nodes_chart(measured),
        waterfall_chart(measured, chart_data),
    ]

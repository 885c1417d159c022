"""What runs again in each job is exactly what lies downstream of what varies, as the simulator's cache decides.

Cache classes, doctor and verdict agree on it, and no loader runs again where that can be avoided.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload import clock
from comfyload.judge.columns.cache import CacheJudge
from comfyload.sim import Server
from comfyload.sim.catalog import CLASSES, OBJECT_INFO
from comfyload.workflow import ObjectInfo, Variation, parse
from comfyload.workflow.data import DataTable
from comfyload.workflow.remarks import remarks
from tests.support.direct import Direct
from tests.support.rig import Played, play_on

Graph = dict[str, Any]
INFO = ObjectInfo(OBJECT_INFO)
JOBS = 4


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Loaders, samplers with seeds of each form, side branches and several outputs; every node differs from others."""
    graph: Graph = {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
        "yes": node("CLIPTextEncode", text="a fox", clip=["ckpt", 1]),
        "no": node("CLIPTextEncode", text="blurry", clip=["ckpt", 1]),
        "one": node("PrimitiveInt", value=draw(st.integers(0, 2**40))),
        "size": node("PrimitiveInt", value=512),
    }
    model = ["ckpt", 0]
    if draw(st.booleans()):
        strength: Any = 0.8
        if draw(st.booleans()):
            graph["strength"] = node("PrimitiveFloat", value=0.8)
            strength = ["strength", 0]
        lora = {"lora_name": "watercolor_xl.safetensors", "strength_clip": 1.0}
        graph["lora"] = node("LoraLoader", model=model, clip=["ckpt", 1], strength_model=strength, **lora)
        model = ["lora", 0]
        graph["yes"]["inputs"]["clip"] = ["lora", 1]
    images = _samplers(draw, graph, model) + _images(draw, graph)
    shown = [model, ["yes", 0], ["no", 0]]
    for number in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 3)) == 0:
            graph[f"out{number}"] = node("PreviewAny", source=draw(st.sampled_from(shown)), number=number)
        else:
            graph[f"out{number}"] = _output(draw, number, draw(st.sampled_from(images)))
    return graph


def _seed(draw: st.DrawFn, number: int) -> Any:
    forms: list[Any] = [number, str(100 + number), float(number), ["one", 0], ["size", 0]]
    return draw(st.sampled_from(forms))


def _samplers(draw: st.DrawFn, graph: Graph, model: Any) -> list[Any]:
    images = []
    latents: list[Any] = []
    for number in range(draw(st.integers(0, 3))):
        width: Any = ["size", 0] if draw(st.booleans()) else 512 + 8 * number
        graph[f"empty{number}"] = node("EmptyLatentImage", width=width, height=512 + 8 * number, batch_size=1)
        latents.append([f"empty{number}", 0])
        rest = {"steps": 2 + number, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
        links = {"model": model, "positive": ["yes", 0], "negative": ["no", 0]}
        links["latent_image"] = draw(st.sampled_from(latents))
        graph[f"sampler{number}"] = node("KSampler", seed=_seed(draw, number), **links, **rest)
        latents.append([f"sampler{number}", 0])
        graph[f"decode{number}"] = node("VAEDecode", samples=[f"sampler{number}", 0], vae=["ckpt", 2])
        images.append([f"decode{number}", 0])
    return images


def _images(draw: st.DrawFn, graph: Graph) -> list[Any]:
    graph["flat"] = node("EmptyImage", width=64, height=64, batch_size=1, color=3)
    images: list[Any] = [["flat", 0]]
    for number in range(draw(st.integers(0, 3))):
        source = draw(st.sampled_from(images))
        kind = draw(st.sampled_from(["ImageBlur", "ImageAddNoise", "ImageUpscaleWithModel"]))
        if kind == "ImageBlur":
            graph[f"image{number}"] = node(kind, image=source, blur_radius=1 + number, sigma=1.0)
        elif kind == "ImageAddNoise":
            graph[f"image{number}"] = node(
                kind, image=source, seed=_seed(draw, 50 + number), strength=0.1 + 0.1 * number
            )
        else:
            graph["upscaler"] = node("UpscaleModelLoader", model_name="4x-UltraSharp.pth")
            graph[f"image{number}"] = node(kind, image=source, upscale_model=["upscaler", 0], number=number)
            source = [f"image{number}", 0]
        images.append([f"image{number}", 0])
    return images


def _output(draw: st.DrawFn, number: int, image: Any) -> dict[str, Any]:
    if draw(st.booleans()):
        return node("SaveImage", images=image, filename_prefix=f"w{number}")
    return node("PreviewImage", images=image, number=number)  # an input that tells two previews of one image apart


def play(variation: Variation) -> Played:
    async def main() -> Played:
        async with Server(speed=50) as server:
            return await play_on(Direct(server), variation=variation, jobs=JOBS)

    return clock.run_virtual(main())


def downstream(graph: Graph, changed: set[str]) -> set[str]:
    """The nodes that changed and all that depend on them, of those that feed an output: by the graph alone."""
    parents = {
        name: {value[0] for value in body["inputs"].values() if isinstance(value, list)} for name, body in graph.items()
    }
    live = {name for name in graph if CLASSES[graph[name]["class_type"]].output}
    while more := set().union(*(parents[name] for name in live)) - live:
        live |= more
    while more := {name for name in graph if parents[name] & changed} - changed:
        changed |= more
    return changed & live


def differing(variation: Variation) -> set[str]:
    """The nodes whose own literal inputs are others in the second job than in the first."""
    first, second = (json.loads(variation.render(index)) for index in (0, 1))
    return {name for name in first if first[name] != second[name]}


@st.composite
def variations(draw: st.DrawFn) -> Variation:
    """A graph, and perhaps a seed that is set for all jobs, or a table of values."""
    graph = draw(graphs())
    workflow = parse(json.dumps(graph).encode(), "g")
    seeds = Variation(workflow, INFO, seed=1).varied
    fixed = set(draw(st.lists(st.sampled_from(seeds), max_size=1))) if seeds else set()
    table = None
    if draw(st.booleans()):
        columns = [
            slot
            for slot in ["yes.text", "flat.color", *(["strength.value"] if "strength" in graph else []), *seeds[:1]]
            if slot not in fixed
        ]
        column = draw(st.sampled_from(columns))
        rows = [[f"{10 + number}"] for number in range(JOBS)]
        table = DataTable(source="t", columns=[column], rows=rows, lines=list(range(JOBS)))
    return Variation(workflow, INFO, seed=draw(st.integers(0, 99)), table=table, fixed=fixed)


@given(variations())
@settings(max_examples=150, deadline=None)
def test_each_job_runs_what_lies_downstream_of_what_varies_and_nothing_else(variation: Variation) -> None:
    graph = json.loads(variation.render(0))
    expected = downstream(graph, differing(variation))
    assert variation.reach.runs == expected
    played = play(variation)
    assert played.outcomes() == ["completed"] * JOBS
    for record in sorted(played.records, key=lambda record: record.index)[1:]:
        ran = {span.node for span in record.execution.nodes if span.end is not None} - set(record.execution.cached)
        assert ran == expected


@given(variations())
@settings(max_examples=150, deadline=None)
def test_cache_classes_doctor_and_verdict_agree(variation: Variation) -> None:
    """A run whose jobs come from the cache is warned of before; else every job counts as fresh, with its images new."""
    graph = variation.workflow.graph
    truth = CacheJudge([variation.facts({}, keep_graph=False)])
    found = [truth.judge(record) for record in sorted(play(variation).records, key=lambda record: record.index)]
    warned = any("answered from the cache" in remark.text for remark in remarks(variation, JOBS))
    assert warned == any(job.cache != "fresh" for job in found)
    if not warned:
        working = [
            out
            for out in variation.outputs
            if out not in variation.constant and graph[out]["class_type"] != "PreviewAny"
        ]
        assert {len(job.new) for job in found} == {len(working)}


@given(variations())
@settings(max_examples=150, deadline=None)
def test_no_loader_runs_again_where_other_nodes_to_salt_would_do(variation: Variation) -> None:
    """By trial of every choice of one or two nodes: none makes the same outputs and samplers run without a loader."""
    graph = variation.workflow.graph
    loads = {name for name in graph if INFO[graph[name]["class_type"]].loads}
    again = loads & variation.reach.runs
    assert sorted(again) == variation.reach.reloaded
    moved = downstream(graph, {slot.partition(".")[0] for slot in variation.varied})
    if not again - moved:
        return
    must_run = variation.reach.samplers | {out for out in variation.outputs if out not in variation.constant}
    work = variation.reach.live - loads - set(variation.outputs)
    for chosen in itertools.chain(itertools.combinations(work, 1), itertools.combinations(work, 2)):
        reached = moved | downstream(graph, set(chosen))
        assert not must_run <= reached or reached & loads

"""What a server would refuse, found before it is asked; and silence wherever it would not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.comfy.upload import rename_inputs
from comfyload.workflow import ObjectInfo, Variation, Workflow, parse
from comfyload.workflow.near import near_classes, near_files, near_options
from comfyload.workflow.preflight import PreflightAnswer, PreflightFailed, Problem, as_sent, check, describe, merged

NEW = (0, 33, 0)


def node_class(
    required: dict[str, Any] | None = None,
    *,
    outputs: list[str] | None = None,
    optional: dict[str, Any] | None = None,
    output_node: bool = False,
    module: str = "nodes",
) -> dict[str, Any]:
    groups = {"required": required or {}} | ({"optional": optional} if optional else {})
    return {"input": groups, "output": outputs or [], "output_node": output_node, "python_module": module}


CLASSES = {
    "Save": node_class({"images": ["IMAGE", {}]}, output_node=True),
    "Checkpoint": node_class(
        {"ckpt_name": [["sd_xl_base_1.0.safetensors", "sub/Turbo.safetensors"], {}]}, outputs=["MODEL", "CLIP", "VAE"]
    ),
    "Load": node_class({"image": [["pose_page_01.png"], {"image_upload": True}]}, outputs=["IMAGE", "MASK"]),
    "Make": node_class(
        {
            "width": ["INT", {"min": 1, "max": 64}],
            "strength": ["FLOAT", {"min": 0.0}],
            "method": [["bilinear", "bicubic"], {}],
            "new": ["COMBO", {"options": ["euler", "heun"], "multiselect": False}],
        },
        optional={"mask": ["MASK", {}], "text": ["STRING", {}]},
        outputs=["IMAGE"],
    ),
    "Any": node_class({"source": ["*", {}]}, outputs=["*"], output_node=True),
    "Either": node_class({"source": ["MASK,IMAGE", {}]}, outputs=["LATENT,MASK"], output_node=True),
}
MAKE: dict[str, Any] = {"width": 8, "strength": 1.0, "method": "bicubic", "new": "euler"}


def graph(**nodes: tuple[str, dict[str, Any]]) -> Workflow:
    named = {node.lstrip("n"): {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in nodes.items()}
    return parse(json.dumps(named).encode(), "g")


def answer(workflow: Workflow, classes: dict[str, Any] | None = None, **options: Any) -> PreflightAnswer:
    described = CLASSES if classes is None else CLASSES | classes
    return check(workflow, described, described, **{"version": NEW, **options})


def found(workflow: Workflow, classes: dict[str, Any] | None = None, **options: Any) -> list[Problem]:
    return answer(workflow, classes, **options).problems


def made(**changes: Any) -> list[Problem]:
    """The problems of a graph whose one node before the output has these inputs changed."""
    inputs = {key: value for key, value in {**MAKE, **changes}.items() if value != "absent"}
    return found(graph(n1=("Make", inputs), n2=("Save", {"images": ["1", 0]}), n3=("Make", MAKE)))


def special(spec: list[Any], value: Any, **more: Any) -> list[Problem]:
    """The problems of an output node of an own class with one input."""
    classes = {"Special": node_class({"it": spec}, output_node=True, **more)}
    return found(graph(n1=("Special", {"it": value})), classes)


def test_all_that_is_missing_is_named_at_once() -> None:
    workflow = graph(
        n1=("Checkpoint", {"ckpt_name": "sdxl_base_1.0.safetensors"}),
        n2=("Load", {"image": "pose_page_02.png"}),
        n3=("Load", {"image": "else.png"}),
        n4=("Maek", {"model": ["1", 0], "a": ["2", 0], "b": ["3", 0]}),
        n5=("Save", {"images": ["4", 0]}),
    )
    problems = found(workflow)
    assert answer(workflow).verdict == "refused"
    assert [(p.kind, p.node, p.value) for p in problems] == [
        ("missing_model", "1", "sdxl_base_1.0.safetensors"),
        ("missing_image", "2", "pose_page_02.png"),
        ("missing_image", "3", "else.png"),
        ("unknown_class", "4", "Maek"),
    ]
    assert [p.near for p in problems] == [["sd_xl_base_1.0.safetensors"], ["pose_page_01.png"], [], ["Make"]]
    error = PreflightFailed({"g": answer(workflow), "fine": answer(graph(n1=("Any", {"source": 1})))})
    assert error.exit_code == 2
    lines = error.message.splitlines()
    assert lines[0] == (
        "g would be refused by the server, problems: 4 (missing model: 1, missing image: 2, unknown class: 1)"
    )
    assert lines[1] == (
        '  node 1 (Checkpoint): ckpt_name = "sdxl_base_1.0.safetensors" is not on the server, which has 2 of that kind'
        "; nearest: sd_xl_base_1.0.safetensors"
    )
    assert lines[4] == "  node 4: the server has no class Maek; nearest: Make"
    assert len(lines) == 6


def test_a_title_is_shown_beside_the_class() -> None:
    body = {"1": {"class_type": "Load", "inputs": {"image": "x.png"}, "_meta": {"title": "Pose"}},
            "2": {"class_type": "Save", "inputs": {"images": ["1", 0]}}}  # fmt: skip
    (problem,) = found(parse(json.dumps(body).encode(), "g"))
    assert problem.text().startswith('node 1 "Pose" (Load): image = "x.png"')


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"width": "absent"}, "missing_input", "width is not given"),
        ({"width": 65}, "out_of_range", "width = 65, and allowed is 1 to 64"),
        ({"width": "0"}, "out_of_range", "width = 0, and allowed is 1 to 64"),
        ({"strength": -1}, "out_of_range", "strength = -1.0, and allowed is at least 0.0"),
        ({"width": "5.5"}, "wrong_type", 'width = "5.5" cannot be read as INT'),
        ({"width": None}, "wrong_type", "width = null cannot be read as INT"),
        ({"strength": "much"}, "wrong_type", 'strength = "much" cannot be read as FLOAT'),
        ({"width": [1, 2, 3]}, "wrong_type", "width = [1, 2, 3] is a list"),
        ({"method": "bilinaer"}, "bad_option", 'method = "bilinaer" is not one of its 2 options'),
        ({"new": "eular"}, "bad_option", 'new = "eular" is not one of its 2 options'),
        ({"mask": ["3", 3]}, "bad_slot", "mask takes output 3 of node 3 (Make), which has 1 (from 0)"),
        ({"mask": ["3", 0.5]}, "bad_slot", "mask takes output 0.5"),
        ({"mask": ["3", 0]}, "link_type", "mask takes MASK, and output 0 of node 3 (Make) is IMAGE"),
        ({"method": ["3", 0]}, "link_type", "method takes one of a list"),
    ],
)
def test_what_a_server_refuses(changes: dict[str, Any], kind: str, said: str) -> None:
    (problem,) = made(**changes)
    assert (problem.kind, problem.sure) == (kind, True)
    assert said in problem.text()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": "5"},
        {"width": " 7 "},
        {"width": 5.9},
        {"width": True},
        {"strength": 3},
        {"strength": "1e3"},
        {"strength": {"__value__": 2}},
        {"method": {"__value__": "bicubic"}},
        {"mask": None},
        {"text": 5},
        {"never_declared": "x"},
        {"never_declared": [1, 2, 3]},
    ],
)
def test_what_a_server_takes(changes: dict[str, Any]) -> None:
    assert made(**changes) == []


def test_slots_count_from_the_end_as_python_has_it() -> None:
    assert found(graph(n1=("Load", {"image": "pose_page_01.png"}), n2=("Save", {"images": ["1", -2]}))) == []
    assert found(graph(n1=("Load", {"image": "pose_page_01.png"}), n2=("Save", {"images": ["1", False]}))) == []


def test_types_fit_if_one_of_them_is_any_or_they_share_one() -> None:
    image = ("Make", MAKE)
    for taker, value in (("Any", ["1", 0]), ("Either", ["1", 0])):
        assert found(graph(n1=image, n2=(taker, {"source": value}))) == []
    assert found(graph(n1=image, n2=("Any", {"source": ["1", 0]}), n3=("Save", {"images": ["2", 0]}))) == []
    (problem,) = found(graph(n1=image, n2=("Either", {"source": ["1", 0]}), n3=("Save", {"images": ["2", 0]})))
    assert (problem.kind, problem.node) == ("link_type", "3")


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (["COMBO", {"options": ["a", "b"], "multiselect": True}], {"__value__": ["a", "b"]}),
        (["COMBO", {"remote": {"route": "/x"}}], "anything"),
        (["COMBO", {"options": [], "remote": {"route": "/x"}}], "anything"),
        (["COMBO", {}], "anything"),
        (["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {}}]}], "b"),
        (["COMFY_AUTOGROW_V3", {"template": {}}], ["7"]),
        (["STRING", {"image_upload": True, "default": ""}], "not/a/file.png"),
        (["IMAGE,MASK"], "x"),
        (["BOOLEAN", {}], "yes"),
        ([None, {}], "x"),
        ("IMAGE", "x"),
    ],
)
def test_what_is_not_understood_is_passed_over(spec: Any, value: Any) -> None:
    assert special(spec, value) == []


def test_of_several_choices_the_wrong_ones_are_named() -> None:
    spec = ["COMBO", {"options": ["a", "b"], "multiselect": True}]
    assert [problem.value for problem in special(spec, {"__value__": ["a", "c", "d"]})] == ["c", "d"]


def test_dynamic_inputs_may_be_absent_and_take_links_under_names_of_their_own() -> None:
    classes = {"Batch": node_class({"images": ["COMFY_AUTOGROW_V3", {}]}, output_node=True)}
    assert found(graph(n1=("Batch", {})), classes) == []
    workflow = graph(n1=("Make", {**MAKE, "width": 0}), n2=("Batch", {"images.image0": ["1", 0]}))
    assert [problem.node for problem in found(workflow, classes)] == ["1"]


def test_only_what_feeds_an_output_is_looked_at() -> None:
    broken: tuple[str, dict[str, Any]] = ("Make", {})
    save = ("Save", {"images": ["1", 0]})
    assert found(graph(n1=("Make", MAKE), n2=save, n3=broken)) == []
    assert [p.kind for p in found(graph(n1=("Make", MAKE), n2=save, n3=("Gone", {})))] == ["unknown_class"]
    (problem,) = found(graph(n1=("Make", MAKE)))
    assert problem.kind == "no_outputs"
    assert "the graph has no output node" in describe(answer(graph(n1=("Make", MAKE))))


def test_a_class_that_could_not_be_asked_for_is_not_called_unknown() -> None:
    workflow = graph(n1=("Other", {}), n2=("Save", {"images": ["1", 0]}))
    assert check(workflow, CLASSES, None, version=NEW).problems == []
    assert check(workflow, CLASSES, {*CLASSES, "Other"}, version=NEW).problems == []


def test_what_a_class_may_allow_is_not_sure() -> None:
    """A pack's class can check its inputs itself, so that lists and bounds do not count; no one is told."""
    (choice,) = special([["a"], {}], "b", module="custom_nodes.pack")
    (bound,) = special(["INT", {"max": 3}], 4, module="custom_nodes.pack")
    (text,) = special(["INT", {}], "x", module="custom_nodes.pack")
    assert (choice.sure, bound.sure, text.sure) == (False, False, True)
    assert choice.text().endswith("(but its class may allow it)")
    pack = {"Special": node_class({"it": [["a"], {}]}, output_node=True, module="custom_nodes.pack")}
    doubtful = answer(graph(n1=("Special", {"it": "b"})), pack)
    assert (doubtful.verdict, doubtful.dropped) == ("doubtful", [])
    assert describe(doubtful).startswith("the workflow may be refused")
    workflow = graph(n1=("Pack", {}), n2=("Save", {"images": ["1", 9]}))
    assert found(workflow, {"Pack": node_class(outputs=["MASK"], module="custom_nodes.pack")}) == []


@pytest.mark.parametrize("version", [(0, 3, 64), None])
def test_old_servers_take_anything_for_a_combo(version: tuple[int, int, int] | None) -> None:
    workflow = graph(n1=("Make", {**MAKE, "new": "x", "method": "x"}), n2=("Save", {"images": ["1", 0]}))
    assert [(p.input, p.sure) for p in found(workflow, version=version)] == [("method", True), ("new", False)]


def test_core_classes_with_checks_of_their_own_are_let_be() -> None:
    classes = {
        "SelectVAEDevice": node_class({"device": [["cpu"], {}]}, output_node=True),
        "CustomCombo": node_class({"choice": ["COMBO", {"options": []}]}, output_node=True),
    }
    workflow = graph(n1=("SelectVAEDevice", {"device": "gpu:1"}), n2=("CustomCombo", {"choice": "mine"}))
    assert found(workflow, classes) == []


def test_models_are_told_from_options_and_found_in_other_folders() -> None:
    (missing,) = found(graph(n1=("Checkpoint", {"ckpt_name": "turbo.safetensors"}), n2=("Any", {"source": ["1", 0]})))
    assert (missing.kind, missing.near) == ("missing_model", ["sub/Turbo.safetensors"])
    (empty,) = special([[], {}], "x.gguf")
    assert (empty.kind, "has none of that kind" in empty.text()) == ("missing_model", True)
    (option,) = special([[], {}], "x")
    assert (option.kind, "the list is empty" in option.text()) == ("bad_option", True)


def test_the_job_is_looked_at_and_not_the_file() -> None:
    """A seed of -1 in the file is never sent."""
    classes = {"Seeded": node_class({"seed": ["INT", {"min": 0, "max": 9}]}, output_node=True)}
    workflow = graph(n1=("Seeded", {"seed": -1}))
    assert [p.kind for p in found(workflow, classes)] == ["out_of_range"]
    assert found(as_sent(Variation(workflow, ObjectInfo(classes), seed=1)), classes) == []


def test_an_uploaded_file_gets_the_name_the_server_gave() -> None:
    workflow = graph(
        n1=("Load", {"image": "a.png"}), n2=("Load", {"image": "b.png"}), n3=("Save", {"images": ["1", 0]})
    )
    renamed = rename_inputs(workflow, "a.png", "a (1).png")
    assert [renamed.inputs_of(n) for n in "123"] == [{"image": "a (1).png"}, {"image": "b.png"}, {"images": ["1", 0]}]
    assert workflow.inputs_of("1") == {"image": "a.png"}
    assert rename_inputs(workflow, "a.png", "a.png") is workflow


def test_nodes_with_the_same_trouble_share_a_line() -> None:
    nodes = {f"n{n}": ("Load", {"image": "x.png"}) for n in range(10, 20)}
    gone: dict[str, tuple[str, dict[str, Any]]] = {f"n{n}": ("Gone", {}) for n in (30, 31)}
    shows = {f"n{n + 30}": ("Save", {"images": [str(n), 0]}) for n in range(10, 20)}
    lines = describe(answer(graph(**nodes, **gone, **shows))).splitlines()
    assert lines == [
        "the workflow would be refused by the server, problems: 12 (missing image: 10, unknown class: 1 in 2 nodes)",
        '  10 nodes, 10, 11, 12, 13, 14, 15 and 4 more (Load): image = "x.png" is not among the server\'s input files',
        "  2 nodes, 30, 31: the server has no class Gone",
    ]


def test_which_outputs_are_dropped_is_said_with_the_reason() -> None:
    workflow = graph(
        n1=("Make", MAKE),
        n2=("Save", {"images": ["1", 0]}),
        n3=("Load", {"image": "x.png"}),
        n4=("Save", {"images": ["3", 0]}),
        n5=("Any", {"source": ["3", 1]}),
    )
    found = answer(workflow)
    assert (found.verdict, found.dropped, found.left) == ("partly", ["4", "5"], ["2"])
    assert describe(found, "g").splitlines() == [
        "of g the server would drop outputs 4 (Save), 5 (Any) and run output 2 (Save), problems: 1 (missing image: 1)",
        '  node 3 (Load): image = "x.png" is not among the server\'s input files -> no output 4, 5',
    ]
    assert found.reason("5") == 'node 3 (Load): image = "x.png" is not among the server\'s input files'
    assert PreflightFailed({"g": found}).message.endswith("To run the other outputs, give --drop-broken-outputs.")
    deadly = graph(n1=("Make", {**MAKE, "old": ["77", 0]}), n2=("Save", {"images": ["1", 0]}))
    assert PreflightFailed({"g": found, "h": answer(deadly)}).message.endswith("Nothing was submitted.")


def test_what_only_a_pack_declares_is_left_to_it_but_no_link_to_nowhere() -> None:
    """Some classes of packs take inputs of any name; what leads to these is run, and no check looks at it."""
    pack = {"Switch": node_class({}, outputs=["IMAGE"], module="custom_nodes.pack")}
    save = ("Save", {"images": ["2", 0]})
    assert found(graph(n1=("Make", MAKE), n2=("Switch", {"any_01": ["1", 0]}), n3=save), pack) == []
    unseen = graph(n1=("Load", {"image": "x.png"}), n2=("Switch", {"any_01": ["1", 0]}), n3=save)
    (problem,) = found(unseen, pack)
    assert (problem.kind, problem.then, problem.sure) == ("missing_image", "fail", False)
    assert problem.text().endswith("(the server does not check this: it may fail)")
    assert answer(graph(n2=("Switch", {"any_01": ["77", 0]}), n3=save), pack).verdict == "kills"
    deeper = graph(n1=("Make", {**MAKE, "mask": ["77", 0]}), n2=("Switch", {"any_01": ["1", 0]}), n3=save)
    assert answer(deeper, pack).verdict == "kills"


def test_a_link_to_nowhere_at_an_input_that_a_dynamic_one_stands_for_is_refused() -> None:
    for kind in ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"):
        classes = {"Batch": node_class({"images": [kind, {}]}, output_node=True)}
        assert answer(graph(n1=("Batch", {"images.image0": ["77", 0]})), classes).verdict == "refused"


def test_where_a_class_is_not_described_a_link_to_nowhere_is_not_risked() -> None:
    workflow = graph(n1=("Other", {"x": ["77", 0]}), n2=("Save", {"images": ["1", 0]}))
    assert check(workflow, CLASSES, None, version=NEW).verdict == "kills"


@pytest.mark.parametrize(
    ("kind", "name", "known", "near"),
    [
        ("class", "Maek", ["Make", "Mark it", "Break"], ["Make"]),
        ("class", "ksampler", ["KSampler", "KSamplerAdvanced", "SamplerCustom"], ["KSampler"]),
        ("class", "KSampler (Efficient)", ["KSampler", "KSamplerSelect"], []),
        ("class", "Image Resize", ["ImageResize", "ImageScale", "ResizeImage"], ["ImageResize"]),
        ("class", "SaveImageWebsocket", ["SaveImage", "SaveVideo", "SaveLatent"], []),
        ("class", "IPAdapterAdvanced", ["KSamplerAdvanced", "IPAdapter"], []),
        ("model", "sub\\a.safetensors", ["a.safetensors", "sub/a.safetensors"], ["sub/a.safetensors", "a.safetensors"]),
        ("model", "Turbo.ckpt", ["x/turbo.safetensors", "tubro.ckpt"], ["x/turbo.safetensors", "tubro.ckpt"]),
        ("model", "v1-5-pruned-emaonly.ckpt", ["v1-5-pruned-emaonly-fp16.safetensors", "sd_xl_base_1.0.safetensors"],
         ["v1-5-pruned-emaonly-fp16.safetensors"]),
        ("model", "realisticVision.safetensors", ["sd_xl_base_1.0.safetensors", "flux1-dev.safetensors"], []),
        ("option", "dpmpp_2m_karras", ["dpmpp_2m", "euler", "dpm_2"], ["dpmpp_2m"]),
        ("option", "eular", ["euler", "heun"], ["euler"]),
        ("option", "karras", ["simple", "normal"], []),
    ],
)  # fmt: skip
def test_near_is_what_is_written_almost_the_same(kind: str, name: str, known: list[str], near: list[str]) -> None:
    find = {"class": near_classes, "model": near_files, "option": near_options}[kind]
    assert find(name, known) == near


def test_graphs_that_differ_in_values_alone_have_one_answer() -> None:
    def loading(image: str) -> PreflightAnswer:
        return answer(graph(n1=("Load", {"image": image}), n2=("Save", {"images": ["1", 0]})))

    images = ("pose_page_01.png", "a.png", "b.png", "a.png")
    joined = merged([loading(image) for image in images], [f"t.csv, line {line}" for line in (2, 3, 4, 5)])
    assert (joined.verdict, joined.rows) == ("refused", {"accepted": 1, "refused": 3})
    assert describe(joined, "g").splitlines() == [
        "g, in 3 of 4 rows of the table, would be refused by the server, problems: 2 (missing image: 2)",
        '  node 1 (Load): image = "a.png" is not among the server\'s input files (t.csv, line 3 and 1 more)',
        '  node 1 (Load): image = "b.png" is not among the server\'s input files (t.csv, line 4)',
    ]


def test_rows_that_each_lose_another_output_are_not_called_refused() -> None:
    def two(first: str, second: str) -> PreflightAnswer:
        return answer(
            graph(
                n1=("Load", {"image": first}),
                n2=("Load", {"image": second}),
                n3=("Save", {"images": ["1", 0]}),
                n4=("Save", {"images": ["2", 0]}),
            )
        )

    there = "pose_page_01.png"
    joined = merged([two("a.png", there), two(there, "a.png")])
    assert (joined.verdict, joined.dropped, joined.left) == ("partly", ["3", "4"], [])
    assert "and run the others, which are not the same in each row" in describe(joined)
    assert "--drop-broken-outputs" not in PreflightFailed({"g": joined}).message
    same = merged([two("a.png", there), two("a.png", there)])
    assert [problem.where for problem in same.problems] == [""]


def test_hundreds_of_problems_are_not_hundreds_of_lines() -> None:
    many = {f"n{n}": ("Load", {"image": f"{n}.png"}) for n in range(200)}
    saves = {f"n{n + 1000}": ("Save", {"images": [str(n), 0]}) for n in range(200)}
    lines = describe(answer(graph(**many, **saves))).splitlines()
    assert (len(lines), lines[-1]) == (62, "  and 140 more")


def test_a_slot_that_is_a_boolean_is_followed_as_the_server_does() -> None:
    workflow = graph(n1=("Load", {"image": "pose_page_01.png"}), n2=("Save", {"images": ["1", True]}))
    (problem,) = found(workflow)
    assert problem.kind == "link_type" and "output True of node 1 (Load) is MASK" in problem.message
    assert workflow.parents("2") == ["1"]

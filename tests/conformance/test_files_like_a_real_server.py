"""Files as clients see them: saved under which name, fetched whole, in part and re-encoded, uploaded, and what fails.

On the simulator, through a gateway and, with COMFYLOAD_LIVE_URL, on real servers without models.
"""

from __future__ import annotations

import io
import json
import secrets
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from comfyload.sim.catalog import OBJECT_INFO
from tests.support.places import KINDS, place

Graph = dict[str, Any]


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


class Host:
    """A server, and a name that no file on it begins with. `marked`: it is a gateway before several."""

    def __init__(self, url: str, marked: bool) -> None:
        self._url = url
        self.marked = marked
        self.fresh = f"c{secrets.token_hex(4)}"

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        request = Request(f"{self._url}/{path}", data=body, method=method, headers=headers or {})
        try:
            with urlopen(request, timeout=20) as reply:
                return Answer(reply.status, reply.read(), dict(reply.headers))
        except HTTPError as error:
            with error:
                return Answer(error.code, error.read(), dict(error.headers))

    def view(self, query: dict[str, str], headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return self.call(method, f"view?{urlencode(query, quote_via=quote)}", headers=headers)

    def run(self, graph: Graph, extra: object = None) -> tuple[str, dict[str, Any]]:
        """`refused` with the answer, the type of the error with its event, or `ok` with the outputs."""
        body = json.dumps({"prompt": graph, "extra_data": {} if extra is None else {"extra_pnginfo": extra}})
        answer = self.call("POST", "prompt", body.encode(), {"Content-Type": "application/json"})
        content = json.loads(answer.body)
        if answer.status != 200:
            return "refused", content
        prompt_id, until = content["prompt_id"], time.monotonic() + 20
        while time.monotonic() < until:
            history = json.loads(self.call("GET", f"history/{prompt_id}").body)
            if history:
                for kind, data in history[prompt_id]["status"]["messages"]:
                    if kind == "execution_error":
                        return data["exception_type"], data
                return "ok", history[prompt_id]["outputs"]
            time.sleep(0.02)
        raise AssertionError("the prompt does not end")

    def placed(self, file: dict[str, str]) -> tuple[str, dict[str, str]]:
        """The mark of the server that made a file, and the file without it."""
        if not self.marked:
            return "", file
        mark, _, folder = file["subfolder"].partition("/")
        assert mark in ("@gpu1", "@gpu2")
        return mark, {**file, "subfolder": folder}

    def saved(self, graph: Graph, extra: object = None) -> list[Answer]:
        """The files that a graph saves or shows, fetched."""
        how, outputs = self.run(graph, extra)
        assert how == "ok", outputs
        (shown,) = outputs.values()
        (files,) = shown.values()
        return [self.view(dict(file)) for file in files]

    def upload(self, name: str, data: bytes, *, to: str = "image", field: str = "image", **fields: str) -> Answer:
        parts = [f'--X\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}' for key, text in fields.items()]
        parts += [f'--X\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n']
        body = "\r\n".join(parts).encode() + data + b"\r\n--X--\r\n"
        return self.call("POST", f"upload/{to}", body, {"Content-Type": "multipart/form-data; boundary=X"})


@pytest.fixture(scope="module", params=KINDS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with place(request.param, speed=100) as url:
        yield Host(url.rstrip("/"), request.param.endswith("gateways"))


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def plain(width: int = 8, height: int = 8, batch: int = 1, color: int = 0x102030) -> dict[str, Any]:
    return node("EmptyImage", width=width, height=height, batch_size=batch, color=color)


def through(*steps: dict[str, Any], start: dict[str, Any] | None = None) -> Graph:
    """`start` through `steps`, and shown."""
    graph = {"0": start or plain()}
    for index, step in enumerate([*steps, node("PreviewImage", images=None)]):
        name = "images" if step["class_type"] == "PreviewImage" else "image"
        graph[str(index + 1)] = node(step["class_type"], **{**step["inputs"], name: [str(index), 0]})
    return graph


def save(prefix: str, start: dict[str, Any] | None = None) -> Graph:
    return {"0": start or plain(), "1": node("SaveImage", images=["0", 0], filename_prefix=prefix)}


def latent(prefix: str, width: int = 64, height: int = 64, batch: int = 1) -> Graph:
    return {
        "0": node("EmptyLatentImage", width=width, height=height, batch_size=batch),
        "1": node("SaveLatent", samples=["0", 0], filename_prefix=prefix),
    }


def scale(width: int, height: int, crop: str = "disabled", method: str = "bicubic") -> dict[str, Any]:
    return node("ImageScale", upscale_method=method, width=width, height=height, crop=crop)


def scale_by(factor: float, method: str = "bicubic") -> dict[str, Any]:
    return node("ImageScaleBy", upscale_method=method, scale_by=factor)


def noise(seed: int = 1) -> dict[str, Any]:
    return node("ImageAddNoise", seed=seed, strength=0.5)


def picture(answer: Answer) -> Image.Image:
    assert answer.status == 200
    image = Image.open(io.BytesIO(answer.body))
    image.load()
    return image


def png(width: int = 20, height: int = 10, mode: str = "RGB", color: Any = (1, 2, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), color).save(buffer, "png")
    return buffer.getvalue()


# Pictures.


@pytest.mark.parametrize(
    ("graph", "size", "color"),
    [
        (through(start=plain(64, 48)), (64, 48), (0x10, 0x20, 0x30)),
        (through(node("ImageInvert"), start=plain(33, 5)), (33, 5), (0xEF, 0xDF, 0xCF)),
        (through(scale(40, 0), start=plain(20, 10)), (40, 20), (0x10, 0x20, 0x30)),
        (through(scale(0, 5), start=plain(20, 10)), (10, 5), (0x10, 0x20, 0x30)),
        (through(scale(0, 0), start=plain(20, 10)), (20, 10), (0x10, 0x20, 0x30)),
        (through(scale_by(1.5, "nearest-exact"), start=plain(21, 11)), (32, 16), (0x10, 0x20, 0x30)),
        (through(node("ImageCrop", width=90, height=4, x=2, y=3), start=plain(20, 10)), (18, 4), (0x10, 0x20, 0x30)),
        (
            through(node("ImageScaleToTotalPixels", upscale_method="area", megapixels=0.01, resolution_steps=8)),
            (104, 104),
            (0x10, 0x20, 0x30),
        ),
        (through(node("ImageSharpen", sharpen_radius=1, sigma=1.0, alpha=0.0)), (8, 8), (0x10, 0x20, 0x30)),
        (through(noise(), start=plain(64, 48)), (64, 48), None),
    ],
)
def test_a_picture_has_the_size_and_the_colour_that_the_job_wanted(
    host: Host, graph: Graph, size: tuple[int, int], color: tuple[int, int, int] | None
) -> None:
    (answer,) = host.saved(graph)
    image = picture(answer)
    assert (image.size, image.mode) == (size, "RGB")
    colors = image.getcolors(2**24)
    assert colors is not None
    assert len(colors) > 100 if color is None else [found for _, found in colors] == [color]


def test_noise_is_other_noise_for_each_seed_and_takes_real_bytes(host: Host) -> None:
    start = plain(64, 64, color=secrets.randbelow(2**24))
    one, same, other = (host.saved(through(noise(seed), start=start))[0] for seed in (1, 1, 2))
    assert one.body[-2000:] == same.body[-2000:]
    assert picture(one).tobytes() != picture(other).tobytes()
    assert 0.4 < len(one.body) / (64 * 64 * 3) < 0.9


def test_a_picture_holds_the_workflow_that_made_it(host: Host) -> None:
    graph, extra = save(host.fresh), {"workflow": {"id": "é"}, "other": [1]}
    (answer,) = host.saved(graph, extra)
    texts = getattr(picture(answer), "text", {})
    assert {name: json.loads(text) for name, text in texts.items()} == {"prompt": graph, **extra}
    (shown,) = host.saved(through())
    assert json.loads(getattr(picture(shown), "text", {})["prompt"]) == through()


def test_each_of_a_batch_is_a_file(host: Host) -> None:
    answers = host.saved(through(noise(), start=plain(32, 32, batch=2)))
    one, two = (picture(answer).tobytes() for answer in answers)
    assert len(one) == len(two) == 32 * 32 * 3
    assert one != two


def test_a_latent_is_a_safetensors_file(host: Host) -> None:
    graph = latent(host.fresh, width=70, height=36, batch=2)
    (answer,) = host.saved(graph, {"workflow": {"id": "é"}})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    (length,) = struct.unpack("<Q", answer.body[:8])
    head = json.loads(answer.body[8 : 8 + length])
    texts = head.pop("__metadata__")
    assert {name: json.loads(text) for name, text in texts.items()} == {"prompt": graph, "workflow": {"id": "é"}}
    assert head == {
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
        "latent_tensor": {"dtype": "F32", "shape": [2, 4, 4, 8], "data_offsets": [0, 1024]},
    }
    assert answer.body[8 + length :] == bytes(1024)


LATENTS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "repeated": (node("RepeatLatentBatch", amount=3), [6, 4, 4, 8]),
    "by a factor": (node("LatentUpscaleBy", upscale_method="area", scale_by=1.7), [2, 4, 7, 14]),
    "to a size": (node("LatentUpscale", upscale_method="area", width=130, height=70, crop="center"), [2, 4, 8, 16]),
    "to a width": (node("LatentUpscale", upscale_method="area", width=128, height=0, crop="disabled"), [2, 4, 8, 16]),
    "to nothing": (node("LatentUpscale", upscale_method="area", width=0, height=0, crop="disabled"), [2, 4, 4, 8]),
}


@pytest.mark.parametrize("name", LATENTS)
def test_a_latent_has_the_shape_that_the_job_wanted(host: Host, name: str) -> None:
    step, shape = LATENTS[name]
    graph = latent(host.fresh, width=70, height=36, batch=2)
    graph["2"] = node(step["class_type"], **step["inputs"], samples=["0", 0])
    graph["1"]["inputs"]["samples"] = ["2", 0]
    (answer,) = host.saved(graph)
    (length,) = struct.unpack("<Q", answer.body[:8])
    assert json.loads(answer.body[8 : 8 + length])["latent_tensor"]["shape"] == shape


def test_a_batch_holds_the_pictures_of_both(host: Host) -> None:
    graph = {
        "0": plain(16, 8, batch=2),
        "1": plain(24, 24),
        "2": node("ImageBatch", image1=["0", 0], image2=["1", 0]),
        "3": node("PreviewImage", images=["2", 0]),
    }
    assert [picture(answer).size for answer in host.saved(graph)] == [(16, 8)] * 3


def test_a_padded_or_blended_picture_has_its_size(host: Host) -> None:
    padded = node("ImagePadForOutpaint", left=8, top=16, right=24, bottom=0, feathering=0)
    blended = node("ImageBlend", image1=["0", 0], image2=["0", 0], blend_factor=0.5, blend_mode="normal")
    for step, size in ((padded, (48, 24)), (blended, (16, 8))):
        given = {} if "image1" in step["inputs"] else {"image": ["0", 0]}
        graph = {
            "0": plain(16, 8),
            "1": node(step["class_type"], **step["inputs"], **given),
            "2": node("PreviewImage", images=["1", 0]),
        }
        (answer,) = host.saved(graph)
        assert picture(answer).size == size


# Names.

NOT_ALLOWED = "Exception: Saving image outside the output folder is not allowed."

PREFIXES: dict[str, str] = {
    "{}": "{}",
    "{}/": "{}",
    "{}/./b": "{}/b",
    "{}/x/../b": "{}/b",
    "x/../{}": "{}",
    "{}//b": "{}/b",
    "~/{}": "~/{}",
    "{} ü/ä b": "{} ü/ä b",
    "{}\\b": "{}\\b",
    "{}%width%x%height%": "{}16x8",
    "{}/%year%-%month%/%day%": "{}/%Y-%m/%d",
    "{}%Width%%date:yyyy%": "{}%%Width%%%%date:yyyy%%",
    "../{}": NOT_ALLOWED,
    "{}/../../x": NOT_ALLOWED,
    "/{}/x": NOT_ALLOWED,
    "{}" + 250 * "a": "OSError",
    300 * "d" + "/{}": "OSError",
    "{}\0x": "ValueError",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_becomes_a_name(host: Host, prefix: str) -> None:
    expected = PREFIXES[prefix]
    fresh = f"{host.fresh}p{list(PREFIXES).index(prefix)}"
    how, outputs = host.run(save(prefix.replace("{}", fresh), plain(16, 8, batch=2)))
    if "{}" not in expected:
        kind, _, message = expected.partition(": ")
        assert (how, message in outputs["exception_message"]) == (kind, True)
        return
    assert how == "ok", outputs
    folder, _, stem = time.strftime(expected.replace("{}", fresh)).rpartition("/")
    names = [f"{stem}_00001_.png", f"{stem}_00002_.png"]
    files = [{"filename": name, "subfolder": folder, "type": "output"} for name in names]
    made = [host.placed(file) for file in outputs["1"]["images"]]
    assert [file for _, file in made] == files
    for file in outputs["1"]["images"]:
        assert host.view(file).status == 200
    _, again = host.run(save(prefix.replace("{}", fresh), plain(16, 8, color=9)))
    mark, file = host.placed(again["1"]["images"][0])
    # A name that a slash ends is not found again, and its files are written over.
    number = 1 if prefix.endswith("/") or mark != made[0][0] else 3
    assert file["filename"] == f"{stem}_{number:05}_.png"


def test_names_with_the_number_in_the_batch_are_written_over(host: Host) -> None:
    prefix = f"{host.fresh}n%batch_num%"
    for color in (1, 2):
        _, outputs = host.run(save(prefix, plain(batch=2, color=color)))
        found = outputs["1"]["images"]
        assert [file["filename"] for file in found] == [f"{host.fresh}n0_00001_.png", f"{host.fresh}n1_00002_.png"]
    assert picture(host.view(found[0])).getpixel((0, 0)) == (0, 0, 2)


def test_the_size_of_a_latent_is_not_in_its_name(host: Host) -> None:
    _, outputs = host.run(latent(f"{host.fresh}l%width%"))
    assert outputs["1"]["latents"][0]["filename"] == f"{host.fresh}l0_00001_.latent"
    assert host.run(latent("../x"))[0] == "Exception"


# What fails.

FAILING: dict[str, tuple[Graph, str]] = {
    "blur that fits": (through(node("ImageBlur", blur_radius=3, sigma=1.0), start=plain(4, 4)), "ok"),
    "blur": (through(node("ImageBlur", blur_radius=4, sigma=1.0), start=plain(64, 4)), "RuntimeError"),
    "blur, far": (through(node("ImageBlur", blur_radius=31, sigma=1.0), start=plain(4, 4)), "RuntimeError"),
    "blur after scaling": (
        through(scale(4, 4), node("ImageBlur", blur_radius=5, sigma=1.0), start=plain(64, 64)),
        "RuntimeError",
    ),
    "sharpen": (
        through(node("ImageSharpen", sharpen_radius=4, sigma=1.0, alpha=1.0), start=plain(4, 4)),
        "RuntimeError",
    ),
    "thresholds": (through(node("Canny", low_threshold=0.8, high_threshold=0.4)), "kornia.core.exceptions.BaseError"),
    "thresholds that fit": (through(node("Canny", low_threshold=0.4, high_threshold=0.4)), "ok"),
    "to nothing": (through(scale_by(0.01), start=plain(4, 4)), "RuntimeError"),
    "to nothing, by Pillow": (through(scale_by(0.01, "lanczos"), start=plain(4, 4)), "ValueError"),
    "cut to nothing": (through(scale(100, 1, "center"), start=plain(4, 4)), "RuntimeError"),
    "cut, by Pillow": (through(scale(100, 1, "center", "lanczos"), start=plain(4, 4)), "ok"),
    "cut less": (through(scale(8, 4, "center"), start=plain(4, 4)), "ok"),
    "beyond memory": (through(start=plain(16384, 16384, 4000)), "RuntimeError"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_for_its_size_or_a_widget_fails(host: Host, name: str) -> None:
    graph, expected = FAILING[name]
    assert host.run(graph)[0] == expected


def test_a_latent_scaled_to_nothing_fails(host: Host) -> None:
    graph = latent(host.fresh, 16, 16)
    graph["2"] = node("LatentUpscaleBy", samples=["0", 0], upscale_method="bicubic", scale_by=0.01)
    graph["1"]["inputs"]["samples"] = ["2", 0]
    assert host.run(graph)[0] == "RuntimeError"


# Fetching.

VIEWS: dict[str, tuple[dict[str, str], int]] = {
    "an input": ({"filename": "{}.png", "type": "input"}, 200),
    "its kind in the name": ({"filename": "{}.png [input]"}, 200),
    "its kind in the name, before another": ({"filename": "{}.png [input]", "type": "bad"}, 200),
    "without the space": ({"filename": "{}.png[input]"}, 404),
    "an unknown kind in the name": ({"filename": "{}.png [bad]"}, 404),
    "of another kind": ({"filename": "{}.png [temp]"}, 404),
    "nothing but the kind": ({"filename": " [input]"}, 400),
    "no name": ({"type": "input"}, 404),
    "an empty name": ({"filename": ""}, 400),
    "an unknown kind": ({"filename": "{}.png", "type": "bad"}, 400),
    "an empty kind": ({"filename": "{}.png", "type": ""}, 400),
    "not there": ({"filename": "{}.gone", "type": "input"}, 404),
    "from the root": ({"filename": "/{}.png", "type": "input"}, 400),
    "two dots": ({"filename": "{}..png", "type": "input"}, 400),
    "a folder in the name": ({"filename": "x/{}.png", "type": "input"}, 200),
    "this folder": ({"filename": "{}.png", "type": "input", "subfolder": "."}, 200),
    "the folder above": ({"filename": "{}.png", "type": "input", "subfolder": ".."}, 403),
    "another folder": ({"filename": "{}.png", "type": "input", "subfolder": "/etc"}, 403),
    "an asset": ({"filename": "blake3:abc"}, 404),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_name_leads_to_a_file(host: Host, name: str) -> None:
    query, status = VIEWS[name]
    assert host.upload(f"{host.fresh}.png", png()).status == 200
    answer = host.view({key: text.replace("{}", host.fresh) for key, text in query.items()})
    assert (answer.status, answer.body) == (status, png() if status == 200 else b"")


RANGES: dict[str, tuple[int, int] | None] = {
    "bytes=0-9": (0, 9),
    "bytes=5-": (5, -1),
    "bytes=-5": (-5, -1),
    "bytes=-9999": (0, -1),
    "bytes=0-9999": (0, -1),
    "bytes=0-0": (0, 0),
    "bytes=-0": (0, -1),
    "bytes=9999-": None,
    "bytes=9-5": None,
    "bytes=0-1,3-4": None,
    "bytes=-": None,
    "bytes=a-": None,
    "bits=0-1": None,
}


@pytest.mark.parametrize("wanted", RANGES)
def test_a_part_of_a_file_is_fetched(host: Host, wanted: str) -> None:
    host.upload(f"{host.fresh}.png", png())
    answer = host.view({"filename": f"{host.fresh}.png", "type": "input"}, {"Range": wanted})
    part, size = RANGES[wanted], len(png())
    if part is None:
        assert (answer.status, answer.body) == (416, b"")
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        return
    first, last = (side % size for side in part)
    assert (answer.status, answer.body) == (206, png()[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"


LONG_AGO = "Thu, 01 Jan 1970 00:00:10 GMT"

CONDITIONS: list[tuple[dict[str, str], int]] = [
    ({"If-None-Match": "{Etag}"}, 304),
    ({"If-None-Match": "W/{Etag}"}, 304),
    ({"If-None-Match": '"x", {Etag}'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"x"'}, 200),
    ({"If-Modified-Since": "{Last-Modified}"}, 304),
    ({"If-Modified-Since": LONG_AGO}, 200),
    ({"If-Modified-Since": "no time"}, 200),
    ({"If-None-Match": '"x"', "If-Modified-Since": "{Last-Modified}"}, 200),
    ({"If-Match": "{Etag}"}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"x"'}, 412),
    ({"If-Unmodified-Since": "{Last-Modified}"}, 200),
    ({"If-Unmodified-Since": LONG_AGO}, 412),
    ({"Range": "bytes=0-3", "If-Range": "{Last-Modified}"}, 206),
    ({"Range": "bytes=0-3", "If-Range": LONG_AGO}, 200),
]


@pytest.mark.parametrize(("conditions", "status"), CONDITIONS)
def test_a_file_is_fetched_on_conditions(host: Host, conditions: dict[str, str], status: int) -> None:
    _, outputs = host.run(save(host.fresh))
    file = outputs["1"]["images"][0]
    facts = host.view(file).headers
    headers = {
        name: text.replace("{Etag}", facts["Etag"]).replace("{Last-Modified}", facts["Last-Modified"])
        for name, text in conditions.items()
    }
    answer = host.view(file, headers)
    assert answer.status == status
    assert bool(answer.body) == (status in (200, 206))


KINDS: dict[str, tuple[str, bool]] = {
    "png": ("image/png", False),
    "webp": ("image/webp", False),
    "mp4": ("video/mp4", False),
    "txt": ("text/plain", False),
    "json": ("application/json", False),
    "": ("application/octet-stream", False),
    "html": ("application/octet-stream", True),
    "js": ("application/octet-stream", True),
    "xml": ("application/octet-stream", True),
    "svg": ("application/octet-stream", True),
}


@pytest.mark.parametrize("ending", KINDS)
def test_a_file_says_what_it_is(host: Host, ending: str) -> None:
    content_type, downloaded = KINDS[ending]
    name = f"{host.fresh}k.{ending}" if ending else f"{host.fresh}k"
    host.upload(name, b"data")
    answer = host.view({"filename": name, "type": "input"})
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["Content-Disposition"] == f'{"attachment; " if downloaded else ""}filename="{name}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers.get("Cache-Control") == ("no-store" if downloaded else None)
    head = host.view({"filename": name, "type": "input"}, method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "4")


def test_a_drawing_is_shown_where_the_page_wants_an_image(host: Host) -> None:
    host.upload(f"{host.fresh}.svg", b"<svg/>")
    answer = host.view({"filename": f"{host.fresh}.svg", "type": "input"}, {"Sec-Fetch-Dest": "image"})
    assert answer.headers["Content-Type"] == "image/svg+xml"
    assert answer.headers["Content-Disposition"] == f'filename="{host.fresh}.svg"'


ENCODED: list[tuple[dict[str, str], str, str]] = [
    ({"preview": "webp;50"}, "WEBP", "RGBA"),
    ({"preview": "webp"}, "WEBP", "RGBA"),
    ({"preview": "jpeg"}, "JPEG", "RGB"),
    ({"preview": "jpeg;90"}, "JPEG", "RGB"),
    ({"preview": "png"}, "WEBP", "RGBA"),
    ({"preview": ""}, "WEBP", "RGBA"),
    ({"preview": "jpeg;90", "channel": "a"}, "WEBP", "RGBA"),
    ({"preview": "webp", "channel": "rgb"}, "WEBP", "RGB"),
    ({"channel": "rgb"}, "PNG", "RGB"),
    ({"channel": "a"}, "PNG", "RGBA"),
    ({"channel": "rgba"}, "PNG", "RGBA"),
    ({"channel": "other"}, "PNG", "RGBA"),
]


@pytest.mark.parametrize(("query", "form", "mode"), ENCODED)
def test_a_picture_is_re_encoded(host: Host, query: dict[str, str], form: str, mode: str) -> None:
    name = f"{host.fresh}a.png"
    host.upload(name, png(mode="RGBA", color=(1, 2, 3, 77)))
    answer = host.view({"filename": name, "type": "input", **query})
    image = picture(answer)
    assert (image.format, image.mode, image.size) == (form, mode, (20, 10))
    assert answer.headers["Content-Type"] == f"image/{form.lower()}"
    assert answer.headers["Content-Disposition"] == f'filename="{name}"'
    if query == {"channel": "a"}:
        assert image.getpixel((0, 0)) == (0, 0, 0, 77)


def test_what_is_no_picture_cannot_be_re_encoded(host: Host) -> None:
    host.upload(f"{host.fresh}.txt", b"x")
    for query in ({"preview": "webp"}, {"channel": "a"}):
        assert host.view({"filename": f"{host.fresh}.txt", "type": "input", **query}).status == 500


# Uploading.

UPLOADS: dict[str, tuple[str, dict[str, str], int]] = {
    "plain": ("{}u.png", {}, 200),
    "as temp": ("{}u.png", {"type": "temp"}, 200),
    "as output": ("{}u.png", {"type": "output"}, 200),
    "as an unknown kind": ("{}u.png", {"type": "bad"}, 500),
    "as an empty kind": ("{}u.png", {"type": ""}, 500),
    "without a name": ("", {}, 500),
    "in another field": ("{}u.png", {"field": "picture"}, 400),
    "in another field, of an unknown kind": ("{}u.png", {"field": "picture", "type": "bad"}, 500),
    "into a folder": ("{}u.png", {"subfolder": "{}/b"}, 200),
    "into this folder": ("{}u.png", {"subfolder": "."}, 200),
    "into a folder and back": ("{}u.png", {"subfolder": "{}/../{}"}, 200),
    "into the folder above": ("{}u.png", {"subfolder": "../x"}, 400),
    "into a folder of the machine": ("{}u.png", {"subfolder": "/etc"}, 400),
    "with a folder as name": ("..", {}, 400),
    "with the folder above in its name": ("../{}u.png", {}, 400),
    "with two dots in its name": ("{}u..png", {}, 200),
    "without an ending": ("{}u", {}, 200),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_is_stored_or_refused(host: Host, name: str) -> None:
    file, fields, status = UPLOADS[name]
    file = file.replace("{}", host.fresh)
    fields = {key: text.replace("{}", host.fresh) for key, text in fields.items()}
    answer = host.upload(file, png(), **fields)  # type: ignore[arg-type]
    assert answer.status == status
    if status == 200:
        subfolder, kind = fields.get("subfolder", ""), fields.get("type", "input")
        assert json.loads(answer.body) == {"name": file, "subfolder": subfolder, "type": kind}


NO_FORMS: list[tuple[str, bytes, int]] = [
    ("application/json", b"{}", 400),
    ("application/x-www-form-urlencoded", b"image=a", 500),
    ("application/x-www-form-urlencoded", b"other=a", 400),
    ("multipart/form-data", b"x", 500),
    ("multipart/form-data; boundary=Y", b"x", 500),
]


@pytest.mark.parametrize(("kind", "body", "status"), NO_FORMS)
def test_what_is_no_form_with_an_image_is_refused(host: Host, kind: str, body: bytes, status: int) -> None:
    assert host.call("POST", "upload/image", body, {"Content-Type": kind}).status == status


def test_uploads_of_one_name_are_kept_apart_unless_they_are_the_same_or_written_over(host: Host) -> None:
    for name, second in (
        (f"{host.fresh}.tar.gz", f"{host.fresh}.tar (1).gz"),
        (f".{host.fresh}", f".{host.fresh} (1)"),
    ):
        uploads = [
            (b"one", {}),
            (b"one", {}),
            (b"two", {}),
            (b"two", {"overwrite": "1"}),
            (b"three", {"overwrite": "1"}),
        ]
        stored = [json.loads(host.upload(name, data, **fields).body)["name"] for data, fields in uploads]
        assert stored == [name, name, second, name, name]


def test_a_mask_becomes_the_alpha_channel_of_the_picture_that_it_is_for(host: Host) -> None:
    graph = save(host.fresh, plain(20, 10))
    _, outputs = host.run(graph)
    mask = png(mode="RGBA", color=(0, 0, 0, 77))
    for number, original in enumerate((outputs["1"]["images"][0], {"filename": f"{host.fresh}o.png [input]"})):
        host.upload(f"{host.fresh}o.png", png(color=(0x10, 0x20, 0x30)))
        name = f"{host.fresh}m{number}.png"
        answer = host.upload(name, mask, to="mask", original_ref=json.dumps(original), type="input")
        assert json.loads(answer.body) == {"name": name, "subfolder": "", "type": "input"}
        image = picture(host.view({"filename": name, "type": "input"}))
        assert image.getpixel((3, 3)) == (0x10, 0x20, 0x30, 77)
        assert ("prompt" in getattr(image, "text", {})) == (number == 0)


MASKS: list[tuple[dict[str, str], int]] = [
    ({}, 500),
    ({"original_ref": "no JSON"}, 500),
    ({"original_ref": "[]"}, 500),
    ({"original_ref": "{}"}, 500),
    ({"original_ref": '{"filename": "gone.png"}'}, 200),
    ({"original_ref": '{"filename": "../gone.png"}'}, 200),
    ({"original_ref": '{"filename": "x.png", "type": "bad"}'}, 200),
]


@pytest.mark.parametrize(("fields", "status"), MASKS)
def test_a_mask_for_nothing_stores_nothing(host: Host, fields: dict[str, str], status: int) -> None:
    name = f"{host.fresh}none.png"
    assert host.upload(name, png(), to="mask", **fields).status == status
    assert host.view({"filename": name, "type": "input"}).status == 404


# Loading what was uploaded or saved.


def test_a_picture_is_loaded_in_its_size_from_any_folder(host: Host) -> None:
    name = f"{host.fresh}load.png"
    host.upload(name, png(24, 18))
    host.upload(name, png(12, 9), type="temp")
    host.upload(name, png(6, 5), subfolder=host.fresh)
    loads = {name: (24, 18), f"{name} [input]": (24, 18), f"{name} [temp]": (12, 9), f"{host.fresh}/{name}": (6, 5)}
    for image, size in loads.items():
        (answer,) = host.saved(through(start=node("LoadImage", image=image)))
        assert picture(answer).size == size
    for width in (7, 9, 11):
        _, outputs = host.run(save(f"{host.fresh}kept", plain(width, 8)))
        file = outputs["1"]["images"][0]
        name = "/".join(filter(None, (file["subfolder"], file["filename"])))
        (answer,) = host.saved(through(start=node("LoadImage", image=f"{name} [output]")))
        assert picture(answer).size == (width, 8)


@pytest.mark.parametrize("image", ["gone.png", "../x.png", "/etc/passwd", "gone.png [output]"])
def test_a_picture_that_is_not_there_is_refused(host: Host, image: str) -> None:
    how, content = host.run(through(start=node("LoadImage", image=image)))
    assert how == "refused"
    assert content["node_errors"]["0"]["errors"][0]["type"] == "custom_validation_failed"


def test_what_is_no_picture_fails_when_it_is_loaded(host: Host) -> None:
    host.upload(f"{host.fresh}junk.png", b"junk")
    assert host.run(through(start=node("LoadImage", image=f"{host.fresh}junk.png")))[0] == "PIL.UnidentifiedImageError"


def test_a_mask_is_loaded_from_an_uploaded_picture(host: Host) -> None:
    name = f"{host.fresh}alpha.png"
    host.upload(name, png(24, 18, "RGBA", (1, 2, 3, 77)))
    graph = {
        "0": node("LoadImageMask", image=name, channel="alpha"),
        "1": node("MaskToImage", mask=["0", 0]),
        "2": node("PreviewImage", images=["1", 0]),
    }
    (answer,) = host.saved(graph)
    assert picture(answer).size == (24, 18)


# Node classes.


def test_classes_are_described_with_all_that_a_strict_client_reads(host: Host) -> None:
    info = json.loads(host.call("GET", "object_info").body)
    assert info["CLIPTextEncode"]["search_aliases"][:2] == ["text", "prompt"]
    assert info["KSamplerSelect"]["display_name"] is None
    assert info["SaveImage"]["essentials_category"] == "Basics"
    for name, described in OBJECT_INFO.items():
        if described["python_module"].startswith("custom_nodes."):
            continue
        there = info[name]
        free = {"description", "output_tooltips", "input"}  # texts, and lists of files
        assert set(there) - {"output_tooltips"} == set(described) - {"output_tooltips"}, name
        assert {key: there[key] for key in set(there) - free} == {key: described[key] for key in set(described) - free}
        for group, inputs in there["input"].items():
            assert list(inputs) == list(described["input"][group]), name

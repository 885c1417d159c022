"""`comfyload sim` and `comfyload demo`: a simulated ComfyUI, and a first look at the tool."""

from typing import Annotated

import typer

from comfyload import clock
from comfyload.cli.output import echo
from comfyload.cli.progress import viewer_for
from comfyload.cli.signature import with_flags
from comfyload.record.flag import Flag


@with_flags
def sim(
    port: Annotated[int, Flag("--port", "", "Port on loopback; 0 takes a free one.", least=0, most=65535)] = 8188,
    speed: Annotated[float, Flag("--speed", "", "Speed, as a multiple of a real GPU's.", least=0.001)] = 1.0,
    cache: Annotated[str, Flag("--cache", "", "Node cache: ram, classic, lru or none.")] = "ram",
    frontend: Annotated[
        str, Flag("--frontend", "DIR", "Folder of ComfyUI's page; auto: of the installed comfyui-frontend-package.")
    ] = "auto",
    no_probe: Annotated[
        bool, Flag("--no-probe", "", "Serve without the probe and its simulated GPU readings.")
    ] = False,
) -> None:
    """Serve a simulated ComfyUI on loopback: no GPU, no models, the same protocol.

    It holds the node classes of common picture workflows, a subset of ComfyUI's, and computes no image. What a job
    saves has the right name, size and metadata, and one colour where the graph only moves an EmptyImage; else it is
    noise. A job fails for wrong inputs, sizes that cannot be and files that are not there, never for what its pixels
    would be. Previews and masks of pictures need Pillow (the extra sim).

    [bold]Example[/bold]: comfyload sim --port 8188 --speed 10
    """
    from comfyload.app.sim import serve_sim

    clock.run(serve_sim(port=port, speed=speed, cache=cache, frontend=frontend, probe=not no_probe))


def demo() -> None:
    """Load a simulated ComfyUI and print the result: a first look that needs no server, GPU or network.

    Takes about ten seconds.
    """
    from comfyload.app.demo import NEXT, run_demo

    path, output = run_demo(viewer_for(quiet=False))

    from comfyload.app.summary import report_run

    code = report_run(path, output=output, next_=[NEXT])
    echo("\nThe server was simulated: these are not measurements of a GPU.")
    raise typer.Exit(code)

"""The image half of the node classes the simulated server knows, and two of its own for tests.

Names, inputs, defaults and limits are those that ComfyUI 0.33 reports in `/object_info`.
"""

from __future__ import annotations

from comfyload.sim.nodes import SEED, NodeClass, choice, real, whole

__all__ = ["IMAGE_CLASSES", "INPUT_IMAGES"]

INPUT_IMAGES = ["example.png", "pose_page_01.png", "depth_page_01.png", "canny_page_01.png"]
SCALINGS = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]

IMAGE_CLASSES = [
    NodeClass("LoadImage", "Load Image", "image", {"image": choice(INPUT_IMAGES, image_upload=True)}, "IMAGE MASK"),
    NodeClass(
        "EmptyImage",
        "Empty Image",
        "image",
        {
            "width": whole(512, 1, 16384, 1),
            "height": whole(512, 1, 16384, 1),
            "batch_size": whole(1, 1, 4096),
            "color": whole(0, 0, 16777215, 1, display="color"),
        },
        "IMAGE",
    ),
    NodeClass(
        "ImageScale",
        "Upscale Image",
        "image/upscaling",
        {
            "image": "IMAGE",
            "upscale_method": choice(SCALINGS),
            "width": whole(512, 0, 16384, 1),
            "height": whole(512, 0, 16384, 1),
            "crop": choice(["disabled", "center"]),
        },
        "IMAGE",
    ),
    NodeClass(
        "ImageScaleBy",
        "Upscale Image By",
        "image/upscaling",
        {"image": "IMAGE", "upscale_method": choice(SCALINGS), "scale_by": real(1.0, 0.01, 8.0, 0.01)},
        "IMAGE",
    ),
    NodeClass(
        "ImageUpscaleWithModel",
        "Upscale Image (using Model)",
        "image/upscaling",
        {"upscale_model": "UPSCALE_MODEL", "image": "IMAGE"},
        "IMAGE",
        module="comfy_extras.nodes_upscale_model",
    ),
    NodeClass(
        "ImageAddNoise",
        "Add Noise to Image",
        "image/filters",
        {"image": "IMAGE", "seed": SEED, "strength": real(0.5, 0.0, 1.0, 0.01)},
        "IMAGE",
        module="comfy_extras.nodes_images",
    ),
    NodeClass(
        "ImageBlur",
        "Blur Image",
        "image/filters",
        {"image": "IMAGE", "blur_radius": whole(1, 1, 31, 1), "sigma": real(1.0, 0.1, 10.0, 0.1)},
        "IMAGE",
        module="comfy_extras.nodes_post_processing",
    ),
    NodeClass(
        "ImageSharpen",
        "Sharpen Image",
        "image/filters",
        {
            "image": "IMAGE",
            "sharpen_radius": whole(1, 1, 31, 1, advanced=True),
            "sigma": real(1.0, 0.1, 10.0, 0.01, advanced=True),
            "alpha": real(1.0, 0.0, 5.0, 0.01, advanced=True),
        },
        "IMAGE",
        module="comfy_extras.nodes_post_processing",
    ),
    NodeClass("ImageInvert", "Invert Image Colors", "image/color", {"image": "IMAGE"}, "IMAGE"),
    NodeClass(
        "ImageBatch",
        "Batch Images (DEPRECATED)",
        "image/batch",
        {"image1": "IMAGE", "image2": "IMAGE"},
        "IMAGE",
    ),
    NodeClass(
        "Canny",
        "Detect Edges (Canny)",
        "image/filters",
        {
            "image": "IMAGE",
            "low_threshold": real(0.4, 0.01, 0.99, 0.01),
            "high_threshold": real(0.8, 0.01, 0.99, 0.01),
        },
        "IMAGE",
        module="comfy_extras.nodes_canny",
    ),
    NodeClass(
        "SaveImage",
        "Save Image",
        "image",
        {"images": "IMAGE", "filename_prefix": ("STRING", {"default": "ComfyUI"})},
        "IMAGE",
        names="images",
        is_output=True,
    ),
    NodeClass("PreviewImage", "Preview Image", "image", {"images": "IMAGE"}, "IMAGE", names="images", is_output=True),
    NodeClass(
        "PreviewAny",
        "Preview as Text",
        "utilities",
        {"source": "*"},
        "STRING",
        module="comfy_extras.nodes_preview_any",
        is_output=True,
    ),
    NodeClass(
        "Preview3D",
        "Preview 3D & Animation",
        "3d",
        {"model_file": ("STRING", {"default": "", "multiline": False})},
        "",
        module="comfy_extras.nodes_load_3d",
        is_output=True,
    ),
    NodeClass(
        "PrimitiveInt",
        "Int",
        "utilities/primitive",
        {
            "value": (
                "INT",
                {"min": -9223372036854775807, "max": 9223372036854775807, "control_after_generate": "fixed"},
            )
        },
        "INT",
        module="comfy_extras.nodes_primitive",
    ),
    NodeClass(
        "PrimitiveFloat",
        "Float",
        "utilities/primitive",
        {"value": ("FLOAT", {"min": -9223372036854775807, "max": 9223372036854775807, "step": 0.1})},
        "FLOAT",
        module="comfy_extras.nodes_primitive",
    ),
    NodeClass(
        "PrimitiveBoolean",
        "Boolean",
        "utilities/primitive",
        {"value": ("BOOLEAN", {})},
        "BOOLEAN",
        module="comfy_extras.nodes_primitive",
    ),
    NodeClass(
        "PrimitiveString",
        "Text",
        "utilities/primitive",
        {"value": ("STRING", {"multiline": False})},
        "STRING",
        module="comfy_extras.nodes_primitive",
    ),
    NodeClass(
        "PrimitiveStringMultiline",
        "Text (Multiline)",
        "utilities/primitive",
        {"value": ("STRING", {"multiline": True})},
        "STRING",
        module="comfy_extras.nodes_primitive",
    ),
    # SimSleep takes exactly `seconds` (over the server's speed) and its image costs nothing to save: with
    # PreviewAny or PreviewImage behind it a job of an exact length. SimFail always raises.
    NodeClass(
        "SimSleep",
        "Sleep",
        "simulator",
        {"seconds": real(0.1, 0.0, 1e6), "seed": SEED},
        "IMAGE",
        optional={"image": "IMAGE"},
        module="custom_nodes.comfyload_sim",
    ),
    NodeClass(
        "SimFail",
        "Fail",
        "simulator",
        {"message": ("STRING", {"default": "It failed"}), "seed": SEED},
        "IMAGE",
        optional={"image": "IMAGE"},
        module="custom_nodes.comfyload_sim",
    ),
]

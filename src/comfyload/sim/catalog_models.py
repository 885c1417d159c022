"""The model half of the node classes the simulated server knows: loaders, conditioning, latents and samplers.

Names, inputs, defaults and limits are those that ComfyUI 0.33 reports in `/object_info`.
"""

from __future__ import annotations

from comfyload.sim.nodes import SEED, NodeClass, choice, combo, real, whole

__all__ = ["MODEL_CLASSES"]

CHECKPOINTS = [
    "sd_xl_base_1.0.safetensors",
    "v1-5-pruned-emaonly.safetensors",
    "dreamshaperXL_v21.safetensors",
]
UNETS = ["flux1-dev.safetensors"]
TEXT_ENCODERS = ["clip_l.safetensors", "t5xxl_fp16.safetensors"]
VAES = ["sdxl_vae.safetensors", "pixel_space"]
LORAS = ["storybook_style_xl.safetensors", "watercolor_xl.safetensors"]
CONTROLNETS = [f"controlnet-{kind}-sdxl-1.0.safetensors" for kind in ("canny", "depth", "openpose")]
UPSCALERS = ["4x-UltraSharp.pth"]
SAMPLERS = """
    euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0
    exp_heun_2_x0_sde dpm_2 dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral
    dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_cfg_pp dpmpp_2m_sde
    dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm
    ipndm ipndm_v deis res_multistep res_multistep_cfg_pp res_multistep_ancestral
    res_multistep_ancestral_cfg_pp gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2
    seeds_3 sa_solver sa_solver_pece ddim uni_pc uni_pc_bh2
""".split()  # noqa: SIM905
SCHEDULERS = [
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
]
LATENT_SCALINGS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]

MODEL_CLASSES = [
    NodeClass(
        "CheckpointLoaderSimple",
        "Load Checkpoint",
        "model/loaders",
        {"ckpt_name": choice(CHECKPOINTS)},
        "MODEL CLIP VAE",
    ),
    NodeClass(
        "UNETLoader",
        "Load Diffusion Model",
        "model/loaders",
        {
            "unet_name": choice(UNETS),
            "weight_dtype": choice(["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"], advanced=True),
        },
        "MODEL",
    ),
    NodeClass(
        "DualCLIPLoader",
        "Load CLIP (Dual)",
        "model/loaders",
        {
            "clip_name1": choice(TEXT_ENCODERS),
            "clip_name2": choice(TEXT_ENCODERS),
            "type": choice(
                [
                    "sdxl",
                    "sd3",
                    "flux",
                    "hunyuan_video",
                    "hidream",
                    "hunyuan_image",
                    "hunyuan_video_15",
                    "kandinsky5",
                    "kandinsky5_image",
                    "ltxv",
                    "newbie",
                    "ace",
                ]
            ),
        },
        "CLIP",
        optional={"device": choice(["default", "cpu"], advanced=True)},
    ),
    NodeClass("VAELoader", "Load VAE", "model/loaders", {"vae_name": choice(VAES)}, "VAE"),
    NodeClass(
        "LoraLoader",
        "Load LoRA (Model and CLIP)",
        "model/loaders",
        {
            "model": "MODEL",
            "clip": "CLIP",
            "lora_name": choice(LORAS),
            "strength_model": real(1.0, -100.0, 100.0, 0.01),
            "strength_clip": real(1.0, -100.0, 100.0, 0.01),
        },
        "MODEL CLIP",
    ),
    NodeClass(
        "ControlNetLoader",
        "Load ControlNet Model",
        "model/loaders",
        {"control_net_name": choice(CONTROLNETS)},
        "CONTROL_NET",
    ),
    NodeClass(
        "UpscaleModelLoader",
        "Load Upscale Model",
        "model/loaders",
        {"model_name": combo(UPSCALERS)},
        "UPSCALE_MODEL",
        module="comfy_extras.nodes_upscale_model",
    ),
    NodeClass(
        "CLIPSetLastLayer",
        "CLIP Set Last Layer",
        "model/conditioning",
        {"clip": "CLIP", "stop_at_clip_layer": whole(-1, -24, -1, 1, advanced=True)},
        "CLIP",
    ),
    NodeClass(
        "CLIPTextEncode",
        "CLIP Text Encode (Prompt)",
        "model/conditioning",
        {"text": ("STRING", {"multiline": True, "dynamicPrompts": True}), "clip": "CLIP"},
        "CONDITIONING",
    ),
    NodeClass(
        "ConditioningCombine",
        "Conditioning (Combine)",
        "model/conditioning/transform",
        {"conditioning_1": "CONDITIONING", "conditioning_2": "CONDITIONING"},
        "CONDITIONING",
    ),
    NodeClass(
        "FluxGuidance",
        "FluxGuidance",
        "model/conditioning/flux",
        {"conditioning": "CONDITIONING", "guidance": real(3.5, 0.0, 100.0, 0.1)},
        "CONDITIONING",
        module="comfy_extras.nodes_flux",
    ),
    NodeClass(
        "ControlNetApplyAdvanced",
        "Apply ControlNet",
        "model/conditioning/controlnet",
        {
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "control_net": "CONTROL_NET",
            "image": "IMAGE",
            "strength": real(1.0, 0.0, 10.0, 0.01),
            "start_percent": real(0.0, 0.0, 1.0, 0.001),
            "end_percent": real(1.0, 0.0, 1.0, 0.001),
        },
        "CONDITIONING CONDITIONING",
        optional={"vae": "VAE"},
        names="positive negative",
    ),
    NodeClass(
        "ModelSamplingFlux",
        "ModelSamplingFlux",
        "model/patch/flux",
        {
            "model": "MODEL",
            "max_shift": real(1.15, 0.0, 100.0, 0.01, advanced=True),
            "base_shift": real(0.5, 0.0, 100.0, 0.01, advanced=True),
            "width": whole(1024, 16, 16384, 8),
            "height": whole(1024, 16, 16384, 8),
        },
        "MODEL",
        module="comfy_extras.nodes_model_advanced",
    ),
    NodeClass(
        "EmptyLatentImage",
        "Empty Latent Image",
        "model/latent",
        {
            "width": whole(512, 16, 16384, 8),
            "height": whole(512, 16, 16384, 8),
            "batch_size": whole(1, 1, 4096),
        },
        "LATENT",
    ),
    NodeClass("VAEEncode", "VAE Encode", "model/latent", {"pixels": "IMAGE", "vae": "VAE"}, "LATENT"),
    NodeClass("VAEDecode", "VAE Decode", "model/latent", {"samples": "LATENT", "vae": "VAE"}, "IMAGE"),
    NodeClass(
        "LatentUpscale",
        "Upscale Latent",
        "model/latent",
        {
            "samples": "LATENT",
            "upscale_method": choice(LATENT_SCALINGS),
            "width": whole(512, 0, 16384, 8),
            "height": whole(512, 0, 16384, 8),
            "crop": choice(["disabled", "center"]),
        },
        "LATENT",
    ),
    NodeClass(
        "LatentUpscaleBy",
        "Upscale Latent By",
        "model/latent",
        {
            "samples": "LATENT",
            "upscale_method": choice(LATENT_SCALINGS),
            "scale_by": real(1.5, 0.01, 8.0, 0.01),
        },
        "LATENT",
    ),
    NodeClass(
        "SaveLatent",
        "Save Latent",
        "model/latent",
        {"samples": "LATENT", "filename_prefix": ("STRING", {"default": "latents/ComfyUI"})},
        "LATENT",
        names="samples",
        is_output=True,
    ),
    NodeClass(
        "KSampler",
        "KSampler",
        "model/sampling",
        {
            "model": "MODEL",
            "seed": SEED,
            "steps": whole(20, 1, 10000),
            "cfg": real(8.0, 0.0, 100.0, 0.1, round=0.01),
            "sampler_name": choice(SAMPLERS),
            "scheduler": choice(SCHEDULERS),
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "denoise": real(1.0, 0.0, 1.0, 0.01),
        },
        "LATENT",
    ),
    NodeClass(
        "KSamplerAdvanced",
        "KSampler (Advanced)",
        "model/sampling",
        {
            "model": "MODEL",
            "add_noise": choice(["enable", "disable"], advanced=True),
            "noise_seed": SEED,
            "steps": whole(20, 1, 10000),
            "cfg": real(8.0, 0.0, 100.0, 0.1, round=0.01),
            "sampler_name": choice(SAMPLERS),
            "scheduler": choice(SCHEDULERS),
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "latent_image": "LATENT",
            "start_at_step": whole(0, 0, 10000, advanced=True),
            "end_at_step": whole(10000, 0, 10000, advanced=True),
            "return_with_leftover_noise": choice(["disable", "enable"], advanced=True),
        },
        "LATENT",
    ),
    NodeClass(
        "KSamplerSelect",
        "KSamplerSelect",
        "model/sampling/samplers",
        {"sampler_name": combo(SAMPLERS)},
        "SAMPLER",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "BasicScheduler",
        "BasicScheduler",
        "model/sampling/schedulers",
        {
            "model": "MODEL",
            "scheduler": combo(SCHEDULERS),
            "steps": whole(20, 1, 10000),
            "denoise": real(1.0, 0.0, 1.0, 0.01),
        },
        "SIGMAS",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "BasicGuider",
        "Basic Guider",
        "model/sampling/guiders",
        {"model": "MODEL", "conditioning": "CONDITIONING"},
        "GUIDER",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "CFGGuider",
        "CFG Guider",
        "model/sampling/guiders",
        {
            "model": "MODEL",
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "cfg": real(8.0, 0.0, 100.0, 0.1, round=0.01),
        },
        "GUIDER",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "RandomNoise",
        "RandomNoise",
        "model/sampling/noise",
        {"noise_seed": SEED},
        "NOISE",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "SamplerCustom",
        "SamplerCustom",
        "model/sampling/custom",
        {
            "model": "MODEL",
            "add_noise": ("BOOLEAN", {"advanced": True, "default": True}),
            "noise_seed": SEED,
            "cfg": real(8.0, 0.0, 100.0, 0.1, round=0.01),
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "sampler": "SAMPLER",
            "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        "LATENT LATENT",
        names="output denoised_output",
        module="comfy_extras.nodes_custom_sampler",
    ),
    NodeClass(
        "SamplerCustomAdvanced",
        "SamplerCustomAdvanced",
        "model/sampling/custom",
        {
            "noise": "NOISE",
            "guider": "GUIDER",
            "sampler": "SAMPLER",
            "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        "LATENT LATENT",
        names="output denoised_output",
        module="comfy_extras.nodes_custom_sampler",
    ),
]

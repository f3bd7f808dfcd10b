"""Per-step tensors of every sampler, from diffusers, for pipeline/tests/sampling.rs.

Model outputs and step noise are random tensors shared by all cases, so each case stores only what the sampler made:
its times and the sample before the first and after every step. Run:

    python pipeline/tests/reference/schedulers.py pipeline/tests/fixtures/sampling
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    LCMScheduler,
)
import diffusers
import diffusers.schedulers.scheduling_euler_ancestral_discrete as euler_ancestral
import diffusers.schedulers.scheduling_lcm as lcm
from safetensors.torch import save_file

SHAPE = (2, 3, 4)
LONGEST = 49  # evaluations of 25 Heun steps
LINEAR = dict(beta_schedule="linear", beta_start=0.00085, beta_end=0.012)
SCALED = dict(LINEAR, beta_schedule="scaled_linear")
COSINE = dict(beta_schedule="squaredcos_cap_v2")
ZERO_SNR = dict(LINEAR, rescale_betas_zero_snr=True)


def bank():
    generator = torch.Generator().manual_seed(20260)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return {"sample": draw(*SHAPE), "outputs": draw(LONGEST, *SHAPE), "noise": draw(LONGEST, *SHAPE)}


def cases():
    """(name, options as the Rust test reads them, scheduler factory, keyword arguments of step)."""
    spacings = ["leading", "trailing", "linspace"]
    predictions = ["epsilon", "v_prediction", "sample"]
    schedules = {"linear": LINEAR, "scaled_linear": SCALED, "squaredcos_cap_v2": COSINE, "zero_snr": ZERO_SNR}

    def case(kind, cls, schedule, prediction, spacing, steps, offset=1, extra=None, step=None, **options):
        config = dict(schedules[schedule], prediction_type=prediction, timestep_spacing=spacing, steps_offset=offset)
        config.update(extra or {})
        described = dict(
            kind=kind, schedule=schedule, prediction=prediction, spacing=spacing, steps_offset=offset, steps=steps
        )
        described.update(options)
        return described, (lambda: cls(**config)), step or {}

    for steps in (4, 25):
        ddim = lambda *a, **k: case("ddim", DDIMScheduler, *a, steps, **k)
        plain = dict(clip_sample=False)
        for prediction in predictions:
            for spacing in spacings:
                yield ddim("linear", prediction, spacing, extra=plain)
        yield ddim("scaled_linear", "epsilon", "leading", extra=plain)
        yield ddim("squaredcos_cap_v2", "epsilon", "leading", offset=0, extra=plain)
        yield ddim("zero_snr", "v_prediction", "leading", extra=plain)
        yield ddim("zero_snr", "v_prediction", "trailing", extra=plain)
        yield ddim("linear", "epsilon", "leading", extra=dict(plain, set_alpha_to_one=False), set_alpha_to_one=False)
        yield ddim("linear", "epsilon", "leading", extra=dict(clip_sample=True, clip_sample_range=1.5), clip=1.5)
        for eta in (0.5, 1.0):
            yield ddim("linear", "epsilon", "leading", extra=plain, eta=eta, step=dict(eta=eta))

        euler = lambda *a, **k: case("euler", EulerDiscreteScheduler, *a, steps, **k)
        for prediction in predictions:
            for spacing in spacings:
                yield euler("linear", prediction, spacing)
        yield euler("zero_snr", "v_prediction", "trailing")
        for spacing in spacings:
            yield euler("scaled_linear", "epsilon", spacing, extra=dict(use_karras_sigmas=True), karras=True)

        ancestral = lambda *a, **k: case("euler_ancestral", EulerAncestralDiscreteScheduler, *a, steps, **k)
        for prediction in predictions[:2]:
            for spacing in spacings:
                yield ancestral("linear", prediction, spacing)

        solver = lambda *a, **k: case("dpmpp_2m", DPMSolverMultistepScheduler, *a, steps, **k)
        for prediction in predictions:
            for spacing in spacings:
                yield solver("linear", prediction, spacing)
        yield solver("zero_snr", "v_prediction", "trailing")
        for prediction in predictions[:2]:
            yield solver(
                "scaled_linear", prediction, "linspace", offset=0, extra=dict(use_karras_sigmas=True), karras=True
            )

        for schedule in ("linear", "scaled_linear"):
            for prediction in predictions:
                yield case("lcm", LCMScheduler, schedule, prediction, "leading", steps, offset=0)

        for shift in (1.0, 3.0):
            for kind, cls in (
                ("flow_euler", FlowMatchEulerDiscreteScheduler),
                ("flow_heun", FlowMatchHeunDiscreteScheduler),
            ):
                described = dict(kind=kind, shift=shift, steps=steps)
                yield described, (lambda cls=cls, shift=shift: cls(shift=shift)), {}


def run(described, make, step_arguments, shared):
    scheduler = make()
    scheduler.set_timesteps(described["steps"])
    times = scheduler.timesteps
    sigma = float(getattr(scheduler, "init_noise_sigma", 1.0))
    sample = shared["sample"] * sigma
    samples, scaled = [sample], []
    for i, time in enumerate(times):
        noise = shared["noise"][i]
        euler_ancestral.randn_tensor = lcm.randn_tensor = lambda *_, noise=noise, **__: noise
        if described.get("eta"):
            step_arguments = dict(step_arguments, variance_noise=noise)
        if hasattr(scheduler, "scale_model_input"):
            scaled.append(scheduler.scale_model_input(sample, time))
        else:
            scaled.append(sample)
        sample = scheduler.step(shared["outputs"][i], time, sample, **step_arguments).prev_sample
        samples.append(sample)
    return dict(
        timesteps=times.to(torch.float64),
        init_noise_sigma=torch.tensor([sigma], dtype=torch.float64),
        samples=torch.stack(samples),
        # The scaled input differs from the sample only by a factor a step; one value carries it.
        scale=torch.stack([(s * r).sum() / (r * r).sum() for s, r in zip(scaled, samples)]),
    )


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    shared = bank()
    save_file(shared, folder / "bank.safetensors", metadata=dict(diffusers=diffusers.__version__))
    files = {}
    for described, make, step in cases():
        tensors, names = files.setdefault(described["kind"], ({}, []))
        index = len(names)
        names.append(described)
        for key, value in run(described, make, step, shared).items():
            tensors[f"{index}.{key}"] = value.contiguous()
    for kind, (tensors, names) in files.items():
        save_file(tensors, folder / f"{kind}.safetensors", metadata=dict(cases=json.dumps(names)))
        print(kind, len(names), "cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

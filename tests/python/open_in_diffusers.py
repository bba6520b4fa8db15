"""Opens a model folder as anyone would in diffusers, and says how far its predictions of the noise are from those in a file.

    pip install torch diffusers
    ddpm-film predict --model DIR --input in.safetensors --out eps.safetensors
    python open_in_diffusers.py DIR in.safetensors eps.safetensors
"""
import sys
import torch
from diffusers import DDPMPipeline, UNet2DModel
from safetensors.torch import load_file

folder, given, ours = sys.argv[1], load_file(sys.argv[2]), load_file(sys.argv[3])["eps"]
model, info = UNet2DModel.from_pretrained(folder, subfolder="unet", output_loading_info=True)
assert not any(info.values()), info
pipeline = DDPMPipeline.from_pretrained(folder)
x, t = given["x"], given["t"]
with torch.no_grad():
    for network in (model.eval(), pipeline.unet.eval()):
        theirs = network(x, t).sample
        if pipeline.scheduler.config.prediction_type == "v_prediction":
            alpha_bar = pipeline.scheduler.alphas_cumprod[t].reshape(-1, 1, 1, 1)
            theirs = alpha_bar.sqrt() * theirs + (1 - alpha_bar).sqrt() * x
        assert theirs.shape == ours.shape, theirs.shape
        print(float((theirs - ours).abs().max()))
assert pipeline.scheduler.config.num_train_timesteps == 1000, pipeline.scheduler.config
pictures = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
assert pictures.shape[0] == 2 and (pictures >= 0).all() and (pictures <= 1).all(), pictures.shape

"""Writes unet_odd: what the networks of make_reference.py leave out (uneven widths and heads, a scaled middle, fractional t).

    venv/bin/python make_odd.py OUT_DIR
"""
import os, sys, torch, torch.nn.functional as F
from diffusers import UNet2DModel
from safetensors.torch import save_file
from make_reference import randomise

ODD = dict(sample_size=(16, 8), in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(16, 8, 24, 8), norm_num_groups=4,
           down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
           up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), mid_block_scale_factor=0.5, freq_shift=2,
           attention_head_dim=3, attn_norm_num_groups=2, center_input_sample=True, time_embedding_dim=37)

if __name__ == "__main__":
    torch.set_num_threads(1); torch.use_deterministic_algorithms(True); torch.manual_seed(21)
    m = UNet2DModel(**ODD); randomise(m, 21); m.train()
    d = f"{sys.argv[1]}/unet_odd"; os.makedirs(d, exist_ok=True); m.save_pretrained(d)
    g = torch.Generator().manual_seed(22); x = torch.randn(3, 4, 16, 8, generator=g, requires_grad=True); eps = torch.randn(3, 4, 16, 8, generator=g)
    t = torch.tensor([0.0, 999.0, 123.75])
    y = m(x, t).sample; loss = F.mse_loss(y, eps); loss.backward()
    io = {"x": x.detach(), "t": t, "eps": eps, "out": y.detach().contiguous(), "loss": loss.detach().view(1), "grad_x": x.grad.contiguous()}
    io.update({f"grad.{k}": p.grad.contiguous().clone() for k, p in m.named_parameters()}); save_file(io, f"{d}/io.safetensors")

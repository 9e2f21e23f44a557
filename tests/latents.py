"""Small latent shards of random numbers."""

import numpy as np

from reelmill.datasets.latents import LatentDataset, LatentSample, PartWriter, finish


def make_sample(number, *, frames=9, audio=True, text=False, size=4):
    random = np.random.default_rng(number)
    latents = (frames - 1) // 4 + 1
    meta = {
        "clip": f"clip{number}",
        "asset": f"asset{number % 5}",
        "caption": f"a shape, number {number}",
        "fps": 16,
        "frames": frames,
        "height": size * 8,
        "width": size * 8,
        "has_audio": audio,
    }
    return LatentSample(
        key=f"k{number:03d}",
        asset=meta["asset"],
        video=random.standard_normal((4, latents, size, size)).astype(np.float16),
        audio=random.standard_normal((6, 12)).astype(np.float32) if audio else None,
        text=random.standard_normal((3 + number % 3, 8)).astype(np.float32) if text else None,
        meta=meta,
    )


def write(folder, samples, *, per_part=4, video="pca-v", audio="pca-a"):
    parts = []
    for start in range(0, len(samples), per_part):
        part = f"part-{start // per_part:05d}"
        writer = PartWriter(folder, part, key=f"key{start}")
        for sample in samples[start : start + per_part]:
            writer.add(sample)
        writer.commit()
        parts.append(part)
    finish(
        folder,
        parts,
        video=video,
        audio=audio,
        text="",
        sources={"video": "0" * 64},
        options={"fps": 16},
        constants={"null_text": np.zeros((1, 8), np.float32)},
    )
    return LatentDataset(folder)

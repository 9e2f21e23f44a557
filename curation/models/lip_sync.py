"""Whichever SyncNet a folder holds: the published one, or one of a team's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reelmill.curation.models import mouth_sync, syncnet
from reelmill.curation.models.mfcc import mfcc
from reelmill.curation.models.mouth_sync import MouthSync, mouths, sound_windows
from reelmill.curation.models.syncnet import FRAMES, SyncNet
from reelmill.errors import UsageError, WeightsError

PUBLISHED = "syncnet_v2.model"
LIPS_A_RUN = 16  # frames: SyncNet's first layer holds 2.3 MB for each
SOUNDS_A_RUN = 256


@dataclass(frozen=True)
class LipSync:
    """Embeds faces and sound, so that those in time lie close. device: of torch."""

    network: SyncNet | MouthSync
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> LipSync:
        """From the folder of weights `syncnet`. Raises WeightsError, UsageError for a device."""
        place = device_of(device)
        if (folder / PUBLISHED).is_file():
            return cls(syncnet.load(folder / PUBLISHED).to(place), place)
        if (folder / mouth_sync.CONFIG).is_file():
            return cls(mouth_sync.load(folder).to(place), place)
        raise WeightsError(
            f"{folder} holds neither {PUBLISHED} nor a network of `reelmill sync train` "
            f"({mouth_sync.CONFIG} and {mouth_sync.WEIGHTS})."
        )

    @torch.inference_mode()
    def lips(self, faces: np.ndarray) -> np.ndarray:
        """float32 [frames - 4, width]: of the lips from each frame to the one 4 later.

        faces: crops uint8 RGB [frames, 224, 224, 3] at 25 a second; an own network also takes what
        `mouths` makes of them, uint8 [frames, 48, 48]. The convolution over time runs through the
        frames, so each is looked at once.
        """
        network, found = self.network, []
        if isinstance(network, MouthSync) and faces.ndim == 4:
            faces = mouths(faces)
        for start in range(0, windows_in(len(faces)), LIPS_A_RUN):
            part = faces[start : start + LIPS_A_RUN + FRAMES - 1]
            if isinstance(network, MouthSync):
                given = torch.from_numpy(part).to(self.device, torch.float32)
                found.append(network.lips(given[None])[0] * network.config.scale)
            else:
                bgr = np.ascontiguousarray(part[..., ::-1].transpose(3, 0, 1, 2))
                given = torch.from_numpy(bgr).to(self.device, torch.float32)
                seen = network.netcnnlip(given[None])[0, :, :, 0, 0].T
                found.append(network.netfclip(seen))
        return torch.cat(found).cpu().numpy()

    @torch.inference_mode()
    def speech(self, sound: np.ndarray, frames: int) -> np.ndarray:
        """float32 [frames - 4, width]: of the sound that belongs to each of `lips`.

        sound: float32 at 16 kHz from the first frame on; a last window that it lacks repeats.
        """
        windows, found = sound_windows(mfcc(sound), windows_in(frames)), []
        for start in range(0, len(windows), SOUNDS_A_RUN):
            given = torch.from_numpy(windows[start : start + SOUNDS_A_RUN]).to(self.device)
            if isinstance(self.network, MouthSync):
                found.append(self.network.sound(given) * self.network.config.scale)
            else:
                found.append(self.network.sound(given[:, None]))
        return torch.cat(found).cpu().numpy()


def device_of(name: str) -> torch.device:
    """A device of torch that is there. Raises UsageError."""
    try:
        place = torch.device(name)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"{name!r} is no device that torch has here: {error}") from error
    return place


def windows_in(frames: int) -> int:
    """Windows of 5 frames. Raises ValueError when there is none."""
    if frames < FRAMES:
        raise ValueError(f"{frames} frames: at least {FRAMES} are wanted")
    return frames - FRAMES + 1

"""Still images: opened safely, upright, in sRGB, without alpha."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from reelmill.datasets.media.container import MAX_PIXELS, describe
from reelmill.errors import MediaError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF")
_TURNS = {1: 0, 2: 0, 3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
_FLIPS = {  # EXIF orientation: what sets the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image's header says. width, height: upright. plain: needs no change to be shown."""

    format: str
    mode: str
    width: int
    height: int
    coded_width: int
    coded_height: int
    orientation: int
    plain: bool

    @property
    def rotation(self) -> int:
        return _TURNS[self.orientation]


def read_header(path: Path) -> ImageHeader | None:
    """The header of an image, or None when the file is not an image of a known format.

    Raises MediaError for an image that is damaged or larger than MAX_PIXELS.
    """
    image = _open(path)
    if image is None:
        return None
    with image:
        orientation = _orientation(image)
        width, height = image.size
        turned = orientation >= 5
        return ImageHeader(
            format=image.format or "",
            mode=image.mode,
            width=height if turned else width,
            height=width if turned else height,
            coded_width=width,
            coded_height=height,
            orientation=orientation,
            plain=image.mode == "RGB" and orientation == 1 and _is_srgb(image),
        )


def read_rgb(path: Path, least: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 sRGB [height, width, 3], upright, alpha over white, the first frame of an animation.

    least: a JPEG may be decoded at a half, quarter or eighth of its size, as long as it stays at
    least this (width, height). Raises MediaError when the pixels cannot be decoded.
    """
    image = _open(path)
    if image is None:
        raise MediaError(f"{describe(path)} is no image of a known format.")
    with image:
        try:
            orientation = _orientation(image)
            if least is not None and image.format in ("JPEG", "MPO"):
                image.draft("RGB", least[::-1] if orientation >= 5 else least)
            image.load()
            return np.asarray(_to_srgb(image, orientation))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged bytes
            raise MediaError(
                f"{describe(path)}: damaged {image.format} image ({error})."
            ) from error


def _open(path: Path) -> Image.Image | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=FORMATS)
        except Image.UnidentifiedImageError:
            return None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise MediaError(f"{describe(path)} is too large an image: {error}") from error
        except OSError as error:
            if error.errno is None:
                raise MediaError(f"{describe(path)}: damaged image header ({error}).") from error
            raise MediaError(
                f"{describe(path)} cannot be read: {error.strerror}.", cause="transient"
            ) from error
        except Exception as error:
            raise MediaError(f"{describe(path)}: damaged image header ({error}).") from error
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        image.close()
        raise MediaError(
            f"{describe(path)}: {width} x {height} pixels, at most {MAX_PIXELS} are read."
        )
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, as far as the header has it: 1 where it says nothing or nonsense."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole picture to look behind it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing; the picture itself may be whole
        return 1
    return value if value in _TURNS else 1


def _is_srgb(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile")
    if not profile:
        return True
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return "srgb" in ImageCms.getProfileDescription(opened).lower()
    except (ImageCms.PyCMSError, OSError, ValueError):
        return True  # an unreadable profile is shown as sRGB by viewers too


def _to_srgb(image: Image.Image, orientation: int) -> Image.Image:
    profile, srgb = image.info.get("icc_profile"), _is_srgb(image)
    picture: Image.Image = image
    if image.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        picture = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.mode == "P" or "transparency" in image.info:
        picture = image.convert("RGBA")
    if picture.mode in ("RGB", "CMYK", "L") and profile and not srgb:
        try:
            opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, opened, _SRGB, outputMode="RGB")
            picture = converted if converted is not None else picture
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a profile for another colour model: the plain conversion below
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    picture = picture.convert("RGB")
    return picture.transpose(_FLIPS[orientation]) if orientation > 1 else picture


def _eight_bits(values: np.ndarray) -> np.ndarray:
    top = 65535.0 if values.max(initial=0) > 255 else 255.0
    return np.clip(np.nan_to_num(values.astype(np.float64)) * (255.0 / top), 0, 255).astype(
        np.uint8
    )

"""A12, A13, M8 to M11: what each task makes the model see, and what comes back."""

import numpy as np
import pytest
import torch

from reelmill.errors import PromptError
from reelmill.model.canvas import letterbox, video_canvas
from reelmill.model.codecs.codec import to_frames, to_pixels
from reelmill.model.codecs.mel_pca import MelPCAAudio
from reelmill.model.codecs.patch_pca import PatchPCAVideo
from reelmill.model.config import preset
from reelmill.model.encoders.hash_text import HashTextEncoder
from reelmill.model.guidance import Guider, ReferenceCFG, TextCFG
from reelmill.model.masks import Box, outpaint, region
from reelmill.model.mmdit import MMDiT
from reelmill.model.pipeline import GeneratedClip, Pipeline
from reelmill.model.tasks import JOBS, Inputs, infer_task

RATE, H, W = 44_100, 32, 48


def picture(seed=0, frames=9, height=H, width=W) -> np.ndarray:
    """Smooth noise, which the codec below can hold."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, height // 8, width // 8, 3))
    return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)


def sound(seconds=0.6, seed=1) -> np.ndarray:
    shape = (1, round(seconds * RATE))
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    torch.manual_seed(0)
    model = MMDiT(preset("tiny")).eval()
    with torch.no_grad():
        for tower in (model.video, model.audio):
            tower.head.weight.normal_(std=0.1)
        for layer in model.layers:
            layer.cross.audio.out.weight.normal_(std=0.2)
            layer.cross.video.out.weight.normal_(std=0.2)
    clips = [picture(i) for i in range(40)]
    sounds = [sound(0.5, i)[0] for i in range(5)]
    return Pipeline(model, PatchPCAVideo.fit(clips), MelPCAAudio.fit(sounds), HashTextEncoder())


def make(pipeline, prompt="a red ball", **options) -> GeneratedClip:
    return pipeline.generate(prompt, **({"height": H, "width": W, "steps": 2} | options))


def seen(pipeline, task, **inputs):
    frames = inputs.pop("frames", 9)
    return video_canvas(pipeline.video_codec, JOBS[task], Inputs(**inputs), frames, H, W)


def black(pipeline, frames=9):
    return pipeline.video_codec.encode(torch.full((1, 3, frames, H, W), -1.0))


def as_coded(pipeline, frames):
    codec = pipeline.video_codec
    return to_frames(codec.decode(codec.encode(to_pixels(frames))))


def test_start_and_end_are_known_and_the_rest_is_black(pipeline):
    image, end = picture(1)[0], picture(2)[0]
    canvas = seen(pipeline, "start_end", image=image, end=end)
    assert canvas.mask[0, 0, :, 0, 0].tolist() == [1, 0, 1]
    assert torch.equal(canvas.known[:, :, 1], black(pipeline)[:, :, 1])
    clip = make(pipeline, image=image, end=end, frames=9)
    assert np.array_equal(clip.video[0], as_coded(pipeline, image[None])[0])
    still = as_coded(pipeline, end[None].repeat(5, 0))[1:]
    assert np.abs(clip.video[5:].astype(int) - still).max() <= 1
    assert np.abs(clip.video[1:5].astype(int) - still).mean() > 5


def test_an_edit_keeps_its_pixels_to_the_bit_and_makes_the_rest_anew(pipeline):
    video = picture()
    boxes = [Box(0, 0, 16, 16 + i) for i in range(9)]  # another for every frame
    keep = region(9, H, W, boxes)
    clip = make(pipeline, task="edit", video=video, keep=keep)
    assert np.array_equal(clip.video[keep], video[keep])
    assert (clip.video[~keep] != video[~keep]).mean() > 0.9
    other = make(pipeline, task="edit", video=video, keep=~keep)
    assert np.array_equal(other.video[~keep], video[~keep])
    assert (other.video[keep] != video[keep]).mean() > 0.9


def test_a_latent_is_given_only_where_all_its_pixels_are_kept(pipeline):
    keep = region(9, H, W, [Box(0, 0, 8, 8)] * 5 + [Box(0, 0, 8, 12)] + [Box(0, 0, 8, 8)] * 3)
    canvas = seen(pipeline, "edit", video=picture(), keep=keep)
    assert (1 - canvas.mask[0, 0]).nonzero().tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [2, 0, 0],
        [2, 0, 1],
    ]
    assert torch.equal(canvas.known[..., 0, 0], black(pipeline)[..., 0, 0])
    whole = pipeline.video_codec.encode(to_pixels(picture()))
    assert torch.equal(canvas.known[..., 1:, :], whole[..., 1:, :])


def test_everything_kept_returns_the_video_and_its_sound_is_new(pipeline):
    video, keep = picture(), np.ones((H, W), bool)
    clip = make(pipeline, video=video, keep=keep)
    assert clip.provenance["task"] == "edit_av"
    assert np.array_equal(clip.video, video)
    assert clip.audio.shape == (1, round(9 / 16 * RATE))
    other = make(pipeline, video=picture(5), keep=keep)
    assert not np.allclose(clip.audio, other.audio, atol=1e-3)  # it follows the picture (M9)


def test_outpainting_keeps_the_inside(pipeline):
    video = picture(height=16, width=16)
    canvas, keep = outpaint(video, H, W)
    assert keep.sum() == 9 * 16 * 16
    clip = make(pipeline, task="edit", video=canvas, keep=keep)
    assert np.array_equal(clip.video[:, 8:24, 16:32], video)
    assert (clip.video[~keep] != 0).mean() > 0.5


def test_an_image_is_inpainted_at_its_own_size(pipeline):
    image = picture(height=48, width=64)[0]
    keep = region(1, 48, 64, Box(16, 16, 32, 48))[0]
    clip = make(pipeline, image=image, keep=keep)
    assert clip.video.shape == (1, 48, 64, 3)
    assert np.array_equal(clip.video[0][keep], image[keep])
    assert (clip.video[0][~keep] != image[~keep]).mean() > 0.9


def test_video_to_video_moves_by_its_strength(pipeline):
    video = picture()
    near, far = (make(pipeline, video=video, strength=s).video for s in (0.02, 1.0))
    source = as_coded(pipeline, video).astype(int)
    assert np.abs(near - source).mean() < 0.3 * np.abs(far - source).mean()


@pytest.mark.parametrize(("frames", "window", "context"), [(29, 13, 5), (18, 17, 9), (14, 9, 1)])
def test_an_extension_rolls_on_from_the_last_frames(pipeline, frames, window, context):
    video = picture(frames=11)
    told = []
    options = {"task": "extend", "video": video, "window": window, "context": context}
    clip = make(pipeline, frames=frames, progress=lambda *x: told.append(x), **options)
    assert clip.video.shape == (frames, H, W, 3)
    assert np.array_equal(clip.video[:11], video)
    assert told[-1] == (frames - 11, frames - 11)
    assert len(told) == -(-(frames - 11) // (window - context))
    # A piece depends on nothing but the frames that it looks back on.
    swapped = np.concatenate((picture(7, frames=11)[: 11 - context], video[11 - context :]))
    again = make(pipeline, frames=frames, **(options | {"video": swapped}))
    assert np.array_equal(clip.video[11:], again.video[11:])
    other = make(pipeline, frames=frames, **(options | {"video": picture(3, frames=11)}))
    assert not np.array_equal(clip.video[11:], other.video[11:])


def test_pieces_of_an_extension_have_noise_of_their_own(pipeline):
    video = picture()[:1].repeat(9, 0)
    clip = make(pipeline, task="extend", video=video, frames=25, window=13, context=5)
    assert not np.array_equal(clip.video[9:17], clip.video[17:25])


def test_references_are_prepended_in_order_at_one_size(pipeline):
    references = {
        "image_1": picture(1, height=64, width=64)[0],
        "Audio-0": sound(),
        "video_1": picture(2, frames=7),
        "Actor-0": picture(3)[0],
    }
    canvas = seen(pipeline, "t2v", references=references)
    assert canvas.references.shape == (1, 16, 1 + 2 + 1, H // 8, W // 8)
    expected = pipeline.video_codec.encode(letterbox(references["image_1"][None], H, W))
    assert torch.equal(canvas.references[:, :, :1], expected)


def test_what_is_referred_to_changes_the_clip(pipeline):
    prompt = "@image_1 sings like @Audio-0"
    one = {"image_1": picture(1)[0], "Audio-0": sound()}
    clip = make(pipeline, prompt, references=one)
    other = make(pipeline, prompt, references=one | {"image_1": picture(2)[0]})
    deaf = make(pipeline, prompt, references=one | {"Audio-0": sound(seed=9) * 3})
    assert clip.provenance["references"] == ["image_1", "Audio-0"]
    assert not np.array_equal(clip.video, other.video)
    assert not np.allclose(clip.audio, deaf.audio, atol=1e-3)
    guided = make(
        pipeline, prompt, references=one, guider=Guider(TextCFG(3), reference=ReferenceCFG(4, 1))
    )
    assert not np.array_equal(clip.video, guided.video)


def test_a_letterbox_is_white_around_the_whole_picture():
    x = letterbox(np.zeros((2, 10, 40, 3), np.uint8), 32, 32)
    assert x.shape == (1, 3, 2, 32, 32)
    assert (x[..., 12:20, :] < -0.999).all()
    assert (x[..., :12, :] == 1).all()
    assert (x[..., 20:, :] == 1).all()


def test_solver_and_negative_prompts_change_the_clip_and_are_written_down(pipeline):
    guider = Guider(TextCFG(4, 4))
    plain = make(pipeline, guider=guider)
    for change in ({"solver": "unipc"}, {"negative": "blurred"}):
        clip = make(pipeline, guider=guider, steps=3, **change)
        base = make(pipeline, guider=guider, steps=3)
        assert not np.array_equal(clip.video, base.video)
        assert clip.provenance.items() >= change.items()
    quieter = make(pipeline, guider=guider, negative_audio="noise")
    assert not np.allclose(plain.audio, quieter.audio, atol=1e-3)


def test_tags_of_sound_choose_the_task_with_sound():
    given = Inputs(image=picture()[0])
    assert infer_task(given) == "i2v"
    assert infer_task(given, sound=True) == "i2av"
    assert infer_task(given, sound=True, audio=False) == "i2v"


def test_every_task_is_inferred_from_its_inputs_or_has_to_be_said():
    found = {
        infer_task(Inputs(**dict.fromkeys(job.needs, np.zeros(1))), sound=s, audio=a)
        for job in JOBS.values()
        for s in (False, True)
        for a in (False, True)
    }
    assert set(JOBS) - found == {"t2i", "t2v", "t2a", "extend"}


REFUSED = [
    ({"keep": np.ones((H, W), bool)}, "together; given: keep"),
    ({"video": picture(), "keep": np.ones((H, W))}, r"keep is float64 \(32, 48\); bool"),
    ({"video": picture(), "keep": np.ones((3, H, W), bool)}, r"bool \(32, 48\) or \(9, 32, 48\)"),
    ({"video": picture(), "strength": 0.0}, "strength is 0.0"),
    ({"video": picture(), "strength": 1.5}, "strength is 1.5"),
    ({"image": picture()[0], "end": picture()[0], "frames": 1}, "too short for a start and an end"),
    ({"image": picture()[0], "end": picture()}, "end is uint8"),
    ({"prompt": "@image_1 walks"}, "names @image_1, but no file"),
    ({"references": {"image_1": picture()}}, r"image_1 is uint8 \(9,"),
    ({"references": {"picture": picture()[0]}}, "names are @image_1"),
    ({"references": {f"image_{i}": picture()[0] for i in range(5)}}, "5 image references"),
    ({"references": {"Audio-0": sound(0.01)}}, "Audio-0 has 441 samples; at least 1024"),
    ({"task": "t2v", "references": {"Audio-0": sound()}}, "makes no sound"),
    ({"task": "t2a", "references": {"image_1": picture()[0]}}, "makes no picture"),
    ({"video": picture(), "references": {"image_1": picture()[0]}}, "v2a makes no picture"),
    ({"task": "extend", "video": picture(), "frames": 9}, "has 9 already"),
    ({"task": "extend", "video": picture(), "window": 12}, "window is 12"),
    ({"task": "extend", "video": picture(), "window": 9, "context": 9}, "leaves none"),
    ({"task": "extend", "video": picture(), "seconds": 9, "frames": 9}, "not both"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_is_a_prompt_error(pipeline, options, message):
    with pytest.raises(PromptError, match=message):
        make(pipeline, **options)


def test_boxes_and_canvases_that_do_not_fit_are_refused():
    for box in (Box(0, 0, 0, 4), Box(0, 0, 4, 99), Box(-1, 0, 4, 4)):
        with pytest.raises(PromptError, match="leaves the picture"):
            region(2, 8, 8, box)
    with pytest.raises(PromptError, match="1 boxes for 2 frames"):
        region(2, 8, 8, [Box(0, 0, 4, 4)])
    with pytest.raises(PromptError, match="leaves the canvas"):
        outpaint(picture(), H, W, left=8)

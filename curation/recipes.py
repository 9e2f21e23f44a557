"""The recipes of the paper (section 3.4), one function per kind. Order is meaning.

A new stage is one file plus its line here (docs/how-to-add-a-stage.md). Numbers that the paper
gives stand in the stages' defaults with their section; those that differ by kind stand here.
"""

from __future__ import annotations

from reelmill.curation.asset.integrity import Integrity
from reelmill.curation.asset.probe import Probe
from reelmill.curation.asset.sound_integrity import SoundIntegrity
from reelmill.curation.audio.bandwidth import Bandwidth
from reelmill.curation.audio.channels import Channels
from reelmill.curation.audio.chunks import Chunks
from reelmill.curation.audio.clipping import Clipping
from reelmill.curation.audio.event_sync import EventSync
from reelmill.curation.audio.loudness import Loudness
from reelmill.curation.audio.mos import MOS
from reelmill.curation.audio.noise import Noise
from reelmill.curation.audio.noise_in_class import NoiseInClass
from reelmill.curation.audio.sound_class import SoundClass
from reelmill.curation.audio.sound_class_by_model import SoundClassByModel
from reelmill.curation.audio.speakers import Speakers
from reelmill.curation.audio.speech_rating import NISQA, SQUIM, UTMOS
from reelmill.curation.audio.sphinx_transcript import SphinxTranscript
from reelmill.curation.audio.transcript import Transcript
from reelmill.curation.audio.transcript_check import TranscriptCheck
from reelmill.curation.audio.true_peak import TruePeak
from reelmill.curation.audio.voice import Voice
from reelmill.curation.audio.word_times import WordTimes
from reelmill.curation.balance import Balance
from reelmill.curation.caption.caption import Caption
from reelmill.curation.caption.category import Category
from reelmill.curation.cut_stage import Cut
from reelmill.curation.image.quality import Quality
from reelmill.curation.image.stamps import Stamps
from reelmill.curation.known_duplicate import KnownDuplicate
from reelmill.curation.lips.av_sync import AVSync
from reelmill.curation.lips.faces import Faces
from reelmill.curation.lips.talking import Talking
from reelmill.curation.near_duplicate import NearDuplicate
from reelmill.curation.recipe import Recipe, override
from reelmill.curation.semantic_duplicate import SemanticDuplicate
from reelmill.curation.stage import Stage
from reelmill.curation.video.aesthetic import Aesthetic
from reelmill.curation.video.blockiness import Blockiness
from reelmill.curation.video.blur import Blur
from reelmill.curation.video.camera import Camera
from reelmill.curation.video.coded_motion import CodedMotion
from reelmill.curation.video.continuity import Continuity
from reelmill.curation.video.detail import Detail
from reelmill.curation.video.embedding import Embedding
from reelmill.curation.video.exposure import Exposure
from reelmill.curation.video.freeze import Freeze
from reelmill.curation.video.highlight import Highlight
from reelmill.curation.video.interlace import Interlace
from reelmill.curation.video.letterbox import Letterbox
from reelmill.curation.video.motion import Motion
from reelmill.curation.video.overlay import Overlay
from reelmill.curation.video.phash import PHash
from reelmill.curation.video.shots import Shots
from reelmill.curation.video.slideshow import Slideshow
from reelmill.curation.video.text import Text
from reelmill.curation.whole import WholeFile
from reelmill.datasets.sample import Kind


def video() -> Recipe:
    """Section 3.4: shots, basic and motion quality, sound, deduplication, transcript, balance.

    MOS is measured, not judged: the paper filters by it in the audio pipeline, and speech over
    music, as in films, scores low without being bad. SNR is judged by NoiseInClass.
    """
    recipe = Recipe(
        Kind.VIDEO,
        (
            Probe(),
            Integrity(),
            Shots(),
            Exposure(),
            Blur(),
            Blockiness(),
            Detail(),
            Interlace(),
            Letterbox(),
            Motion(),
            Camera(),
            Slideshow(),
            Freeze(),
            Overlay(),
            Loudness(),
            TruePeak(),
            Clipping(),
            Channels(),
            Bandwidth(),
            Noise(),
            Voice(),
            PHash(),
            NearDuplicate(),
            Text(),
            EventSync(),
            MOS(),
            SoundClass(),
            NoiseInClass(),
            Faces(),
            Talking(),
            AVSync(),
            Transcript(),
            TranscriptCheck(),
            Balance(),
            Caption(),
            Cut(),
        ),
    )
    return override({Kind.VIDEO: recipe}, ["MOS.min_overall=null", "Noise.min_snr=null"])[
        Kind.VIDEO
    ]


def image() -> Recipe:
    """Section 3.4: resolution, quality, strict image-level deduplication, balance."""
    recipe = Recipe(
        Kind.IMAGE,
        (
            Probe(),
            WholeFile(),
            Exposure(),
            Blur(),
            Blockiness(),
            Detail(),
            Letterbox(),
            PHash(),
            NearDuplicate(),
            Quality(),
            Text(),
            Stamps(),
            Balance(),
            Caption(),
            Cut(),
        ),
    )
    rules = ["Probe.min_width=64", "Probe.min_aspect=0.333", "Probe.max_aspect=3"]
    return override({Kind.IMAGE: recipe}, rules)[Kind.IMAGE]


def audio() -> Recipe:
    """Section 3.4: chunks of 15 s, level, clipping, bandwidth, SNR, silence ratio, MOS, class.

    What is shorter is joined with others of its class, up to 15 s.
    """
    recipe = Recipe(
        Kind.AUDIO,
        (
            Probe(),
            SoundIntegrity(),
            Chunks(),
            Loudness(),
            TruePeak(),
            Clipping(),
            Channels(),
            Bandwidth(),
            Noise(),
            Voice(),
            MOS(),
            SoundClass(),
            NoiseInClass(),
            Transcript(),
            TranscriptCheck(),
            Caption(),
            Cut(),
        ),
    )
    paper = [
        "Voice.max_silence_ratio=0.2",
        "Bandwidth.min_bandwidth=5000",
        "Noise.min_snr=null",
        "Cut.join_seconds=15",
    ]
    return override({Kind.AUDIO: recipe}, paper)[Kind.AUDIO]


KNOWN = {stage.name: type(stage)() for make in (video, image, audio) for stage in make().stages}
# By choice: slow, for later stages of training, with models that a person brings, or another word
# on what a stage above says.
BY_CHOICE: tuple[Stage, ...] = (
    SphinxTranscript(),
    NISQA(),
    SQUIM(),
    UTMOS(),
    SoundClassByModel(),
    WordTimes(),
    Speakers(),
    Continuity(),
    Highlight(),
    Embedding(),
    Aesthetic(),
    SemanticDuplicate(),
    KnownDuplicate(),
    Category(),
    CodedMotion(),
)
KNOWN |= {stage.name: stage for stage in BY_CHOICE}

"""The pretrained weights that stages may ask for: what they are, where they come from, their bytes.

Nothing here loads or downloads anything; weights.py finds and checks the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file. name: path inside the entry's folder. bytes, sha256: of the file as published."""

    name: str
    bytes: int
    sha256: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class WeightsEntry:
    """One model's weights, in a folder of the entry's name.

    files: the files that the folder must hold, byte for byte. licence: of the weights, not of any
    code. source: where a person finds them. package, folder: for weights that come inside an
    installed Python package, its name and the folder in it. needs: file names that an entry
    without fixed files must hold (any model of that format will do; what it is then enters the
    measurement by the digest of the folder). either: names of which it must hold one.
    """

    name: str
    what: str
    licence: str
    source: str
    files: tuple[WeightsFile, ...] = ()
    package: str = ""
    folder: str = ""
    needs: tuple[str, ...] = ()
    either: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        return bool(self.package)

    @property
    def bytes(self) -> int:
        """Size of the fixed files, 0 where any model will do."""
        return sum(file.bytes for file in self.files)


def _github(repository: str, commit: str, *files: tuple[str, int, str]) -> tuple[WeightsFile, ...]:
    """Files of one commit: (path in the repository, bytes, sha256)."""
    return tuple(
        WeightsFile(
            path.rpartition("/")[2],
            size,
            sha256,
            f"https://github.com/{repository}/raw/{commit}/{path}",
        )
        for path, size, sha256 in files
    )


_ENTRIES = (
    WeightsEntry(
        name="silero_vad",
        what="Silero VAD 6: voice activity, 16 kHz, ONNX over a sequence of windows",
        licence="MIT",
        source="https://github.com/snakers4/silero-vad",
        files=(
            WeightsFile(
                "silero_vad_16k_sequence.onnx",
                1_246_165,
                "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
            ),
        ),
        package="silero_vad",
        folder="data",
    ),
    WeightsEntry(
        name="dnsmos",
        what="DNSMOS P.835: speech quality (signal, background, overall), 16 kHz, ONNX",
        licence="CC BY 4.0",
        source="https://github.com/microsoft/DNS-Challenge",
        files=(
            WeightsFile(
                "sig_bak_ovr.onnx",
                1_157_965,
                "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
            ),
        ),
        package="speechmos",
        folder="dnsmos_models",
    ),
    WeightsEntry(
        name="squim",
        what="SQUIM objective: STOI, PESQ and SI-SDR without a reference, 16 kHz",
        licence="CC BY 4.0",
        source="https://download.pytorch.org/torchaudio/models/squim_objective_dns2020.pth",
        needs=("squim_objective_dns2020.pth",),
    ),
    WeightsEntry(
        name="wav2vec2",
        what="A wav2vec 2.0 that spells one language: when words are said",
        licence="of the model that is chosen",
        source="https://huggingface.co/facebook/wav2vec2-base-960h",
        needs=("config.json", "model.safetensors", "vocab.json"),
    ),
    WeightsEntry(
        name="xvector",
        what="An x-vector network of transformers, in safetensors: whose voice it is, 16 kHz",
        licence="of the model that is chosen",
        source="https://huggingface.co/microsoft/wavlm-base-plus-sv",
        needs=("config.json", "model.safetensors"),
    ),
    WeightsEntry(
        name="utmos",
        what="UTMOS, the strong learner of 2022: naturalness of speech, 16 kHz",
        licence="MIT",
        source="https://github.com/tarepan/SpeechMOS/releases",
        needs=("utmos22_strong_step7459_v1.pt",),
    ),
    WeightsEntry(
        name="ppocr",
        what="PP-OCR v6 small: finds lines of text and reads them, ONNX",
        licence="Apache-2.0",
        source="https://github.com/RapidAI/RapidOCR",
        files=(
            WeightsFile(
                "PP-OCRv6_det_small.onnx",
                9_929_594,
                "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            ),
            WeightsFile(
                "PP-OCRv6_rec_small.onnx",
                21_234_383,
                "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            ),
        ),
        package="rapidocr",
        folder="models",
    ),
    WeightsEntry(
        name="whisper",
        what="Any Whisper model in CTranslate2 form: transcripts and languages",
        licence="MIT (OpenAI's models)",
        source="https://huggingface.co/Systran/faster-whisper-large-v3",
        needs=("model.bin", "config.json", "tokenizer.json"),
    ),
    WeightsEntry(
        name="pocketsphinx",
        what="PocketSphinx: a recogniser of US English, with dictionary and trigram model",
        licence="BSD-2-Clause",
        source="https://github.com/cmusphinx/pocketsphinx",
        package="pocketsphinx",
        folder="model/en-us",
        needs=("cmudict-en-us.dict", "en-us.lm.bin", "en-us/mdef", "en-us/means"),
    ),
    WeightsEntry(
        name="nisqa",
        what="NISQA v2: speech quality in five dimensions",
        licence="CC BY-NC-SA 4.0",
        source="https://github.com/gabrielmittag/NISQA",
        files=_github(
            "gabrielmittag/NISQA",
            "fe84f0f252ab",
            (
                "weights/nisqa.tar",
                1_051_663,
                "7ec4cf937514dd3f8860b21e66fabd8ca87a168572675ef8d979c4c4ad2e805c",
            ),
            (
                "weights/nisqa_mos_only.tar",
                907_215,
                "16b2632bea0a481b1bba485587a8da2265f2c7797b525712ae0c072986ee783c",
            ),
        ),
    ),
    WeightsEntry(
        name="yamnet",
        what="YAMNet: audio events, 521 AudioSet classes, 16 kHz, TFLite",
        licence="Apache-2.0",
        source="https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
        files=(
            *_github(
                "Jaskaran197/Speaker-Detector",
                "4ec29b6938f1",
                (
                    "yamnet.tflite",
                    4_078_224,
                    "469be6a3421cbc52cf97e9f2f966cba984198e8e7af9854d68b3e3ebb1e04194",
                ),
            ),
            *_github(
                "Jaskaran197/Speaker-Detector",
                "HEAD",
                (
                    "yamnet_class_map.csv",
                    14_096,
                    "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
                ),
            ),
        ),
    ),
    WeightsEntry(
        name="syncnet",
        what="SyncNet: lips against speech; syncnet_v2.model, or what `reelmill sync train` wrote",
        licence="of syncnet_v2.model unknown; one's own: one's own",
        source="https://github.com/joonson/syncnet_python",
        either=("syncnet_v2.model", "mouth_sync.safetensors"),
    ),
    WeightsEntry(
        name="light_asd",
        what="Light-ASD: is this face talking",
        licence="MIT",
        source="https://github.com/Junhua-Liao/Light-ASD",
        files=_github(
            "Junhua-Liao/Light-ASD",
            "ed38c232de5e",
            (
                "weight/finetuning_TalkSet.model",
                4_175_289,
                "efc375833887eefa9d209dc92810e18519b04c3c73ea35a549f2a7f40b7d94d5",
            ),
            (
                "weight/pretrain_AVA_CVPR.model",
                4_175_289,
                "d44bc3ea7baa8e0946fa3921311714a630ed8b90a1928fab0dbe30d918909317",
            ),
        ),
    ),
    WeightsEntry(
        name="face_yunet",
        what="YuNet: faces with five landmarks, ONNX",
        licence="Apache-2.0",
        source="https://github.com/ShiqiYu/libfacedetection.train",
        files=_github(
            "ShiqiYu/libfacedetection.train",
            "0047ac24afb1",
            (
                "onnx/yunet_n_640_640.onnx",
                317_466,
                "25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
            ),
            (
                "onnx/yunet_n_dynamic.onnx",
                322_906,
                "104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
            ),
        ),
    ),
    WeightsEntry(
        name="transnetv2",
        what="TransNetV2: cuts, fades and dissolves, in its PyTorch form",
        licence="MIT",
        source="https://github.com/soCzech/TransNetV2",
        either=("transnetv2-pytorch-weights.pth", "transnetv2.safetensors"),
    ),
    WeightsEntry(
        name="vision",
        what="Any CLIP, SigLIP or DINOv2 of transformers, in safetensors: embeddings of pictures",
        licence="that of the model",
        source="https://huggingface.co/openai/clip-vit-large-patch14",
        needs=("config.json", "preprocessor_config.json", "model.safetensors"),
    ),
    WeightsEntry(
        name="brisque",
        what="BRISQUE: no-reference image quality, SVR model and ranges of OpenCV",
        licence="Apache-2.0",
        source="https://github.com/opencv/opencv_contrib",
        files=_github(
            "opencv/opencv_contrib",
            "2a5154a4479e",
            (
                "modules/quality/samples/brisque_model_live.yml",
                567_815,
                "4c44c7eec9e5139830c0bb0e4a044c9cd351ba5bbc9e3798beca3243e2782ff4",
            ),
            (
                "modules/quality/samples/brisque_range_live.yml",
                1_356,
                "a18427f4f7ad087524bd0d63389649a3899b51ca6d44a4d5f8d8171f1f914a9c",
            ),
        ),
    ),
    WeightsEntry(
        name="aesthetic",
        what="LAION aesthetic heads over CLIP ViT-B/32 and ViT-L/14 embeddings",
        licence="MIT, Apache-2.0",
        source="https://github.com/LAION-AI/aesthetic-predictor",
        files=(
            *_github(
                "LAION-AI/aesthetic-predictor",
                "6d122adad522",
                (
                    "sa_0_4_vit_b_32_linear.pth",
                    3_047,
                    "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
                ),
                (
                    "sa_0_4_vit_l_14_linear.pth",
                    4_071,
                    "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
                ),
            ),
            *_github(
                "christophschuhmann/improved-aesthetic-predictor",
                "6934dd81792f",
                (
                    "sac+logos+ava1-l14-linearMSE.pth",
                    3_714_759,
                    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
                ),
            ),
        ),
    ),
)

CATALOGUE: Mapping[str, WeightsEntry] = {entry.name: entry for entry in _ENTRIES}

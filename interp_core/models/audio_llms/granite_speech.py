"""Granite-Speech's mel spectrogram without torchaudio, in whose place torch's own Fourier transform stands."""

from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.models.granite_speech.feature_extraction_granite_speech import GraniteSpeechFeatureExtractor


class GraniteMel(GraniteSpeechFeatureExtractor):
    """The library's extractor with the one step that it leaves to torchaudio written out.

    The spectrogram is that of `torchaudio.transforms.MelSpectrogram` with its defaults: a periodic Hann window,
    frames centred with reflection, power 2, triangles on the HTK mel scale from 0 Hz to half the rate, not normalised.
    """

    def __init__(
        self,
        sampling_rate: int = 16000,
        n_fft: int = 512,
        win_length: int = 400,
        hop_length: int = 160,
        n_mels: int = 80,
        projector_window_size: int = 15,
        projector_downsample_rate: int = 5,
        padding_value: float = 0.0,
        feature_size: int | None = None,
        **more: Any,
    ) -> None:
        # Not the library's own constructor, which insists on torchaudio; its settings and their meaning are the same.
        n_mels = feature_size or n_mels
        SequenceFeatureExtractor.__init__(
            self, feature_size=n_mels, sampling_rate=sampling_rate, padding_value=padding_value, **more
        )
        self.sampling_rate, self.hop_length = sampling_rate, hop_length
        self.melspec_kwargs = {
            "sample_rate": sampling_rate,
            "n_fft": n_fft,
            "win_length": win_length,
            "hop_length": hop_length,
            "n_mels": n_mels,
        }
        self.projector_window_size = projector_window_size
        self.projector_downsample_rate = projector_downsample_rate
        filters = mel_filter_bank(
            n_fft // 2 + 1, n_mels, 0.0, sampling_rate / 2, sampling_rate, norm=None, mel_scale="htk"
        )
        self.mel_filters = torch.from_numpy(filters).float()

    def __call__(self, audios: Any, device: str | None = "cpu") -> BatchFeature:
        """Turn clips into the encoder's frames and say how many positions each one takes."""
        batch, lengths = self._get_audios_and_audio_lengths(audios)
        sizes = self._get_num_audio_features(lengths)
        return BatchFeature(
            {
                "input_features": self._stacked(batch.float()),
                "audio_embed_sizes": sizes,
                "input_features_mask": torch.arange(max(sizes))[None] < torch.tensor(sizes)[:, None],
            }
        )

    def mel(self, batch: Tensor) -> Tensor:
        """Power on the mel scale: [batch, n_samples] -> [batch, n_mels, n_samples // hop_length + 1] float32."""
        about = self.melspec_kwargs
        spectrum = torch.stft(
            batch,
            about["n_fft"],
            about["hop_length"],
            about["win_length"],
            torch.hann_window(about["win_length"]),
            return_complex=True,
        )
        return self.mel_filters.T @ spectrum.abs().square()

    def _stacked(self, batch: Tensor) -> Tensor:
        """Log-mel frames, two side by side, the last one left out where it has no partner.

        Returns:
            [batch, frames // 2, 2 * n_mels].
        """
        log = self.mel(batch).transpose(1, 2).clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) / 4 + 1
        return log[:, : log.shape[1] // 2 * 2].reshape(len(log), -1, 2 * log.shape[2])

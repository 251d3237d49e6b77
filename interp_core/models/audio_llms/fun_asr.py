"""Fun-ASR-Nano's filter bank without torchaudio, in whose place torch's own Fourier transform stands."""

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank
from transformers.models.fun_asr_nano.feature_extraction_fun_asr_nano import FunAsrNanoFeatureExtractor


class FunAsrFbank(FunAsrNanoFeatureExtractor):
    """The library's extractor with the one step that it leaves to torchaudio written out.

    The frames are those of `torchaudio.compliance.kaldi.fbank` with its defaults: whole ones only, each without its
    mean, pre-emphasised by 0.97, under a Hamming window that is not periodic, filled up to a power of 2; power on
    triangles over Kaldi's mel scale from 20 Hz to half the rate, as a logarithm.
    """

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return round(self.frame_shift * self.sampling_rate / 1000)

    def _extract_fbank_features(self, waveform: Tensor) -> Tensor:
        """[n_samples] -> [n_frames, feature_size] float32; a clip that fills no frame is filled up with silence."""
        size = round(self.frame_length * self.sampling_rate / 1000)
        waveform = torch.nn.functional.pad(waveform, (0, max(0, size - len(waveform))))
        frames = waveform.unfold(0, size, self.hop_length)
        frames = frames - frames.mean(1, keepdim=True)
        frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
        frames = frames * torch.hamming_window(size, periodic=False)
        wide = 1 << (size - 1).bit_length()
        power = torch.fft.rfft(frames, wide).abs().square()
        filters = mel_filter_bank(
            wide // 2 + 1,
            self.feature_size,
            20.0,
            self.sampling_rate / 2,
            self.sampling_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
        return (power @ torch.from_numpy(filters).float()).clamp(min=torch.finfo(torch.float32).eps).log()
